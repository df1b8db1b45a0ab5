//! One rollout and its records: a task of its own, so that what happens to them is serialised, and one slow Prometheus
//! or one hostile object delays nobody else.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Resource, ResourceExt};
use tracing::{Instrument, info_span, warn};

use super::{
    armed::Armer,
    claims::{self, ManualVerdict},
    context::{Context, Setback, pause},
    evaluate::Evaluator,
    execute::Execution,
    index::{Entry, Index, Key},
    verify::Verifier,
};
use crate::{
    api::{
        rollback::{LearningRollback, Phase, VerifyStatus},
        rollout::{ActiveRollback, LearningRollout, RecordRef},
    },
    decide::{
        record_id,
        rollback::{Admission, Event, later},
    },
};

/// Runs until neither the rollout nor a record of it is in view.
pub(super) async fn run(context: Context, index: Index, key: Key) {
    let span = info_span!("rollout", namespace = key.namespace, name = key.name);
    let actor = Actor {
        context,
        index,
        key,
        own: Own::default(),
        evaluator: Evaluator::default(),
        armer: Armer::default(),
        verifier: Verifier::default(),
        setbacks: 0,
    };
    actor.run().instrument(span).await;
}

struct Actor {
    context: Context,
    index: Index,
    key: Key,
    own: Own,
    evaluator: Evaluator,
    armer: Armer,
    verifier: Verifier,
    setbacks: u32,
}

/// What this task has written or read itself: newer than the watch until the watch catches up.
#[derive(Default)]
struct Own {
    rollout: Option<LearningRollout>,
    records: HashMap<String, LearningRollback>,
    looked_at: HashMap<String, Timestamp>,
}

/// The newer of what the watch brought and what this task saw itself.
fn newer<K: Resource + Clone>(watched: Option<&Arc<K>>, own: Option<&K>) -> Option<K> {
    let version = |object: &K| object.meta().resource_version.as_ref().and_then(|version| version.parse::<u64>().ok());
    match (watched, own) {
        (Some(watched), Some(own)) => {
            let same = watched.meta().uid == own.meta().uid;
            let keep_own = same && version(own) > version(watched);
            Some(if keep_own { own.clone() } else { watched.as_ref().clone() })
        }
        (Some(watched), None) => Some(watched.as_ref().clone()),
        (None, own) => own.cloned(),
    }
}

impl Actor {
    async fn run(mut self) {
        loop {
            let Some(entry) = self.index.get(&self.key) else { return };
            let changed = entry.changed();
            let wake = match self.pass(&entry).await {
                Ok(wake) => {
                    self.setbacks = 0;
                    wake
                }
                Err(setback) => self.set_back(setback).await,
            };
            let context = self.context.clone();
            tokio::select! {
                () = changed.notified() => {}
                () = self.evaluator.asked() => {}
                () = self.armer.rehearsed() => {}
                () = self.verifier.answered() => {}
                () = context.clock.sleep_until(wake) => {}
            }
        }
    }

    /// A changed object is read again, at once; anything else is tried again after a while.
    async fn set_back(&mut self, setback: Setback) -> Timestamp {
        self.setbacks = self.setbacks.saturating_add(1);
        if setback != Setback::Changed || self.setbacks > 3 {
            warn!(error = %setback, setbacks = self.setbacks, "set back; it goes on later");
        }
        self.refresh().await;
        later(self.context.clock.now(), pause(self.setbacks))
    }

    /// Reads the rollout and its records anew, by quorum.
    async fn refresh(&mut self) {
        let rollouts: Api<LearningRollout> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        if let Ok(rollout) = self.context.limited(rollouts.get_opt(&self.key.name)).await {
            self.own.rollout = rollout;
        }
        let records: Api<LearningRollback> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        for name in self.own.records.keys().cloned().collect::<Vec<_>>() {
            match self.context.limited(records.get_opt(&name)).await {
                Ok(Some(record)) => {
                    self.own.records.insert(name, record);
                }
                Ok(None) => {
                    self.own.records.remove(&name);
                }
                Err(_) => {}
            }
        }
    }

