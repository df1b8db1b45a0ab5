//! The edits: how each step kind reads its target, what it refuses, how its patch looks, and how its effect is seen.
//!
//! A step kind is one file. What all kinds share is the field model of [`crate::decide::fields`]: a step is a few named
//! fields of one object, so that snapshot, apply, restore and contest are written once, in [`edit`].

pub mod cluster;
pub mod edit;
pub mod note;
mod restart;
mod scale;
mod set_config;
mod switch_service;
pub mod traffic;
pub mod write;

use serde_json::Value;

use crate::{
    api::{
        rollback::FieldPrior,
        step::{Step, StepKind},
    },
    decide::{fields, rollback::Failure},
};
use cluster::Cluster;

/// A field of a step, found in an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// Name of the field, as the journal calls it.
    pub field: String,
    /// Where it is now. Routes move: indexes are found anew before every write.
    pub pointer: String,
    /// What else must stand where for the pointer to mean what it meant: pointer and value.
    pub pins: Vec<(String, Value)>,
}

/// Finds the fields of a step in an object.
///
/// # Errors
/// When a route cannot be found, or is ambiguous.
pub fn locate(step: &Step, object: &Value) -> Result<Vec<Located>, Failure> {
    match step.kind() {
        StepKind::ShiftTraffic(shift) => traffic::locate(shift, object),
        _ => Ok(fields::touched(step)
            .into_iter()
            .map(|field| Located { pointer: field.clone(), field, pins: Vec::new() })
            .collect()),
    }
}

/// What the fields of a step hold now.
///
/// # Errors
/// When a field cannot be found, or holds something that cannot be remembered.
pub fn read(step: &Step, object: &Value) -> Result<Vec<FieldPrior>, Failure> {
    locate(step, object)?
        .into_iter()
        .map(|located| {
            let value = object.pointer(&located.pointer).filter(|value| !value.is_null());
            let value = value.map(|value| edit::text_of(&located.field, value)).transpose()?;
            // Istio and the Gateway API leave a weight out where it is the default.
            let value = value.or_else(|| traffic::default_weight(step, &located.field, object));
            Ok(FieldPrior { field: located.field, value })
        })
        .collect()
}

/// Why an object, as it is, cannot take a step's edit.
pub fn refusal(step: &Step, object: &Value) -> Option<Failure> {
    match step.kind() {
        StepKind::SetConfig(_) => set_config::refusal(object),
        StepKind::Restart(_) => restart::refusal(object),
        _ => None,
    }
}

/// Why the rest of the namespace forbids a step: no pods to take the traffic, an autoscaler in the way.
///
/// # Errors
/// The refusal itself, or why it could not be found out.
pub async fn admit(cluster: &Cluster, step: &Step, object: &Value) -> Result<(), Failure> {
    match step.kind() {
        StepKind::SwitchService(switch) => switch_service::admit(cluster, switch, object).await,
        StepKind::Scale(scale) => scale::admit(cluster, scale).await,
        _ => Ok(()),
    }
}

/// Is the traffic that a step moved seen to have moved?
///
/// # Errors
/// What is still missing, for people.
pub async fn holds(cluster: &Cluster, step: &Step) -> Result<(), String> {
    match step.kind() {
        StepKind::SwitchService(switch) => switch_service::holds(cluster, switch).await,
        _ => Ok(()),
    }
}

/// Is what a restored step put back available, or rolled out?
pub fn ready(step: &Step, object: &Value) -> Result<(), String> {
    match step.kind() {
        StepKind::Scale(_) => scale::ready(object),
        StepKind::Restart(_) => restart::ready(object),
        _ => Ok(()),
    }
}

/// A refusal that only another object or another plan can end.
pub(crate) fn refused(reason: &str, message: impl Into<String>) -> Failure {
    Failure { reason: reason.to_owned(), message: message.into(), permanent: true }
}

/// The name in an object's metadata, for messages.
pub(crate) fn name_of(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?")
}
