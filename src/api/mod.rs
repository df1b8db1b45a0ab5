//! The two kinds, durations, conditions: data that cannot be wrong after parsing.
//!
//! Nothing here talks to anything: no client, no clock, no randomness.

pub mod condition;
pub mod crd;
pub mod duration;
pub mod rollback;
pub mod rollout;
mod schema;
pub mod step;

/// Annotation of a target: the token of the write that was committed last.
pub const FENCE: &str = "learningloop.io/fence";
/// Annotation of a target: what stood there before, and by which record it was changed.
pub const UNDO: &str = "learningloop.io/undo";
/// Annotation of a pod template: which execution restarted it.
pub const RESTARTED_BY: &str = "learningloop.io/restarted-by";
/// Annotation of a rollout: nothing new starts before this moment (RFC 3339).
pub const PAUSED_UNTIL: &str = "learningloop.io/paused-until";
/// Annotation of a rollout: why it is paused, for people.
pub const PAUSED_REASON: &str = "learningloop.io/paused-reason";
/// Annotation of a rollout: captured baselines older than this moment (RFC 3339) are taken anew.
pub const REBASELINE: &str = "learningloop.io/rebaseline-requested-at";
/// Finalizer of a record in force: deleting it means release.
pub const IN_FORCE: &str = "learningloop.io/in-force";
