//! What kube-apiserver does to typed data: empty members vanish, defaults appear, some changes are refused.
//!
//! Only the traits that the operator can trip over are here; this is not a schema. Of a custom resource only the
//! metadata is typed; the rest of it passes untouched.

use serde_json::{Map, Value, json};

use crate::{object, refusal::Cause, resource::Resource};

/// Maps of strings and lists in `metadata`, which is typed for every kind, custom or not.
const METADATA_MAPS: [&str; 2] = ["/metadata/annotations", "/metadata/labels"];
const METADATA_LISTS: [&str; 2] = ["/metadata/finalizers", "/metadata/ownerReferences"];

/// Maps of strings of the built-in kinds.
const STRING_MAPS: [&str; 4] =
    ["/data", "/spec/template/metadata/annotations", "/spec/template/metadata/labels", "/spec/selector/matchLabels"];

/// Other members that Go's typed structs leave out when they are empty.
const OMITTED_WHEN_EMPTY: [&str; 4] =
    ["/binaryData", "/spec/selector/matchExpressions", "/spec/ports", "/status/conditions"];

/// Brings an object into the form in which it would be stored.
pub(crate) fn normalise(resource: &Resource, object: &mut Value) {
    for pointer in METADATA_MAPS {
        tidy_strings(object, pointer);
    }
    for pointer in METADATA_LISTS {
        omit_empty(object, pointer);
    }
    if let Some(metadata) = object.get_mut("metadata") {
        drop_nulls(metadata);
    }
    if !resource.builtin {
        return;
    }
    for pointer in STRING_MAPS {
        tidy_strings(object, pointer);
    }
    if resource.kind == "Service" {
        // An empty selector is stored as none: the Service then selects nothing by itself.
        tidy_strings(object, "/spec/selector");
    }
    drop_nulls(object);
    for pointer in OMITTED_WHEN_EMPTY {
        omit_empty(object, pointer);
    }
    match resource.kind.as_str() {
        "Deployment" => {
            default(object, "/spec", "replicas", json!(1));
            default(object, "/spec", "revisionHistoryLimit", json!(10));
            default(object, "/spec", "progressDeadlineSeconds", json!(600));
            let rolling =
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}});
            default(object, "/spec", "strategy", rolling);
        }
        "StatefulSet" => {
            default(object, "/spec", "replicas", json!(1));
            default(object, "/spec", "revisionHistoryLimit", json!(10));
            default(object, "/spec", "podManagementPolicy", json!("OrderedReady"));
        }
        "Service" => {
            default(object, "/spec", "type", json!("ClusterIP"));
            default(object, "/spec", "sessionAffinity", json!("None"));
            default(object, "/spec", "internalTrafficPolicy", json!("Cluster"));
            for port in items_mut(object, "/spec/ports") {
                if let Some(members) = port.as_object_mut() {
                    let number = members.get("port").cloned().unwrap_or(Value::Null);
                    members.entry("protocol").or_insert(json!("TCP"));
                    members.entry("targetPort").or_insert(number);
                }
            }
        }
        _ => {}
    }
}

/// Go decodes a null in a map of strings as the empty string, and leaves an empty map out.
fn tidy_strings(object: &mut Value, pointer: &str) {
    if let Some(Value::Object(members)) = object.pointer_mut(pointer) {
        for value in members.values_mut().filter(|value| value.is_null()) {
            *value = json!("");
        }
    }
    omit_empty(object, pointer);
}

fn omit_empty(object: &mut Value, pointer: &str) {
    let empty = match object.pointer(pointer) {
        Some(Value::Object(members)) => members.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Null) => true,
        _ => false,
    };
    if empty {
        object::remove(object, pointer);
    }
}

fn items_mut<'a>(object: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    object.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

