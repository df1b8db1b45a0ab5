//! Holds a real API server to the table of `definitions`: it takes the two definitions, decides as the table says and
//! tells people which field is wrong and what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod definitions;

use definitions::{Case, Verdict};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use learning_rollout::api::rollback::{
    Acknowledged, Fence, FieldPrior, FrozenPlan, ImportedStep, LearningRollback, LearningRollbackStatus, Phase,
    RecordOrigin, StepState, StepStatus, Target, VerifyStatus,
};
use learning_rollout::api::rollout::{
    ActiveRollback, BaselineStatus, Evidence, EvidenceSample, LastRollback, LearningRollout, LearningRolloutStatus,
    RecordRef, TriggerStatus,
};
use serde_json::{Value, json};
use testbed::{ControlPlane, Options};

/// An API server with the two definitions, and a namespace nobody has used.
async fn with_server<F: Future>(name: &str, test: impl FnOnce(ControlPlane, String) -> F) -> F::Output {
    let options = Options { name: Some(name.to_owned()), audit_log: false, ..Options::api_only() };
    let plane = ControlPlane::start(options).await.unwrap();
    plane.apply_crds(&testbed::workspace_root().join("crds")).await.unwrap();
    let namespace = plane.namespace("crds").await.unwrap();
    test(plane, namespace).await
}

