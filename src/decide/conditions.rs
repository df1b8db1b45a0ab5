//! The conditions that follow from the triggers: MetricsAvailable, Breaching, RollbackInForce.
//!
//! Their messages name triggers and reasons but no values, so that they change only when something changed.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::{
    rollout::{self, Event, EventType, NOT_EVALUATED, Permission, View},
    words::{self, clip},
};
use crate::api::{
    condition::{self, Verdict},
    rollback::Phase,
    rollout::{ActiveRollback, LearningRolloutStatus, Trigger, TriggerState, TriggerStatus},
};

const WOULD_ROLL_BACK: &str = "WouldRollBack";

/// Sets the three conditions. An event tells of a rollback that is held back, or would have started.
pub fn set(status: &mut LearningRolloutStatus, view: &View<'_>, now: Timestamp, events: &mut Vec<Event>) {
    let breaching = breaching(status, view, now);
    let before = condition::get(&view.status.conditions, condition::rollout::BREACHING);
    let news = before.is_none_or(|before| before.reason != breaching.verdict.reason);
    let told = match breaching.told {
        Some(event) if news => Some(Event { message: breaching.verdict.message.clone(), ..event }),
        _ => None,
    };
    events.extend(told);
    for (kind, verdict) in [
        (condition::rollout::METRICS_AVAILABLE, metrics_available(&status.triggers)),
        (condition::rollout::BREACHING, breaching.verdict),
        (condition::rollout::ROLLBACK_IN_FORCE, in_force(view)),
    ] {
        condition::set(&mut status.conditions, kind, verdict, view.generation, now);
    }
}

/// What mode Observe would have done, if the conditions say so.
pub fn would_roll_back(conditions: &[Condition]) -> Option<&str> {
    let breaching = condition::get(conditions, condition::rollout::BREACHING)?;
    (breaching.reason == WOULD_ROLL_BACK).then_some(breaching.message.as_str())
}

struct Breaching {
    verdict: Verdict,
    /// To be told when the reason is new; the message is the verdict's.
    told: Option<Event>,
}

fn breaching(status: &LearningRolloutStatus, view: &View<'_>, now: Timestamp) -> Breaching {
    let quiet = |verdict| Breaching { verdict, told: None };
    let firing = in_state(status, view, TriggerState::Firing);
    let pending = in_state(status, view, TriggerState::Pending);
    if let Some((leading, permission)) = leading(&firing, view, now) {
        let subject = format!("firing: {}", names(&firing));
        let plan = &leading.rollback;
        return match permission {
            Permission::Start | Permission::Escalate => quiet(Verdict::yes("TriggerFiring", subject)),
            Permission::WouldStart => Breaching {
                verdict: Verdict::yes(WOULD_ROLL_BACK, format!("{subject}; would start {plan} if mode were Enforce")),
                told: Some(event(EventType::Normal, WOULD_ROLL_BACK)),
            },
            Permission::Held(why) if why.reason == "AlreadyInForce" => {
                quiet(Verdict::yes(why.reason, format!("{subject}; {}", why.message)))
            }
            Permission::Held(why) => Breaching {
                verdict: Verdict::yes(why.reason, format!("{subject}; {plan} is held back: {}", why.message)),
                told: Some(event(EventType::Warning, "RollbackHeldBack")),
            },
        };
    }
    if !pending.is_empty() {
        let subject = format!("pending: {}", names(&pending));
        let cooled =
            pending.iter().map(|(trigger, _)| rollout::evidence_from(view.spec, view.status, trigger)).min().flatten();
        return match cooled.filter(|from| view.status.active.is_none() && *from > now) {
            Some(from) => Breaching {
                verdict: Verdict::yes(
                    "CoolingDown",
                    format!("{subject}; evidence counts only from {from} on: the last rollback has just ended"),
                ),
                told: Some(event(EventType::Warning, "RollbackHeldBack")),
            },
            None => quiet(Verdict::yes("TriggerPending", subject)),
        };
    }
    let unknown = status.triggers.iter().filter(|known| known.state == TriggerState::Unknown).count();
    if unknown > 0 && unknown == status.triggers.len() {
        return quiet(Verdict::unknown("NothingJudged", "no trigger can be judged"));
    }
    quiet(Verdict::no("NothingBreaching", "no trigger breaches"))
}

