//! The beginning: the plan is frozen, every target is seen and rehearsed, and all priors and intents are journalled in
//! one status update, before anything is touched.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Admission, Event, Failure, Pass, Present, StepSight, TargetSight, shorten, will};
use crate::{
    api::{
        rollback::{
            DesiredState, Fence, FieldPrior, FrozenPlan, ImportedStep, LearningRollback, Phase, RecordOrigin,
            StepState, StepStatus, WritePurpose,
        },
        rollout::RecordRef,
    },
    decide::fields,
};

/// What a status may take in the store. A plan whose journal would be larger is refused.
pub const MAX_STATUS_BYTES: usize = 60 * 1024;

/// The token of an attempt. Never repeats: attempts only grow, and a uid is never reused.
pub fn token(record_uid: &str, step: &str, attempt: i32) -> String {
    format!("{record_uid}/{step}/{attempt}")
}

impl Pass<'_> {
    pub(super) fn begin(&mut self) {
        let record = self.input.record;
        match will(record) {
            DesiredState::RolledBack => {}
            DesiredState::Held => return self.pending("held by a person before it began"),
            DesiredState::Restored | DesiredState::Released => {
                return self.skip("Cancelled", "a person cancelled it before it began".to_owned());
            }
        }
        let grant = match self.input.admission {
            Admission::Wait => return,
            Admission::Refused { reason, message } => return self.skip(reason, message.clone()),
            Admission::Granted(grant) => grant.as_ref().clone(),
        };
        if record.spec.expires_at.as_ref().is_some_and(|at| at.0 <= self.input.now) {
            return self.skip("Expired", "spec.expiresAt passed before it could begin".to_owned());
        }
        self.status.evidence = grant.evidence;
        self.draft(grant.plan);
        let mut all_seen = true;
        for index in 0..self.status.steps.len() {
            let rehearse = self.status.steps.get(index).is_some_and(|step| step.imported.is_none());
            let known = self.step(index).is_some_and(|(_, definition)| fields::target(definition).is_some());
            all_seen &= !known || self.seen(index, rehearse);
        }
        if !all_seen {
            return;
        }
        self.share_fields_with_imported();
        if record.spec.dry_run { self.conclude_dry_run() } else { self.start() }
    }

    fn pending(&mut self, message: &str) {
        self.status.message = Some(message.to_owned());
    }

    fn skip(&mut self, reason: &'static str, message: String) {
        self.status.phase = Phase::Skipped;
        self.status.finished_at = Some(MicroTime(self.input.now));
        self.status.message = Some(shorten(&format!("{reason}: {message}")));
        self.events.push(Event::warning("Skipped", format!("{reason}: {message}")));
    }

    /// The steps of the plan, and behind them those that are taken over.
    fn draft(&mut self, plan: FrozenPlan) {
        let own = plan.steps.iter().map(|definition| StepStatus {
            name: definition.name.clone(),
            kind: definition.kind().name().to_owned(),
            target: fields::target(definition),
            ..StepStatus::default()
        });
        let mut steps: Vec<StepStatus> = own.collect();
        if let Some(predecessor) = self.input.predecessor {
            steps.extend(imported(predecessor));
            self.status.supersedes = Some(RecordRef {
                name: predecessor.metadata.name.clone().unwrap_or_default(),
                id: super::super::record_id(predecessor),
            });
        }
        self.status.steps = steps;
        self.status.plan = Some(plan);
    }

    /// A field that both an imported step and one of ours touch goes back to what it was before the incident, not to
    /// what the predecessor made of it; and it goes back once.
    fn share_fields_with_imported(&mut self) {
        let mut incident: Vec<(Option<crate::api::rollback::Target>, FieldPrior)> = Vec::new();
        let own_fields: Vec<(Option<crate::api::rollback::Target>, String)> = (0..self.status.steps.len())
            .filter_map(|index| self.step(index))
            .filter(|(step, _)| step.imported.is_none())
            .flat_map(|(step, definition)| {
                fields::touched(definition).into_iter().map(|field| (named(step), field)).collect::<Vec<_>>()
            })
            .collect();
        for step in self.status.steps.iter_mut().filter(|step| step.imported.is_some() && step.committed) {
            let target = named(step);
            let (shared, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut step.prior)
                .into_iter()
                .partition(|prior| own_fields.contains(&(target.clone(), prior.field.clone())));
            incident.extend(shared.into_iter().map(|prior| (target.clone(), prior)));
            step.prior = kept;
        }
        for index in 0..self.status.steps.len() {
            let sight = self.input.sights.get(index);
            let Some(step) = self.status.steps.get_mut(index).filter(|step| step.imported.is_none()) else { continue };
            let target = named(step);
            let Some(TargetSight::Present(present)) = sight.and_then(|sight| sight.target.as_ref()) else { continue };
            step.prior = present.fields.clone();
            for prior in &mut step.prior {
                let before = incident.iter().find(|(of, before)| *of == target && before.field == prior.field);
                if let Some((_, before)) = before {
                    *prior = before.clone();
                }
            }
        }
    }

    fn start(&mut self) {
        let now = MicroTime(self.input.now);
        self.status.phase = Phase::Executing;
        self.status.started_at = Some(now.clone());
        self.status.message = None;
        for index in 0..self.status.steps.len() {
            match self.input.sights.get(index).and_then(|sight| sight.target.as_ref()) {
                Some(TargetSight::Present(present)) => self.intend(index, present),
                Some(TargetSight::Missing) => self.fail(index, &missing()),
                Some(TargetSight::Unusable(failure)) => self.fail(index, failure),
                None => self.fail(index, &unknown_kind()),
            }
        }
        let too_large = serde_json::to_vec(&self.status).map_or(usize::MAX, |bytes| bytes.len()) > MAX_STATUS_BYTES;
        if too_large {
            let message =
                format!("the journal of this plan would exceed {MAX_STATUS_BYTES} bytes: set fewer or smaller values");
            return self.skip_plan(message);
        }
        let reason = &self.input.record.spec.reason;
        self.events.push(Event::normal("RollbackStarted", format!("rolling back: {reason}")));
        self.apply();
    }

    fn skip_plan(&mut self, message: String) {
        self.status.steps.clear();
        self.status.plan = None;
        self.skip("PlanTooLarge", message);
    }

    /// The first intent of a step, own or imported.
    fn intend(&mut self, index: usize, present: &Present) {
        if let Some(failure) = &present.refused {
            return self.fail(index, failure);
        }
        if let Some(owner) = &present.claimed_by {
            return self.block(
                index,
                "ClaimedBy",
                &format!("its target is held by {owner}, which is in force: restore or release that one"),
            );
        }
        let (uid, now) = (self.uid.clone(), MicroTime(self.input.now));
        let Some(step) = self.status.steps.get_mut(index) else { return };
        let purpose = if step.imported.is_some() { WritePurpose::Move } else { WritePurpose::Apply };
        // What was journalled by the predecessor may still land; seen on the target, it is a commit.
        let earlier = step.fence.take().map(|fence| fence.new);
        let stands = earlier.is_some() && earlier == present.fence;
        step.committed |= stands;
        let earlier = earlier.filter(|_| !stands);
        if let Some(target) = &mut step.target {
            target.uid = Some(present.uid.clone());
        }
        step.state = StepState::Intended;
        step.started_at = Some(now);
        step.fence = Some(Fence {
            seen: present.fence.clone(),
            new: token(&uid, &step.name, 1),
            attempt: 1,
            earlier,
            purpose,
            open: true,
        });
    }

    pub(super) fn block(&mut self, index: usize, reason: &str, message: &str) {
        let Some(step) = self.status.steps.get_mut(index) else { return };
        // Waiting for its turn is how a step begins, and nothing to tell people.
        if step.reason.as_deref() != Some(reason) && reason != "WaitsForStep" {
            let text = format!("step {} waits: {message}", step.name);
            self.events.push(Event::warning("StepBlocked", text));
        }
        step.state = StepState::Blocked;
        step.reason = Some(reason.to_owned());
        step.message = Some(shorten(message));
    }

    fn conclude_dry_run(&mut self) {
        let uid = self.uid.clone();
        for index in 0..self.status.steps.len() {
            let sight = self.input.sights.get(index).and_then(|sight: &StepSight| sight.target.as_ref());
            let failure = match sight {
                Some(TargetSight::Present(present)) => present.refused.clone(),
                Some(TargetSight::Missing) => Some(missing()),
                Some(TargetSight::Unusable(failure)) => Some(failure.clone()),
                None => Some(unknown_kind()),
            };
            match failure {
                Some(failure) => self.fail(index, &failure),
                None => {
                    let change = self.step(index).map(|(step, definition)| would_change(definition, step, &uid));
                    if let Some(step) = self.status.steps.get_mut(index) {
                        step.message = change.map(|change| shorten(&change));
                    }
                }
            }
        }
        self.status.phase = Phase::DryRunComplete;
        self.status.finished_at = Some(MicroTime(self.input.now));
        self.status.message = Some("only dry-runs were made; nothing was changed".to_owned());
        self.events.push(Event::normal("DryRunComplete", "only dry-runs were made; nothing was changed"));
    }
}

