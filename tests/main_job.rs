//! The main job on real parts: two replicas of the operator's binary, a real control plane, a real Prometheus that
//! scrapes a metric of the test. They act once; the feature is restored; the leader is killed and the other takes over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, anyhow};
use serde_json::Value;
use testbed::{ControlPlane, Options, Process, Prometheus, PrometheusOptions, wait, workspace_root};

const LIMIT: Duration = Duration::from_secs(60);

const MANIFEST: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: learning}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: flags, namespace: learning}
data: {LEARNING: "a < b && c"}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: learning}
spec: {selector: {app: front, version: learning}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: learning, namespace: learning}
spec:
  replicas: 3
  selector: {matchLabels: {app: front, version: learning}}
  template:
    metadata: {labels: {app: front, version: learning}}
    spec: {containers: [{name: c, image: registry.k8s.io/pause:3.10}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: baseline, namespace: learning}
spec:
  replicas: 2
  selector: {matchLabels: {app: front, version: baseline}}
  template:
    metadata: {labels: {app: front, version: baseline}}
    spec: {containers: [{name: c, image: registry.k8s.io/pause:3.10}]}
"#;

const ROLLOUT: &str = r#"
apiVersion: learningloop.io/v1alpha1
kind: LearningRollout
metadata: {name: loop, namespace: learning}
spec:
  interval: 1s
  cooldown: 1s
  triggers:
    - {name: errors, query: feature_errors, above: 0.5, for: 2s, rollback: immediate}
  rollbacks:
    - name: immediate
      type: Immediate
      steps:
        - {name: flag, setConfig: {configMapRef: {name: flags}, data: {LEARNING: "false", NEW: "1"}}}
        - {name: traffic, switchService: {serviceRef: {name: front}, selector: {version: baseline}}}
        - {name: capacity, scale: {targetRef: {apiVersion: apps/v1, kind: Deployment, name: learning}, replicas: 0}}
"#;

/// A metric that the test sets.
async fn exporter(value: Arc<Mutex<f64>>) -> anyhow::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let metrics = move || {
        let value = *value.lock().unwrap();
        async move { format!("# TYPE feature_errors gauge\nfeature_errors {value}\n") }
    };
    let router = axum::Router::new().route("/metrics", axum::routing::get(metrics));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

struct World {
    plane: ControlPlane,
    prometheus: Prometheus,
}

impl World {
    fn operator(&self, name: &str) -> anyhow::Result<Process> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_learning-rollout-operator"));
        command.args(["--prometheus-url", &self.prometheus.url(), "--listen", "127.0.0.1:0", "--identity", name]);
        command.env("KUBECONFIG", self.plane.kubeconfig());
        Process::spawn(name, command, &self.plane.dir().logs())
    }

    async fn get(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        let text = self.plane.kubectl(&["get", kind, name, "-n", "learning", "-o", "json"]).await?.ok()?;
        Ok(serde_json::from_str(&text)?)
    }

    /// What the rollback touches, annotations of ours included.
    async fn touched(&self) -> anyhow::Result<BTreeMap<&'static str, Value>> {
        let mut touched = BTreeMap::new();
        for (kind, name, pointer) in [
            ("configmap", "flags", "/data"),
            ("service", "front", "/spec/selector"),
            ("deployment", "learning", "/spec/replicas"),
        ] {
            let object = self.get(kind, name).await?;
            let ours = object.pointer("/metadata/annotations").map(Value::to_string).unwrap_or_default();
            let ours = ours.matches("learningloop.io/").count();
            let field = object.pointer(pointer).cloned().unwrap_or_default();
            touched.insert(kind, serde_json::json!({"field": field, "annotations of ours": ours}));
        }
        Ok(touched)
    }

    async fn phases(&self) -> anyhow::Result<Vec<(String, String)>> {
        let text = self.plane.kubectl(&["get", "lrb", "-n", "learning", "-o", "json"]).await?.ok()?;
        let list: Value = serde_json::from_str(&text)?;
        let text =
            |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
        let items = list["items"].as_array().context("no items")?;
        Ok(items.iter().map(|record| (text(record, "/metadata/name"), text(record, "/status/phase"))).collect())
    }

    async fn until_phase(&self, phase: &str, count: usize) -> anyhow::Result<String> {
        wait::until(format!("{count} records, one of them {phase}"), LIMIT, || async {
            let phases = self.phases().await?;
            let found = phases.iter().find(|(_, seen)| seen == phase).filter(|_| phases.len() == count);
            found.map(|(name, _)| name.clone()).ok_or_else(|| anyhow!("{phases:?}"))
        })
        .await
    }

    /// Patches of each target that were carried out.
    fn patches(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        let mut patches = BTreeMap::new();
        for event in self.plane.audit_events()? {
            let target = ["configmaps", "services", "deployments"].contains(&event.resource().as_str());
            let real = event.verb == "patch" && !event.request_uri.contains("dryRun") && event.code() == Some(200);
            if target && real && event.request_uri.contains("fieldManager=learning-rollout-operator") {
                *patches.entry(event.object()).or_default() += 1;
            }
        }
        Ok(patches)
    }

    async fn restore(&self, name: &str) -> anyhow::Result<()> {
        let patch = r#"{"spec":{"desiredState":"Restored"}}"#;
        self.plane.kubectl(&["patch", "lrb", name, "-n", "learning", "--type", "merge", "-p", patch]).await?.ok()?;
        wait::until(format!("{name} to be restored"), LIMIT, || async {
            let phases = self.phases().await?;
            if phases.contains(&(name.to_owned(), "Restored".to_owned())) { Ok(()) } else { Err(anyhow!("{phases:?}")) }
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_act_once_restore_and_outlive_their_leader() -> anyhow::Result<()> {
    let errors = Arc::new(Mutex::new(0.0));
    let address = exporter(errors.clone()).await?;
    let plane = ControlPlane::start(Options::default()).await?;
    let prometheus = Prometheus::start(PrometheusOptions::default().target("feature", address)).await?;
    plane.apply_crds(&workspace_root().join("crds")).await?;
    plane.kubectl_apply(MANIFEST).await?;
    plane
        .kubectl(&["wait", "-n", "learning", "--for=condition=Available", "--timeout=60s", "deployment", "--all"])
        .await?
        .ok()?;
    let world = World { plane, prometheus };
    let leader = world.operator("first")?;
    leader.until_logged("\"leading\"", LIMIT).await?;
    let follower = world.operator("second")?;
    world.plane.kubectl_apply(ROLLOUT).await?;
    world
        .plane
        .kubectl(&["wait", "-n", "learning", "--for=condition=Armed", "--timeout=60s", "lro/loop"])
        .await?
        .ok()?;
    let before = world.touched().await?;

    *errors.lock().unwrap() = 1.0;
    let first = world.until_phase("RolledBack", 1).await?;
    let now = world.touched().await?;
    assert_eq!(now["configmap"]["field"], serde_json::json!({"LEARNING": "false", "NEW": "1"}));
    assert_eq!(now["service"]["field"]["version"], "baseline");
    assert_eq!(now["deployment"]["field"], 0);
    assert!(now.values().all(|touched| touched["annotations of ours"] != 0), "{now:?}");
    let once = [("learning/flags", 1), ("learning/front", 1), ("learning/learning", 1)];
    assert_eq!(world.patches()?, once.map(|(object, count)| (object.to_owned(), count)).into());

    *errors.lock().unwrap() = 0.0;
    world.restore(&first).await?;
    assert_eq!(world.touched().await?, before, "restore ∘ rollback is the identity");

    leader.kill()?;
    *errors.lock().unwrap() = 1.0;
    let second = world.until_phase("RolledBack", 2).await?;
    assert_ne!(first, second);
    follower.ensure_running()?;
    let twice = [("learning/flags", 3), ("learning/front", 3), ("learning/learning", 3)];
    assert_eq!(world.patches()?, twice.map(|(object, count)| (object.to_owned(), count)).into());
    Ok(())
}
