//! One record: look, decide, journal, write, and again, until there is nothing to do but wait.

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::context::{Context, Setback};
use crate::{
    api::{
        IN_FORCE,
        rollback::{LearningRollback, LearningRollbackStatus, Phase, StepStatus, VerifyStatus},
    },
    decide::rollback::{
        Admission, Decision, Failure, Input, Look, Present, StepSight, TargetSight, Write, decide, definition,
    },
    steps::{
        self,
        cluster::{Cluster, FIELD_MANAGER, Refusal},
        edit, write,
    },
};

/// No decision takes more rounds than this; one that seems to is tried again later.
const MAX_ROUNDS: usize = 100;

/// A record being executed.
pub(super) struct Execution<'a> {
    pub(super) context: &'a Context,
    pub(super) admission: Admission,
    pub(super) predecessor: Option<&'a LearningRollback>,
    pub(super) verified: Option<Vec<VerifyStatus>>,
    pub(super) looked_at: &'a mut Option<Timestamp>,
}

/// What a pass has seen: one entry for each step.
#[derive(Default)]
struct Seen {
    sights: Vec<StepSight>,
    objects: Vec<Option<Value>>,
}

impl Seen {
    fn resize(&mut self, steps: usize) {
        self.sights.resize_with(steps, StepSight::default);
        self.objects.resize_with(steps, || None);
    }

    fn put(&mut self, index: usize, sight: TargetSight, object: Option<Value>) {
        if let (Some(entry), Some(slot)) = (self.sights.get_mut(index), self.objects.get_mut(index)) {
            // What was seen beyond the target belongs to the object before this one.
            *entry = StepSight { target: Some(sight), ..StepSight::default() };
            *slot = object;
        }
    }
}

