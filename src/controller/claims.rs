//! Which execution may run: the claim on a rollout, taken by compare-and-swap before a record exists, and what becomes of
//! records that hold no claim.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::{
    context::{Context, Setback},
    execute::in_force,
    index::ROLLOUT_LABEL,
};
use crate::{
    api::{
        IN_FORCE,
        condition::{self, Verdict},
        rollback::{FrozenPlan, LearningRollback, LearningRollbackSpec, Phase, RolloutRef},
        rollout::{
            ActiveRollback, LastRollback, LearningRollout, LearningRolloutStatus, Mode, RecordRef, RollbackPlan,
        },
    },
    decide::{
        conditions::follow_claim,
        record_id,
        rollback::{Admission, Event, Grant, shorten},
        rollout::Conviction,
    },
};

/// Version of the frozen plan's format.
const FORMAT_VERSION: i32 = 1;

/// The identity of an execution, and the name of its record.
pub(super) fn execution_name(rollout: &LearningRollout, episode: i64) -> (String, String) {
    let uid = rollout.uid().unwrap_or_default();
    let digest = Sha256::digest(format!("{uid}/{episode}"));
    let id: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    (format!("{}-{episode}-{id}", rollout.name_any()), id)
}

/// The plan of this name, as it would be frozen now.
pub(super) fn freeze(rollout: &LearningRollout, name: &str) -> Option<FrozenPlan> {
    let plan: &RollbackPlan = rollout.spec.rollbacks.iter().find(|plan| plan.name == name)?;
    Some(FrozenPlan {
        format_version: FORMAT_VERSION,
        rollout_generation: rollout.metadata.generation.unwrap_or_default(),
        plan_type: plan.plan_type,
        interval: rollout.spec.interval,
        service_account_name: rollout.spec.service_account_name.clone(),
        prometheus: rollout.spec.prometheus.clone(),
        steps: plan.steps.clone(),
        verify: rollout.spec.verify.clone(),
    })
}

/// What the claim on a rollout means for one record.
pub(super) fn admission(rollout: &LearningRollout, active: &ActiveRollback) -> Admission {
    match freeze(rollout, &active.rollback) {
        Some(plan) => Admission::Granted(Box::new(Grant { plan, evidence: active.evidence.clone() })),
        None => Admission::Refused {
            reason: "RollbackNotFound",
            message: format!(
                "the rollout has no rollback named {:?} any more; it has {}",
                active.rollback,
                plans(rollout)
            ),
        },
    }
}

