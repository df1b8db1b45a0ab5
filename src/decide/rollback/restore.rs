//! Putting everything back: capacity first, then configuration, then restarts, then traffic. Per field, and only where
//! our value still stands: what a person changed since is kept and reported.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Event, Look, Pass, Present, TargetSight, apply, backoff, shorten};
use crate::{
    api::{
        rollback::{FieldPrior, Phase, StepState, StepStatus, WritePurpose},
        step::{Step, StepKind},
    },
    decide::fields,
};

/// The order of a restore.
fn stage(definition: &Step) -> u8 {
    match definition.kind() {
        StepKind::Scale(_) => 0,
        StepKind::SetConfig(_) => 1,
        StepKind::Restart(_) => 2,
        StepKind::SwitchService(_) | StepKind::ShiftTraffic(_) | StepKind::Unknown => 3,
    }
}

/// What a restore of one step writes: the field and its value, `None` to remove it. Fields that no longer hold our value
/// are left out.
pub fn to_restore(definition: &Step, step: &StepStatus, record_uid: &str, now: &[FieldPrior]) -> Vec<FieldPrior> {
    let restart = matches!(definition.kind(), StepKind::Restart(_));
    fields::ours(definition, step, record_uid)
        .into_iter()
        .filter(|wanted| fields::text_of(now, &wanted.field) == Some(wanted.value.as_str()))
        .filter_map(|wanted| {
            let value = if restart {
                Some(fields::restart_again_mark(step, record_uid))
            } else {
                fields::text_of(&step.prior, &wanted.field).map(str::to_owned)
            };
            // A field that already held our value before the incident has nothing to go back to.
            (value.as_deref() != Some(wanted.value.as_str())).then_some(FieldPrior { field: wanted.field, value })
        })
        .collect()
}

/// Fields that hold neither what we wrote nor what was there before: somebody else's.
fn kept(definition: &Step, step: &StepStatus, record_uid: &str, now: &[FieldPrior]) -> Vec<String> {
    if matches!(definition.kind(), StepKind::Restart(_)) {
        return Vec::new();
    }
    fields::ours(definition, step, record_uid)
        .into_iter()
        .filter(|wanted| {
            let present = fields::text_of(now, &wanted.field);
            present != Some(wanted.value.as_str()) && present != fields::text_of(&step.prior, &wanted.field)
        })
        .map(|wanted| wanted.field)
        .collect()
}

