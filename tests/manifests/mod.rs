//! The manifests that tests start from, and small changes of them.

use serde_json::Value;

/// A manifest of `tests/manifests/`.
pub fn manifest(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn full() -> Value {
    manifest("rollout-full.yaml")
}

pub fn record() -> Value {
    manifest("rollback.yaml")
}

/// The object with fields set, or removed where the value is null. Each is a JSON pointer whose parent exists.
pub fn with(mut object: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} has no parent"));
        match parent {
            Value::Object(members) if value.is_null() => drop(members.remove(key)),
            Value::Object(members) => drop(members.insert(key.to_owned(), value.clone())),
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = value.clone(),
            _ => panic!("{pointer}: the parent is neither map nor list"),
        }
    }
    object
}
