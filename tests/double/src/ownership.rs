//! `metadata.managedFields`: who wrote which member last, and server-side apply on top of it.
//!
//! Good enough to answer "who owns `/data/X`" and to refuse a conflicting apply. Lists are taken whole (the real
//! server merges some of them by key), and the bookkeeping entries `.` and `v:` are left out.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{object, refusal::Cause};

/// The words of a path, from the root.
pub(crate) type Path = Vec<String>;

/// Metadata that belongs to the server and is owned by nobody.
const SERVER_METADATA: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
];

/// On whose behalf a write is made.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) manager: String,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    pub(crate) time: String,
}

#[derive(Debug, Clone)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: String,
    fields: BTreeSet<Path>,
}

impl Entry {
    fn belongs_to(&self, writer: &Writer, operation: &str) -> bool {
        self.manager == writer.manager
            && self.operation == operation
            && self.api_version == writer.api_version
            && self.subresource == writer.subresource
    }

    fn value(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": self.operation, "apiVersion": self.api_version,
            "time": self.time, "fieldsType": "FieldsV1", "fieldsV1": tree(&self.fields),
        });
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }
}

/// Credits `writer` with everything in which `new` differs from `old`, and debits everybody else.
pub(crate) fn record_update(old: Option<&Value>, new: &mut Value, writer: &Writer) {
    let mut entries = entries_after(old, new);
    let old = old.unwrap_or(&Value::Null);
    let changed: BTreeSet<Path> = leaves(new).into_iter().filter(|path| at(old, path) != at(new, path)).collect();
    for entry in &mut entries {
        let mine = entry.belongs_to(writer, "Update");
        let kept: BTreeSet<Path> = entry
            .fields
            .iter()
            .filter(|path| at(new, path).is_some() && (mine || !changed.contains(*path)))
            .cloned()
            .collect();
        touch(entry, kept, writer);
    }
    if !changed.is_empty() {
        credit(&mut entries, writer, "Update", &changed);
    }
    store(new, entries);
}

/// The result of applying a configuration, or the conflicts that forbid it.
pub(crate) fn apply(
    old: Option<&Value>,
    configuration: &Value,
    writer: &Writer,
    force: bool,
) -> Result<Value, Vec<(String, Cause)>> {
    let empty = json!({});
    let current = old.unwrap_or(&empty);
    // An empty map that is applied to a map says nothing about its members.
    let says_nothing =
        |path: &Path| at(configuration, path) == Some(&json!({})) && at(current, path).is_some_and(Value::is_object);
    let applied: BTreeSet<Path> = leaves(configuration).into_iter().filter(|path| !says_nothing(path)).collect();
    let mut entries = parse(current);
    let contested = |entry: &Entry, path: &Path| {
        !entry.belongs_to(writer, "Apply")
            && overlaps(&entry.fields, path)
            && at(current, path) != at(configuration, path)
    };
    let conflicts: Vec<(String, Cause)> = entries
        .iter()
        .flat_map(|entry| {
            applied.iter().filter(|path| contested(entry, path)).map(|path| {
                let field = format!(".{}", path.join("."));
                let message = format!("conflict with {:?} using {}", entry.manager, entry.api_version);
                let mut cause = Cause::invalid(&field, &message);
                cause.kind = "FieldManagerConflict".to_owned();
                (entry.manager.clone(), cause)
            })
        })
        .collect();
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }

    let mut result = current.clone();
    for member in ["apiVersion", "kind"] {
        object::copy_top(configuration, &mut result, member);
    }
    for member in ["name", "namespace", "resourceVersion", "uid"] {
        if configuration["metadata"].get(member).is_some() {
            object::copy_metadata(configuration, &mut result, member);
        }
    }
    let dropped: Vec<Path> = entries
        .iter()
        .filter(|entry| entry.belongs_to(writer, "Apply"))
        .flat_map(|entry| entry.fields.difference(&applied).cloned())
        .filter(|path| !entries.iter().any(|entry| !entry.belongs_to(writer, "Apply") && entry.fields.contains(path)))
        .collect();
    for path in &dropped {
        remove(&mut result, path);
    }
    for path in &applied {
        if let Some(value) = at(configuration, path) {
            set(&mut result, path, value.clone());
        }
    }
    for entry in &mut entries {
        let mine = entry.belongs_to(writer, "Apply");
        let kept: BTreeSet<Path> = entry
            .fields
            .iter()
            .filter(|path| if mine { applied.contains(*path) } else { at(current, path) == at(&result, path) })
            .cloned()
            .collect();
        touch(entry, kept, writer);
    }
    credit(&mut entries, writer, "Apply", &applied);
    store(&mut result, entries);
    Ok(result)
}

