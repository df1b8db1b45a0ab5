//! SIGKILL in the middle of a rollback: another operator ends it, the same way and once.

use std::pin::pin;

use anyhow::{Context, ensure};
use futures::StreamExt;
use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    runtime::watcher::{self, Event},
};
use learning_rollout::api::rollback::Phase;

use super::breach::remember;
use crate::{
    fields::describe,
    stage::NAMESPACE,
    story::{SOON, Story},
};

const TARGET: &str = "profile-analysis";
const RESTART: (&str, &str) =
    ("Deployment/profile-analysis", "spec template metadata annotations learningloop.io/restarted-by");
const FEATURE_DISABLE: [(&str, &str, &str); 3] = [
    ("ConfigMap/learning-loop-config", "data ENABLE_REAL_TIME_LEARNING", "\"false\""),
    ("ConfigMap/learning-loop-config", "data ENABLE_VOICE_FEEDBACK", "\"false\""),
    (RESTART.0, RESTART.1, "*"),
];
const FAILURES: &str = "sum(rate(learning_operation_failures_total[5s]))";

pub(super) async fn play(story: &mut Story) -> anyhow::Result<()> {
    let (before, known, rolled) = (story.fields().await?, story.record_names().await?, Rolled::of(story).await?);
    let caused = Timestamp::now();
    story.stage.feature.break_by("operation-failures", 0.5).await?;
    story.tell("The fault is on (PUT /faults/operation-failures 0.5).");

    let name = kill_as_it_appears(story, &known).await?;
    let record = story.rollbacks().get(&name).await?;
    let phase = record.status.unwrap_or_default().phase;
    ensure!(
        matches!(phase, Phase::Pending | Phase::Executing),
        "the operator had ended {name} ({phase:?}) before it could be killed: nothing was shown; run the demo again"
    );
    story.proven(format!(
        "SIGKILL to the operator as {name} appears. It is left {phase:?}, and of the workload there is:"
    ));
    story.narrator.output(&describe(&before.changes(&story.fields().await?)));
    story.show_both_kinds().await?;

    story.stage.operator.start_again().await?;
    story.tell(format!(
        "Another operator runs (process {}), and leads once the dead one's lease is over.",
        story.stage.operator.pid()
    ));
    let record = story.until_phase(&name, Phase::RolledBack).await?;
    let changes = before.changed_only(&story.fields().await?, &FEATURE_DISABLE)?;
    story.proven("It has ended the rollback that the other began, with the same outcome:");
    for change in &changes {
        story.narrator.output(&change.describe());
    }
    let status = format!("--timeout={}s", SOON.as_secs());
    story.show(&["rollout", "status", &format!("deployment/{TARGET}"), &status]).await?;
    let records = story.record_names().await?.len();
    ensure!(records == known.len() + 1, "expected exactly one new record; there are {} more", records - known.len());
    rolled.once_more(&Rolled::of(story).await?)?;
    story.proven("And once: one record, one new ReplicaSet, one change of the Deployment's spec.");
    story.show_both_kinds().await?;
    story.until_measured(FAILURES, 0.0).await?;
    story.proven("By Prometheus' own measure no learning operation fails any more.");
    remember(story, "half of the learning operations fail; the operator is killed", caused, record)?;

    story.stage.feature.heal("operation-failures").await?;
    story.tell("The fault is off; a person restores. A restart cannot be undone: it is repeated, with the old flags.");
    let allowed = story.restore(&name, &before, &[RESTART]).await?;
    let repeated = allowed.iter().any(|change| !changes.iter().any(|rolled| rolled.after == change.after));
    ensure!(allowed.len() == 1 && repeated, "expected the restart to be repeated; found {}", describe(&allowed));
    story.until_condition("RollbackInForce", "False").await.map(drop)
}

/// Kills the operator at the very event that brings a new record.
async fn kill_as_it_appears(story: &Story, known: &[String]) -> anyhow::Result<String> {
    let mut events = pin!(watcher::watcher(story.rollbacks(), watcher::Config::default()));
    let appears = async {
        while let Some(event) = events.next().await {
            if let Event::Apply(record) | Event::InitApply(record) = event?
                && !known.contains(&record.name_any())
            {
                story.stage.operator.kill()?;
                return Ok(record.name_any());
            }
        }
        anyhow::bail!("the watch has ended")
    };
    tokio::time::timeout(SOON, appears).await.context("waited 60 s for a new LearningRollback: none appeared")?
}

/// How often a Deployment has been changed and rolled out.
struct Rolled {
    generation: i64,
    replica_sets: usize,
}

impl Rolled {
    async fn of(story: &Story) -> anyhow::Result<Self> {
        let client = || story.stage.cluster.client.clone();
        let deployment = Api::<Deployment>::namespaced(client(), NAMESPACE).get(TARGET).await?;
        let sets = Api::<ReplicaSet>::namespaced(client(), NAMESPACE).list(&Default::default()).await?;
        let owned = |set: &&ReplicaSet| set.owner_references().iter().any(|owner| owner.name == TARGET);
        Ok(Self {
            generation: deployment.metadata.generation.unwrap_or_default(),
            replica_sets: sets.iter().filter(owned).count(),
        })
    }

    fn once_more(&self, now: &Self) -> anyhow::Result<()> {
        let (changes, sets) = (now.generation - self.generation, now.replica_sets - self.replica_sets);
        ensure!(
            changes == 1 && sets == 1,
            "expected one restart of Deployment {TARGET}; found {changes} changes of its spec and {sets} new ReplicaSets"
        );
        Ok(())
    }
}
