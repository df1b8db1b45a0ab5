//! `restore --from-target`: puts one object back from the note it carries, without record or operator.
//!
//! The note says of each field what it held before and what we put there. A field is put back only where our value still
//! stands; what somebody changed since is kept and reported. Everything goes in one JSON Patch that the API server refuses
//! whole if the object has changed since it was read.

use std::{collections::BTreeMap, fmt};

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    args::{TargetKind, TargetName},
    error::{Error, Result},
    plan::{escape, short},
    table::{plain, table, value},
};
use crate::api::{
    FENCE, UNDO,
    rollback::{LearningRollback, Phase},
};

/// Somebody may write the object between the look and the patch.
const ATTEMPTS: usize = 5;

/// The annotation `learningloop.io/undo`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Note {
    pub version: u32,
    /// `namespace/name` of the record.
    pub record: String,
    pub uid: String,
    pub steps: BTreeMap<String, NoteStep>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NoteStep {
    pub kind: String,
    pub fields: Vec<NoteField>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NoteField {
    /// A JSON pointer into the object.
    pub field: String,
    /// Absent: the field was absent.
    #[serde(default)]
    pub before: Option<String>,
    pub after: String,
}

/// What becomes of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Our value stands there: what was before it returns.
    PutBack,
    /// Something else stands there, and stays.
    Changed,
    /// Not a field that can be found by its pointer, or the note contradicts itself.
    ByHand(&'static str),
}

/// One field of the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub field: String,
    pub before: Option<String>,
    pub now: Option<String>,
    pub fate: Fate,
}

/// What was put back, or would be.
#[derive(Clone, Debug)]
pub struct Undone {
    /// `Kind namespace/name`
    pub object: String,
    pub record: String,
    pub lines: Vec<Line>,
    pub done: bool,
}

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.done { "has been put back" } else { "would be put back" };
        writeln!(f, "{}, changed by LearningRollback {}, {verb}:\n", self.object, plain(&self.record))?;
        let rows = self.lines.iter().map(|line| {
            let (now, before) = (value(line.now.as_deref()), value(line.before.as_deref()));
            let fate = match line.fate {
                Fate::PutBack if self.done => "put back".to_owned(),
                Fate::PutBack => "to be put back".to_owned(),
                Fate::Changed => "kept: changed since".to_owned(),
                Fate::ByHand(why) => format!("kept: {why}"),
            };
            vec![short(&line.field), now, before, fate]
        });
        f.write_str(table(&["FIELD", if self.done { "WAS" } else { "NOW" }, "BEFORE", ""], rows).trim_end())?;
        if !self.done {
            f.write_str("\n\nNothing has been changed: --yes does it.")?;
        }
        Ok(())
    }
}

/// Puts the object back, or with `yes` false only says what it would do.
///
/// # Errors
/// When the object or its note is not there, when its record is still in force, or the server refuses.
pub async fn restore(client: &Client, namespace: &str, target: &TargetName, yes: bool) -> Result<Undone> {
    let resource = resource(client, target.kind).await?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let title = format!("{} {namespace}/{}", resource.kind, target.name);
    for _ in 0..ATTEMPTS {
        let object = api.get(&target.name).await.map_err(Error::asking(format!("cannot read {title}")))?;
        let note = note(&object, &title)?;
        not_in_force(client, &note, &title).await?;
        let object = serde_json::to_value(&object).map_err(|error| unreadable(&title, &error.to_string()))?;
        let lines = lines(&object, &note);
        let undone = |done| Undone { object: title.clone(), record: note.record.clone(), lines: lines.clone(), done };
        if !yes {
            return Ok(undone(false));
        }
        let operations = serde_json::from_value(Value::Array(operations(&object, &lines)))
            .map_err(|error| unreadable(&title, &error.to_string()))?;
        match api.patch(&target.name, &PatchParams::default(), &Patch::<()>::Json(operations)).await {
            Ok(_) => return Ok(undone(true)),
            // A failed test comes without causes: somebody was faster.
            Err(kube::Error::Api(status))
                if status.is_conflict()
                    || status.is_invalid()
                        && status.details.as_ref().is_none_or(|details| details.causes.is_empty()) => {}
            Err(error) => return Err(Error::asking(format!("cannot put {title} back"))(error)),
        }
    }
    Error::refused(format!("{title} changes faster than it could be put back: find out who writes it, and try again"))
}

fn unreadable(title: &str, why: &str) -> Error {
    Error::Refused(format!(
        "{title}: the annotation {UNDO} cannot be read ({}): somebody has changed it, or it is of a newer version; put the \
         object back by hand from kubectl get -o yaml",
        plain(why)
    ))
}

