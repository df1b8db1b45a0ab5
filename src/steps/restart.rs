//! restart: an annotation of a Deployment's pod template.

use serde_json::Value;

use super::{name_of, refused};
use crate::decide::rollback::Failure;

/// A paused Deployment would take the annotation and restart nothing.
pub(super) fn refusal(object: &Value) -> Option<Failure> {
    (object.pointer("/spec/paused") == Some(&Value::Bool(true))).then(|| {
        refused(
            "Refused",
            format!(
                "Deployment {0} is paused and would not restart: `kubectl rollout resume deployment/{0}`",
                name_of(object)
            ),
        )
    })
}

/// Have all pods been replaced?
pub(super) fn ready(object: &Value) -> Result<(), String> {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let observed = number("/status/observedGeneration") >= number("/metadata/generation");
    let (updated, available) = (number("/status/updatedReplicas"), number("/status/availableReplicas"));
    if observed && updated >= wanted && available >= wanted {
        Ok(())
    } else {
        Err(format!("Deployment {}: {updated} of {wanted} pods are restarted, {available} available", name_of(object)))
    }
}
