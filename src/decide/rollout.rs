//! From the standings of triggers to the rollout's status and what is to be done about it.
//!
//! At most one rollback starts at a time, the strongest of those that may; while one is in force triggers only escalate,
//! and a person's word (suspend, pause, restore, release) outweighs every trigger. Status changes only where a state
//! or a reason changed: a healthy rollout costs no API request.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

use super::{
    conditions, instant,
    timer::Standing,
    words::{self, clip},
};
use crate::api::{
    PAUSED_UNTIL,
    rollback::{DesiredState, Phase},
    rollout::{
        ActiveRollback, BaselineStatus, Evidence, LearningRolloutSpec, LearningRolloutStatus, Mode, RollbackPlan,
        Trigger, TriggerState, TriggerStatus,
    },
    step::PlanType,
};

/// Reason of a trigger that has not been evaluated since the operator learnt of it.
pub const NOT_EVALUATED: &str = "NotEvaluated";

/// A rollout as it was observed.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub spec: &'a LearningRolloutSpec,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// `metadata.annotations`.
    pub annotations: &'a BTreeMap<String, String>,
    pub status: &'a LearningRolloutStatus,
    pub facts: &'a Facts,
}

/// What other objects say about a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The record that `status.active` names, where it is known to exist.
    pub active: Option<ActiveRecord>,
    /// Name of a record in force that belongs to an earlier rollout of the same name.
    pub orphan: Option<String>,
}

/// Where the execution in force stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveRecord {
    pub phase: Phase,
    pub desired_state: DesiredState,
}

/// A trigger that has just been evaluated. Pass only these: a conviction is one of the moment, and what else is known
/// stands in the status.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// Name of the trigger.
    pub trigger: String,
    pub standing: Standing,
    /// A baseline that was captured with this evaluation.
    pub baseline: Option<BaselineStatus>,
}

/// A rollback and what speaks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Conviction {
    /// Name of the trigger.
    pub trigger: String,
    /// Name of the plan.
    pub rollback: String,
    pub plan_type: PlanType,
    /// Not held back by the breaker.
    pub critical: bool,
    pub evidence: Evidence,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Take the claim and create the record.
    Start(Conviction),
    /// Take the claim from the weaker execution in force.
    Escalate(Conviction),
    /// Mode Observe: dry-run it. Once for each time it would have started.
    WouldStart(Conviction),
    /// Tell people. Once for each transition.
    Event(Event),
}

/// An event of the rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventType,
    pub reason: &'static str,
    pub message: String,
}

/// Type of an event, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

/// Why a firing trigger starts nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// One CamelCase word.
    pub reason: &'static str,
    /// The same for people.
    pub message: String,
}

/// What a decision comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Equal to the status that was observed unless something is to be written.
    pub status: LearningRolloutStatus,
    /// At most one of them is not an event.
    pub actions: Vec<Action>,
    /// Convictions of this moment that start nothing, and why.
    pub held: Vec<(Conviction, Held)>,
}

/// What may be done about a firing trigger.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Permission {
    Start,
    Escalate,
    /// Mode Observe.
    WouldStart,
    Held(Held),
}

/// Decides. `observedGeneration` and the conditions Ready, Armed and Stalled are left to the caller.
pub fn decide(view: &View<'_>, evaluated: &[Evaluated], now: Timestamp) -> Outcome {
    let mut events = Vec::new();
    let mut status = view.status.clone();
    status.triggers = view.spec.triggers.iter().map(|trigger| record(view, trigger, evaluated, &mut events)).collect();

    let mut permitted: Option<(Conviction, Permission)> = None;
    let mut held = Vec::new();
    for conviction in convictions(view.spec, evaluated) {
        let Some(trigger) = view.spec.triggers.iter().find(|trigger| trigger.name == conviction.trigger) else {
            continue;
        };
        match permission(view, trigger, conviction.evidence.since.as_ref(), now) {
            Permission::Held(why) => held.push((conviction, why)),
            // Ties go to the trigger that comes first in the spec.
            _ if permitted.as_ref().is_some_and(|(best, _)| best.plan_type >= conviction.plan_type) => {}
            granted => permitted = Some((conviction, granted)),
        }
    }

    let would_before = conditions::would_roll_back(&view.status.conditions).map(str::to_owned);
    conditions::set(&mut status, view, now, &mut events);
    let action = permitted.and_then(|(conviction, granted)| match granted {
        Permission::Start => Some(Action::Start(conviction)),
        Permission::Escalate => Some(Action::Escalate(conviction)),
        Permission::WouldStart => {
            let news = conditions::would_roll_back(&status.conditions) != would_before.as_deref();
            news.then_some(Action::WouldStart(conviction))
        }
        Permission::Held(_) => None,
    });
    Outcome { status, actions: action.into_iter().chain(events.into_iter().map(Action::Event)).collect(), held }
}