/// Everybody who owns the member at a JSON pointer, or something below it.
pub(crate) fn owners(object: &Value, pointer: &str) -> Vec<String> {
    let path: Path = pointer.split('/').skip(1).map(|word| word.replace("~1", "/").replace("~0", "~")).collect();
    parse(object).into_iter().filter(|entry| overlaps(&entry.fields, &path)).map(|entry| entry.manager).collect()
}

/// True when two lists of managers differ in more than the time they were written.
pub(crate) fn same_but_for_time(one: &Value, other: &Value) -> bool {
    let timeless = |object: &Value| -> Vec<Value> {
        parse(object).into_iter().map(|entry| Entry { time: String::new(), ..entry }.value()).collect()
    };
    timeless(one) == timeless(other)
}

fn overlaps(fields: &BTreeSet<Path>, path: &Path) -> bool {
    fields.iter().any(|owned| owned.starts_with(path.as_slice()) || path.starts_with(owned.as_slice()))
}

fn touch(entry: &mut Entry, fields: BTreeSet<Path>, writer: &Writer) {
    if entry.fields != fields {
        entry.fields = fields;
        entry.time.clone_from(&writer.time);
    }
}

fn credit(entries: &mut Vec<Entry>, writer: &Writer, operation: &str, fields: &BTreeSet<Path>) {
    if let Some(entry) = entries.iter_mut().find(|entry| entry.belongs_to(writer, operation)) {
        let all = entry.fields.union(fields).cloned().collect();
        touch(entry, all, writer);
    } else {
        entries.push(Entry {
            manager: writer.manager.clone(),
            operation: operation.to_owned(),
            api_version: writer.api_version.clone(),
            subresource: writer.subresource.clone(),
            time: writer.time.clone(),
            fields: fields.clone(),
        });
    }
}

/// The entries to start from: the stored ones, or none when the client asked for a reset by sending an empty list.
fn entries_after(old: Option<&Value>, new: &Value) -> Vec<Entry> {
    let reset = new
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .is_some_and(|list| list.iter().all(|entry| entry.as_object().is_some_and(Map::is_empty)));
    match old {
        Some(old) if !reset => parse(old),
        _ => Vec::new(),
    }
}

fn store(object: &mut Value, entries: Vec<Entry>) {
    let list: Vec<Value> = entries.iter().filter(|entry| !entry.fields.is_empty()).map(Entry::value).collect();
    if list.is_empty() {
        object::metadata_mut(object).remove("managedFields");
    } else {
        object::set_metadata(object, "managedFields", list);
    }
}

fn parse(object: &Value) -> Vec<Entry> {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|entry| {
            let mut fields = BTreeSet::new();
            collect_tree(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
            Entry {
                manager: object::text(entry, "/manager").to_owned(),
                operation: object::text(entry, "/operation").to_owned(),
                api_version: object::text(entry, "/apiVersion").to_owned(),
                subresource: object::text(entry, "/subresource").to_owned(),
                time: object::text(entry, "/time").to_owned(),
                fields,
            }
        })
        .collect()
}

