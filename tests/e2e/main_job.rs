//! A trigger holds for its duration, the feature is rolled back, and one word puts everything back.

use learning_rollout::api::{
    condition::rollback as conditions,
    rollback::{Phase, StepState},
    rollout::TriggerState,
};
use serde_json::{Value, json};

use crate::harness::{Feature, annotation, condition_of, deployment, flag_step, immediate_steps, step};

#[tokio::test]
async fn a_breach_is_rolled_back_and_restored() {
    let feature = Feature::new("main").await;
    let before = feature.touched().await;
    let mut policy = feature.policy("learning-loop", immediate_steps());
    policy["spec"]["triggers"][0]["for"] = json!("2s");
    feature.apply(policy).await;
    let _operator = feature.operator();
    feature.until_trigger("learning-loop", TriggerState::Ok, None).await;
    assert_eq!(feature.patches("configmaps", "config"), 0, "a healthy feature is left alone");

    feature.gauge("errors", 0.9);
    let pending = feature.until_trigger("learning-loop", TriggerState::Pending, None).await;
    assert_eq!((pending.value.as_deref(), feature.flag().await), (Some("0.9"), json!("true")));
    let record = feature.until_rolled_back("learning-loop").await;
    let (name, uid) = (record.metadata.name.clone().unwrap(), record.metadata.uid.clone().unwrap());

    // What it did.
    let config = feature.object("ConfigMap", "config").await;
    assert_eq!(config["data"], json!({"ENABLE_LEARNING": "false", "MODE": "baseline", "OTHER": "kept"}));
    let service = feature.object("Service", "profile").await;
    assert_eq!(service["spec"]["selector"], json!({"app": "profile", "version": "baseline"}));
    let learning = feature.object("Deployment", "learning").await;
    assert_eq!(learning["spec"]["replicas"], 0);
    for (target, step) in [(&config, "flag"), (&service, "traffic"), (&learning, "capacity")] {
        assert_eq!(annotation(target, "fence"), Some(format!("{uid}/{step}/1").as_str()));
        let note: Value = serde_json::from_str(annotation(target, "undo").unwrap()).unwrap();
        assert_eq!(note["record"], format!("{}/{name}", feature.namespace));
        assert!(note["steps"][step]["fields"].as_array().is_some_and(|fields| !fields.is_empty()), "{note}");
    }
    for (resource, name) in [("configmaps", "config"), ("services", "profile"), ("deployments", "learning")] {
        assert_eq!(feature.patches(resource, name), 1, "{resource} {name} is patched once");
    }

    // What it says.
    feature.kubectl(&["wait", "--for=condition=RolledBack", &format!("lrb/{name}"), "--timeout=20s"]).await;
    let status = record.status.as_ref().unwrap();
    let evidence = status.evidence.as_ref().unwrap();
    assert_eq!((evidence.trigger.as_str(), evidence.value.as_str()), ("errors", "0.9"));
    let held = evidence.fired_at.as_ref().unwrap().0.duration_since(evidence.since.as_ref().unwrap().0);
    assert!(held.as_millis() >= 2000, "it held for {held:?}");
    assert_eq!(record.metadata.finalizers.as_deref(), Some(&["learningloop.io/in-force".to_owned()][..]));
    let rollout = feature.rollout("learning-loop").await;
    let said = rollout.status.as_ref().unwrap();
    assert_eq!(said.active.as_ref().and_then(|active| active.uid.clone()), Some(uid));
    assert!(condition_of(&said.conditions, "RollbackInForce").starts_with("True"), "{:?}", said.conditions);
    assert!(feature.until_event("TriggerFiring").await.contains("errors"));
    assert!(feature.until_event("RollbackStarted").await.contains("0.9"));
    feature.until_event("RolledBack").await;

    // What kubectl shows.
    let table = feature.kubectl(&["get", "lrb"]).await;
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(&row[..6], &[name.as_str(), "learning-loop", "Immediate", "errors", "RolledBack", "3/3"], "{table}");
    let header = table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(header, "NAME ROLLOUT TYPE TRIGGER PHASE STEPS TRAFFIC AGE");
    let table = feature.kubectl(&["get", "lro"]).await;
    let header = table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(header, "NAME READY MODE ARMED BREACHING ACTIVE LAST-ROLLBACK AGE");
    assert!(table.contains(&name), "{table}");

    // And back.
    feature.gauge("errors", 0.0);
    let restored = feature.restore(&name).await;
    assert_eq!(feature.touched().await, before, "restore after rollback is the identity, annotations included");
    let status = restored.status.as_ref().unwrap();
    assert!(status.steps.iter().all(|step| step.state == StepState::Restored), "{:?}", status.steps);
    assert!(condition_of(&status.conditions, conditions::ROLLED_BACK).starts_with("False"));
    feature.until_event("Restored").await;
    let rollout = feature.until_rollout("learning-loop", "no claim", |status| status.active.is_none()).await;
    assert_eq!(rollout.status.unwrap().last_rollback.unwrap().phase, "Restored");
    feature.until_record(&name, "no finalizer", |_| true).await;
    for (resource, name) in [("configmaps", "config"), ("services", "profile"), ("deployments", "learning")] {
        assert_eq!(feature.patches(resource, name), 2, "{resource} {name} is patched once more");
    }
    feature.kubectl(&["delete", "lrb", &name, "--timeout=20s"]).await;
}

