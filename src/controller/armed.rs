//! Armed: the promise that a rollback would work now. All plans are resolved and rehearsed on the server, before the
//! incident, on every change of the spec, at the start, and every 15 minutes.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube::ResourceExt;

use super::{
    background::Background,
    claims,
    context::{Context, Setback},
    execute,
};
use crate::{
    api::{
        condition::{self, Verdict, rollout as conditions},
        rollback::{FrozenPlan, LearningRollback, LearningRollbackStatus, StepStatus},
        rollout::LearningRollout,
        step::StepKind,
    },
    decide::{
        advice::{Weight, advise},
        fields,
        rollback::{Event, later, shorten},
    },
    steps::cluster::Cluster,
};

/// Time between two rehearsals of an armed rollout.
const REPEAT: Duration = Duration::from_secs(15 * 60);
/// Time between two rehearsals of one that is not.
const RETRY: Duration = Duration::from_secs(30);

/// Whether a rollback would work now.
#[derive(Default)]
pub(super) struct Armer {
    rehearsing: Background<(Option<i64>, Verdict)>,
    generation: Option<i64>,
    next: Option<Timestamp>,
}

impl Armer {
    /// Resolves when a rehearsal has ended.
    pub(super) async fn rehearsed(&mut self) {
        self.rehearsing.done().await;
    }

    /// Writes what a rehearsal found, and starts the next when it is due. While a rollback is in force its targets are not
    /// rehearsed: they hold what it left.
    pub(super) async fn arm(
        &mut self,
        context: &Context,
        rollout: &LearningRollout,
    ) -> Result<(Option<LearningRollout>, Timestamp), Setback> {
        let generation = rollout.metadata.generation;
        let now = context.clock.now();
        let in_force = rollout.status.as_ref().is_some_and(|status| status.active.is_some());
        let mut written = None;
        if let Some((seen, verdict)) = self.rehearsing.take().filter(|(seen, _)| !in_force && *seen == generation) {
            self.generation = seen;
            let wait = if verdict.status == "True" { REPEAT } else { RETRY };
            self.next = Some(later(now, wait));
            written = record(context, rollout, verdict).await?;
        }
        if in_force || !self.rehearsing.is_idle() {
            return Ok((written, Timestamp::MAX));
        }
        let due = self.next.filter(|_| self.generation == generation).unwrap_or(now);
        if due > now {
            return Ok((written, due));
        }
        let (context, rollout) = (context.clone(), rollout.clone());
        self.rehearsing.start(async move { (rollout.metadata.generation, rehearse(&context, &rollout).await) });
        Ok((written, Timestamp::MAX))
    }
}

async fn record(
    context: &Context,
    rollout: &LearningRollout,
    verdict: Verdict,
) -> Result<Option<LearningRollout>, Setback> {
    let mut status = rollout.status.clone().unwrap_or_default();
    let before = condition::get(&status.conditions, conditions::ARMED).map(|before| before.status.clone());
    let event = Event {
        warning: verdict.status != "True",
        reason: if verdict.status == "True" { "Armed" } else { "NotArmed" },
        message: verdict.message.clone(),
    };
    let news = before.as_deref() != Some(verdict.status);
    condition::set(
        &mut status.conditions,
        conditions::ARMED,
        verdict,
        rollout.metadata.generation,
        context.clock.now(),
    );
    let written = context.write_rollout(rollout, status).await?;
    if news {
        context.publish(&written, &event);
    }
    Ok(Some(written))
}

/// Rehearses every step of every plan.
async fn rehearse(context: &Context, rollout: &LearningRollout) -> Verdict {
    let mut failures = Vec::new();
    let mut reason = None;
    for plan in &rollout.spec.rollbacks {
        let Some(frozen) = claims::freeze(rollout, &plan.name) else { continue };
        let (record, status) = understudy(rollout, frozen);
        let cluster = Cluster::new(
            context.client.clone(),
            &rollout.namespace().unwrap_or_default(),
            rollout.spec.service_account_name.as_deref(),
        );
        for (index, step) in plan.steps.iter().enumerate() {
            let failure = match step.kind() {
                StepKind::Unknown => Some(crate::decide::rollback::unknown_kind()),
                _ => execute::rehearse_from_scratch(&cluster, &record, &status, index).await.err(),
            };
            if let Some(failure) = failure {
                reason.get_or_insert(failure.reason);
                failures.push(format!("rollback {}, step {}: {}", plan.name, step.name, failure.message));
            }
        }
    }
    let advice = advise(&rollout.spec, rollout.annotations());
    let warnings: Vec<&str> =
        advice.iter().filter(|of| of.weight == Weight::Warning).map(|of| of.message.as_str()).collect();
    match reason {
        Some(reason) => Verdict::no(reason, shorten(&failures.join("; "))),
        None if warnings.is_empty() => Verdict::yes(
            "Rehearsed",
            format!("{} rollbacks were rehearsed on the server", rollout.spec.rollbacks.len()),
        ),
        None => Verdict::yes("RehearsedWithWarnings", shorten(&warnings.join("; "))),
    }
}

/// A record that is never stored: what a rollback would begin with.
fn understudy(rollout: &LearningRollout, plan: FrozenPlan) -> (LearningRollback, LearningRollbackStatus) {
    let metadata = ObjectMeta {
        name: Some(format!("{}-rehearsal", rollout.name_any())),
        namespace: rollout.namespace(),
        uid: Some("rehearsal".to_owned()),
        ..ObjectMeta::default()
    };
    let steps = plan.steps.iter().map(|definition| StepStatus {
        name: definition.name.clone(),
        kind: definition.kind().name().to_owned(),
        target: fields::target(definition),
        ..StepStatus::default()
    });
    let status =
        LearningRollbackStatus { steps: steps.collect(), plan: Some(plan), ..LearningRollbackStatus::default() };
    (LearningRollback { metadata, spec: Default::default(), status: None }, status)
}