fn plans(rollout: &LearningRollout) -> String {
    rollout.spec.rollbacks.iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// What is to be done about a manual record that has not begun.
pub(super) enum ManualVerdict {
    /// It needs no claim.
    DryRun(Admission),
    /// Claim the rollout for it.
    Claim(Box<ActiveRollback>),
    /// Not now.
    Wait,
    /// Never.
    Refuse(Admission),
}

/// Judges a manual record.
pub(super) fn judge_manual(
    rollout: Option<&LearningRollout>,
    record: &LearningRollback,
    orphan: Option<&str>,
    active: Option<&LearningRollback>,
) -> ManualVerdict {
    let refuse = |reason, message: String| ManualVerdict::Refuse(Admission::Refused { reason, message });
    let wanted = &record.spec.rollout_ref;
    let Some(rollout) = rollout else {
        return refuse("RolloutNotFound", format!("there is no LearningRollout {:?} in this namespace", wanted.name));
    };
    if wanted.uid.is_some() && wanted.uid != rollout.uid() {
        return refuse("RolloutRecreated", "rolloutRef.uid is that of an earlier rollout of this name".to_owned());
    }
    let Some(plan) = freeze(rollout, &record.spec.rollback) else {
        let message =
            format!("the rollout has no rollback named {:?}; it has {}", record.spec.rollback, plans(rollout));
        return refuse("RollbackNotFound", message);
    };
    let plan_type = plan.plan_type;
    if record.spec.dry_run {
        return ManualVerdict::DryRun(Admission::Granted(Box::new(Grant { plan, evidence: None })));
    }
    if rollout.spec.mode == Mode::Observe {
        return refuse("ObserveMode", "the rollout is in mode Observe: use dryRun, or set mode Enforce".to_owned());
    }
    if orphan.is_some() {
        return ManualVerdict::Wait;
    }
    let status = rollout.status.as_ref();
    let present = status.and_then(|status| status.active.as_ref());
    if let Some(present) = present {
        let leaving =
            active.and_then(|record| record.status.as_ref()).is_some_and(|status| status.phase == Phase::Restoring);
        if plan_type <= present.plan_type || leaving {
            let message =
                format!("{} is in force; only a stronger type takes over from {:?}", present.name, present.plan_type);
            return refuse("AnotherInForce", message);
        }
    }
    ManualVerdict::Claim(Box::new(ActiveRollback {
        name: record.name_any(),
        id: record_id(record),
        uid: record.uid(),
        episode: status.map_or(0, |status| status.episode) + 1,
        rollback: record.spec.rollback.clone(),
        plan_type,
        reason: record.spec.reason.clone(),
        evidence: None,
        since: None,
        supersedes: present.map(|present| RecordRef { name: present.name.clone(), id: present.id.clone() }),
    }))
}

/// The claim of a new execution that a trigger starts, or escalates to.
pub(super) fn claim(rollout: &LearningRollout, conviction: &Conviction) -> Option<ActiveRollback> {
    let plan = freeze(rollout, &conviction.rollback)?;
    let hold = rollout.spec.triggers.iter().find(|trigger| trigger.name == conviction.trigger)?.hold;
    let evidence = &conviction.evidence;
    let status = rollout.status.as_ref();
    let episode = status.map_or(0, |status| status.episode) + 1;
    let (name, id) = execution_name(rollout, episode);
    let present = status.and_then(|status| status.active.as_ref());
    Some(ActiveRollback {
        name,
        id,
        uid: None,
        episode,
        rollback: conviction.rollback.clone(),
        plan_type: plan.plan_type,
        reason: shorten(&format!(
            "trigger {}: {} is {} for {hold}",
            conviction.trigger, evidence.value, evidence.condition
        )),
        evidence: Some(evidence.clone()),
        since: None,
        supersedes: present.map(|present| RecordRef { name: present.name.clone(), id: present.id.clone() }),
    })
}

/// The record that carries out a claim.
fn record_of(rollout: &LearningRollout, active: &ActiveRollback) -> LearningRollback {
    LearningRollback {
        metadata: ObjectMeta {
            name: Some(active.name.clone()),
            namespace: rollout.namespace(),
            labels: Some([(ROLLOUT_LABEL.to_owned(), rollout.name_any())].into()),
            finalizers: Some(vec![IN_FORCE.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: LearningRollbackSpec {
            rollout_ref: RolloutRef { name: rollout.name_any(), uid: rollout.uid() },
            rollback: active.rollback.clone(),
            reason: active.reason.clone(),
            trigger: active.evidence.as_ref().map(|evidence| evidence.trigger.clone()),
            id: Some(active.id.clone()),
            ..LearningRollbackSpec::default()
        },
        status: None,
    }
}

impl Context {
    /// Writes a rollout's status on exactly the version that was seen.
    pub(super) async fn write_rollout(
        &self,
        rollout: &LearningRollout,
        mut status: LearningRolloutStatus,
    ) -> Result<LearningRollout, Setback> {
        follow_claim(&mut status, rollout.metadata.generation, self.clock.now());
        if rollout.status.as_ref() == Some(&status) {
            return Ok(rollout.clone());
        }
        self.leadership.permit()?;
        let api: Api<LearningRollout> = Api::namespaced(self.client.clone(), &rollout.namespace().unwrap_or_default());
        let mut next = rollout.clone();
        next.status = Some(status);
        self.limited(api.replace_status(&rollout.name_any(), &PostParams::default(), &next)).await
    }

    /// Takes the claim.
    pub(super) async fn take_claim(
        &self,
        rollout: &LearningRollout,
        mut active: ActiveRollback,
    ) -> Result<LearningRollout, Setback> {
        let mut status = rollout.status.clone().unwrap_or_default();
        active.since = Some(MicroTime(self.clock.now()));
        status.episode = active.episode;
        status.active = Some(active);
        self.write_rollout(rollout, status).await
    }

    /// Makes the record of a claim, or adopts the one that is there if it is the very same.
    pub(super) async fn make_record(
        &self,
        rollout: &LearningRollout,
        active: &ActiveRollback,
    ) -> Result<Result<LearningRollback, String>, Setback> {
        self.leadership.permit()?;
        let api: Api<LearningRollback> = Api::namespaced(self.client.clone(), &rollout.namespace().unwrap_or_default());
        let wanted = record_of(rollout, active);
        match self.limited(api.create(&PostParams::default(), &wanted)).await {
            Ok(record) => {
                info!(
                    record = record.name_any(),
                    namespace = record.namespace(),
                    reason = active.reason,
                    "rolling back"
                );
                Ok(Ok(record))
            }
            Err(Setback::Changed) => {
                let present = self.limited(api.get(&active.name)).await?;
                let same = present.spec.id == wanted.spec.id
                    && present.spec.rollout_ref == wanted.spec.rollout_ref
                    && present.spec.rollback == wanted.spec.rollback;
                if same {
                    Ok(Ok(present))
                } else {
                    Ok(Err(format!(
                        "a LearningRollback named {} exists that this operator did not make: delete it",
                        active.name
                    )))
                }
            }
            Err(setback) => Err(setback),
        }
    }

    /// Ends a claim whose execution has ended.
    pub(super) async fn end_claim(
        &self,
        rollout: &LearningRollout,
        phase: Phase,
        finished: Option<MicroTime>,
    ) -> Result<LearningRollout, Setback> {
        let mut status = rollout.status.clone().unwrap_or_default();
        let Some(active) = status.active.take() else { return Ok(rollout.clone()) };
        if phase != Phase::Skipped {
            let finished_at = finished.or_else(|| Some(MicroTime(self.clock.now())));
            status.last_rollback = Some(LastRollback { name: active.name, phase: format!("{phase:?}"), finished_at });
        }
        self.write_rollout(rollout, status).await
    }

    /// Marks a record whose successor has taken the claim: no later intents.
    pub(super) async fn supersede(
        &self,
        old: &LearningRollback,
        successor: &RecordRef,
    ) -> Result<LearningRollback, Setback> {
        self.leadership.permit()?;
        let api: Api<LearningRollback> = Api::namespaced(self.client.clone(), &old.namespace().unwrap_or_default());
        let mut next = old.clone();
        let status = next.status.get_or_insert_default();
        status.phase = Phase::Superseded;
        status.superseded_by = Some(successor.clone());
        status.finished_at = Some(MicroTime(self.clock.now()));
        let verdict = Verdict::no("Superseded", format!("{} took over and restores for both", successor.name));
        condition::set(
            &mut status.conditions,
            condition::rollback::ROLLED_BACK,
            verdict,
            old.metadata.generation,
            self.clock.now(),
        );
        let written = self.limited(api.replace_status(&old.name_any(), &PostParams::default(), &next)).await?;
        let message = format!("{} took over and restores for both", successor.name);
        self.publish(&written, &Event { warning: false, reason: "Superseded", message });
        Ok(written)
    }

    /// Deletes the oldest terminal records beyond the limit.
    pub(super) async fn prune(&self, limit: i32, records: &[LearningRollback], keep: &[String]) -> Result<(), Setback> {
        let mut ended: Vec<&LearningRollback> = records
            .iter()
            .filter(|record| record.status.as_ref().is_some_and(|status| status.phase.is_terminal()))
            .filter(|record| record.finalizers().is_empty() && record.metadata.deletion_timestamp.is_none())
            .filter(|record| !keep.contains(&record.name_any()))
            .collect();
        ended.sort_by_key(|record| {
            let finished = record.status.as_ref().and_then(|status| status.finished_at.as_ref()).map(|at| at.0);
            (finished, record.name_any())
        });
        let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for record in ended.into_iter().take(surplus) {
            self.leadership.permit()?;
            let api: Api<LearningRollback> =
                Api::namespaced(self.client.clone(), &record.namespace().unwrap_or_default());
            let preconditions = Preconditions { uid: record.uid(), resource_version: record.resource_version() };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match self.limited(api.delete(&record.name_any(), &parameters)).await {
                Ok(_) | Err(Setback::Gone) => info!(record = record.name_any(), "deleted from the history"),
                Err(setback) => {
                    warn!(record = record.name_any(), error = %setback, "could not be deleted from the history")
                }
            }
        }
        Ok(())
    }
}

/// A record in force that no claim of the present rollout names: its rollout was deleted, or recreated.
pub(super) fn orphan<'a>(
    rollout: Option<&LearningRollout>,
    records: &'a [LearningRollback],
) -> Option<&'a LearningRollback> {
    let active = rollout.and_then(|rollout| rollout.status.as_ref()).and_then(|status| status.active.as_ref());
    let named = |record: &LearningRollback| {
        active.is_some_and(|active| {
            active.id == record_id(record) || active.supersedes.as_ref().is_some_and(|old| old.id == record_id(record))
        })
    };
    records.iter().find(|record| in_force(record) && !named(record))
}
