//! The definitions of the two kinds, as they are committed under `crds/`.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{rollback::LearningRollback, rollout::LearningRollout};

/// Both definitions, each with the file name it has under `crds/`.
///
/// # Errors
/// When a definition cannot be expressed as JSON, which only a defect of its types could cause.
pub fn definitions() -> Result<[(&'static str, Value); 2], serde_json::Error> {
    Ok([
        ("learningloop.io_learningrollouts.yaml", definition(serde_json::to_value(LearningRollout::crd())?)),
        ("learningloop.io_learningrollbacks.yaml", definition(serde_json::to_value(LearningRollback::crd())?)),
    ])
}

/// The header of a generated file: whoever opens it must learn where the words come from.
const HEADER: &str =
    "# Generated from the types in src/api by `make generate`. Do not edit: a test compares it with them.\n";

/// Both definitions as they are committed: the file's name and its text.
///
/// # Errors
/// As [`definitions`], or when a definition cannot be written as YAML.
pub fn manifests() -> Result<Vec<(&'static str, String)>, Box<dyn std::error::Error + Send + Sync>> {
    let mut manifests = Vec::new();
    for (file, definition) in definitions()? {
        manifests.push((file, format!("{HEADER}{}", serde_yaml::to_string(&definition)?)));
    }
    Ok(manifests)
}

fn definition(mut crd: Value) -> Value {
    if let Some(schema) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        tidy(schema);
        name_metadata(schema);
    }
    crd
}

/// Nothing of ours is nullable: an absent field is absent. A `nullable` field would let an explicit null through and
/// make `has()` in the CEL rules doubtful. Bounds of integers are written as integers, for people who read them.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("nullable").is_some_and(Value::is_boolean) {
                members.remove("nullable");
            }
            if members.get("type").is_some_and(|kind| kind == "integer") {
                for bound in ["minimum", "maximum"] {
                    if let Some(bound) = members.get_mut(bound)
                        && let Some(whole) = bound.as_f64().and_then(whole)
                    {
                        *bound = whole.into();
                    }
                }
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// The integer a float stands for, where it stands for one exactly.
fn whole(number: f64) -> Option<i64> {
    format!("{number:.0}").parse().ok().filter(|_| number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0)
}

/// The API server takes a rule's `fieldPath` only if the schema declares that field; of metadata, only the name may be.
fn name_metadata(schema: &mut Value) {
    let ruled = schema.get("x-kubernetes-validations").is_some();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut).filter(|_| ruled) {
        let name =
            json!({"type": "string", "maxLength": 253, "description": "Name of the object, unique in its namespace."});
        // The server refuses even a description of metadata itself.
        let metadata = json!({"type": "object", "properties": {"name": name}});
        properties.insert("metadata".to_owned(), metadata);
    }
}
