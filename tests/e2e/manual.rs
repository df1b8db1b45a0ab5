//! Rollbacks that a person creates: admitted like any other, or refused with the reason.

use learning_rollout::api::{
    rollback::{LearningRollback, Phase, StepState},
    rollout::TriggerState,
};
use serde_json::{Value, json};

use crate::harness::{Feature, flag_step, immediate_steps, step};

fn manual(name: &str, rollback: &str, more: Value) -> Value {
    let mut spec = json!({"rolloutRef": {"name": "learning-loop"}, "rollback": rollback, "reason": "a person says so"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "learningloop.io/v1alpha1", "kind": "LearningRollback", "metadata": {"name": name}, "spec": spec})
}

async fn create(feature: &Feature<'_>, record: Value) {
    feature.kubectl_with(&["create", "-f", "-"], &record.to_string()).await;
}

fn message(record: &LearningRollback) -> String {
    record.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_person_rolls_back_and_another_has_to_wait() {
    let feature = Feature::new("manual").await;
    let before = feature.touched().await;
    feature.apply(feature.policy("learning-loop", immediate_steps())).await;
    let _operator = feature.operator();
    feature.until_trigger("learning-loop", TriggerState::Ok, None).await;
    create(&feature, manual("by-hand", "immediate", json!({}))).await;
    let record = feature.until_phase("by-hand", Phase::RolledBack).await;
    assert_eq!(record.metadata.finalizers.as_deref(), Some(&["learningloop.io/in-force".to_owned()][..]));
    let active = feature.rollout("learning-loop").await.status.unwrap().active.unwrap();
    assert_eq!((active.name.as_str(), active.uid), ("by-hand", record.metadata.uid.clone()));
    assert_eq!(feature.flag().await, "false");

    create(&feature, manual("another", "immediate", json!({}))).await;
    let another = feature.until_phase("another", Phase::Skipped).await;
    assert!(message(&another).contains("AnotherInForce") && message(&another).contains("by-hand"), "{another:?}");
    assert_eq!(feature.patches("configmaps", "config"), 1);

    feature.restore("by-hand").await;
    assert_eq!(feature.touched().await, before);
    // Skipped for good: it does not begin now that the place is free.
    assert_eq!(feature.record("another").await.status.unwrap().phase, Phase::Skipped);
    assert_eq!(feature.patches("configmaps", "config"), 2);
}

#[tokio::test]
async fn what_cannot_be_meant_is_skipped_with_the_reason() {
    let feature = Feature::configured("skipped").await;
    feature.apply(feature.policy("learning-loop", flag_step())).await;
    let _operator = feature.operator();
    feature.until_trigger("learning-loop", TriggerState::Ok, None).await;
    let no_rollout = json!({"rolloutRef": {"name": "nobody"}});
    let wrong_uid = json!({"rolloutRef": {"name": "learning-loop", "uid": "11111111-2222-3333-4444-555555555555"}});
    let cases = [
        ("unknown-plan", "nothing", json!({}), "RollbackNotFound", "it has immediate"),
        ("unknown-rollout", "immediate", no_rollout, "RolloutNotFound", "\"nobody\""),
        ("wrong-uid", "immediate", wrong_uid, "RolloutRecreated", "uid"),
        ("expired", "immediate", json!({"expiresAt": "2020-01-01T00:00:00.000000Z"}), "Expired", "expiresAt"),
        ("cancelled", "immediate", json!({"desiredState": "Restored"}), "Cancelled", "cancelled"),
    ];
    for (name, plan, more, ..) in &cases {
        create(&feature, manual(name, plan, more.clone())).await;
    }
    for (name, _, _, reason, remedy) in &cases {
        let record = feature.until_phase(name, Phase::Skipped).await;
        let said = message(&record);
        assert!(said.contains(reason) && said.contains(remedy), "{name}: {said}");
        assert_eq!(record.metadata.finalizers, None, "{name}: nothing is held by what never began");
    }
    assert_eq!((feature.patches("configmaps", "config"), feature.flag().await), (0, json!("true")));
    assert_eq!(feature.rollout("learning-loop").await.status.unwrap().active, None);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_changes_nothing() {
    let feature = Feature::new("dryrun").await;
    let steps = json!([
        immediate_steps()[0],
        immediate_steps()[1],
        {"name": "missing", "setConfig": {"configMapRef": {"name": "no-such-config"}, "data": {"A": "b"}}},
    ]);
    feature.apply(feature.policy("learning-loop", steps)).await;
    let versions =
        || async { [feature.version("ConfigMap", "config").await, feature.version("Service", "profile").await] };
    let before = versions().await;
    let _operator = feature.operator();
    create(&feature, manual("rehearsal", "immediate", json!({"dryRun": true}))).await;
    let record = feature.until_phase("rehearsal", Phase::DryRunComplete).await;
    assert_eq!(versions().await, before, "not even an annotation");
    let would = step(&record, "flag").message.clone().unwrap();
    assert!(would.contains(r#"/data/ENABLE_LEARNING "true" -> "false""#) && would.contains("MODE absent"), "{would}");
    assert!(step(&record, "traffic").message.as_ref().unwrap().contains("baseline"));
    let missing = step(&record, "missing");
    assert_eq!((missing.state, missing.reason.as_deref()), (StepState::Failed, Some("TargetNotFound")));
    assert_eq!(feature.rollout("learning-loop").await.status.and_then(|status| status.active), None);
    assert_eq!(record.metadata.finalizers, None);
}

#[tokio::test]
async fn a_stronger_manual_rollback_takes_over() {
    let feature = Feature::configured("manual-stronger").await;
    let mut policy = feature.policy("learning-loop", flag_step());
    let disable = json!({"name": "disable", "type": "FeatureDisable", "steps": [
        {"name": "other", "setConfig": {"configMapRef": {"name": "config"}, "data": {"OTHER": "changed"}}},
    ]});
    policy["spec"]["rollbacks"].as_array_mut().unwrap().push(disable);
    feature.apply(policy).await;
    let _operator = feature.operator();
    create(&feature, manual("weak", "disable", json!({}))).await;
    feature.until_phase("weak", Phase::RolledBack).await;
    create(&feature, manual("strong", "immediate", json!({}))).await;
    feature.until_phase("strong", Phase::RolledBack).await;
    assert_eq!(feature.record("weak").await.status.unwrap().phase, Phase::Superseded);
    feature.restore("strong").await;
    let config = feature.object("ConfigMap", "config").await;
    assert_eq!(config["data"], json!({"ENABLE_LEARNING": "true", "OTHER": "kept"}));
}