fn default(object: &mut Value, parent: &str, member: &str, value: Value) {
    if let Some(Value::Object(members)) = object.pointer_mut(parent) {
        members.entry(member.to_owned()).or_insert(value);
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// A value of a type the Go struct cannot hold: refused before any validation, as a decoding error.
pub(crate) fn undecodable(resource: &Resource, object: &Value) -> Option<String> {
    let typed: &[&str] = if resource.builtin { &STRING_MAPS } else { &[] };
    for pointer in METADATA_MAPS.iter().chain(typed) {
        let members = object.pointer(pointer).and_then(Value::as_object);
        let wrong = members.into_iter().flatten().find(|(_, value)| !value.is_string() && !value.is_null());
        if let Some((key, _)) = wrong {
            let path = pointer.trim_start_matches('/').replace('/', ".");
            return Some(format!("json: cannot unmarshal {path}.{key} into a Go value of type string"));
        }
    }
    let replicas = object.pointer("/spec/replicas").filter(|value| !value.is_null());
    if resource.builtin && replicas.is_some_and(|value| value.as_i64().is_none()) {
        return Some("json: cannot unmarshal spec.replicas into a Go value of type int32".to_owned());
    }
    None
}

/// What the kind's own validation says; `old` is absent on create.
pub(crate) fn validate(resource: &Resource, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    match resource.kind.as_str() {
        "ConfigMap" | "Secret" => {
            if let Some(old) = old.filter(|old| old["immutable"] == json!(true)) {
                let mut frozen = vec!["data", "binaryData"];
                if new["immutable"] != json!(true) {
                    frozen.insert(0, "immutable");
                }
                for member in frozen {
                    if old.get(member) != new.get(member) {
                        causes.push(Cause::forbidden(member, "field is immutable when `immutable` is set"));
                    }
                }
            }
        }
        "Deployment" | "StatefulSet" => {
            let replicas = new.pointer("/spec/replicas").and_then(Value::as_i64);
            if let Some(below) = replicas.filter(|replicas| *replicas < 0) {
                let message = format!("Invalid value: {below}: must be greater than or equal to 0");
                causes.push(Cause::invalid("spec.replicas", &message));
            }
            causes.extend(selector_causes(resource, old, new));
        }
        _ => {}
    }
    causes
}

fn selector_causes(resource: &Resource, old: Option<&Value>, new: &Value) -> Option<Cause> {
    let selector = |object: &Value| object.pointer("/spec/selector").cloned().unwrap_or(Value::Null);
    match old {
        Some(old) if selector(old) != selector(new) && resource.kind == "Deployment" => {
            let message = format!("Invalid value: {}: field is immutable", selector(new));
            Some(Cause::invalid("spec.selector", &message))
        }
        Some(_) => None,
        None if selector(new).is_null() => Some(Cause::required("spec.selector", "")),
        None => {
            let labels = new.pointer("/spec/template/metadata/labels").cloned().unwrap_or(json!({}));
            let wanted = object::strings(new, "/spec/selector/matchLabels");
            let missing = wanted.iter().any(|(key, value)| labels[key] != json!(value));
            missing.then(|| {
                let message = format!("Invalid value: {labels}: `selector` does not match template `labels`");
                Cause::invalid("spec.template.metadata.labels", &message)
            })
        }
    }
}

/// What generic validation of metadata says to an update.
pub(crate) fn validate_metadata_update(old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if object::is_deleting(old) {
        let before = object::finalizers(old);
        let added: Vec<&str> =
            object::finalizers(new).into_iter().filter(|finalizer| !before.contains(finalizer)).collect();
        if !added.is_empty() {
            let message = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            causes.push(Cause::forbidden("metadata.finalizers", &message));
        }
    }
    for member in ["uid", "deletionTimestamp"] {
        let of = |object: &Value| object["metadata"].get(member).cloned().unwrap_or(Value::Null);
        if of(old) != of(new) {
            let message = format!("Invalid value: {}: field is immutable", of(new));
            causes.push(Cause::invalid(&format!("metadata.{member}"), &message));
        }
    }
    causes
}

/// What is stored of a status write: everything else is as it was.
pub(crate) fn only_status(resource: &Resource, old: &Value, new: &mut Value) {
    if !resource.builtin {
        // Custom resources: nothing but the status, not even metadata.
        let mut kept = old.clone();
        object::copy_top(new, &mut kept, "status");
        *new = kept;
        return;
    }
    object::copy_top(old, new, "spec");
    match resource.kind.as_str() {
        "Deployment" => object::copy_metadata(old, new, "labels"),
        "Pod" => object::copy_metadata(old, new, "ownerReferences"),
        _ => {}
    }
}

/// The object without what no generation counts.
pub(crate) fn generation_relevant(resource: &Resource, object: &Value) -> Map<String, Value> {
    let mut members = object.as_object().cloned().unwrap_or_default();
    members.remove("metadata");
    if resource.status {
        members.remove("status");
    }
    members
}