async fn resource(client: &Client, kind: TargetKind) -> Result<ApiResource> {
    let (group, name) = match kind {
        TargetKind::ConfigMap => return Ok(built_in("", "ConfigMap")),
        TargetKind::Service => return Ok(built_in("", "Service")),
        TargetKind::Deployment => return Ok(built_in("apps", "Deployment")),
        TargetKind::StatefulSet => return Ok(built_in("apps", "StatefulSet")),
        TargetKind::VirtualService => ("networking.istio.io", "VirtualService"),
        TargetKind::HTTPRoute => ("gateway.networking.k8s.io", "HTTPRoute"),
    };
    // Which versions of these are served differs between clusters.
    let found = discovery::group(client, group).await.map_err(Error::asking(format!("{name} is not served")))?;
    let found = found.recommended_kind(name).map(|(resource, _)| resource);
    found.ok_or_else(|| Error::Refused(format!("the cluster serves no {name} of {group}")))
}

fn built_in(group: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind))
}

fn note(object: &DynamicObject, title: &str) -> Result<Note> {
    let Some(text) = object.annotations().get(UNDO) else {
        return Error::refused(format!(
            "{title} carries no annotation {UNDO}: no rollback has changed it, or it has been put back or released since"
        ));
    };
    // The version first: of a newer one, nothing else is known.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let version: Version = serde_json::from_str(text).map_err(|error| unreadable(title, &error.to_string()))?;
    if version.version != 1 {
        return Err(unreadable(title, &format!("version {}, known is 1", version.version)));
    }
    serde_json::from_str(text).map_err(|error| unreadable(title, &error.to_string()))
}

/// An operator would put its values there again, and the record says more than the note.
async fn not_in_force(client: &Client, note: &Note, title: &str) -> Result<()> {
    let Some((namespace, name)) = note.record.split_once('/') else { return Ok(()) };
    let records: Api<LearningRollback> = Api::namespaced(client.clone(), namespace);
    match records.get(name).await {
        Ok(record) if record.meta().uid.as_deref() == Some(&note.uid) && !ended(&record) => Error::refused(format!(
            "{title} belongs to LearningRollback {}, which is in force: kubectl learning-rollout restore -n {namespace} \
             lrb/{name} puts everything back, this object included (without an operator, delete that record first)",
            note.record
        )),
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => {
            Err(Error::asking(format!("cannot tell whether LearningRollback {} is in force", note.record))(error))
        }
    }
}

fn ended(record: &LearningRollback) -> bool {
    record.status.as_ref().map(|status| status.phase).is_some_and(Phase::is_terminal)
}