fn named(step: &StepStatus) -> Option<crate::api::rollback::Target> {
    step.target.clone().map(|target| crate::api::rollback::Target { uid: None, ..target })
}

fn would_change(definition: &crate::api::step::Step, step: &StepStatus, uid: &str) -> String {
    let changes = fields::ours(definition, step, uid).into_iter().map(|wanted| {
        let before =
            fields::text_of(&step.prior, &wanted.field).map_or("absent".to_owned(), |text| format!("{text:?}"));
        format!("{} {before} -> {:?}", wanted.field, wanted.value)
    });
    format!("would change {}", changes.collect::<Vec<_>>().join(", "))
}

/// Everything of a predecessor that was touched or may be: to be restored by its successor, never to be applied.
fn imported(predecessor: &LearningRollback) -> Vec<StepStatus> {
    let Some(status) = &predecessor.status else { return Vec::new() };
    let origin = RecordOrigin {
        name: predecessor.metadata.name.clone().unwrap_or_default(),
        uid: predecessor.metadata.uid.clone().unwrap_or_default(),
    };
    status
        .steps
        .iter()
        .filter(|step| step.fence.is_some())
        .filter_map(|step| {
            let definition = super::definition(status.plan.as_ref(), step)?.clone();
            let (name, from) = match &step.imported {
                // Taken over twice: it keeps the name and the origin that its marks were made from.
                Some(imported) => (step.name.clone(), imported.from.clone()),
                None => (format!("{}.{}", origin.name, step.name), origin.clone()),
            };
            Some(StepStatus {
                name,
                imported: Some(ImportedStep { from, definition }),
                state: StepState::Pending,
                reason: None,
                message: None,
                not_before: None,
                failures: 0,
                ..step.clone()
            })
        })
        .collect()
}

pub(super) fn missing() -> Failure {
    Failure {
        reason: "TargetNotFound".to_owned(),
        message: "its target does not exist: create it, or correct the name in the plan".to_owned(),
        permanent: false,
    }
}

/// A step of a kind that this operator does not know.
pub fn unknown_kind() -> Failure {
    Failure {
        reason: "UnknownStepKind".to_owned(),
        message: "this operator does not know the kind of this step: upgrade the operator".to_owned(),
        permanent: true,
    }
}