/// Triggers of the spec that the status has in a state.
fn in_state<'a>(
    status: &'a LearningRolloutStatus,
    view: &View<'a>,
    state: TriggerState,
) -> Vec<(&'a Trigger, &'a TriggerStatus)> {
    let known = |trigger: &'a Trigger| {
        let known = status.triggers.iter().find(|known| known.name == trigger.name && known.state == state)?;
        Some((trigger, known))
    };
    view.spec.triggers.iter().filter_map(known).collect()
}

/// The firing trigger that decides: of those that may act the strongest, else the strongest.
fn leading<'a>(
    firing: &[(&'a Trigger, &'a TriggerStatus)],
    view: &View<'a>,
    now: Timestamp,
) -> Option<(&'a Trigger, Permission)> {
    let mut best: Option<(bool, &Trigger, Permission)> = None;
    for (trigger, known) in firing {
        let permission = rollout::permission(view, trigger, known.since.as_ref(), now);
        let strength = rollout::plan(view.spec, trigger).map(|plan| plan.plan_type);
        let free = !matches!(permission, Permission::Held(_));
        let stronger = best.as_ref().is_none_or(|(best_free, best, _)| {
            (free, strength) > (*best_free, rollout::plan(view.spec, best).map(|plan| plan.plan_type))
        });
        if stronger {
            best = Some((free, trigger, permission));
        }
    }
    best.map(|(_, trigger, permission)| (trigger, permission))
}

fn metrics_available(triggers: &[TriggerStatus]) -> Verdict {
    let unjudged: Vec<(&str, &str)> =
        triggers.iter().filter_map(|known| Some((known.name.as_str(), known.reason.as_deref()?))).collect();
    let failing = unjudged.iter().find(|(_, reason)| *reason != NOT_EVALUATED);
    let list = || {
        let list: Vec<String> = unjudged.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
        let message =
            format!("{} of {} triggers cannot be judged: {}", unjudged.len(), triggers.len(), list.join(", "));
        clip(&message, words::TEXT)
    };
    match (failing, unjudged.is_empty()) {
        (Some((_, reason)), _) => Verdict::no(*reason, list()),
        (None, false) => Verdict::unknown(NOT_EVALUATED, list()),
        (None, true) => Verdict::yes("AllJudged", "every trigger's last sample could be judged"),
    }
}

/// The claim has been taken or has ended: RollbackInForce follows at once, not only with the next evaluation. What the
/// condition says beyond that (restoring, an orphan) is left as it is.
pub fn follow_claim(status: &mut LearningRolloutStatus, generation: Option<i64>, now: Timestamp) {
    const KIND: &str = condition::rollout::ROLLBACK_IN_FORCE;
    let known = condition::get(&status.conditions, KIND).filter(|known| known.status == "True");
    let verdict = match (&status.active, known) {
        (Some(active), known) if known.is_none_or(|known| known.message != claimed(active)) => {
            Verdict::yes("InForce", claimed(active))
        }
        (None, Some(known)) if known.reason != "OrphanInForce" => Verdict::no("NoneInForce", "no rollback is in force"),
        _ => return,
    };
    condition::set(&mut status.conditions, KIND, verdict, generation, now);
}

fn claimed(active: &ActiveRollback) -> String {
    format!("rollback {} ({})", active.name, active.rollback)
}

fn in_force(view: &View<'_>) -> Verdict {
    match (&view.status.active, &view.facts.orphan) {
        (Some(active), _) => {
            let restoring = view.facts.active.is_some_and(|record| record.phase == Phase::Restoring);
            let reason = if restoring { "Restoring" } else { "InForce" };
            Verdict::yes(reason, claimed(active))
        }
        (None, Some(orphan)) => {
            Verdict::yes("OrphanInForce", format!("rollback {orphan} of an earlier rollout of this name"))
        }
        (None, None) => Verdict::no("NoneInForce", "no rollback is in force"),
    }
}

fn names(triggers: &[(&Trigger, &TriggerStatus)]) -> String {
    triggers.iter().map(|(trigger, _)| trigger.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn event(kind: EventType, reason: &'static str) -> Event {
    Event { kind, reason, message: String::new() }
}