impl Pass<'_> {
    pub(super) fn restore(&mut self) {
        let mut waiting = false;
        for stage_now in 0..=3 {
            for index in 0..self.status.steps.len() {
                let this = self.step(index).map_or(3, |(_, definition)| stage(definition));
                if this == stage_now {
                    self.restore_step(index);
                    waiting |= !self.is_put_back(index) || !self.is_ready(index);
                }
            }
            if waiting || !self.looks.is_empty() {
                return;
            }
        }
        self.status.phase = Phase::Restored;
        self.status.finished_at = Some(MicroTime(self.input.now));
        let kept = self.status.steps.iter().filter(|step| step.state == StepState::Kept && step.committed).count();
        self.events.push(match kept {
            0 => Event::normal("Restored", "everything is as it was before the incident"),
            kept => {
                Event::warning("Restored", format!("restored, but {kept} steps were kept as somebody else left them"))
            }
        });
    }

    fn is_put_back(&self, index: usize) -> bool {
        self.status.steps.get(index).is_some_and(|step| matches!(step.state, StepState::Restored | StepState::Kept))
    }

    /// What was put back must be available before traffic comes back to it.
    fn is_ready(&mut self, index: usize) -> bool {
        let Some((step, definition)) = self.step(index) else { return true };
        let awaited = matches!(definition.kind(), StepKind::Scale(_) | StepKind::Restart(_));
        if !awaited || step.state != StepState::Restored || !step.committed {
            return true;
        }
        match self.sight(index).and_then(|sight| sight.ready.as_ref()) {
            Some(Ok(())) => {
                if let Some(step) = self.status.steps.get_mut(index) {
                    step.reason = None;
                    step.message = None;
                }
                true
            }
            Some(Err(why)) => {
                let why = why.clone();
                if let Some(step) = self.status.steps.get_mut(index) {
                    step.reason = Some("WaitsForPods".to_owned());
                    step.message = Some(shorten(&why));
                }
                self.wake_in(backoff(2, false));
                false
            }
            None => {
                self.looks.push(Look::Ready(index));
                false
            }
        }
    }

    fn restore_step(&mut self, index: usize) {
        let Some(step) = self.status.steps.get(index) else { return };
        if self.is_put_back(index) || step.not_before.as_ref().is_some_and(|at| at.0 > self.input.now) {
            return;
        }
        if step.fence.is_none() {
            return self.conclude(index, StepState::Kept, Some(("NeverApplied", "it had not begun".to_owned())));
        }
        if !self.seen(index, false) {
            return;
        }
        let uid = self.status.steps.get(index).and_then(|step| step.target.clone()).and_then(|target| target.uid);
        match self.target_sight(index) {
            Some(TargetSight::Present(present)) if uid.as_ref().is_none_or(|uid| *uid == present.uid) => {
                self.restore_fields(index, present);
            }
            Some(TargetSight::Present(_)) => {
                let why = "its target was deleted and made anew: the new object is not touched".to_owned();
                self.conclude(index, StepState::Kept, Some(("TargetRecreated", why)));
            }
            Some(TargetSight::Missing) => {
                self.conclude(
                    index,
                    StepState::Kept,
                    Some(("TargetGone", "its target does not exist any more".to_owned())),
                );
            }
            Some(TargetSight::Unusable(failure)) => self.fail(index, failure),
            None => {}
        }
    }

    fn restore_fields(&mut self, index: usize, present: &Present) {
        let Some((step, definition)) = self.step(index) else { return };
        let remaining =
            if step.committed { to_restore(definition, step, &self.uid, &present.fields) } else { Vec::new() };
        let kept = if step.committed { kept(definition, step, &self.uid, &present.fields) } else { Vec::new() };
        // Another record that is in force holds the target: ours is over.
        let annotated = self.stands_ours(present) && self.holds_note(index, present);
        if remaining.is_empty() && !annotated {
            let committed = step.committed;
            return match (committed, kept.is_empty()) {
                (false, _) => {
                    self.conclude(index, StepState::Kept, Some(("NeverApplied", "it had not landed".to_owned())));
                }
                (true, true) => self.conclude(index, StepState::Restored, None),
                (true, false) => {
                    let what = format!("{} no longer held our value and stays as it is", kept.join(", "));
                    self.events.push(Event::warning(
                        "Kept",
                        format!("{}: {what}", apply::describe_at(&self.status.steps, index)),
                    ));
                    self.conclude(index, StepState::Kept, Some(("ChangedSince", what)));
                }
            };
        }
        if let Some(owner) = present.claimed_by.clone() {
            let why = format!("its target is now held by {owner}");
            return self.conclude(index, StepState::Kept, Some(("ClaimedBy", why)));
        }
        let intended = step
            .fence
            .as_ref()
            .is_some_and(|fence| fence.open && fence.purpose == WritePurpose::Restore && fence.seen == present.fence);
        if !intended {
            self.intend_again(index, present, WritePurpose::Restore);
        }
        self.write(index, Some(WritePurpose::Restore));
    }

    /// Is the token on the target one of this record's?
    fn stands_ours(&self, present: &Present) -> bool {
        present.fence.as_deref().is_some_and(|token| token.starts_with(&format!("{}/", self.uid)))
    }

    /// Is there anything of this step left on the target? The last step of a target takes the annotations off; before
    /// that, a landed restore has left its own token.
    fn holds_note(&self, index: usize, present: &Present) -> bool {
        let Some(step) = self.status.steps.get(index) else { return false };
        let landed = step.fence.as_ref().is_some_and(|fence| {
            fence.purpose == WritePurpose::Restore && present.fence.as_deref() == Some(fence.new.as_str())
        });
        if landed {
            return false;
        }
        // A later write of another step of this target stands there; ours is done once its fields are back.
        let after_restore = step.fence.as_ref().is_some_and(|fence| fence.purpose == WritePurpose::Restore);
        !after_restore || step.fence.as_ref().is_some_and(|fence| fence.seen == present.fence)
    }

    fn conclude(&mut self, index: usize, state: StepState, why: Option<(&str, String)>) {
        let now = MicroTime(self.input.now);
        let Some(step) = self.status.steps.get_mut(index) else { return };
        step.state = state;
        step.finished_at = Some(now);
        step.failures = 0;
        step.not_before = None;
        if let Some(fence) = &mut step.fence {
            fence.open = false;
            fence.earlier = None;
        }
        let (reason, message) =
            why.map_or((None, None), |(reason, message)| (Some(reason.to_owned()), Some(shorten(&message))));
        step.reason = reason;
        step.message = message;
    }

    /// Takes the annotations off and leaves the values.
    pub(super) fn release(&mut self) {
        let mut done = true;
        for index in 0..self.status.steps.len() {
            done &= self.release_step(index);
        }
        if !done || !self.looks.is_empty() {
            return;
        }
        self.status.phase = Phase::Released;
        self.status.finished_at = Some(MicroTime(self.input.now));
        let undo: Vec<String> = self.status.steps.iter().filter(|step| step.committed).map(undo_values).collect();
        let told = if undo.is_empty() { "nothing had landed".to_owned() } else { undo.join("; ") };
        self.events.push(Event::warning("Released", shorten(&format!("no longer enforced. To undo by hand: {told}"))));
    }

    fn release_step(&mut self, index: usize) -> bool {
        let Some(step) = self.status.steps.get(index) else { return true };
        if self.is_put_back(index) || step.fence.is_none() {
            return true;
        }
        if step.not_before.as_ref().is_some_and(|at| at.0 > self.input.now) || !self.seen(index, false) {
            return false;
        }
        match self.target_sight(index) {
            Some(TargetSight::Present(present)) if self.stands_ours(present) => {
                self.write(index, None);
                false
            }
            Some(TargetSight::Unusable(failure)) => {
                self.fail(index, failure);
                false
            }
            _ => {
                self.conclude(index, StepState::Kept, Some(("Released", "left as it is".to_owned())));
                true
            }
        }
    }
}

fn undo_values(step: &StepStatus) -> String {
    let values = step.prior.iter().map(|prior| match &prior.value {
        Some(value) => format!("{}={value:?}", prior.field),
        None => format!("{} absent", prior.field),
    });
    format!("{} had {}", apply::describe(step), values.collect::<Vec<_>>().join(", "))
}