fn dynamic(client: &Client, namespace: &str, object: &Value) -> Api<DynamicObject> {
    let kind = object["kind"].as_str().unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("learningloop.io", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn dry_run() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// What became of a case on the server: the fields it complained of and the messages.
async fn decide(client: &Client, namespace: &str, case: &Case) -> Result<(), Vec<(String, String)>> {
    let api = dynamic(client, namespace, &case.object);
    let object: DynamicObject = serde_json::from_value(case.object.clone()).unwrap();
    let answer = match &case.before {
        None => api.create(&dry_run(), &object).await,
        Some(before) => {
            let created =
                api.create(&PostParams::default(), &serde_json::from_value(before.clone()).unwrap()).await.unwrap();
            let mut object = object;
            object.metadata.resource_version = created.resource_version();
            let answer = api.replace(&object.name_any(), &dry_run(), &object).await;
            api.delete(&object.name_any(), &Default::default()).await.unwrap();
            answer
        }
    };
    match answer {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => {
            let causes = status.details.as_ref().map(|details| details.causes.clone()).unwrap_or_default();
            Err(causes.into_iter().map(|cause| (cause.field, cause.message)).collect())
        }
        Err(other) => panic!("{}: {other}", case.name),
    }
}

#[tokio::test]
async fn the_server_decides_as_the_table_says() {
    with_server("crd-table", |plane, namespace| async move {
        let client = plane.client();
        let mut wrong = Vec::new();
        for case in definitions::cases() {
            let found = decide(&client, &namespace, &case).await;
            let right = match (&case.verdict, &found) {
                (Verdict::Admitted, Ok(())) => true,
                (Verdict::Rule { field, message }, Err(causes)) => {
                    causes.iter().any(|(at, says)| at == field && says.ends_with(message)) && causes.len() == 1
                }
                (Verdict::Schema { field, says: part }, Err(causes)) => {
                    causes.iter().any(|(at, says)| at == field && says.contains(part))
                }
                _ => false,
            };
            if !right {
                wrong.push(format!("{}: expected {:?}, found {found:?}", case.name, case.verdict));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    })
    .await;
}

#[tokio::test]
async fn what_a_person_sees() {
    with_server("crd-person", |plane, namespace| async move {
        let on = |args: &[&'static str]| -> Vec<String> {
            args.iter().map(|arg| (*arg).to_owned()).chain(["-n".to_owned(), namespace.clone()]).collect()
        };
        let run = async |args: &[&'static str], input: &str| {
            let args = on(args);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            plane.kubectl_with_input(&args, input).await.unwrap()
        };
        let manifest = serde_yaml::to_string(&definitions::full()).unwrap();

        let applied = run(&["apply", "-f", "-"], &manifest).await.ok().unwrap();
        assert_eq!(applied.trim(), "learningrollout.learningloop.io/learning-loop created");
        let applied = run(&["apply", "-f", "-"], &manifest).await.ok().unwrap();
        assert_eq!(applied.trim(), "learningrollout.learningloop.io/learning-loop unchanged");
        // Lists are compared whole, so defaults that the server shows inside them differ from the manifest. What is
        // stored does not change all the same.
        let minimal = serde_yaml::to_string(&definitions::manifest("rollout-minimal.yaml")).unwrap();
        let mut versions = Vec::new();
        for _ in 0..2 {
            run(&["apply", "-f", "-"], &minimal).await.ok().unwrap();
            let version = run(&["get", "lro", "minimal", "-o", "jsonpath={.metadata.resourceVersion}"], "").await;
            versions.push(version.ok().unwrap());
        }
        assert_eq!(versions[0], versions[1]);
        run(&["delete", "lro", "minimal"], "").await.ok().unwrap();
        for _ in 0..2 {
            run(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &manifest).await.ok().unwrap();
        }
        let generation = run(&["get", "lro", "learning-loop", "-o", "jsonpath={.metadata.generation}"], "").await;
        assert_eq!(generation.ok().unwrap(), "1", "applying the same again changes nothing");

        let misspelt = manifest.replace("above:", "abvoe:");
        assert_ne!(misspelt, manifest);
        let refused = run(&["apply", "-f", "-"], &misspelt).await;
        assert!(
            !refused.success && refused.stderr.contains(r#"unknown field "spec.triggers[0].abvoe""#),
            "{refused:?}"
        );
        let lenient = run(&["apply", "--validate=false", "-f", "-"], &misspelt).await;
        assert!(
            !lenient.success
                && lenient.stderr.contains("spec.triggers[0]: Invalid value:")
                && lenient.stderr.contains("exactly one of above, below, atLeast, atMost and present must be set"),
            "a misspelt comparator must be refused even where unknown fields are pruned: {refused:?}"
        );

        let null = manifest.replace("serviceAccountName: rollback", "serviceAccountName: null");
        assert_ne!(null, manifest);
        let null = null.replacen("name: learning-loop", "name: other", 1);
        run(&["create", "-f", "-"], &null).await.ok().unwrap();
        let kept = run(&["get", "lro", "other", "-o", "jsonpath={.spec}"], "").await.ok().unwrap();
        assert!(!kept.contains("serviceAccountName"), "null means absent: {kept}");
        run(&["delete", "lro", "other"], "").await.ok().unwrap();

        let table = run(&["get", "lro"], "").await.ok().unwrap();
        let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(header, ["NAME", "READY", "MODE", "ARMED", "BREACHING", "ACTIVE", "LAST-ROLLBACK", "AGE"]);
        run(&["create", "-f", "-"], &serde_yaml::to_string(&definitions::record()).unwrap()).await.ok().unwrap();
        let table = run(&["get", "lrb"], "").await.ok().unwrap();
        let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(header, ["NAME", "ROLLOUT", "TYPE", "TRIGGER", "PHASE", "STEPS", "TRAFFIC", "AGE"]);
        let category = run(&["get", "learningloop", "-o", "name"], "").await.ok().unwrap();
        assert_eq!(category.lines().count(), 2, "{category}");

        for (path, text) in [
            ("learningrollout", "LearningRollout is the policy that rolls a feature back"),
            ("learningrollout.metadata", "labels"),
            ("learningrollout.spec.triggers", "Holds while the value is greater than or equal to this."),
            ("learningrollout.spec.triggers.baseline.captured", "taken once while nothing breaches"),
            ("learningrollout.spec.rollbacks.steps", "Move traffic between two destinations"),
            ("learningrollout.status.conditions", "When status last changed."),
            ("learningrollback.spec", "A person's will."),
            ("learningrollback.status.steps.prior", "What it held, as text."),
        ] {
            let explained = run(&["explain", path], "").await.ok().unwrap();
            let flowed = explained.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flowed.contains(text), "kubectl explain {path} lacks {text:?}:\n{explained}");
            assert!(!explained.contains("<no description>"), "kubectl explain {path}:\n{explained}");
        }
    })
    .await;
}

#[tokio::test]
async fn defaults_are_shown_and_nothing_else_is_implied() {
    with_server("crd-defaults", |plane, namespace| async move {
        let manifest = definitions::manifest("rollout-minimal.yaml");
        let api = dynamic(&plane.client(), &namespace, &manifest);
        let created =
            api.create(&PostParams::default(), &serde_json::from_value(manifest.clone()).unwrap()).await.unwrap();
        let expected = definitions::with(
            manifest.clone(),
            &[
                ("/spec/mode", json!("Enforce")),
                ("/spec/suspend", json!(false)),
                ("/spec/interval", json!("15s")),
                ("/spec/cooldown", json!("1m")),
                ("/spec/historyLimit", json!(10)),
                ("/spec/prometheus/timeout", json!("10s")),
                ("/spec/rollbacks/0/steps/0/shiftTraffic/weights", json!([75, 50, 25, 0])),
                ("/spec/rollbacks/0/steps/0/shiftTraffic/interval", json!("5m")),
                ("/spec/verify/0/for", json!("0s")),
                ("/spec/verify/0/timeout", json!("5m")),
            ],
        );
        assert_eq!(created.data["spec"], expected["spec"]);

        // What the server shows is what the operator would have read without it.
        let served: LearningRollout = serde_json::from_value(serde_json::to_value(&created).unwrap()).unwrap();
        let written: LearningRollout = serde_json::from_value(manifest).unwrap();
        assert_eq!(served.spec, written.spec);

        let by_hand = json!({
            "apiVersion": "learningloop.io/v1alpha1", "kind": "LearningRollback", "metadata": {"name": "by-hand"},
            "spec": {"rolloutRef": {"name": "minimal"}, "rollback": "everything"},
        });
        let api = dynamic(&plane.client(), &namespace, &by_hand);
        let created =
            api.create(&PostParams::default(), &serde_json::from_value(by_hand.clone()).unwrap()).await.unwrap();
        let expected = definitions::with(
            by_hand,
            &[
                ("/spec/reason", json!("")),
                ("/spec/dryRun", json!(false)),
                ("/spec/desiredState", json!("RolledBack")),
                ("/spec/pace", json!("Normal")),
            ],
        );
        assert_eq!(created.data["spec"], expected["spec"]);
    })
    .await;
}

/// A status with every field set comes back as it was written: nothing is pruned, refused or rounded.
#[tokio::test]
async fn the_server_keeps_every_field_of_a_status() {
    with_server("crd-status", |plane, namespace| async move {
        let rollouts: Api<LearningRollout> = Api::namespaced(plane.client(), &namespace);
        let manifest: LearningRollout = serde_json::from_value(definitions::full()).unwrap();
        let mut rollout = rollouts.create(&PostParams::default(), &manifest).await.unwrap();
        rollout.status = Some(rollout_status());
        assert_whole(&serde_json::to_value(&rollout.status).unwrap());
        let written = rollouts.replace_status(&rollout.name_any(), &PostParams::default(), &rollout).await.unwrap();
        assert_eq!(written.status, rollout.status);
        assert_eq!(written.metadata.generation, Some(1), "a status is no new generation");

        let records: Api<LearningRollback> = Api::namespaced(plane.client(), &namespace);
        let manifest: LearningRollback = serde_json::from_value(definitions::record()).unwrap();
        let mut record = records.create(&PostParams::default(), &manifest).await.unwrap();
        record.status = Some(record_status(&rollout));
        let written = records.replace_status(&record.name_any(), &PostParams::default(), &record).await.unwrap();
        assert_eq!(written.status, record.status);
    })
    .await;
}

/// An empty status is a status too: the operator's first write.
#[tokio::test]
async fn the_server_takes_default_statuses() {
    with_server("crd-empty-status", |plane, namespace| async move {
        let rollouts: Api<LearningRollout> = Api::namespaced(plane.client(), &namespace);
        let manifest: LearningRollout = serde_json::from_value(definitions::full()).unwrap();
        let mut rollout = rollouts.create(&PostParams::default(), &manifest).await.unwrap();
        rollout.status = Some(LearningRolloutStatus {
            triggers: vec![TriggerStatus {
                name: "error-rate-spike".to_owned(),
                baseline: Some(BaselineStatus::default()),
                ..Default::default()
            }],
            ..Default::default()
        });
        let written = rollouts.replace_status(&rollout.name_any(), &PostParams::default(), &rollout).await.unwrap();
        assert_eq!(written.status, rollout.status);

        let records: Api<LearningRollback> = Api::namespaced(plane.client(), &namespace);
        let manifest: LearningRollback = serde_json::from_value(definitions::record()).unwrap();
        let mut record = records.create(&PostParams::default(), &manifest).await.unwrap();
        record.status = Some(LearningRollbackStatus::default());
        let written = records.replace_status(&record.name_any(), &PostParams::default(), &record).await.unwrap();
        assert_eq!(written.status, record.status);
    })
    .await;
}

/// No field of the sample was forgotten: an absent one would prove nothing.
fn assert_whole(status: &Value) {
    for field in ["observedGeneration", "conditions", "episode", "active", "lastRollback", "triggers"] {
        assert!(status.get(field).is_some(), "{field}");
    }
}

fn moment() -> Option<MicroTime> {
    Some(MicroTime("2026-01-02T03:04:05.678901Z".parse().unwrap()))
}

fn conditions() -> Vec<Condition> {
    vec![Condition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        reason: "Evaluating".to_owned(),
        message: "every trigger is asked".to_owned(),
        observed_generation: Some(1),
        last_transition_time: Time("2026-01-02T03:04:05Z".parse().unwrap()),
    }]
}

fn evidence() -> Evidence {
    Evidence {
        trigger: "error-rate-spike".to_owned(),
        query: "learning:error_rate".to_owned(),
        condition: "> 0.05".to_owned(),
        value: "NaN".to_owned(),
        baseline: Some("0.01".to_owned()),
        series: Some(r#"{pod="a"}"#.to_owned()),
        since: moment(),
        fired_at: moment(),
        samples: vec![EvidenceSample { at: moment(), value: "+Inf".to_owned() }; 2],
    }
}

fn reference() -> RecordRef {
    RecordRef { name: "learning-loop-1-abc".to_owned(), id: "4f6b1c7e-1".to_owned() }
}

fn rollout_status() -> LearningRolloutStatus {
    LearningRolloutStatus {
        observed_generation: Some(1),
        conditions: conditions(),
        episode: 9_007_199_254_740_991,
        active: Some(ActiveRollback {
            name: "learning-loop-2-def".to_owned(),
            id: "4f6b1c7e-2".to_owned(),
            uid: Some("4f6b1c7e".to_owned()),
            episode: 2,
            rollback: "immediate".to_owned(),
            reason: "error-rate-spike".to_owned(),
            evidence: Some(evidence()),
            since: moment(),
            supersedes: Some(reference()),
            ..Default::default()
        }),
        last_rollback: Some(LastRollback {
            name: "learning-loop-1-abc".to_owned(),
            phase: "Restored".to_owned(),
            finished_at: moment(),
        }),
        triggers: vec![TriggerStatus {
            name: "error-rate-spike".to_owned(),
            since: moment(),
            reason: Some("Timeout".to_owned()),
            message: Some("no answer within 10s".to_owned()),
            value: Some("0.07".to_owned()),
            baseline: Some(BaselineStatus { value: 0.25, captured_at: moment(), query: "up".to_owned(), window: None }),
            ..Default::default()
        }],
    }
}

fn record_status(rollout: &LearningRollout) -> LearningRollbackStatus {
    let plan = &rollout.spec.rollbacks[0];
    let steps = plan.steps.iter().map(|step| StepStatus {
        name: step.name.clone(),
        kind: step.kind().name().to_owned(),
        target: Some(Target {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: "learning-loop".to_owned(),
            uid: Some("4f6b1c7e".to_owned()),
        }),
        state: StepState::Intended,
        reason: Some("Intended".to_owned()),
        message: Some("is on its way".to_owned()),
        prior: vec![
            FieldPrior { field: "/spec/replicas".to_owned(), value: Some("3".to_owned()) },
            FieldPrior { field: "/data/ABSENT".to_owned(), value: None },
        ],
        fence: Some(Fence { seen: Some("a/b/1".to_owned()), new: "a/b/2".to_owned(), attempt: 2, ..Fence::default() }),
        committed: true,
        position: Some(3),
        failures: 2,
        reasserted: 1,
        imported: Some(ImportedStep {
            from: RecordOrigin { name: "learning-loop-1-abc".to_owned(), uid: "4f6b1c7e".to_owned() },
            definition: step.clone(),
        }),
        started_at: moment(),
        finished_at: moment(),
        not_before: moment(),
    });
    LearningRollbackStatus {
        observed_generation: Some(1),
        phase: Phase::Executing,
        message: Some("2 of 3 steps have landed".to_owned()),
        conditions: conditions(),
        progress: Some("2/3".to_owned()),
        traffic: Some("50".to_owned()),
        plan: Some(FrozenPlan {
            format_version: 1,
            rollout_generation: 1,
            plan_type: plan.plan_type,
            interval: rollout.spec.interval,
            service_account_name: rollout.spec.service_account_name.clone(),
            prometheus: rollout.spec.prometheus.clone(),
            steps: plan.steps.clone(),
            verify: rollout.spec.verify.clone(),
        }),
        steps: steps.collect(),
        verify: vec![VerifyStatus {
            name: "baseline-errors".to_owned(),
            since: moment(),
            message: Some("0.001".to_owned()),
            ..Default::default()
        }],
        evidence: Some(evidence()),
        acknowledged: Acknowledged::default(),
        supersedes: Some(reference()),
        superseded_by: Some(reference()),
        started_at: moment(),
        rolled_back_at: moment(),
        finished_at: moment(),
    }
}
