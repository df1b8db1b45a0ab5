//! What the acts share: looking at the objects, waiting for them, and what a person does and sees with kubectl.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use kube::{Api, ResourceExt};
use learning_rollout::api::{
    condition,
    rollback::{LearningRollback, Phase},
    rollout::{LearningRollout, TriggerState},
};
use testbed::wait;

use crate::{
    fields::{Change, Fields, describe},
    narrator::Narrator,
    stage::{NAMESPACE, Stage},
};

/// The sample's policy.
pub(crate) const ROLLOUT: &str = "learning-loop";
/// For anything that takes seconds; a machine with other work is slow.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Story {
    pub(crate) narrator: Narrator,
    pub(crate) stage: Stage,
    /// Each rollback that was told, for the timeline.
    pub(crate) episodes: Vec<Episode>,
    claims: usize,
}

/// One rollback, from its cause to its restore.
pub(crate) struct Episode {
    pub(crate) cause: String,
    /// When the demo caused it.
    pub(crate) caused: k8s_openapi::jiff::Timestamp,
    /// The record once it had landed: a restore moves its steps' times.
    pub(crate) landed: LearningRollback,
    /// The record once all was put back.
    pub(crate) restored: Option<LearningRollback>,
}

impl Story {
    pub(crate) fn new(narrator: Narrator, stage: Stage) -> Self {
        Self { narrator, stage, episodes: Vec::new(), claims: 0 }
    }

    pub(crate) fn claims(&self) -> usize {
        self.claims
    }

    /// Says something that needs no proof.
    pub(crate) fn tell(&self, text: impl AsRef<str>) {
        self.narrator.line(text.as_ref());
    }

    /// Says what has just been proven.
    pub(crate) fn proven(&mut self, text: impl AsRef<str>) {
        self.claims += 1;
        self.narrator.line(text.as_ref());
    }

    /// Runs kubectl as a person in namespace `learning` would, and shows it.
    pub(crate) async fn show(&self, args: &[&str]) -> anyhow::Result<()> {
        let output = self.stage.cluster.kubectl(&[args, &["-n", NAMESPACE]].concat()).await?;
        let quoted = args.iter().map(|arg| quoted(arg));
        let typed = format!("kubectl {} -n {NAMESPACE}", quoted.collect::<Vec<_>>().join(" "));
        self.narrator.typed(&typed, &output);
        Ok(())
    }

    pub(crate) async fn show_both_kinds(&self) -> anyhow::Result<()> {
        self.show(&["get", "lro,lrb"]).await
    }

    /// What a person would want to see after a failure. It must not fail itself.
    pub(crate) async fn show_what_is_there(&self) {
        for args in
            [&["get", "lro,lrb"][..], &["get", "deployments,services,configmaps"], &["events", "--types=Warning"]]
        {
            if let Err(error) = self.show(args).await {
                self.tell(format!("{error:#}"));
            }
        }
        if let Err(error) = self.stage.operator.ensure_running() {
            self.tell(format!("{error:#}"));
        }
    }

    fn rollouts(&self) -> Api<LearningRollout> {
        Api::namespaced(self.stage.cluster.client.clone(), NAMESPACE)
    }

    pub(crate) fn rollbacks(&self) -> Api<LearningRollback> {
        Api::namespaced(self.stage.cluster.client.clone(), NAMESPACE)
    }

    pub(crate) async fn rollout(&self) -> anyhow::Result<LearningRollout> {
        Ok(self.rollouts().get(ROLLOUT).await?)
    }

