//! What to do, as functions of what was seen. No client, no clock, no randomness, and nothing here can fail.
//!
//! Everything that touches the world is a value that the shell in `controller` carries out.

pub mod baseline;
pub mod fields;
pub mod rollback;
pub mod rollout;
pub mod schedule;
pub mod timer;
pub mod trigger;

/// Identity of an execution: given by the operator, or the record's own uid where a person made it.
pub fn record_id(record: &crate::api::rollback::LearningRollback) -> String {
    record.spec.id.clone().or_else(|| record.metadata.uid.clone()).unwrap_or_default()
}
