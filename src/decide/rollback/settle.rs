//! A person changes their mind. First the fence of every write that may be on its way is moved; only then is the new
//! will acknowledged: from that moment on nothing that was decided before can land.

use super::{Event, Pass, TargetSight, apply};
use crate::api::rollback::{DesiredState, Phase, WritePurpose};

impl Pass<'_> {
    /// True once the new will counts.
    pub(super) fn acknowledge(&mut self, will: DesiredState) -> bool {
        let resumed = will == DesiredState::RolledBack;
        if !resumed && !self.fenced_off() {
            return false;
        }
        self.status.acknowledged.desired_state = will;
        for step in &mut self.status.steps {
            // What an earlier will was waiting for does not count any more, but for the time between two weights.
            if !(resumed && step.committed) {
                step.not_before = None;
            }
        }
        match will {
            DesiredState::RolledBack => self.events.push(Event::normal("Resumed", "carried on by a person")),
            DesiredState::Held => self.events.push(Event::normal("Held", "held by a person: no next move")),
            DesiredState::Released => self.events.push(Event::normal("Releasing", "released: the present state stays")),
            DesiredState::Restored => {
                self.status.phase = Phase::Restoring;
                self.events.push(Event::normal("Restoring", "putting everything back"));
            }
        }
        true
    }

    /// Moves the fences of all open writes. True when none is open any more.
    fn fenced_off(&mut self) -> bool {
        let mut settled = true;
        for index in 0..self.status.steps.len() {
            settled &= self.fence_off(index);
        }
        settled && self.looks.is_empty()
    }

    fn fence_off(&mut self, index: usize) -> bool {
        let Some(step) = self.status.steps.get(index) else { return true };
        let Some(fence) = step.fence.clone().filter(|fence| fence.open) else { return true };
        if step.not_before.as_ref().is_some_and(|at| at.0 > self.input.now) && step.failures > 0 {
            return false;
        }
        let uid = step.target.as_ref().and_then(|target| target.uid.clone());
        if !self.seen(index, false) {
            return false;
        }
        let present = match self.target_sight(index) {
            Some(TargetSight::Present(present)) if uid.as_ref().is_none_or(|uid| *uid == present.uid) => present,
            // Gone, or another object: what was journalled pins the uid and cannot land.
            Some(TargetSight::Missing | TargetSight::Present(_)) => {
                self.moved(index);
                return true;
            }
            Some(TargetSight::Unusable(failure)) => {
                self.fail(index, failure);
                return false;
            }
            None => return false,
        };
        let stands = |token: &str| present.fence.as_deref() == Some(token);
        let landed_earlier = fence.earlier.as_deref().is_some_and(stands);
        if stands(&fence.new) && fence.purpose == WritePurpose::Move {
            self.moved(index);
            return true;
        }
        if stands(&fence.new) || landed_earlier {
            if let Some(step) = self.status.steps.get_mut(index) {
                apply::settle(step, present);
            }
            // An earlier attempt landed: the later one tests a fence that is gone.
            return true;
        }
        if fence.seen != present.fence {
            // Its test of the fence fails for ever: tokens are not reused.
            if fence.seen.is_some() {
                self.moved(index);
                return true;
            }
        }
        if fence.purpose != WritePurpose::Move || fence.seen != present.fence {
            self.intend_again(index, present, WritePurpose::Move);
        }
        self.write(index, Some(WritePurpose::Move));
        false
    }
}
