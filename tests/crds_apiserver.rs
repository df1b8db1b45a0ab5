//! Holds a real API server to the table of `definitions`: it takes the two definitions, decides as the table says and
//! tells people which field is wrong and what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod definitions;
mod manifests;

use std::fmt::Debug;

use definitions::{Case, Verdict};
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::{GroupVersionKind, NamespaceResourceScope};
use kube::{Api, Client, ResourceExt};
use learning_rollout::api::crd;
use learning_rollout::api::rollback::{LearningRollback, LearningRollbackStatus};
use learning_rollout::api::rollout::{
    BaselineStatus, LearningRollout, LearningRolloutStatus, TriggerStatus, VerifyCheck,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
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
        let manifest = serde_yaml::to_string(&manifests::full()).unwrap();

        let applied = run(&["apply", "-f", "-"], &manifest).await.ok().unwrap();
        assert_eq!(applied.trim(), "learningrollout.learningloop.io/learning-loop created");
        let applied = run(&["apply", "-f", "-"], &manifest).await.ok().unwrap();
        assert_eq!(applied.trim(), "learningrollout.learningloop.io/learning-loop unchanged");
        // Lists are compared whole, so defaults that the server shows inside them differ from the manifest. What is
        // stored does not change all the same.
        let minimal = serde_yaml::to_string(&manifests::manifest("rollout-minimal.yaml")).unwrap();
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
        run(&["create", "-f", "-"], &serde_yaml::to_string(&manifests::record()).unwrap()).await.ok().unwrap();
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
        let manifest = manifests::manifest("rollout-minimal.yaml");
        let api = dynamic(&plane.client(), &namespace, &manifest);
        let created =
            api.create(&PostParams::default(), &serde_json::from_value(manifest.clone()).unwrap()).await.unwrap();
        let expected = manifests::with(
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
        let expected = manifests::with(
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

/// A status with every field of the schema set passes through the types and the server and is the same: nothing is
/// lost, pruned, refused or rounded.
#[tokio::test]
async fn every_field_of_a_status_is_kept() {
    with_server("crd-status", |plane, namespace| async move {
        let [(_, rollouts), (_, rollbacks)] = crd::definitions().unwrap();
        keep_status::<LearningRollout>(&plane.client(), &namespace, &rollouts, manifests::full()).await;
        keep_status::<LearningRollback>(&plane.client(), &namespace, &rollbacks, manifests::record()).await;
    })
    .await;
}

async fn keep_status<K>(client: &Client, namespace: &str, definition: &Value, manifest: Value)
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let status = sample(schema, "status");
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let created = api.create(&PostParams::default(), &serde_json::from_value(manifest).unwrap()).await.unwrap();
    let mut object = serde_json::to_value(created).unwrap();
    object["status"] = status.clone();
    let object: K = serde_json::from_value(object).unwrap();
    assert_eq!(serde_json::to_value(&object).unwrap()["status"], status, "the types hold every field");
    let written = api.replace_status(&object.name_any(), &PostParams::default(), &object).await.unwrap();
    assert_eq!(written.meta().generation, Some(1), "a status is no new generation");
    assert_eq!(serde_json::to_value(&written).unwrap()["status"], status, "the server keeps every field");
}

/// A value that sets everything a schema names.
fn sample(schema: &Value, path: &str) -> Value {
    let spec = || manifests::full()["spec"].clone();
    // What the rules do not admit whole: one kind for each step, one comparator for each check.
    for (field, value) in [
        (".plan.steps", spec()["rollbacks"][0]["steps"].clone()),
        (".plan.verify", spec()["verify"].clone()),
        (".definition", spec()["rollbacks"][0]["steps"][0].clone()),
        (".prometheus", spec()["prometheus"].clone()),
        (".lastTransitionTime", json!("2026-01-02T03:04:05Z")),
    ] {
        if path.ends_with(field) {
            return through_types(field, value);
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.last().unwrap().clone();
    }
    match schema["type"].as_str().unwrap() {
        "string" if schema["format"] == "date-time" => json!("2026-01-02T03:04:05.678901Z"),
        "string" if schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("ms|s|m|h")) => json!("15s"),
        "string" => json!("a"),
        "boolean" => json!(true),
        "integer" => schema["maximum"].clone(),
        "number" => json!(0.25),
        "array" => json!([sample(&schema["items"], path)]),
        "object" => {
            let properties = schema["properties"].as_object().unwrap();
            properties.iter().map(|(name, field)| (name.clone(), sample(field, &format!("{path}.{name}")))).collect()
        }
        other => panic!("{path}: {other}"),
    }
}

/// Numbers as the types write them: 1.0 for a threshold of 1.
fn through_types(field: &str, value: Value) -> Value {
    match field {
        ".plan.verify" => serde_json::to_value(serde_json::from_value::<Vec<VerifyCheck>>(value).unwrap()).unwrap(),
        _ => value,
    }
}

/// An empty status is a status too: the operator's first write.
#[tokio::test]
async fn the_server_takes_default_statuses() {
    with_server("crd-empty-status", |plane, namespace| async move {
        let rollouts: Api<LearningRollout> = Api::namespaced(plane.client(), &namespace);
        let manifest: LearningRollout = serde_json::from_value(manifests::full()).unwrap();
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
        let manifest: LearningRollback = serde_json::from_value(manifests::record()).unwrap();
        let mut record = records.create(&PostParams::default(), &manifest).await.unwrap();
        record.status = Some(LearningRollbackStatus::default());
        let written = records.replace_status(&record.name_any(), &PostParams::default(), &record).await.unwrap();
        assert_eq!(written.status, record.status);
    })
    .await;
}