impl Execution<'_> {
    /// Runs a pass. Answers when to come back; `None` when nothing is left to do.
    ///
    /// # Errors
    /// When the record changed meanwhile, this replica does not lead, or the API server did not answer.
    pub(super) async fn run(&mut self, record: &mut LearningRollback) -> Result<Option<Timestamp>, Setback> {
        let mut seen = Seen::default();
        for _ in 0..MAX_ROUNDS {
            let decision = decide(&Input {
                record,
                admission: &self.admission,
                predecessor: self.predecessor,
                sights: &seen.sights,
                verified: self.verified.as_deref(),
                looked_at: *self.looked_at,
                now: self.context.clock.now(),
            });
            seen.resize(decision.status.steps.len());
            if !decision.looks.is_empty() {
                self.look(record, &decision, &mut seen).await;
                continue;
            }
            self.journal(record, &decision).await?;
            if decision.finished {
                self.let_go(record).await?;
                return Ok(None);
            }
            if decision.writes.is_empty() {
                return Ok(Some(decision.wake.unwrap_or(Timestamp::MAX)));
            }
            self.write(record, &decision, &mut seen).await?;
        }
        warn!(record = record.name_any(), "a pass did not come to rest; it goes on later");
        Ok(Some(crate::decide::rollback::later(self.context.clock.now(), std::time::Duration::from_secs(1))))
    }

    fn cluster(&self, record: &LearningRollback, status: &LearningRollbackStatus) -> Cluster {
        let namespace = record.namespace().unwrap_or_default();
        let account = status.plan.as_ref().and_then(|plan| plan.service_account_name.as_deref());
        Cluster::new(self.context.client.clone(), &namespace, account)
    }

    async fn look(&mut self, record: &LearningRollback, decision: &Decision, seen: &mut Seen) {
        let cluster = self.cluster(record, &decision.status);
        let this = &*self;
        let answers = join_all(decision.looks.iter().map(|look| {
            let cluster = &cluster;
            async move {
                match *look {
                    Look::Target { step, rehearse } => {
                        Answer::Target(step, this.sight(cluster, record, &decision.status, step, rehearse).await)
                    }
                    Look::Holds(step) => Answer::Holds(step, holds(cluster, &decision.status, step).await),
                    Look::Ready(step) => Answer::Ready(step, ready(cluster, &decision.status, step).await),
                }
            }
        }))
        .await;
        for answer in answers {
            match answer {
                Answer::Target(step, (sight, object)) => {
                    *self.looked_at = Some(self.context.clock.now());
                    seen.put(step, sight, object);
                }
                Answer::Holds(step, holds) => {
                    if let Some(sight) = seen.sights.get_mut(step) {
                        sight.holds = Some(holds);
                    }
                }
                Answer::Ready(step, ready) => {
                    if let Some(sight) = seen.sights.get_mut(step) {
                        sight.ready = Some(ready);
                    }
                }
            }
        }
    }

    /// Reads one target; with `rehearse`, finds out whether it would take the edit.
    async fn sight(
        &self,
        cluster: &Cluster,
        record: &LearningRollback,
        status: &LearningRollbackStatus,
        index: usize,
        rehearse: bool,
    ) -> (TargetSight, Option<Value>) {
        let Some(target) = status.steps.get(index).and_then(|step| step.target.clone()) else {
            return (TargetSight::Missing, None);
        };
        let object = match cluster.get(&target).await {
            Ok(Some(object)) => object,
            Ok(None) => return (TargetSight::Missing, None),
            Err(refusal) => return (TargetSight::Unusable(refusal.failure()), None),
        };
        let mut sight = self.judge(record, status, index, &object).await;
        if let TargetSight::Present(present) = &mut sight
            && rehearse
            && present.claimed_by.is_none()
        {
            present.refused = rehearsed(cluster, record, status, index, &object).await.err();
        }
        (sight, Some(object))
    }

    /// What an object says of a step.
    async fn judge(
        &self,
        record: &LearningRollback,
        status: &LearningRollbackStatus,
        index: usize,
        object: &Value,
    ) -> TargetSight {
        let Some(definition) = status.steps.get(index).and_then(|step| definition(status.plan.as_ref(), step)) else {
            return TargetSight::Missing;
        };
        let fields = match steps::read(definition, object) {
            Ok(fields) => fields,
            Err(failure) => return TargetSight::Unusable(failure),
        };
        let fence = edit::fence_of(object);
        let claimed_by = match &fence {
            Some(token) => self.owner(record, token).await,
            None => None,
        };
        TargetSight::Present(Present {
            uid: object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned(),
            manager: edit::manager_of(object, &fields, FIELD_MANAGER),
            fence,
            fields,
            claimed_by,
            refused: None,
        })
    }

    /// The other record in force that a token belongs to.
    async fn owner(&self, record: &LearningRollback, token: &str) -> Option<String> {
        let (uid, _) = token.split_once('/')?;
        let own = record.metadata.uid.as_deref();
        let predecessor = self.predecessor.and_then(|record| record.metadata.uid.as_deref());
        if own == Some(uid) || predecessor == Some(uid) {
            return None;
        }
        let records: Api<LearningRollback> = Api::namespaced(self.context.client.clone(), &record.namespace()?);
        let listed = self.context.limited(records.list(&Default::default())).await.ok()?;
        listed
            .items
            .into_iter()
            .find(|other| other.metadata.uid.as_deref() == Some(uid))
            .filter(in_force)
            .map(|other| other.name_any())
    }

    /// Writes the decided status, and tells people. The finalizer comes first: a record whose first intent is journalled
    /// cannot vanish.
    async fn journal(&self, record: &mut LearningRollback, decision: &Decision) -> Result<(), Setback> {
        if record.status.as_ref() == Some(&decision.status) || decision.status == LearningRollbackStatus::default() {
            return Ok(());
        }
        let begins = !matches!(decision.status.phase, Phase::Pending) && !decision.status.phase.is_terminal();
        let leaving = record.metadata.deletion_timestamp.is_some();
        if begins && !leaving && !record.finalizers().iter().any(|name| name == IN_FORCE) {
            let mut finalizers = record.finalizers().to_vec();
            finalizers.push(IN_FORCE.to_owned());
            *record = self.context.set_finalizers(record, &finalizers).await?;
        }
        self.context.leadership.permit()?;
        let records: Api<LearningRollback> =
            Api::namespaced(self.context.client.clone(), &record.namespace().unwrap_or_default());
        let mut next = record.clone();
        next.status = Some(decision.status.clone());
        let phase = record.status.as_ref().map(|status| status.phase);
        let (name, parameters) = (record.name_any(), PostParams::default());
        *record = self.context.limited(records.replace_status(&name, &parameters, &next)).await?;
        if phase != Some(decision.status.phase) {
            info!(record = record.name_any(), namespace = record.namespace(), phase = ?decision.status.phase, "phase");
        }
        for event in &decision.events {
            self.context.publish(record, event);
        }
        Ok(())
    }

    async fn write(&self, record: &LearningRollback, decision: &Decision, seen: &mut Seen) -> Result<(), Setback> {
        let cluster = self.cluster(record, &decision.status);
        let objects = &seen.objects;
        let outcomes = join_all(decision.writes.iter().map(|write| {
            let object = objects.get(write.step).and_then(Option::as_ref);
            self.write_one(&cluster, record, &decision.status, *write, object)
        }))
        .await;
        for (write, outcome) in decision.writes.iter().zip(outcomes) {
            let (sight, object) = outcome?;
            seen.put(write.step, sight, object);
        }
        Ok(())
    }

    async fn write_one(
        &self,
        cluster: &Cluster,
        record: &LearningRollback,
        status: &LearningRollbackStatus,
        to_do: Write,
        object: Option<&Value>,
    ) -> Result<(TargetSight, Option<Value>), Setback> {
        let Some((object, target)) = object.zip(status.steps.get(to_do.step).and_then(|step| step.target.as_ref()))
        else {
            return Ok((TargetSight::Missing, None));
        };
        let operations = match write::patch(record, status, to_do.step, to_do.purpose, object) {
            Ok(operations) => operations,
            Err(failure) => return Ok((TargetSight::Unusable(failure), None)),
        };
        self.context.leadership.permit()?;
        let object = match cluster.patch(target, &operations, false).await {
            Ok(object) => {
                info!(record = record.name_any(), target = %edit::describe(&object), purpose = ?to_do.purpose, "patched");
                object
            }
            // What it relied on has changed, or nobody knows whether it landed: the object itself tells.
            Err(refusal @ (Refusal::Changed | Refusal::NotFound | Refusal::Unclear(_))) => {
                warn!(record = record.name_any(), kind = target.kind, name = target.name, error = %refusal, "patch not confirmed");
                match cluster.get(target).await {
                    Ok(Some(object)) => object,
                    Ok(None) => return Ok((TargetSight::Missing, None)),
                    Err(refusal) => return Ok((TargetSight::Unusable(refusal.failure()), None)),
                }
            }
            Err(refusal) => return Ok((TargetSight::Unusable(refusal.failure()), None)),
        };
        Ok((self.judge(record, status, to_do.step, &object).await, Some(object)))
    }

    /// A terminal record holds nothing any more.
    async fn let_go(&self, record: &mut LearningRollback) -> Result<(), Setback> {
        if record.finalizers().iter().any(|name| name == IN_FORCE) {
            let rest: Vec<String> = record.finalizers().iter().filter(|name| *name != IN_FORCE).cloned().collect();
            *record = self.context.set_finalizers(record, &rest).await?;
        }
        Ok(())
    }
}