/// From when on the breaches of a trigger count: a rollback that has ended cools down first. A critical trigger does not
/// wait for that, but it too needs evidence from after the end: what was seen before led to the rollback that a person
/// has just ended.
pub fn evidence_from(
    spec: &LearningRolloutSpec,
    status: &LearningRolloutStatus,
    trigger: &Trigger,
) -> Option<Timestamp> {
    let last = status.last_rollback.as_ref().filter(|last| matches!(last.phase.as_str(), "Restored" | "Released"))?;
    let ended = last.finished_at.as_ref()?.0;
    let cooldown = if trigger.critical { std::time::Duration::ZERO } else { spec.cooldown.get() };
    Some(instant::after(ended, cooldown))
}

/// Until when the annotation pauses the rollout, if it does at `now`. What is no time pauses nothing, and is warned of by
/// [`advice`](super::advice).
pub fn paused_until(annotations: &BTreeMap<String, String>, now: Timestamp) -> Option<Timestamp> {
    annotations.get(PAUSED_UNTIL)?.trim().parse::<Timestamp>().ok().filter(|until| *until > now)
}

/// The plan that a trigger names.
pub fn plan<'a>(spec: &'a LearningRolloutSpec, trigger: &Trigger) -> Option<&'a RollbackPlan> {
    spec.rollbacks.iter().find(|plan| plan.name == trigger.rollback)
}

/// The convictions of this moment, in the order of the spec.
fn convictions<'a>(spec: &'a LearningRolloutSpec, evaluated: &'a [Evaluated]) -> impl Iterator<Item = Conviction> + 'a {
    spec.triggers.iter().filter_map(move |trigger| {
        let evidence = evaluated.iter().find(|one| one.trigger == trigger.name)?.standing.conviction.clone()?;
        Some(Conviction {
            trigger: trigger.name.clone(),
            rollback: trigger.rollback.clone(),
            plan_type: plan(spec, trigger).map(|plan| plan.plan_type).unwrap_or_default(),
            critical: trigger.critical,
            evidence,
        })
    })
}

/// May a firing trigger have its way?
pub(super) fn permission(view: &View<'_>, trigger: &Trigger, since: Option<&MicroTime>, now: Timestamp) -> Permission {
    let held = |reason, message| Permission::Held(Held { reason, message });
    let Some(plan) = plan(view.spec, trigger) else {
        let message = format!("spec.rollbacks has no entry {}, which trigger {} names", trigger.rollback, trigger.name);
        return held("UnknownRollback", message);
    };
    if let Some(active) = &view.status.active {
        if let Some(why) = ending(active, view.facts.active) {
            return Permission::Held(why);
        }
        if plan.plan_type <= active.plan_type {
            let message =
                format!("rollback {} ({}) is in force and no weaker than {}", active.name, active.rollback, plan.name);
            return held("AlreadyInForce", message);
        }
    } else if let Some(orphan) = &view.facts.orphan {
        let message = format!(
            "rollback {orphan} of an earlier rollout of this name is in force: restore or release it, then triggers act again"
        );
        return held("OrphanInForce", message);
    }
    if view.spec.suspend {
        return held("Suspended", "spec.suspend is true: nothing new starts and nothing escalates".to_owned());
    }
    if let Some(until) = paused_until(view.annotations, now) {
        return held("Paused", format!("paused until {until} by the annotation {PAUSED_UNTIL}"));
    }
    if let Some(from) = evidence_from(view.spec, view.status, trigger)
        && since.is_none_or(|since| since.0 < from)
    {
        return held("CoolingDown", format!("evidence counts only from {from} on: the last rollback has just ended"));
    }
    match (view.spec.mode, &view.status.active) {
        (Mode::Observe, _) => Permission::WouldStart,
        (Mode::Enforce, None) => Permission::Start,
        (Mode::Enforce, Some(_)) => Permission::Escalate,
    }
}