    async fn pass(&mut self, entry: &Entry) -> Result<Timestamp, Setback> {
        if entry.rollout.is_none() {
            self.own.rollout = None;
            if self.context.selective {
                return Ok(Timestamp::MAX);
            }
        }
        self.own.records.retain(|name, record| {
            // A record this task made may be ahead of the watch; one the watch has lost is gone.
            entry.records.contains_key(name) || record.metadata.deletion_timestamp.is_none()
        });
        let mut wake = self.executions(entry).await?;
        if let Some(rollout) = self.rollout(entry) {
            let records = self.records(entry);
            let orphan = claims::orphan(Some(&rollout), &records).map(ResourceExt::name_any);
            let unreadable = entry.unreadable.keys().next().cloned();
            let outcome = self.evaluator.evaluate(&self.context, &rollout, &records, orphan.or(unreadable)).await?;
            if let Some(rollout) = outcome.rollout {
                self.own.rollout = Some(rollout);
            }
            if outcome.claimed {
                wake = wake.min(self.executions(entry).await?);
            }
            wake = wake.min(outcome.wake);
            wake = wake.min(self.arm(entry).await?);
        }
        Ok(wake)
    }

    async fn arm(&mut self, entry: &Entry) -> Result<Timestamp, Setback> {
        let Some(rollout) = self.rollout(entry) else { return Ok(Timestamp::MAX) };
        let (written, wake) = self.armer.arm(&self.context, &rollout).await?;
        if written.is_some() {
            self.own.rollout = written;
        }
        Ok(wake)
    }

    fn rollout(&self, entry: &Entry) -> Option<LearningRollout> {
        newer(entry.rollout.as_ref(), self.own.rollout.as_ref())
    }

    fn records(&self, entry: &Entry) -> Vec<LearningRollback> {
        let mut names: Vec<&String> = entry.records.keys().chain(self.own.records.keys()).collect();
        names.sort();
        names.dedup();
        names.into_iter().filter_map(|name| newer(entry.records.get(name), self.own.records.get(name))).collect()
    }

    fn keep(&mut self, record: &LearningRollback) {
        self.own.records.insert(record.name_any(), record.clone());
    }

    /// Carries on every record that has something left to do.
    async fn executions(&mut self, entry: &Entry) -> Result<Timestamp, Setback> {
        let mut wake = Timestamp::MAX;
        if let Some(rollout) = self.rollout(entry) {
            wake = wake.min(self.active(entry, rollout).await?);
        }
        let (rollout, records) = (self.rollout(entry), self.records(entry));
        let claimed =
            rollout.as_ref().and_then(|rollout| rollout.status.as_ref()).and_then(|status| status.active.clone());
        for record in &records {
            let id = record_id(record);
            if claimed.as_ref().is_some_and(|active| active.id == id) {
                continue;
            }
            let leaves = claimed.as_ref().and_then(|active| active.supersedes.as_ref()).is_some_and(|old| old.id == id);
            if leaves && !record.status.as_ref().is_some_and(|status| status.phase.is_terminal()) {
                continue;
            }
            wake = wake.min(self.unclaimed(entry, rollout.as_ref(), record, &records).await?);
        }
        if let Some(rollout) = rollout {
            let keep: Vec<String> = claimed
                .into_iter()
                .flat_map(|active| [Some(active.name), active.supersedes.map(|old| old.name)])
                .flatten()
                .collect();
            self.context.prune(rollout.spec.history_limit, &self.records(entry), &keep).await?;
        }
        Ok(wake)
    }

