//! Every trigger has something to judge, and none of them breaches.

use anyhow::ensure;
use learning_rollout::api::{condition, rollout::TriggerState};

use crate::story::Story;

pub(super) async fn play(story: &mut Story) -> anyhow::Result<()> {
    story.until_condition("Ready", "True").await?;
    // The growth of memory and the captured baseline need a past first.
    let rollout = story.until_condition("MetricsAvailable", "True").await?;
    let status = rollout.status.unwrap_or_default();
    ensure!(
        status.triggers.iter().all(|trigger| trigger.state == TriggerState::Ok),
        "expected every trigger to be Ok; found {:?}",
        status.triggers
    );
    ensure!(story.record_names().await?.is_empty(), "expected no rollback of a healthy feature");
    story.proven(format!("All {} triggers are Ok; there is no rollback.", status.triggers.len()));
    story.show_both_kinds().await?;
    story.show(&["get", "deployments,services"]).await?;
    if let Some(armed) = condition::get(&status.conditions, condition::rollout::ARMED) {
        story.tell(format!("Armed is {}: {}.", armed.status, armed.message.trim_end_matches('.')));
        story.narrator.output(
            "(The gradual plan moves the weights of a VirtualService; without Istio only that plan cannot run.)",
        );
    }
    Ok(())
}
