//! A breach becomes pending, fires, and is answered: flag, traffic, capacity.

use anyhow::{Context, ensure};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use learning_rollout::api::{
    rollback::{LearningRollback, Phase},
    rollout::TriggerState,
};

use crate::{
    fields::Fields,
    story::{Episode, Story},
};

const TRIGGER: &str = "error-rate-spike";
/// Of all requests, whichever path they take: the learning path has none after the rollback.
const SHARE: &str = "sum(rate(learning_errors_total[5s])) / sum(rate(learning_requests_total[5s]))";

pub(crate) const IMMEDIATE: [(&str, &str, &str); 3] = [
    ("ConfigMap/learning-loop-config", "data ENABLE_LEARNING", "\"false\""),
    ("Service/profile-analysis", "spec selector version", "\"baseline\""),
    ("Deployment/learning-loop", "spec replicas", "0"),
];

/// Answers the record's name.
pub(super) async fn play(story: &mut Story, before: &Fields) -> anyhow::Result<String> {
    let known = story.record_names().await?;
    let caused = Timestamp::now();
    story.stage.feature.break_by("errors", 0.3).await?;
    story.tell("The fault is on (PUT /faults/errors 0.3).");
    story.until_trigger(TRIGGER, &[TriggerState::Pending]).await?;
    let share = story.stage.prometheus.number(SHARE).await?.unwrap_or(f64::NAN);
    story.proven(format!(
        "Trigger {TRIGGER} is Pending; {:.0} % of all requests fail. Nothing is touched yet.",
        share * 100.0
    ));
    let changes = before.changes(&story.fields().await?);
    ensure!(changes.is_empty(), "expected nothing touched while pending; found {}", crate::fields::describe(&changes));
    story.show_both_kinds().await?;

    let name = story.until_new_record(&known).await?;
    story.proven(format!("It has held for its 5 s: LearningRollback {name} appears."));
    let lrb = format!("lrb/{name}");
    story.show(&["wait", "--for=condition=RolledBack", &lrb, "--timeout=60s"]).await?;
    let record = story.until_phase(&name, Phase::RolledBack).await?;
    ensure!(record.spec.trigger.as_deref() == Some(TRIGGER), "expected trigger {TRIGGER}; found {:?}", record.spec);
    let changes = before.changed_only(&story.fields().await?, &IMMEDIATE)?;
    story.proven(
        "Rolled back. Exactly these fields have changed (and the notes learningloop.io/fence and /undo beside them):",
    );
    for change in changes {
        story.narrator.output(&change.describe());
    }
    story.show_both_kinds().await?;
    story.show(&["get", "deployments,services", "-o", "wide"]).await?;
    let columns = "custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message";
    let selector = format!("involvedObject.name={name}");
    story
        .show(&["get", "events", "--sort-by=.metadata.creationTimestamp", "--field-selector", &selector, "-o", columns])
        .await?;
    story.until_measured(SHARE, 0.0).await?;
    story.proven("By Prometheus' own measure 0 % of all requests fail.");
    // What healthy means is the rollout's own affair: its checks.
    story.show(&["wait", "--for=condition=Verified", &lrb, "--timeout=60s"]).await?;
    story.proven("The checks of the rollout hold: the baseline is healthy.");
    remember(story, "30 % of the requests fail", caused, record)?;
    Ok(name)
}

/// Keeps a rollback for the timeline.
pub(super) fn remember(
    story: &mut Story,
    cause: &str,
    caused: Timestamp,
    landed: LearningRollback,
) -> anyhow::Result<()> {
    landed.status.as_ref().with_context(|| format!("{} has no status", landed.name_any()))?;
    story.episodes.push(Episode { cause: cause.to_owned(), caused, landed, restored: None });
    Ok(())
}
