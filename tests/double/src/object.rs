//! Reading and writing an object's metadata while it is still a plain JSON value.
//!
//! The double keeps no schema: these few accessors are all it knows of `metav1.ObjectMeta`. They never fail;
//! what is absent reads as empty, as it does in the API server's own Go types.

use serde_json::{Map, Value, json};

/// The string at a JSON pointer, or `""`.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub(crate) fn resource_version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

pub(crate) fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// A string map such as labels, annotations or a Service's selector.
pub(crate) fn strings(object: &Value, pointer: &str) -> Vec<(String, String)> {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .map(|map| map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect())
        .unwrap_or_default()
}

/// The metadata, made when it is missing, so that a body without any can be filled in.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let members = object.as_object_mut().expect("just made an object");
    let metadata = members.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().expect("just made an object")
}

pub(crate) fn set_metadata(object: &mut Value, member: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(member.to_owned(), value.into());
}

/// Copies one metadata member from another object; absent there means absent here.
pub(crate) fn copy_metadata(from: &Value, to: &mut Value, member: &str) {
    copy_member(from.get("metadata").unwrap_or(&Value::Null), metadata_mut(to), member);
}

/// Copies one top-level member such as `spec` or `status`; absent there means absent here.
pub(crate) fn copy_top(from: &Value, to: &mut Value, member: &str) {
    if let Some(members) = to.as_object_mut() {
        copy_member(from, members, member);
    }
}

fn copy_member(from: &Value, to: &mut Map<String, Value>, member: &str) {
    match from.get(member) {
        Some(value) => to.insert(member.to_owned(), value.clone()),
        None => to.remove(member),
    };
}

/// Removes the member a pointer names, if it is there.
pub(crate) fn remove(object: &mut Value, pointer: &str) {
    let Some((parent, member)) = pointer.rsplit_once('/') else {
        return;
    };
    if let Some(Value::Object(members)) = object.pointer_mut(parent) {
        members.remove(member);
    }
}
