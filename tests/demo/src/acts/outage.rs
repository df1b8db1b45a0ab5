//! The negative control: an outage of Prometheus is no evidence against the feature.

use std::time::Duration;

use anyhow::ensure;
use learning_rollout::api::{condition, rollout::TriggerState};
use tokio::time::{Instant, sleep};

use crate::story::Story;

pub(super) async fn play(story: &mut Story) -> anyhow::Result<()> {
    let before = story.fields().await?;
    story.stage.prometheus.stop()?;
    story.tell("Prometheus is stopped (SIGKILL).");
    let rollout = story.until_condition("MetricsAvailable", "False").await?;
    let longest = rollout.spec.triggers.iter().map(|trigger| trigger.hold.get()).max().unwrap_or_default();
    let conditions = rollout.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let message = condition::get(conditions, condition::rollout::METRICS_AVAILABLE).map(|seen| seen.message.clone());
    story.proven(format!("The rollout says so, MetricsAvailable=False: {}", message.unwrap_or_default()));

    // Nothing to await: what must not happen is watched for, longer than the slowest trigger would need.
    let until = Instant::now() + longest + Duration::from_secs(2);
    while Instant::now() < until {
        ensure!(story.record_names().await?.is_empty(), "an outage of Prometheus rolled a healthy feature back");
        let status = story.rollout().await?.status.unwrap_or_default();
        let breaching = |state| matches!(state, TriggerState::Pending | TriggerState::Firing);
        let breach = status.triggers.iter().find(|trigger| breaching(trigger.state));
        ensure!(breach.is_none(), "expected no breach without a sample; found {breach:?}");
        sleep(Duration::from_millis(250)).await;
    }
    let changes = before.changes(&story.fields().await?);
    ensure!(changes.is_empty(), "expected nothing touched; found {}", crate::fields::describe(&changes));
    story.proven(format!(
        "{} s later, longer than the longest `for` of a trigger ({} s): nothing is pending, nothing was touched.",
        longest.as_secs() + 2,
        longest.as_secs()
    ));
    story.show_both_kinds().await?;
    story.stage.prometheus.start_again().await?;
    story.until_condition("MetricsAvailable", "True").await?;
    story.proven("Prometheus is back, and every trigger can be judged again.");
    ensure!(story.record_names().await?.is_empty(), "Prometheus' return rolled a healthy feature back");
    Ok(())
}