#[tokio::test]
async fn a_feature_is_disabled_with_one_restart() {
    let feature = Feature::new("disable").await;
    let sets = || async { feature.objects("ReplicaSet").list(&Default::default()).await.unwrap().items };
    let of_learning =
        |sets: &[_]| sets.iter().filter(|set| kube::ResourceExt::name_any(*set).starts_with("learning-")).count();
    assert_eq!(of_learning(&sets().await), 1);
    let mut policy = feature.policy("learning-loop", flag_step());
    policy["spec"]["rollbacks"][0] = json!({
        "name": "immediate", "type": "FeatureDisable",
        "steps": [flag_step()[0], {"name": "restart", "restart": {"targetRef": deployment("learning")}}],
    });
    feature.apply(policy).await;
    let _operator = feature.operator();
    feature.gauge("errors", 1.0);
    let record = feature.until_rolled_back("learning-loop").await;
    let name = record.metadata.name.clone().unwrap();
    let mark = "/spec/template/metadata/annotations/learningloop.io~1restarted-by";
    let learning = feature.object("Deployment", "learning").await;
    let uid = record.metadata.uid.unwrap();
    assert_eq!(learning.pointer(mark).unwrap(), &json!(format!("{uid}-restart")));
    feature.ready("learning", 2).await;
    assert_eq!(of_learning(&sets().await), 2, "one new ReplicaSet: the pods were restarted once");
    assert_eq!(feature.patches("deployments", "learning"), 1);

    feature.gauge("errors", 0.0);
    feature.restore(&name).await;
    let learning = feature.object("Deployment", "learning").await;
    assert_eq!(
        learning.pointer(mark).unwrap(),
        &json!(format!("{uid}-restart-restored")),
        "it is repeated, not undone"
    );
    assert_eq!((annotation(&learning, "fence"), annotation(&learning, "undo")), (None, None));
    assert_eq!(of_learning(&sets().await), 3);
    assert_eq!(feature.flag().await, "true");
}

