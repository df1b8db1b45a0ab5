//! JSON Patches that change only our fields, and only while everything they rely on still stands.

use serde_json::{Map, Value, json};

use super::{Located, name_of, refused};
use crate::{
    api::{FENCE, UNDO, rollback::FieldPrior},
    decide::{fields, rollback::Failure},
};

/// Longest value that is remembered, in bytes. Two copies of it are kept: in the record and on the target.
const MAX_VALUE: usize = 16 * 1024;

/// One patch of one target.
#[derive(Clone, Debug)]
pub struct Edit<'a> {
    /// The target, as it was read last.
    pub object: &'a Value,
    /// The uid that was authorised.
    pub uid: &'a str,
    /// The fence the target must hold. `None`: it must hold none.
    pub fence_seen: Option<&'a str>,
    /// The fence it gets. `None`: our annotations are taken off.
    pub fence_new: Option<&'a str>,
    /// The undo note it gets.
    pub note: Option<String>,
    /// Fields to change, with the value they get; `None` removes one.
    pub changes: Vec<(Located, Option<String>)>,
    /// The fence alone does not identify the state: somebody can bring an older one back, or none stands there yet.
    pub pin_version: bool,
}

impl Edit<'_> {
    /// The operations: tests first for what must hold, then each change with a test of the old value.
    pub fn operations(&self) -> Value {
        let mut patch = Patch { working: self.object.clone(), operations: Vec::new() };
        patch.test("/metadata/uid", json!(self.uid));
        if self.pin_version || self.fence_seen.is_none() {
            let version = self.object.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
            patch.test("/metadata/resourceVersion", version);
        }
        // The two weights of a route share their pins.
        let mut pinned: Vec<&str> = Vec::new();
        for (pointer, value) in self.changes.iter().flat_map(|(located, _)| &located.pins) {
            if !pinned.contains(&pointer.as_str()) {
                pinned.push(pointer);
                patch.test(pointer, value.clone());
            }
        }
        for (located, value) in &self.changes {
            let value = value.as_ref().map(|text| value_of(&located.field, text));
            patch.set(&located.pointer, value);
        }
        let annotation = |key: &str| format!("/metadata/annotations/{}", fields::escape(key));
        patch.expect(&annotation(FENCE), self.fence_seen.map(Value::from));
        patch.set_expected(&annotation(FENCE), self.fence_new.map(Value::from));
        patch.set_expected(&annotation(UNDO), self.note.clone().map(Value::from));
        if self.fence_new.is_none() {
            patch.drop_if_empty("/metadata/annotations");
        }
        Value::Array(patch.operations)
    }
}

/// Operations, and the object as they leave it.
struct Patch {
    working: Value,
    operations: Vec<Value>,
}

impl Patch {
    fn test(&mut self, pointer: &str, value: Value) {
        self.operations.push(json!({"op": "test", "path": pointer, "value": value}));
    }

    /// Tests that a member holds a value, or that it is absent. Where its parent is absent, that is the test: the API
    /// server finds null at a missing member, and an error at a missing parent.
    fn expect(&mut self, pointer: &str, value: Option<Value>) {
        match value {
            Some(value) => self.test(pointer, value),
            None if self.has_parent(pointer) => self.test(pointer, Value::Null),
            None => {}
        }
    }

    /// Sets or removes a member, with a test of what it held.
    fn set(&mut self, pointer: &str, value: Option<Value>) {
        let before = self.working.pointer(pointer).cloned();
        self.expect(pointer, before);
        self.set_expected(pointer, value);
    }

    /// Sets or removes a member whose old value has been tested, or does not matter.
    fn set_expected(&mut self, pointer: &str, value: Option<Value>) {
        match value {
            Some(value) => {
                self.make_parent(pointer);
                self.operations.push(json!({"op": "add", "path": pointer, "value": value}));
                self.put(pointer, value);
            }
            None if self.working.pointer(pointer).is_some() => {
                self.operations.push(json!({"op": "remove", "path": pointer}));
                self.take(pointer);
            }
            None => {}
        }
    }

    fn has_parent(&self, pointer: &str) -> bool {
        pointer.rsplit_once('/').is_none_or(|(parent, _)| self.working.pointer(parent).is_some_and(Value::is_object))
    }

    /// A bare `add` of a parent would erase what somebody else put there meanwhile: it is tested to be absent.
    fn make_parent(&mut self, pointer: &str) {
        if self.has_parent(pointer) {
            return;
        }
        let Some((parent, _)) = pointer.rsplit_once('/') else { return };
        self.make_parent(parent);
        self.test(parent, Value::Null);
        self.operations.push(json!({"op": "add", "path": parent, "value": {}}));
        self.put(parent, json!({}));
    }

    /// A custom resource keeps an empty map that we left behind, so it goes too, unless somebody used it meanwhile.
    fn drop_if_empty(&mut self, pointer: &str) {
        if self.working.pointer(pointer).and_then(Value::as_object).is_some_and(Map::is_empty) {
            self.test(pointer, json!({}));
            self.operations.push(json!({"op": "remove", "path": pointer}));
            self.take(pointer);
        }
    }

    fn put(&mut self, pointer: &str, value: Value) {
        let Some((parent, key)) = pointer.rsplit_once('/') else { return };
        match self.working.pointer_mut(parent) {
            Some(Value::Object(members)) => {
                members.insert(unescape(key), value);
            }
            Some(Value::Array(items)) => {
                if let Some(item) = key.parse().ok().and_then(|index: usize| items.get_mut(index)) {
                    *item = value;
                }
            }
            _ => {}
        }
    }