    /// The execution that holds the claim.
    async fn active(&mut self, entry: &Entry, mut rollout: LearningRollout) -> Result<Timestamp, Setback> {
        let Some(active) = rollout.status.as_ref().and_then(|status| status.active.clone()) else {
            return Ok(Timestamp::MAX);
        };
        let Some(mut record) = self.record_of(entry, &rollout, &active).await? else {
            return Ok(later(self.context.clock.now(), Duration::from_secs(5)));
        };
        let predecessor = self.predecessor(entry, &record, &active).await?;
        let (verified, check_again) = self.verifier.check(&self.context, &record);
        let admission = claims::admission(&rollout, &active);
        let wake = self.execute(&mut record, admission, predecessor.as_ref(), verified).await?.min(check_again);
        let phase = record.status.as_ref().map_or(Phase::Pending, |status| status.phase);
        if phase.is_terminal() {
            let finished = record.status.as_ref().and_then(|status| status.finished_at.clone());
            rollout = self.context.end_claim(&rollout, phase, finished).await?;
            self.own.rollout = Some(rollout);
            self.evaluator.begin_anew();
        } else if active.uid.is_none() {
            let mut status = rollout.status.clone().unwrap_or_default();
            if let Some(active) = &mut status.active {
                active.uid = record.uid();
            }
            self.own.rollout = Some(self.context.write_rollout(&rollout, status).await?);
        }
        Ok(wake)
    }

    /// The record of a claim: found, made, or known to be lost.
    async fn record_of(
        &mut self,
        entry: &Entry,
        rollout: &LearningRollout,
        active: &ActiveRollback,
    ) -> Result<Option<LearningRollback>, Setback> {
        let known = newer(entry.records.get(&active.name), self.own.records.get(&active.name));
        if let Some(record) = known.filter(|record| record_id(record) == active.id) {
            return Ok(Some(record));
        }
        let records: Api<LearningRollback> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        if active.uid.is_some() {
            if let Some(record) = self.context.limited(records.get_opt(&active.name)).await?
                && record_id(&record) == active.id
            {
                return Ok(Some(record));
            }
            let message = format!(
                "the record {} is gone; its targets keep the rollback's values and their undo notes: \
                 kubectl learning-rollout restore --from-target KIND/NAME puts one back",
                active.name
            );
            self.context.publish(rollout, &Event { warning: true, reason: "RecordLost", message });
            self.own.rollout = Some(self.context.end_claim(rollout, Phase::Released, None).await?);
            self.evaluator.begin_anew();
            return Ok(None);
        }
        match self.context.make_record(rollout, active).await? {
            Ok(record) => {
                self.keep(&record);
                Ok(Some(record))
            }
            Err(message) => {
                self.context.publish(rollout, &Event { warning: true, reason: "RecordNameTaken", message });
                self.own.rollout = Some(self.context.end_claim(rollout, Phase::Skipped, None).await?);
                Ok(None)
            }
        }
    }

    /// The record that is taken over, once it has stopped for good.
    async fn predecessor(
        &mut self,
        entry: &Entry,
        record: &LearningRollback,
        active: &ActiveRollback,
    ) -> Result<Option<LearningRollback>, Setback> {
        let Some(old) = &active.supersedes else { return Ok(None) };
        let begun = record.status.as_ref().is_some_and(|status| status.plan.is_some());
        let known = newer(entry.records.get(&old.name), self.own.records.get(&old.name));
        let Some(predecessor) = known.filter(|record| record_id(record) == old.id) else { return Ok(None) };
        let phase = predecessor.status.as_ref().map_or(Phase::Pending, |status| status.phase);
        if phase == Phase::Superseded {
            return Ok(Some(predecessor));
        }
        if phase.is_terminal() || begun {
            return Ok(None);
        }
        let successor = RecordRef { name: active.name.clone(), id: active.id.clone() };
        let superseded = self.context.supersede(&predecessor, &successor).await?;
        self.keep(&superseded);
        Ok(Some(superseded))
    }

