//! What the standings of a rollout's triggers ask for: a start, an escalation, or nothing and why.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

use super::{rollback::Event, timer::Standing};
use crate::{
    api::{
        PAUSED_UNTIL,
        condition::{self, Verdict, rollout as conditions},
        rollout::{Evidence, LearningRollout, LearningRolloutStatus, Mode, Trigger, TriggerState, TriggerStatus},
        step::PlanType,
    },
    decide::rollback::{later, shorten},
};

/// What the standings are set against.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// A record in force that this rollout did not start.
    pub orphan: Option<String>,
    /// The active record is being restored or released.
    pub leaving: bool,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The status to write, if it differs.
    pub status: LearningRolloutStatus,
    /// Start, or escalate to, this.
    pub start: Option<Start>,
    /// Tell people.
    pub events: Vec<Event>,
}

/// A rollback to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Name of the plan.
    pub rollback: String,
    /// Why, for people.
    pub reason: String,
    /// What convicts.
    pub evidence: Evidence,
}

/// Decides. `standings` are those of the spec's triggers, by name; a trigger without one has not been asked yet.
pub fn decide(rollout: &LearningRollout, standings: &[(String, Standing)], facts: &Facts, now: Timestamp) -> Decision {
    let mut status = rollout.status.clone().unwrap_or_default();
    let mut events = Vec::new();
    let known: Vec<TriggerStatus> = std::mem::take(&mut status.triggers);
    for trigger in &rollout.spec.triggers {
        let before = known.iter().find(|status| status.name == trigger.name);
        let standing = standings.iter().find(|(name, _)| *name == trigger.name).map(|(_, standing)| standing);
        let after = trigger_status(trigger, before, standing);
        if let Some(standing) = standing {
            events.extend(transition(trigger, before, &after, standing));
        }
        status.triggers.push(after);
    }
    summarise(rollout, &mut status, now);
    let fired = strongest(rollout, standings, &status, now);
    let mut start = None;
    if let Some((trigger, plan_type, evidence)) = fired {
        let reason = reason(trigger, &evidence);
        match held_back(rollout, &status, facts, plan_type, now) {
            Some(_) if status.active.as_ref().is_some_and(|active| active.plan_type >= plan_type) => {}
            Some((why, message)) => {
                let text = format!("{reason}; not rolled back: {message}");
                let newly = rollout.status.as_ref().is_none_or(|before| {
                    condition::get(&before.conditions, conditions::BREACHING).is_none_or(|before| before.reason != why)
                });
                let verdict = Verdict::yes(why, text.clone());
                condition::set(
                    &mut status.conditions,
                    conditions::BREACHING,
                    verdict,
                    rollout.metadata.generation,
                    now,
                );
                if newly {
                    events.push(Event { warning: true, reason: why, message: text });
                }
            }
            None => start = Some(Start { rollback: trigger.rollback.clone(), reason, evidence }),
        }
    }
    Decision { status, start, events }
}

/// Nothing in status moves while the state stays: a healthy rollout costs no request.
fn trigger_status(trigger: &Trigger, before: Option<&TriggerStatus>, standing: Option<&Standing>) -> TriggerStatus {
    let mut status =
        before.cloned().unwrap_or_else(|| TriggerStatus { name: trigger.name.clone(), ..Default::default() });
    let Some(standing) = standing else { return status };
    let reason = standing.unknown.as_ref().map(|unknown| unknown.reason.clone());
    let changed = status.state != standing.state || status.reason != reason;
    status.since = standing.since.map(MicroTime);
    if changed || before.is_none() {
        status.state = standing.state;
        status.reason = reason;
        status.message = standing.unknown.as_ref().map(|unknown| shorten(&unknown.message));
        status.value = standing.value.map(|value| value.to_string());
    }
    status
}

fn transition(
    trigger: &Trigger,
    before: Option<&TriggerStatus>,
    after: &TriggerStatus,
    standing: &Standing,
) -> Option<Event> {
    let was = before.map(|before| before.state);
    if was == Some(after.state) {
        return None;
    }
    let name = &trigger.name;
    let value = standing.value.map_or_else(|| "no value".to_owned(), |value| value.to_string());
    let condition = super::trigger::describe(trigger);
    Some(match after.state {
        TriggerState::Pending => {
            let message = format!("trigger {name} breaches: {value} ({condition}); rolls back after {}", trigger.hold);
            Event { warning: true, reason: "TriggerPending", message }
        }
        TriggerState::Firing => {
            let message = format!("trigger {name} has breached for {}: {value} ({condition})", trigger.hold);
            Event { warning: true, reason: "TriggerFiring", message }
        }
        TriggerState::Unknown => {
            let unknown = standing.unknown.clone().unwrap_or_default();
            // A feature that starts has no traffic and no history yet.
            if was.is_none() && (EXPECTED.contains(&unknown.reason.as_str()) || unknown.reason == "NoData") {
                return None;
            }
            let message = format!("trigger {name} cannot be judged: {}: {}", unknown.reason, unknown.message);
            Event { warning: true, reason: "TriggerUnknown", message }
        }
        TriggerState::Ok if was.is_none() => return None,
        TriggerState::Ok => {
            Event { warning: false, reason: "TriggerRecovered", message: format!("trigger {name} is well: {value}") }
        }
    })
}

/// Reasons that are no fault of the metrics: there is too little to judge yet.
const EXPECTED: [&str; 2] = ["GateNotMet", "BaselineNotReady"];

