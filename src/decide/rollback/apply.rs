//! Carrying a plan out and keeping it up: intents, commits, the order that cannot cause an outage, and the contest with
//! writers who put a value back.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Event, Failure, Look, Pass, Present, TargetSight, backoff, draft, later, shorten};
use crate::{
    api::{
        rollback::{DesiredState, Fence, Pace, Phase, StepState, StepStatus, WritePurpose},
        step::{PlanType, StepKind},
    },
    decide::fields,
};

/// After so many re-assertions in a row the operator stops fighting and a person has to decide.
pub(super) const REASSERT_LIMIT: i32 = 10;

/// May the write of a step start?
enum Gate {
    Open,
    Closed {
        reason: &'static str,
        message: String,
    },
    /// Something has to be looked at first.
    Looking,
}

impl Pass<'_> {
    pub(super) fn apply(&mut self) {
        for index in 0..self.status.steps.len() {
            self.apply_step(index);
        }
        let own_done = (0..self.status.steps.len()).all(|index| self.is_finished(index));
        if own_done && self.status.phase == Phase::Executing && self.looks.is_empty() {
            self.status.phase = Phase::RolledBack;
            self.status.rolled_back_at = Some(MicroTime(self.input.now));
            self.events.push(Event::normal("RolledBack", "every step has landed"));
        }
        self.wake_at(self.next_look());
    }

    /// When the targets of landed steps are read again.
    fn next_look(&self) -> k8s_openapi::jiff::Timestamp {
        let interval = self.status.plan.as_ref().map_or_else(Default::default, |plan| plan.interval.get());
        self.input.looked_at.map_or(self.input.now, |at| later(at, interval))
    }

    fn apply_step(&mut self, index: usize) {
        let Some((step, _)) = self.step(index).filter(|(_, definition)| definition.kind() != StepKind::Unknown) else {
            if self.status.steps.get(index).is_some_and(|step| step.state != StepState::Failed) {
                self.fail(index, &draft::unknown_kind());
            }
            return;
        };
        if step.not_before.as_ref().is_some_and(|at| at.0 > self.input.now) {
            return;
        }
        let open = step.fence.as_ref().is_some_and(|fence| fence.open);
        let finished = self.is_finished(index);
        let held = self.status.acknowledged.desired_state == DesiredState::Held;
        // A landed step is looked at once an interval; seen anyway in this pass, it is judged anyway.
        let due = self.next_look() <= self.input.now || self.target_sight(index).is_some();
        if (finished && !due) || (!finished && held && !open) {
            return;
        }
        let rehearse = self.status.steps.get(index).is_some_and(|step| step.fence.is_none());
        if !self.seen(index, rehearse) {
            return;
        }
        match self.target_sight(index) {
            Some(TargetSight::Present(present)) => self.judge(index, present, finished),
            // Nothing of a predecessor's can land on an object that is gone.
            Some(TargetSight::Missing) if self.is_imported(index) => self.moved(index),
            Some(TargetSight::Missing) => self.fail(index, &draft::missing()),
            Some(TargetSight::Unusable(failure)) => self.fail(index, failure),
            None => {}
        }
    }

    fn is_imported(&self, index: usize) -> bool {
        self.status.steps.get(index).is_some_and(|step| step.imported.is_some())
    }

    fn judge(&mut self, index: usize, present: &Present, finished: bool) {
        let Some(step) = self.status.steps.get(index) else { return };
        let uid = step.target.as_ref().and_then(|target| target.uid.as_deref());
        if step.fence.is_some() && uid.is_some_and(|uid| uid != present.uid) {
            if step.imported.is_some() {
                return self.moved(index);
            }
            return self.fail(index, &recreated());
        }
        if let Some(owner) = &present.claimed_by {
            return self.block(
                index,
                "ClaimedBy",
                &format!("its target is held by {owner}, which is in force: restore or release that one"),
            );
        }
        let Some(fence) = step.fence.clone() else {
            // The target could not be used when the plan was frozen; now it can.
            if let Some(failure) = &present.refused {
                return self.fail(index, failure);
            }
            if let Some(step) = self.status.steps.get_mut(index) {
                step.prior = present.fields.clone();
                step.target = step.target.take().map(|mut target| {
                    target.uid = Some(present.uid.clone());
                    target
                });
                step.started_at = Some(MicroTime(self.input.now));
            }
            self.intend_again(index, present, WritePurpose::Apply);
            return self.proceed(index);
        };
        let stands = |token: &str| present.fence.as_deref() == Some(token);
        if fence.open && stands(&fence.new) {
            if fence.purpose == WritePurpose::Apply {
                return self.landed(index, present);
            }
            self.moved(index);
            let held = self.status.acknowledged.desired_state == DesiredState::Held;
            if held || self.status.steps.get(index).is_some_and(|step| step.committed || step.imported.is_some()) {
                return;
            }
            self.intend_again(index, present, WritePurpose::Apply);
            return self.proceed(index);
        }
        if fence.open && fence.earlier.as_deref().is_some_and(stands) {
            if fence.purpose == WritePurpose::Apply {
                return self.landed(index, present);
            }
            if let Some(step) = self.status.steps.get_mut(index) {
                step.committed = true;
            }
            self.intend_again(index, present, fence.purpose);
            return self.proceed(index);
        }
        if finished && !fence.open {
            return self.keep_up(index, present, &fence);
        }
        if fence.open && fence.seen == present.fence {
            if self.thawed(index, present) {
                self.intend_again(index, present, fence.purpose);
            }
            return self.proceed(index);
        }
        if fence.open {
            self.report_tampering(index, present);
            self.intend_again(index, present, fence.purpose);
            return self.proceed(index);
        }
        // Landed, with moves left; or fenced off by a hold and resumed.
        if let Some(step) = self.status.steps.get_mut(index) {
            step.not_before = None;
            if step.committed {
                let last = self.status.plan.as_ref().and_then(|plan| plan.steps.iter().find(|of| of.name == step.name));
                let last = last.map_or(0, |definition| fields::positions(definition) - 1);
                let fast = self.status.acknowledged.pace == Pace::Fast;
                step.position = Some(if fast { last } else { step.position.unwrap_or(0) + 1 }.min(last));
            } else {
                step.prior = present.fields.clone();
            }
        }
        self.intend_again(index, present, WritePurpose::Apply);
        self.proceed(index);
    }

    /// A prior freezes at the first commit. Until then, what somebody else writes is what was there before.
    fn thawed(&mut self, index: usize, present: &Present) -> bool {
        let Some(step) = self.status.steps.get_mut(index) else { return false };
        if step.committed || step.imported.is_some() || step.prior == present.fields {
            return false;
        }
        // A field that was shared with a predecessor holds the predecessor's value: its prior stays the incident's.
        let shared = self.input.predecessor.is_some() || self.status.supersedes.is_some();
        if shared {
            return false;
        }
        step.prior = present.fields.clone();
        true
    }

    /// A new attempt, with a token of its own.
    pub(super) fn intend_again(&mut self, index: usize, present: &Present, purpose: WritePurpose) {
        let uid = self.uid.clone();
        let Some(step) = self.status.steps.get_mut(index) else { return };
        let before = step.fence.take();
        let attempt = before.as_ref().map_or(1, |fence| fence.attempt.saturating_add(1));
        let earlier = before.filter(|fence| fence.open && fence.purpose != WritePurpose::Move).map(|fence| fence.new);
        step.fence = Some(Fence {
            seen: present.fence.clone(),
            new: draft::token(&uid, &step.name, attempt),
            attempt,
            earlier,
            purpose,
            open: true,
        });
        step.state = StepState::Intended;
    }

    /// Writes, unless the order forbids it yet.
    fn proceed(&mut self, index: usize) {
        let Some(step) = self.status.steps.get(index) else { return };
        let purpose = step.fence.as_ref().map_or(WritePurpose::Apply, |fence| fence.purpose);
        if step.imported.is_some() || purpose != WritePurpose::Apply {
            return self.write(index, Some(purpose));
        }
        match self.gate(index) {
            Gate::Open => {
                if let Some(step) = self.status.steps.get_mut(index) {
                    step.state = StepState::Intended;
                    step.reason = None;
                    step.message = None;
                }
                self.write(index, Some(WritePurpose::Apply));
            }
            Gate::Closed { reason, message } => {
                self.block(index, reason, &message);
                self.wake_in(self.recheck(index));
            }
            Gate::Looking => {}
        }
    }

    /// How soon a closed gate is tried again: at once while the cluster is catching up, then less often.
    fn recheck(&self, index: usize) -> Duration {
        let started = self.status.steps.get(index).and_then(|step| step.started_at.as_ref());
        let fresh = started.is_some_and(|at| later(at.0, Duration::from_secs(10)) > self.input.now);
        if fresh { Duration::from_millis(50) } else { Duration::from_secs(2) }
    }

    /// Flag, then traffic, then capacity.
    fn gate(&mut self, index: usize) -> Gate {
        let Some((step, definition)) = self.step(index) else { return Gate::Open };
        let before: Option<i64> = fields::text_of(&step.prior, fields::REPLICAS).and_then(|text| text.parse().ok());
        let scales_down = matches!(definition.kind(), StepKind::Scale(scale)
            if !scale.force && before.is_none_or(|before| i64::from(scale.replicas) < before));
        let gradual = self.status.plan.as_ref().is_some_and(|plan| plan.plan_type == PlanType::Gradual);
        for earlier in 0..index {
            let Some((step, definition)) = self.step(earlier) else { continue };
            let waits = gradual || (scales_down && definition.kind().moves_traffic());
            if step.imported.is_some() || !waits {
                continue;
            }
            let (name, moves_traffic) = (step.name.clone(), definition.kind().moves_traffic());
            if !self.is_finished(earlier) {
                return Gate::Closed { reason: "WaitsForStep", message: format!("step {name} has not landed") };
            }
            if !(scales_down && moves_traffic) {
                continue;
            }
            match self.sight(earlier).and_then(|sight| sight.holds.as_ref()) {
                Some(Ok(())) => {}
                Some(Err(why)) => {
                    return Gate::Closed { reason: "TrafficNotMoved", message: format!("step {name}: {why}") };
                }
                None => {
                    self.looks.push(Look::Holds(earlier));
                    return Gate::Looking;
                }
            }
        }
        Gate::Open
    }

    /// An own step has made its last move; an imported one has been taken over.
    fn is_finished(&self, index: usize) -> bool {
        let Some((step, definition)) = self.step(index) else { return false };
        let open = step.fence.as_ref().is_some_and(|fence| fence.open);
        match step.imported {
            Some(_) => !open,
            None => step.committed && !open && step.position.unwrap_or(0) + 1 >= fields::positions(definition),
        }
    }

    fn landed(&mut self, index: usize, present: &Present) {
        let now = self.input.now;
        let fast = self.status.acknowledged.pace == Pace::Fast;
        let rest = self.step(index).and_then(|(step, definition)| match definition.kind() {
            StepKind::ShiftTraffic(shift) if step.imported.is_none() => {
                (step.position.unwrap_or(0) + 1 < fields::positions(definition)).then_some(shift.interval.get())
            }
            _ => None,
        });
        let Some(step) = self.status.steps.get_mut(index) else { return };
        let first = !step.committed;
        settle(step, present);
        step.finished_at = Some(MicroTime(now));
        step.not_before = rest.filter(|_| !fast).map(|interval| MicroTime(later(now, interval)));
        if step.reasserted > 0 {
            step.not_before = Some(MicroTime(later(now, backoff(step.reasserted, false))));
        }
        if first {
            let (name, target) = (step.name.clone(), describe(step));
            self.events.push(Event::normal("StepApplied", format!("step {name} has landed on {target}")));
        }
    }

    /// The fence was moved: nothing that was journalled before can land any more.
    pub(super) fn moved(&mut self, index: usize) {
        let Some(step) = self.status.steps.get_mut(index) else { return };
        if let Some(fence) = &mut step.fence {
            fence.open = false;
            fence.earlier = None;
        }
        step.state = if step.committed { StepState::Applied } else { StepState::Pending };
        step.failures = 0;
        step.reason = None;
        step.message = None;
    }

    /// A landed step: is what we wrote still there?
    fn keep_up(&mut self, index: usize, present: &Present, fence: &Fence) {
        let Some((step, definition)) = self.step(index) else { return };
        if step.imported.is_some() && !step.committed {
            return;
        }
        let ours = fields::ours(definition, step, &self.uid);
        let changed: Vec<&str> = ours
            .iter()
            .filter(|wanted| fields::text_of(&present.fields, &wanted.field) != Some(wanted.value.as_str()))
            .map(|wanted| wanted.field.as_str())
            .collect();
        let fenced = present.fence.as_deref() == Some(fence.new.as_str());
        let shared_fence = present.fence.as_deref().is_some_and(|token| token.starts_with(&format!("{}/", self.uid)));
        if changed.is_empty() && (fenced || shared_fence) {
            if let Some(step) = self.status.steps.get_mut(index).filter(|step| step.state == StepState::Failed) {
                step.state = StepState::Applied;
                step.reason = None;
                step.message = None;
                step.failures = 0;
            }
            return;
        }
        let who = present.manager.clone().unwrap_or_else(|| "another writer".to_owned());
        let what = if changed.is_empty() { "our fence".to_owned() } else { changed.join(", ") };
        let message = format!("{who} changed {what} of {}", describe(step));
        if step.reasserted >= REASSERT_LIMIT {
            if step.reason.as_deref() != Some("ContestLost") {
                let text = format!(
                    "{message}; gave up after {REASSERT_LIMIT} re-assertions: make {who} ignore these fields, or release this rollback"
                );
                self.events.push(Event::warning("ContestLost", text.clone()));
                self.note(index, "ContestLost", &text);
            }
            return;
        }
        if changed.is_empty() {
            self.events.push(Event::warning("FenceTampered", format!("{message}: re-read, and set with a new token")));
        } else {
            self.events.push(Event::warning("Contested", format!("{message}: put back to the rollback's value")));
        }
        self.note(index, "Contested", &message);
        self.intend_again(index, present, WritePurpose::Apply);
        if let Some(step) = self.status.steps.get_mut(index) {
            step.reasserted += 1;
        }
        self.write(index, Some(WritePurpose::Apply));
    }

    fn note(&mut self, index: usize, reason: &str, message: &str) {
        if let Some(step) = self.status.steps.get_mut(index) {
            step.reason = Some(reason.to_owned());
            step.message = Some(shorten(message));
        }
    }

    fn report_tampering(&mut self, index: usize, present: &Present) {
        let Some(step) = self.status.steps.get(index) else { return };
        // Another step of this record, or of the one it takes over from, moved it: nobody tampered.
        let predecessor = self.input.predecessor.and_then(|record| record.metadata.uid.as_deref());
        let known = present.fence.as_deref().is_some_and(|token| {
            [Some(self.uid.as_str()), predecessor]
                .into_iter()
                .flatten()
                .any(|uid| token.starts_with(&format!("{uid}/")))
        });
        if !known {
            let message = format!("the fence of {} is not the one that was seen: re-read, new token", describe(step));
            self.events.push(Event::warning("FenceTampered", message));
        }
    }
}

/// A write has landed: what stands on the target is the token of this step.
pub(super) fn settle(step: &mut StepStatus, present: &Present) {
    if let Some(fence) = &mut step.fence {
        fence.open = false;
        fence.earlier = None;
        if let Some(token) = &present.fence {
            fence.new.clone_from(token);
        }
    }
    step.committed = true;
    step.state = StepState::Applied;
    step.failures = 0;
    step.reason = None;
    step.message = None;
}

pub(super) fn describe(step: &StepStatus) -> String {
    step.target.as_ref().map_or_else(|| "its target".to_owned(), |target| format!("{} {}", target.kind, target.name))
}

pub(super) fn recreated() -> Failure {
    Failure {
        reason: "TargetRecreated".to_owned(),
        message: "its target was deleted and made anew since the plan was frozen; the new object is not touched: \
                  release this rollback and start another"
            .to_owned(),
        permanent: true,
    }
}

pub(super) fn describe_at(steps: &[StepStatus], index: usize) -> String {
    steps.get(index).map_or_else(String::new, describe)
}