/// Why nothing may take over from the execution in force, whatever its strength. A person who holds its next move does
/// not thereby hold back a stronger trigger: that is what pausing is for.
fn ending(active: &ActiveRollback, record: Option<ActiveRecord>) -> Option<Held> {
    let held = |reason, message| Some(Held { reason, message });
    let ActiveRecord { phase, desired_state } = record?;
    match (phase, desired_state) {
        (Phase::Restoring, _) | (_, DesiredState::Restored) => {
            held("Restoring", format!("rollback {} is being restored, which no trigger undoes", active.name))
        }
        (_, DesiredState::Released) => {
            held("Releasing", format!("rollback {} is being released, which no trigger undoes", active.name))
        }
        (Phase::Unknown, _) => held(
            "UnknownPhase",
            format!("rollback {} was written by another version of the operator: it counts as in force", active.name),
        ),
        (phase, _) if phase.is_terminal() => held("Ending", format!("rollback {} is just ending", active.name)),
        _ => None,
    }
}

/// What the status says of a trigger, and the events of its transition.
fn record(view: &View<'_>, trigger: &Trigger, evaluated: &[Evaluated], events: &mut Vec<Event>) -> TriggerStatus {
    let known = view.status.triggers.iter().find(|known| known.name == trigger.name);
    let unevaluated = || TriggerStatus {
        name: trigger.name.clone(),
        reason: Some(NOT_EVALUATED.to_owned()),
        message: Some("the trigger has not been evaluated yet".to_owned()),
        ..TriggerStatus::default()
    };
    let before = known.cloned().unwrap_or_else(unevaluated);
    let captures = trigger.baseline.as_ref().is_some_and(|baseline| baseline.captured.is_some());
    let Some(Evaluated { standing, baseline, .. }) = evaluated.iter().find(|one| one.trigger == trigger.name) else {
        return TriggerStatus { baseline: before.baseline.clone().filter(|_| captures), ..before };
    };
    let mut after = before.clone();
    after.since = standing.since.map(MicroTime);
    after.baseline = baseline.clone().or(before.baseline.clone()).filter(|_| captures);
    let reason = standing.cause.as_ref().map(|cause| words::reason(&cause.reason));
    if standing.state != before.state || reason != before.reason {
        after.state = standing.state;
        after.reason = reason;
        after.message = standing.cause.as_ref().map(|cause| clip(&cause.message, words::TEXT));
        after.value = standing.value.as_ref().map(|value| clip(value, words::WORD));
        transition(trigger, &before, &after, standing, events);
    }
    after
}

fn transition(
    trigger: &Trigger,
    before: &TriggerStatus,
    after: &TriggerStatus,
    standing: &Standing,
    events: &mut Vec<Event>,
) {
    let mut tell =
        |kind, reason, message: String| events.push(Event { kind, reason, message: clip(&message, words::TEXT) });
    let name = &trigger.name;
    let value = after.value.as_deref().unwrap_or("a value");
    let condition = words::condition(trigger);
    if after.state != before.state {
        match (before.state, after.state) {
            (_, TriggerState::Pending) => {
                let due = standing.due.map_or_else(String::new, |due| format!(" at {due} unless it recovers"));
                let message = format!("{name}: {value} ({condition}); fires{due}");
                tell(EventType::Normal, "TriggerPending", message);
            }
            (_, TriggerState::Firing) => {
                let message =
                    format!("{name}: {value} ({condition}) for {}; asks for {}", trigger.hold, trigger.rollback);
                tell(EventType::Warning, "TriggerFiring", message);
            }
            (TriggerState::Pending | TriggerState::Firing, TriggerState::Ok) => {
                tell(
                    EventType::Normal,
                    "TriggerRecovered",
                    format!("{name}: {value} is no breach any more ({condition})"),
                );
            }
            (TriggerState::Unknown, TriggerState::Ok) if before.reason.as_deref() != Some(NOT_EVALUATED) => {
                tell(EventType::Normal, "TriggerRecovered", format!("{name}: can be judged again, and is no breach"));
            }
            _ => {}
        }
    }
    if let (true, Some(reason)) = (after.reason != before.reason, &after.reason) {
        let state = match after.state {
            TriggerState::Unknown => "",
            TriggerState::Ok => "; other series are no breach",
            TriggerState::Pending => "; stays Pending",
            TriggerState::Firing => "; stays Firing, and starts nothing by this sample unless noData is Breach",
        };
        let message = format!("{name}: {reason}: {}{state}", after.message.as_deref().unwrap_or_default());
        tell(EventType::Warning, "TriggerUnknown", message);
    }
}