/// Of each field of the note, what becomes of it.
pub fn lines(object: &Value, note: &Note) -> Vec<Line> {
    let mut fields: BTreeMap<&str, Vec<&NoteField>> = BTreeMap::new();
    for field in note.steps.values().flat_map(|step| &step.fields) {
        fields.entry(&field.field).or_default().push(field);
    }
    fields
        .into_iter()
        .map(|(pointer, notes)| {
            let now = object.pointer(pointer).filter(|now| !now.is_null()).map(text);
            let mut line = Line { field: pointer.to_owned(), before: None, now, fate: Fate::Changed };
            // Where several steps changed one field, what stood there before the first of them is none of their own.
            let ours = |value: &Option<String>| notes.iter().any(|note| Some(&note.after) == value.as_ref());
            let mut befores: Vec<&Option<String>> = notes.iter().map(|note| &note.before).collect();
            if notes.len() > 1 {
                befores.retain(|before| !ours(before));
                befores.dedup();
            }
            line.before = befores.first().and_then(|before| (*before).clone());
            if !pointer.starts_with('/') {
                line.fate = Fate::ByHand("not a single field, put it back by hand");
            } else if befores.len() != 1 {
                line.fate = Fate::ByHand("the note has several values for it, put it back by hand");
            } else if ours(&line.now) {
                line.fate = Fate::PutBack;
            }
            line
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The patch: tests of the object's identity and version and of each value, then the changes, then our annotations off.
fn operations(object: &Value, lines: &[Line]) -> Vec<Value> {
    let mut operations = Vec::new();
    let mut test = |pointer: &str| {
        let value = object.pointer(pointer).cloned().unwrap_or_default();
        operations.push(json!({"op": "test", "path": pointer, "value": value}));
    };
    test("/metadata/uid");
    test("/metadata/resourceVersion");
    let back: Vec<&Line> = lines.iter().filter(|line| line.fate == Fate::PutBack).collect();
    back.iter().for_each(|line| test(&line.field));
    for line in back {
        operations.push(match &line.before {
            Some(before) => json!({"op": "replace", "path": line.field, "value": typed(object, &line.field, before)}),
            None => json!({"op": "remove", "path": line.field}),
        });
    }
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    let ours: Vec<&str> =
        [FENCE, UNDO].into_iter().filter(|key| annotations.is_some_and(|all| all.contains_key(*key))).collect();
    if annotations.is_some_and(|all| all.len() == ours.len()) {
        // A custom resource would keep the empty map.
        operations.push(json!({"op": "remove", "path": "/metadata/annotations"}));
    } else {
        for key in ours {
            operations.push(json!({"op": "remove", "path": format!("/metadata/annotations/{}", escape(key))}));
        }
    }
    operations
}

/// A value of the note as the object has it: a number where a number stands there now.
fn typed(object: &Value, pointer: &str, before: &str) -> Value {
    let number = object.pointer(pointer).filter(|now| now.is_number()).and_then(|_| before.parse::<i64>().ok());
    number.map_or_else(|| Value::from(before), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Value {
        json!({
            "metadata": {"uid": "u", "resourceVersion": "7", "annotations": {FENCE: "f", UNDO: "n", "team": "x"}},
            "data": {"A": "false", "C": "mine"}, "spec": {"replicas": 0},
        })
    }

    fn the_note(fields: &[(&str, &str, Option<&str>, &str)]) -> Note {
        let mut note = Note { version: 1, record: "n/r".to_owned(), uid: "u".to_owned(), steps: BTreeMap::new() };
        for (step, field, before, after) in fields {
            let step =
                note.steps.entry((*step).to_owned()).or_insert(NoteStep { kind: "k".to_owned(), fields: vec![] });
            step.fields.push(NoteField {
                field: (*field).to_owned(),
                before: before.map(str::to_owned),
                after: (*after).to_owned(),
            });
        }
        note
    }

    /// The object after the patch.
    fn patched(object: &Value, note: &Note) -> Value {
        let mut patched = object.clone();
        let operations = Value::Array(operations(object, &lines(object, note)));
        json_patch::patch(&mut patched, &serde_json::from_value::<json_patch::Patch>(operations).unwrap()).unwrap();
        patched
    }

    #[test]
    fn only_what_is_still_ours_goes_back() {
        let note = the_note(&[
            ("flag", "/data/A", Some("true"), "false"),
            ("flag", "/data/B", Some("x"), "y"),
            ("flag", "/data/C", Some("x"), "ours"),
            ("scale", "/spec/replicas", Some("3"), "0"),
        ]);
        let fates: Vec<Fate> = lines(&object(), &note).into_iter().map(|line| line.fate).collect();
        assert_eq!(fates, [Fate::PutBack, Fate::Changed, Fate::Changed, Fate::PutBack]);
        assert_eq!(
            patched(&object(), &note),
            json!({
                "metadata": {"uid": "u", "resourceVersion": "7", "annotations": {"team": "x"}},
                "data": {"A": "true", "C": "mine"}, "spec": {"replicas": 3},
            })
        );
    }

    #[test]
    fn what_was_absent_is_absent_again() {
        let note = the_note(&[("flag", "/data/A", None, "false")]);
        let mut object = object();
        object["metadata"]["annotations"].as_object_mut().unwrap().remove("team");
        let patched = patched(&object, &note);
        assert_eq!(patched["data"], json!({"C": "mine"}));
        assert_eq!(patched["metadata"].get("annotations"), None, "an empty map is not left behind");
    }

    #[test]
    fn two_steps_on_one_field_return_to_before_both() {
        let note = the_note(&[("a", "/data/A", Some("true"), "maybe"), ("b", "/data/A", Some("maybe"), "false")]);
        assert_eq!(patched(&object(), &note)["data"]["A"], "true");
        let torn = the_note(&[("a", "/data/A", Some("1"), "false"), ("b", "/data/A", Some("2"), "false")]);
        assert!(matches!(lines(&object(), &torn)[0].fate, Fate::ByHand(_)));
    }

    #[test]
    fn what_is_no_single_field_is_left_to_people() {
        let note = the_note(&[("traffic", "weight baseline", Some("0"), "100")]);
        assert!(matches!(lines(&object(), &note)[0].fate, Fate::ByHand(_)));
    }

    #[test]
    fn the_patch_pins_the_object_as_it_was_read() {
        let operations = operations(&object(), &lines(&object(), &the_note(&[("flag", "/data/A", None, "false")])));
        assert_eq!(
            operations[..3],
            [
                json!({"op": "test", "path": "/metadata/uid", "value": "u"}),
                json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}),
                json!({"op": "test", "path": "/data/A", "value": "false"}),
            ]
        );
    }

    #[test]
    fn a_note_that_cannot_be_read_changes_nothing() {
        let mut object = DynamicObject::new("x", &built_in("", "ConfigMap"));
        let with = |object: &mut DynamicObject, text: &str| {
            object.annotations_mut().insert(UNDO.to_owned(), text.to_owned());
            note(object, "ConfigMap n/x").unwrap_err().to_string()
        };
        assert!(with(&mut object, "{}").contains("cannot be read"));
        assert!(with(&mut object, r#"{"version":2,"other":1}"#).contains("version 2, known is 1"));
        assert!(with(&mut object, "\u{1b}[2J").contains("cannot be read"));
    }
}
