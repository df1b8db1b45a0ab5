//! What a person reads first: progress, traffic, conditions, the generation the status speaks of.

use super::{Pass, apply::REASSERT_LIMIT};
use crate::{
    api::{
        condition::{self, Verdict, rollback as conditions},
        rollback::{Phase, StepState, VerifyState},
    },
    decide::fields,
};

impl Pass<'_> {
    pub(super) fn summarise(&mut self) {
        let generation = self.input.record.metadata.generation;
        self.status.observed_generation = generation;
        self.status.progress = self.progress();
        self.status.traffic = self.traffic();
        let verdicts = [
            (conditions::ROLLED_BACK, Some(self.rolled_back())),
            (conditions::VERIFIED, self.verified()),
            (conditions::STALLED, self.stalled()),
            (conditions::CONTESTED, self.contested()),
        ];
        for (kind, verdict) in verdicts {
            let known = condition::get(&self.status.conditions, kind).is_some();
            let verdict = match verdict {
                Some(verdict) => verdict,
                // Abnormal conditions appear with the abnormality, and stay to say that it is over.
                None if known => Verdict::no("Resolved", ""),
                None => continue,
            };
            condition::set(&mut self.status.conditions, kind, verdict, generation, self.input.now);
        }
    }

    fn progress(&self) -> Option<String> {
        let own: Vec<_> = self.status.steps.iter().filter(|step| step.imported.is_none()).collect();
        let restoring = matches!(self.status.phase, Phase::Restoring | Phase::Restored);
        let done = own.iter().filter(|step| match step.state {
            StepState::Applied => !restoring && self.made_last_move(step),
            StepState::Restored | StepState::Kept => true,
            _ => false,
        });
        (!own.is_empty()).then(|| format!("{}/{}", done.count(), own.len()))
    }

    fn made_last_move(&self, step: &crate::api::rollback::StepStatus) -> bool {
        super::definition(self.status.plan.as_ref(), step)
            .is_none_or(|definition| step.position.unwrap_or(0) + 1 >= fields::positions(definition))
    }

    fn traffic(&self) -> Option<String> {
        let (step, shift) = self.status.steps.iter().find_map(|step| {
            let definition = super::definition(self.status.plan.as_ref(), step)?;
            definition.shift_traffic.as_ref().map(|shift| (step, shift))
        })?;
        let percent = |text: Option<&str>, sum: i64| {
            let weight: i64 = text?.parse().ok()?;
            (sum > 0).then(|| (weight * 100 / sum).to_string())
        };
        let (from, to) = (fields::weight_field(&shift.from), fields::weight_field(&shift.to));
        let weight = |field: &str| fields::text_of(&step.prior, field).and_then(|text| text.parse::<i64>().ok());
        let sum = weight(&from).unwrap_or(0) + weight(&to).unwrap_or(0);
        let moved = step.committed && step.state != StepState::Restored;
        let open = step.fence.as_ref().is_some_and(|fence| fence.open);
        // While a move is on its way, the share is still that of the move before.
        let position = step.position.unwrap_or(0) - i32::from(open);
        if !moved || position < 0 {
            return percent(fields::text_of(&step.prior, &from), sum);
        }
        let share = usize::try_from(position).ok().and_then(|at| shift.weights.get(at))?;
        Some(share.to_string())
    }

    fn rolled_back(&self) -> Verdict {
        match self.status.phase {
            Phase::RolledBack => Verdict::yes("StepsLanded", "every step has landed"),
            Phase::Restoring => Verdict::no("Restoring", "everything is being put back"),
            phase => Verdict::no(format!("{phase:?}"), self.status.message.clone().unwrap_or_default()),
        }
    }

    fn verified(&self) -> Option<Verdict> {
        let checks = self.status.plan.as_ref().filter(|plan| !plan.verify.is_empty())?.verify.len();
        if self.status.rolled_back_at.is_none() || self.status.phase != Phase::RolledBack {
            return None;
        }
        let in_state = |wanted| self.status.verify.iter().filter(|check| check.state == wanted).collect::<Vec<_>>();
        let (passed, failed) = (in_state(VerifyState::Passed), in_state(VerifyState::Failed));
        Some(match failed.first() {
            Some(check) => {
                let message = check.message.clone().unwrap_or_default();
                Verdict::no("CheckFailed", format!("check {}: {message}", check.name))
            }
            None if passed.len() == checks => Verdict::yes("ChecksPassed", format!("{checks} checks hold")),
            None => Verdict::unknown("Checking", format!("{} of {checks} checks hold", passed.len())),
        })
    }

    /// A person is needed: a step cannot go on by itself. Restore and supersede stay possible.
    fn stalled(&self) -> Option<Verdict> {
        if self.status.phase.is_terminal() {
            return None;
        }
        let failed = self.status.verify.iter().find(|check| check.state == VerifyState::Failed);
        if let Some(check) = failed.filter(|_| self.status.phase == Phase::RolledBack) {
            let message = check.message.clone().unwrap_or_default();
            return Some(Verdict::yes("VerificationFailed", format!("check {}: {message}", check.name)));
        }
        let stuck = self.status.steps.iter().find(|step| {
            let permanent = ["UnknownStepKind", "TargetRecreated", "Refused", "ContestLost"];
            step.reason.as_deref().is_some_and(|reason| permanent.contains(&reason))
                || (step.state == StepState::Failed && step.failures >= 5)
                || step.reasserted > REASSERT_LIMIT
        })?;
        let message = stuck.message.clone().unwrap_or_default();
        let reason = stuck.reason.clone().unwrap_or_else(|| "StepFailed".to_owned());
        Some(Verdict::yes(reason, format!("step {}: {message}", stuck.name)))
    }

    fn contested(&self) -> Option<Verdict> {
        let step = self.status.steps.iter().find(|step| {
            step.reasserted > 0 && step.reason.as_deref().is_some_and(|reason| reason.starts_with("Contest"))
        })?;
        let message = step.message.clone().unwrap_or_default();
        Some(Verdict::yes(step.reason.clone().unwrap_or_default(), format!("step {}: {message}", step.name)))
    }
}
