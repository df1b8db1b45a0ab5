//! A person's word: roll back without a trigger, hold, resume; and somebody who does not know of it.

use anyhow::{Context, anyhow, ensure};
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::Api;
use learning_rollout::api::{
    condition,
    rollback::{DesiredState, Phase},
};
use testbed::wait;

use super::breach::{IMMEDIATE, remember};
use crate::{
    stage::NAMESPACE,
    story::{ROLLOUT, SOON, Story},
};

const FLAG: &str = "learning-loop-config";

pub(super) async fn play(story: &mut Story) -> anyhow::Result<()> {
    let (before, known) = (story.fields().await?, story.record_names().await?);
    let caused = Timestamp::now();
    story.show(&["learning-rollout", "rollback", ROLLOUT, "--plan", "immediate", "--reason", "a bad feeling"]).await?;
    let name = story.until_new_record(&known).await?;
    let record = story.until_phase(&name, Phase::RolledBack).await?;
    before.changed_only(&story.fields().await?, &IMMEDIATE)?;
    story.proven("Rolled back by hand: the same fields as in act 3, no trigger in the record.");
    ensure!(record.spec.trigger.is_none(), "expected no trigger; found {:?}", record.spec.trigger);
    remember(story, "a person's word", caused, record)?;
    story.show_both_kinds().await?;

    story.show(&["learning-rollout", "hold", &name, "--reason", "a look at it first"]).await?;
    acknowledged(story, &name, DesiredState::Held).await?;
    story.proven("Held is acknowledged: no next move. What has landed is still kept up, as somebody finds out:");
    let flag = r#"{"data":{"ENABLE_LEARNING":"true"}}"#;
    story.show(&["patch", "configmap", FLAG, "--type=merge", "-p", flag]).await?;
    let message = wait::until("the flag to be put back, and the record to say so", SOON, || async {
        ensure!(flag_is(story).await? == "false", "ENABLE_LEARNING is true");
        let status = story.rollbacks().get(&name).await?.status.unwrap_or_default();
        let again: i32 = status.steps.iter().map(|step| step.reasserted).sum();
        ensure!(again == 1, "{again} values were put back");
        let contested = condition::get(&status.conditions, condition::rollback::CONTESTED).cloned();
        Ok(contested.context("no condition Contested")?.message)
    })
    .await?;
    story.proven(format!("The rollback's value is back, once, and the record names who took it: {message}"));
    story.show(&["learning-rollout", "resume", &name]).await?;
    acknowledged(story, &name, DesiredState::RolledBack).await?;
    story.proven("Resumed.");
    story.restore(&name, &before, &[]).await?;
    story.until_condition("RollbackInForce", "False").await?;
    story.show_both_kinds().await
}

async fn acknowledged(story: &Story, name: &str, will: DesiredState) -> anyhow::Result<()> {
    wait::until(format!("{will:?} to be acknowledged"), SOON, || async {
        let seen = story.rollbacks().get(name).await?.status.unwrap_or_default().acknowledged.desired_state;
        if seen == will { Ok(()) } else { Err(anyhow!("{seen:?}")) }
    })
    .await
}

async fn flag_is(story: &Story) -> anyhow::Result<String> {
    let maps: Api<ConfigMap> = Api::namespaced(story.stage.cluster.client.clone(), NAMESPACE);
    let data = maps.get(FLAG).await?.data.unwrap_or_default();
    data.get("ENABLE_LEARNING").cloned().context("ENABLE_LEARNING is gone")
}