    /// A record without the claim: pending by hand, an orphan, or ended.
    async fn unclaimed(
        &mut self,
        entry: &Entry,
        rollout: Option<&LearningRollout>,
        record: &LearningRollback,
        records: &[LearningRollback],
    ) -> Result<Timestamp, Setback> {
        let mut record = record.clone();
        let phase = record.status.as_ref().map_or(Phase::Pending, |status| status.phase);
        let admission = match phase {
            Phase::Pending if record.spec.id.is_some() => {
                let confirmed = self.claim_of(&record).await?;
                if confirmed {
                    return Err(Setback::Changed);
                }
                Admission::Refused {
                    reason: "NotClaimed",
                    message: "the rollout's status.active does not name it".to_owned(),
                }
            }
            Phase::Pending => {
                let orphan = claims::orphan(rollout, records).map(ResourceExt::name_any);
                let active = rollout
                    .and_then(|rollout| rollout.status.as_ref()?.active.as_ref())
                    .and_then(|active| records.iter().find(|record| record_id(record) == active.id));
                match claims::judge_manual(rollout, &record, orphan.as_deref(), active) {
                    ManualVerdict::DryRun(admission) | ManualVerdict::Refuse(admission) => admission,
                    ManualVerdict::Wait => Admission::Wait,
                    ManualVerdict::Claim(claim) => {
                        let wants =
                            crate::decide::rollback::will(&record) == crate::api::rollback::DesiredState::RolledBack;
                        let expired =
                            record.spec.expires_at.as_ref().is_some_and(|at| at.0 <= self.context.clock.now());
                        match rollout.filter(|_| wants && !expired) {
                            Some(rollout) => {
                                self.own.rollout = Some(self.context.take_claim(rollout, *claim).await?);
                                let claimed = self.rollout(entry).ok_or(Setback::Gone)?;
                                return Box::pin(self.active(entry, claimed)).await;
                            }
                            None if expired => Admission::Refused {
                                reason: "Expired",
                                message: "spec.expiresAt passed before it could begin".to_owned(),
                            },
                            // Held or cancelled: the record's own word decides.
                            None => Admission::Wait,
                        }
                    }
                }
            }
            _ => Admission::Wait,
        };
        self.execute(&mut record, admission, None, None).await
    }

    /// Does the rollout, read by quorum, name this record?
    async fn claim_of(&mut self, record: &LearningRollback) -> Result<bool, Setback> {
        let rollouts: Api<LearningRollout> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        let rollout = self.context.limited(rollouts.get_opt(&self.key.name)).await?;
        let active = rollout.as_ref().and_then(|rollout| rollout.status.as_ref()?.active.as_ref());
        let names = active.is_some_and(|active| active.id == record_id(record));
        self.own.rollout = rollout;
        Ok(names)
    }

    async fn execute(
        &mut self,
        record: &mut LearningRollback,
        admission: Admission,
        predecessor: Option<&LearningRollback>,
        verified: Option<Vec<VerifyStatus>>,
    ) -> Result<Timestamp, Setback> {
        let name = record.name_any();
        let mut looked_at = self.own.looked_at.get(&name).copied();
        let mut execution =
            Execution { context: &self.context, admission, predecessor, verified, looked_at: &mut looked_at };
        let wake = execution.run(record).await;
        if let Some(looked_at) = looked_at {
            self.own.looked_at.insert(name.clone(), looked_at);
        }
        // Kept even after a setback: what was written before it counts.
        self.keep(record);
        let wake = wake?;
        if wake.is_none() {
            self.own.looked_at.remove(&name);
        }
        Ok(wake.unwrap_or(Timestamp::MAX))
    }
}

/// Keeps a panic of one task from taking others along: the rollout is taken up again after a while.
pub(super) async fn guarded(context: Context, index: Index, key: Key) {
    let clock = context.clock;
    let task = std::panic::AssertUnwindSafe(run(context, index, key.clone()));
    if task.catch_unwind().await.is_err() {
        tracing::error!(
            namespace = key.namespace,
            name = key.name,
            "the task of a rollout failed; it starts anew in 10 s"
        );
        clock.sleep_until(later(clock.now(), Duration::from_secs(10))).await;
    }
}