#[tokio::test]
async fn a_stronger_trigger_takes_over_and_restores_for_both() {
    let feature = Feature::new("escalate").await;
    let before = feature.touched().await;
    let mut policy = feature.policy("learning-loop", immediate_steps());
    policy["spec"]["triggers"] = json!([
        feature.trigger("warm", "errors", "1s", "disable"),
        feature.trigger("hot", "downtime", "1s", "immediate"),
    ]);
    // The weaker plan touches a field of the stronger one, and one that the stronger one does not know.
    let disable = json!({"name": "disable", "type": "FeatureDisable", "steps": [
        {"name": "flags", "setConfig": {"configMapRef": {"name": "config"}, "data": {"ENABLE_LEARNING": "half", "OTHER": "changed"}}},
    ]});
    policy["spec"]["rollbacks"].as_array_mut().unwrap().push(disable);
    feature.gauge("downtime", 0.0);
    feature.apply(policy).await;
    let _operator = feature.operator();
    feature.gauge("errors", 1.0);
    let weak = feature.until_rolled_back("learning-loop").await.metadata.name.unwrap();
    let config = feature.object("ConfigMap", "config").await;
    assert_eq!(config["data"], json!({"ENABLE_LEARNING": "half", "OTHER": "changed"}));

    feature.gauge("downtime", 1.0);
    feature.until_phase(&weak, Phase::Superseded).await;
    let strong = feature.until_active("learning-loop").await;
    assert_ne!(strong, weak);
    let record = feature.until_phase(&strong, Phase::RolledBack).await;
    assert_eq!(record.status.as_ref().unwrap().supersedes.as_ref().unwrap().name, weak);
    let old = feature.record(&weak).await.status.unwrap();
    assert_eq!(old.superseded_by.unwrap().name, strong);
    let config = feature.object("ConfigMap", "config").await;
    assert_eq!(
        config["data"],
        json!({"ENABLE_LEARNING": "false", "MODE": "baseline", "OTHER": "changed"}),
        "what only the weaker plan changed stays in force"
    );

    feature.gauge("errors", 0.0);
    feature.gauge("downtime", 0.0);
    feature.restore(&strong).await;
    assert_eq!(feature.touched().await, before, "back to before the incident, not to between the two");
    assert_eq!(feature.records().await.len(), 2);
}

#[tokio::test]
async fn a_restored_feature_that_still_breaches_is_left_alone_until_the_cooldown_is_over() {
    let feature = Feature::configured("cooldown").await;
    let mut policy = feature.policy("learning-loop", flag_step());
    policy["spec"]["cooldown"] = json!("5s");
    feature.apply(policy).await;
    let _operator = feature.operator();
    feature.gauge("errors", 1.0);
    let first = feature.until_rolled_back("learning-loop").await.metadata.name.unwrap();
    let restored = feature.restore(&first).await;
    let ended = restored.status.unwrap().finished_at.unwrap().0;

    // It breaches all the while, so it is rolled back again, on evidence that is new.
    let again = feature.until_rollout("learning-loop", "another execution", |status| {
        status.active.as_ref().is_some_and(|active| active.name != first)
    });
    let active = again.await.status.unwrap().active.unwrap();
    let evidence = active.evidence.unwrap();
    let counted = evidence.since.unwrap().0.duration_since(ended);
    assert!(
        counted.as_millis() >= 5000,
        "evidence counts from the cooldown's end on, not {counted:?} after the restore"
    );
    assert_eq!(active.episode, 2);
    feature.until_phase(&active.name, Phase::RolledBack).await;
    assert_eq!(feature.patches("configmaps", "config"), 3, "rolled back, restored, rolled back");
}

#[tokio::test]
async fn the_plan_is_frozen_when_it_begins() {
    let feature = Feature::configured("frozen").await;
    feature.apply(feature.policy("learning-loop", flag_step())).await;
    let _operator = feature.operator();
    feature.gauge("errors", 1.0);
    let name = feature.until_rolled_back("learning-loop").await.metadata.name.unwrap();
    let other =
        json!([{"name": "other", "setConfig": {"configMapRef": {"name": "config"}, "data": {"OTHER": "new plan"}}}]);
    feature.apply(feature.policy("learning-loop", other)).await;
    // The new plan is another trigger's affair; what is in force stays what it was.
    feature.until_rollout("learning-loop", "the new generation", |status| status.observed_generation == Some(2)).await;
    let record = feature.record(&name).await;
    assert_eq!(step(&record, "flag").state, StepState::Applied);
    feature.gauge("errors", 0.0);
    feature.restore(&name).await;
    let config = feature.object("ConfigMap", "config").await;
    assert_eq!(config["data"], json!({"ENABLE_LEARNING": "true", "OTHER": "kept"}));
    assert_eq!(config["metadata"]["annotations"].get("learningloop.io/fence"), None);
}