    fn take(&mut self, pointer: &str) {
        let Some((parent, key)) = pointer.rsplit_once('/') else { return };
        if let Some(Value::Object(members)) = self.working.pointer_mut(parent) {
            members.remove(&unescape(key));
        }
    }
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// Is the field a number in the object?
fn is_number(field: &str) -> bool {
    field == fields::REPLICAS || field.starts_with("weight ")
}

/// The text the journal keeps for a value.
///
/// # Errors
/// When the value is neither text nor a whole number, or too long to be remembered twice.
pub fn text_of(field: &str, value: &Value) -> Result<String, Failure> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => return Err(refused("Refused", format!("{field} holds {other}, which is neither text nor a number"))),
    };
    if text.len() > MAX_VALUE {
        let message =
            format!("{field} holds {} bytes; at most {MAX_VALUE} can be remembered for the restore", text.len());
        return Err(refused("Refused", message));
    }
    Ok(text)
}

fn value_of(field: &str, text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(number) if is_number(field) => Value::from(number),
        _ => Value::from(text),
    }
}

/// The fence annotation of an object.
pub fn fence_of(object: &Value) -> Option<String> {
    annotation(object, FENCE).map(str::to_owned)
}

/// An annotation of an object.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str()
}

/// The manager that last wrote one of the fields, other than `ours`.
pub fn manager_of(object: &Value, located: &[FieldPrior], ours: &str) -> Option<String> {
    let entries = object.pointer("/metadata/managedFields")?.as_array()?;
    let owns = |entry: &&Value| {
        located.iter().any(|prior| {
            let mut at = entry.get("fieldsV1");
            for segment in prior.field.trim_start_matches('/').split('/') {
                at = at.and_then(|fields| fields.get(format!("f:{}", unescape(segment))));
            }
            at.is_some()
        })
    };
    let name = |entry: &&Value| entry.get("manager").and_then(Value::as_str).is_some_and(|name| name != ours);
    let time = |entry: &&Value| entry.get("time").and_then(Value::as_str).unwrap_or_default().to_owned();
    let last = entries.iter().filter(name).filter(owns).max_by_key(time)?;
    last.get("manager").and_then(Value::as_str).map(str::to_owned)
}

/// Names an object for a message.
pub fn describe(object: &Value) -> String {
    format!("{} {}", object.get("kind").and_then(Value::as_str).unwrap_or("object"), name_of(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(field: &str) -> Located {
        Located { field: field.into(), pointer: field.into(), pins: Vec::new() }
    }

    fn edit<'a>(
        object: &'a Value,
        seen: Option<&'a str>,
        new: Option<&'a str>,
        changes: Vec<(Located, Option<String>)>,
    ) -> Vec<Value> {
        let note = new.map(|_| "note".to_owned());
        let edit = Edit { object, uid: "u", fence_seen: seen, fence_new: new, note, changes, pin_version: false };
        edit.operations().as_array().unwrap().clone()
    }

    #[test]
    fn the_first_claim_pins_the_version_and_makes_the_parent_only_if_absent() {
        let object = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "data": {"K": "true"}});
        let operations = edit(&object, None, Some("r/s/1"), vec![(located("/data/K"), Some("false".into()))]);
        assert_eq!(
            operations,
            vec![
                json!({"op": "test", "path": "/metadata/uid", "value": "u"}),
                json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}),
                json!({"op": "test", "path": "/data/K", "value": "true"}),
                json!({"op": "add", "path": "/data/K", "value": "false"}),
                json!({"op": "test", "path": "/metadata/annotations", "value": null}),
                json!({"op": "add", "path": "/metadata/annotations", "value": {}}),
                json!({"op": "add", "path": "/metadata/annotations/learningloop.io~1fence", "value": "r/s/1"}),
                json!({"op": "add", "path": "/metadata/annotations/learningloop.io~1undo", "value": "note"}),
            ]
        );
    }

    #[test]
    fn a_restore_takes_the_annotations_off_and_keeps_others() {
        let object = json!({"metadata": {"uid": "u", "resourceVersion": "8", "annotations": {
            FENCE: "r/s/1", UNDO: "note", "team": "x"}}, "data": {"K": "false"}});
        let operations = edit(&object, Some("r/s/1"), None, vec![(located("/data/K"), None)]);
        assert_eq!(
            operations,
            vec![
                json!({"op": "test", "path": "/metadata/uid", "value": "u"}),
                json!({"op": "test", "path": "/data/K", "value": "false"}),
                json!({"op": "remove", "path": "/data/K"}),
                json!({"op": "test", "path": "/metadata/annotations/learningloop.io~1fence", "value": "r/s/1"}),
                json!({"op": "remove", "path": "/metadata/annotations/learningloop.io~1fence"}),
                json!({"op": "remove", "path": "/metadata/annotations/learningloop.io~1undo"}),
            ]
        );
    }

    #[test]
    fn replicas_and_weights_are_numbers_in_the_object() {
        let object = json!({"metadata": {"uid": "u", "annotations": {FENCE: "a"}}, "spec": {"replicas": 3}});
        let operations = edit(&object, Some("a"), Some("b"), vec![(located("/spec/replicas"), Some("0".into()))]);
        assert!(operations.contains(&json!({"op": "add", "path": "/spec/replicas", "value": 0})));
    }

    #[test]
    fn a_value_too_long_to_remember_is_refused() {
        assert!(text_of("/data/K", &json!("x".repeat(MAX_VALUE + 1))).is_err());
        assert!(text_of("/data/K", &json!({"a": 1})).is_err());
    }
}