    pub(crate) async fn record_names(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.rollbacks().list(&Default::default()).await?.iter().map(ResourceExt::name_any).collect())
    }

    pub(crate) async fn fields(&self) -> anyhow::Result<Fields> {
        Fields::read(&self.stage.cluster.client).await
    }

    /// Waits for a condition of the rollout.
    pub(crate) async fn until_condition(&self, kind: &str, status: &str) -> anyhow::Result<LearningRollout> {
        wait::until(format!("condition {kind} of the rollout to be {status}"), SOON, || async {
            let rollout = self.rollout().await?;
            let conditions = rollout.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let seen = condition::get(conditions, kind).map(|seen| format!("{}: {}", seen.status, seen.message));
            match seen {
                Some(seen) if seen.starts_with(&format!("{status}:")) => Ok(rollout),
                other => Err(anyhow!("{}", other.unwrap_or_else(|| "no such condition".to_owned()))),
            }
        })
        .await
    }

    /// Waits until a trigger is in one of these states.
    pub(crate) async fn until_trigger(&self, name: &str, wanted: &[TriggerState]) -> anyhow::Result<()> {
        wait::until(format!("trigger {name} to be {wanted:?}"), SOON, || async {
            let triggers = self.rollout().await?.status.map(|status| status.triggers).unwrap_or_default();
            let seen = triggers.into_iter().find(|trigger| trigger.name == name);
            match seen {
                Some(seen) if wanted.contains(&seen.state) => Ok(()),
                seen => Err(anyhow!("{seen:?}")),
            }
        })
        .await
    }

    /// Waits for the one record that was not there before.
    pub(crate) async fn until_new_record(&self, known: &[String]) -> anyhow::Result<String> {
        wait::until("a new LearningRollback", SOON, || async {
            let new: Vec<String> =
                self.record_names().await?.into_iter().filter(|name| !known.contains(name)).collect();
            match <[String; 1]>::try_from(new) {
                Ok([name]) => Ok(name),
                Err(new) => Err(anyhow!("new records: {new:?}")),
            }
        })
        .await
    }

    pub(crate) async fn until_phase(&self, name: &str, phase: Phase) -> anyhow::Result<LearningRollback> {
        wait::until(format!("LearningRollback {name} to be {phase:?}"), SOON, || async {
            let record = self.rollbacks().get(name).await?;
            let status = record.status.clone().unwrap_or_default();
            if status.phase == phase { Ok(record) } else { Err(anyhow!("{:?} {:?}", status.phase, status.message)) }
        })
        .await
    }

    /// Waits until Prometheus itself says that `query` is `wanted`.
    pub(crate) async fn until_measured(&self, query: &str, wanted: f64) -> anyhow::Result<()> {
        wait::until(format!("{query} to be {wanted} in Prometheus"), SOON, || async {
            let seen = self.stage.prometheus.number(query).await?;
            if seen == Some(wanted) { Ok(()) } else { Err(anyhow!("{seen:?}")) }
        })
        .await
    }

    /// A person restores the record by the plugin; everything must be as it was, but for the fields that `may_differ`.
    pub(crate) async fn restore(
        &mut self,
        name: &str,
        before: &Fields,
        may_differ: &[(&str, &str)],
    ) -> anyhow::Result<Vec<Change>> {
        self.show(&["learning-rollout", "restore", name, "--reason", "the cause is repaired"]).await?;
        let record = self.until_phase(name, Phase::Restored).await?;
        let after = self.fields().await?;
        let (allowed, changes): (Vec<_>, Vec<_>) = before.changes(&after).into_iter().partition(|change| {
            may_differ.iter().any(|(object, field)| change.object == *object && change.field == *field)
        });
        ensure!(changes.is_empty(), "expected everything as before; found {}", describe(&changes));
        self.proven(format!(
            "Restored: {} fields of the namespace's ConfigMaps, Services and Deployments compared with those before,",
            after.len()
        ));
        self.narrator.output(&match allowed.as_slice() {
            [] => "no difference; nothing of learningloop.io is left on them.".to_owned(),
            allowed => format!("one difference, as it must be: {}", describe(allowed)),
        });
        if let Some(episode) = self.episodes.iter_mut().find(|episode| episode.landed.name_any() == name) {
            episode.restored = Some(record);
        }
        Ok(allowed)
    }
}

/// As one would type it in a shell.
fn quoted(argument: &str) -> String {
    if argument.contains(['"', '{', ' ']) { format!("'{argument}'") } else { argument.to_owned() }
}
