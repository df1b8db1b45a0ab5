//! What to do, as pure functions of what was seen.
//!
//! Nothing here has a client, a clock or randomness, and nothing here can fail: a thin shell observes, asks this module
//! and carries out the values it returns. Inputs that cannot be judged are `Unknown` with a reason, never an error.
//!
//! The path of one evaluation: [`schedule`] names the instant, [`trigger`] judges what Prometheus answered for it,
//! [`timer`] remembers how long breaches have lasted, [`rollout`] turns the standings into a status and actions, and
//! [`rollback`] carries one of them out, step by step, over the [`fields`] that its steps touch.
//! [`resume`] fills in what a restart missed, [`baseline`] captures what values are compared with, [`advice`] warns of
//! policies that cannot do what they seem to promise.

pub mod advice;
pub mod baseline;
pub mod conditions;
pub mod fields;
pub mod resume;
pub mod rollback;
pub mod rollout;
pub mod schedule;
pub mod timer;
pub mod trigger;
pub mod verify;
pub mod words;

mod instant;
mod matching;

/// Identity of an execution: given by the operator, or the record's own uid where a person made it.
pub fn record_id(record: &crate::api::rollback::LearningRollback) -> String {
    record.spec.id.clone().or_else(|| record.metadata.uid.clone()).unwrap_or_default()
}