/// The paths of all values that are no (non-empty) object, the server's own metadata apart.
fn leaves(object: &Value) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    if !SERVER_METADATA.contains(&key.as_str()) {
                        collect_leaves(value, &mut vec!["metadata".to_owned(), key.clone()], &mut found);
                    }
                }
            }
            _ => collect_leaves(value, &mut vec![key.clone()], &mut found),
        }
    }
    found
}

fn collect_leaves(value: &Value, path: &mut Path, found: &mut BTreeSet<Path>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, member) in members {
                path.push(key.clone());
                collect_leaves(member, path, found);
                path.pop();
            }
        }
        _ => {
            found.insert(path.clone());
        }
    }
}

fn collect_tree(tree: &Value, path: &mut Path, found: &mut BTreeSet<Path>) {
    let members = tree.as_object().filter(|members| !members.is_empty());
    let Some(members) = members else {
        if !path.is_empty() {
            found.insert(path.clone());
        }
        return;
    };
    for (key, below) in members {
        if let Some(word) = key.strip_prefix("f:") {
            path.push(word.to_owned());
            collect_tree(below, path, found);
            path.pop();
        }
    }
}

fn tree(fields: &BTreeSet<Path>) -> Value {
    let mut root = Map::new();
    for path in fields {
        let mut branch = &mut root;
        for word in path {
            branch = branch
                .entry(format!("f:{word}"))
                .or_insert_with(|| json!({}))
                .as_object_mut()
                .expect("only objects are inserted");
        }
    }
    Value::Object(root)
}

fn at<'a>(object: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, word| value.as_object()?.get(word))
}

fn set(object: &mut Value, path: &Path, value: Value) {
    let mut branch = object;
    for word in path {
        if !branch.is_object() {
            *branch = json!({});
        }
        branch = branch.as_object_mut().expect("just made an object").entry(word.clone()).or_insert(Value::Null);
    }
    *branch = value;
}

fn remove(object: &mut Value, path: &Path) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let parent = parents.iter().try_fold(object, |value, word| value.as_object_mut()?.get_mut(word));
    if let Some(Value::Object(members)) = parent {
        members.remove(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(manager: &str) -> Writer {
        Writer {
            manager: manager.to_owned(),
            api_version: "v1".to_owned(),
            subresource: String::new(),
            time: "2024-01-01T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn an_update_takes_over_only_what_it_changes() {
        let mut first = json!({"data": {"A": "1", "B": "1"}});
        record_update(None, &mut first, &writer("kubectl"));
        let mut second = first.clone();
        second["data"]["A"] = json!("2");
        record_update(Some(&first), &mut second, &writer("operator"));
        assert_eq!(owners(&second, "/data/A"), ["operator"]);
        assert_eq!(owners(&second, "/data/B"), ["kubectl"]);
        assert_eq!(owners(&second, "/data"), ["kubectl", "operator"]);

        let mut same = second.clone();
        record_update(Some(&second), &mut same, &writer("somebody"));
        assert!(same_but_for_time(&second, &same), "a no-op owns nothing");
    }

    #[test]
    fn apply_refuses_what_another_owns_and_removes_what_it_no_longer_says() {
        let config = json!({"metadata": {"name": "c"}, "data": {"A": "1", "B": "1"}});
        let first = apply(None, &config, &writer("git"), false).expect("nobody else is there");
        let other = json!({"data": {"A": "2"}});
        let refused = apply(Some(&first), &other, &writer("operator"), false).expect_err("git owns A");
        assert_eq!(refused[0].1.field, ".data.A");
        let forced = apply(Some(&first), &other, &writer("operator"), true).expect("forced");
        assert_eq!(owners(&forced, "/data/A"), ["operator"]);
        let shrunk = apply(Some(&forced), &json!({"data": {}}), &writer("git"), false).expect("its own");
        assert_eq!(shrunk["data"], json!({"A": "2"}), "B was git's alone");
    }
}
