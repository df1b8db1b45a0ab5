//! The definitions of the two kinds, as they are committed under `crds/`.

use kube::CustomResourceExt;
use serde_json::Value;

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
const HEADER: &str = "# Generated from the types in src/api by `make generate`. Do not edit: a test compares it with them.\n";

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
    }
    crd
}

/// Nothing of ours is nullable: an absent field is absent. A `nullable` field would let an explicit null through and
/// make `has()` in the CEL rules doubtful. Number formats that OpenAPI does not know make kubectl warn.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("nullable").is_some_and(Value::is_boolean) {
                members.remove("nullable");
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