fn is_blind(status: &TriggerStatus) -> bool {
    status.reason.as_deref().is_some_and(|reason| !EXPECTED.contains(&reason))
}

fn summarise(rollout: &LearningRollout, status: &mut LearningRolloutStatus, now: Timestamp) {
    let generation = rollout.metadata.generation;
    status.observed_generation = generation;
    let names = |wanted: &dyn Fn(&TriggerStatus) -> bool| {
        let names: Vec<&str> = status.triggers.iter().filter(|of| wanted(of)).map(|of| of.name.as_str()).collect();
        names.join(", ")
    };
    let breaching = names(&|of| matches!(of.state, TriggerState::Pending | TriggerState::Firing));
    let blind = names(&is_blind);
    let breaching = match breaching.is_empty() {
        true => Verdict::no("NoTriggerBreaches", "no trigger breaches"),
        false => Verdict::yes("TriggerBreaches", format!("breaching: {breaching}")),
    };
    let available = match blind.is_empty() {
        true => Verdict::yes("Answered", "every trigger's queries are answered"),
        false => {
            let why = status.triggers.iter().filter(|of| is_blind(of)).find_map(|of| of.reason.clone());
            Verdict::no(
                why.unwrap_or_else(|| "QueryFailed".to_owned()),
                format!("cannot be judged: {blind}; nothing is rolled back for that"),
            )
        }
    };
    condition::set(&mut status.conditions, conditions::BREACHING, breaching, generation, now);
    condition::set(&mut status.conditions, conditions::METRICS_AVAILABLE, available, generation, now);
    condition::set(
        &mut status.conditions,
        conditions::READY,
        Verdict::yes("Evaluating", "the triggers are evaluated"),
        generation,
        now,
    );
}

/// The strongest plan that a firing trigger asks for; among equals the first in the spec.
fn strongest<'a>(
    rollout: &'a LearningRollout,
    standings: &[(String, Standing)],
    status: &LearningRolloutStatus,
    now: Timestamp,
) -> Option<(&'a Trigger, PlanType, Evidence)> {
    let mut best: Option<(&Trigger, PlanType, Evidence)> = None;
    for trigger in &rollout.spec.triggers {
        let standing = standings.iter().find(|(name, _)| *name == trigger.name).map(|(_, standing)| standing);
        let Some(evidence) = standing.and_then(|standing| standing.evidence.clone()) else { continue };
        if !trigger.critical && cooling(rollout, status, &evidence, now) {
            continue;
        }
        let Some(plan) = rollout.spec.rollbacks.iter().find(|plan| plan.name == trigger.rollback) else { continue };
        if best.as_ref().is_none_or(|(_, strength, _)| plan.plan_type > *strength) {
            best = Some((trigger, plan.plan_type, evidence));
        }
    }
    best
}

/// Evidence counts only from the end of the last rollback plus the cooldown on.
fn cooling(rollout: &LearningRollout, status: &LearningRolloutStatus, evidence: &Evidence, now: Timestamp) -> bool {
    let finished = status.last_rollback.as_ref().and_then(|last| last.finished_at.as_ref());
    let Some(finished) = finished else { return false };
    let from = later(finished.0, rollout.spec.cooldown.get());
    evidence.since.as_ref().map_or(now, |since| since.0) < from
}

/// The moment from which evidence counts, while a cooldown lasts.
pub fn counts_from(rollout: &LearningRollout) -> Option<Timestamp> {
    let finished = rollout.status.as_ref()?.last_rollback.as_ref()?.finished_at.as_ref()?;
    Some(later(finished.0, rollout.spec.cooldown.get()))
}

/// Why a firing trigger does not start its rollback.
fn held_back(
    rollout: &LearningRollout,
    status: &LearningRolloutStatus,
    facts: &Facts,
    plan_type: PlanType,
    now: Timestamp,
) -> Option<(&'static str, String)> {
    if let Some(active) = &status.active {
        if facts.leaving {
            return Some(("Restoring", format!("{} is being put back by a person", active.name)));
        }
        if plan_type <= active.plan_type {
            return Some(("InForce", format!("{} is in force", active.name)));
        }
    }
    if let Some(orphan) = &facts.orphan {
        let message = format!("{orphan} of an earlier rollout of this name is in force: restore or release it first");
        return Some(("OrphanInForce", message));
    }
    if rollout.spec.mode == Mode::Observe {
        return Some(("WouldRollBack", "mode is Observe".to_owned()));
    }
    if rollout.spec.suspend {
        return Some(("Suspended", "spec.suspend is true".to_owned()));
    }
    let until = paused_until(rollout).filter(|until| *until > now)?;
    Some(("Paused", format!("paused until {until}")))
}

/// Until when a person has paused the rollout. Text that is no time pauses nothing.
pub fn paused_until(rollout: &LearningRollout) -> Option<Timestamp> {
    rollout.metadata.annotations.as_ref()?.get(PAUSED_UNTIL)?.parse().ok()
}

fn reason(trigger: &Trigger, evidence: &Evidence) -> String {
    let baseline = evidence.baseline.as_ref().map_or_else(String::new, |baseline| format!(", baseline {baseline}"));
    shorten(&format!(
        "trigger {}: value {} ({}{baseline}) for {}",
        trigger.name, evidence.value, evidence.condition, trigger.hold
    ))
}
