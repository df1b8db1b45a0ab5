//! `metav1.Condition`s: set by type, and unchanged unless something changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Condition types of a LearningRollout.
pub mod rollout {
    /// The spec is understood and its triggers are evaluated.
    pub const READY: &str = "Ready";
    /// A rollback would work now.
    pub const ARMED: &str = "Armed";
    /// Every trigger's last sample could be judged.
    pub const METRICS_AVAILABLE: &str = "MetricsAvailable";
    /// A trigger is pending or firing.
    pub const BREACHING: &str = "Breaching";
    /// A rollback is in force.
    pub const ROLLBACK_IN_FORCE: &str = "RollbackInForce";
    /// A person is needed.
    pub const STALLED: &str = "Stalled";
}

/// Condition types of a LearningRollback.
pub mod rollback {
    /// The steps have landed; false from Restoring on.
    pub const ROLLED_BACK: &str = "RolledBack";
    /// The checks hold.
    pub const VERIFIED: &str = "Verified";
    /// A person is needed.
    pub const STALLED: &str = "Stalled";
    /// Another manager puts a value back.
    pub const CONTESTED: &str = "Contested";
}

/// What a condition says, before it is compared with what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Verdict {
    /// Status True.
    pub fn yes(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: "True", reason: reason.into(), message: message.into() }
    }

    /// Status False.
    pub fn no(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: "False", reason: reason.into(), message: message.into() }
    }

    /// Status Unknown.
    pub fn unknown(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: "Unknown", reason: reason.into(), message: message.into() }
    }
}

/// Sets a condition. `lastTransitionTime` moves only when the status changes; nothing moves when nothing changed.
pub fn set(conditions: &mut Vec<Condition>, kind: &str, verdict: Verdict, generation: Option<i64>, now: Timestamp) {
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(present) => {
            if present.status != verdict.status {
                present.last_transition_time = Time(now);
            }
            present.status = verdict.status.to_owned();
            present.reason = verdict.reason;
            present.message = verdict.message;
            present.observed_generation = generation;
        }
        None => conditions.push(Condition {
            type_: kind.to_owned(),
            status: verdict.status.to_owned(),
            reason: verdict.reason,
            message: verdict.message,
            last_transition_time: Time(now),
            observed_generation: generation,
        }),
    }
}

/// Removes a condition.
pub fn remove(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|condition| condition.type_ != kind);
}

/// The condition of a type.
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Is a condition of this type there, with status True?
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    get(conditions, kind).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_on_change() {
        let (first, later): (Timestamp, Timestamp) =
            ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T00:01:00Z".parse().unwrap());
        let mut conditions = Vec::new();
        set(&mut conditions, "Ready", Verdict::yes("A", "a"), Some(1), first);
        set(&mut conditions, "Ready", Verdict::yes("B", "b"), Some(2), later);
        assert_eq!(conditions[0].last_transition_time, Time(first));
        assert_eq!(conditions[0].reason, "B");
        set(&mut conditions, "Ready", Verdict::no("C", "c"), Some(2), later);
        assert_eq!(conditions[0].last_transition_time, Time(later));
        assert!(!is_true(&conditions, "Ready"));
    }
}