enum Answer {
    Target(usize, (TargetSight, Option<Value>)),
    Holds(usize, Result<(), String>),
    Ready(usize, Result<(), String>),
}

/// Reads a step's target and finds out whether it would take the edit.
pub(super) async fn rehearse_from_scratch(
    cluster: &Cluster,
    record: &LearningRollback,
    status: &LearningRollbackStatus,
    index: usize,
) -> Result<(), Failure> {
    let target = status.steps.get(index).and_then(|step| step.target.as_ref());
    let Some(target) = target else { return Ok(()) };
    match cluster.get(target).await.map_err(|refusal| refusal.failure())? {
        Some(object) => rehearsed(cluster, record, status, index, &object).await,
        None => Err(Failure {
            reason: "TargetNotFound".to_owned(),
            message: format!("{} {} does not exist: create it, or correct the name", target.kind, target.name),
            permanent: false,
        }),
    }
}

/// Would the target take the edit?
async fn rehearsed(
    cluster: &Cluster,
    record: &LearningRollback,
    status: &LearningRollbackStatus,
    index: usize,
    object: &Value,
) -> Result<(), Failure> {
    let Some((step, target)) = status.steps.get(index).and_then(|step| Some((step, step.target.as_ref()?))) else {
        return Ok(());
    };
    let Some(definition) = definition(status.plan.as_ref(), step) else { return Ok(()) };
    if let Some(failure) = steps::refusal(definition, object) {
        return Err(failure);
    }
    let operations = write::rehearsal(record, status, index, object)?;
    let (admitted, dry_run) =
        futures::join!(steps::admit(cluster, definition, object), cluster.patch(target, &operations, true));
    admitted?;
    match dry_run {
        // Somebody changed it between the read and the rehearsal: the write itself will tell.
        Ok(_) | Err(Refusal::Changed) => Ok(()),
        Err(refusal) => Err(refusal.failure()),
    }
}

async fn holds(cluster: &Cluster, status: &LearningRollbackStatus, index: usize) -> Result<(), String> {
    let definition = status.steps.get(index).and_then(|step| definition(status.plan.as_ref(), step));
    match definition {
        Some(definition) => steps::holds(cluster, definition).await,
        None => Ok(()),
    }
}

async fn ready(cluster: &Cluster, status: &LearningRollbackStatus, index: usize) -> Result<(), String> {
    let step: Option<&StepStatus> = status.steps.get(index);
    let Some((target, definition)) =
        step.and_then(|step| Some((step.target.as_ref()?, definition(status.plan.as_ref(), step)?)))
    else {
        return Ok(());
    };
    // Read anew: the answer to the patch carries the status from before it.
    let object = cluster.get(target).await.map_err(|refusal| refusal.to_string())?;
    object.map_or(Ok(()), |object| steps::ready(definition, &object))
}

/// Does a record still hold its targets? One that cannot be understood does.
pub(super) fn in_force(record: &LearningRollback) -> bool {
    let Some(status) = &record.status else { return false };
    !status.phase.is_terminal() && !record.spec.dry_run && (status.phase != Phase::Pending)
}

impl Context {
    /// Sets a record's finalizers, on exactly the version that was seen.
    pub(super) async fn set_finalizers(
        &self,
        record: &LearningRollback,
        finalizers: &[String],
    ) -> Result<LearningRollback, Setback> {
        self.leadership.permit()?;
        let records: Api<LearningRollback> =
            Api::namespaced(self.client.clone(), &record.namespace().unwrap_or_default());
        let patch =
            json!({"metadata": {"finalizers": finalizers, "resourceVersion": record.metadata.resource_version}});
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.limited(records.patch(&record.name_any(), &parameters, &Patch::Merge(patch))).await
    }
}
