//! One control plane and one Prometheus for all tests of this program; a namespace with a feature for each.
//!
//! Helpers fail the test themselves, saying what they waited for and what they saw last.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::Ipv4Addr,
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    http::header,
    response::{Html, IntoResponse},
    routing::{any, get},
};
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use learning_rollout::api::{
    condition,
    rollback::{LearningRollback, LearningRollbackStatus, Phase, StepStatus},
    rollout::{LearningRollout, LearningRolloutStatus, TriggerState, TriggerStatus},
};
use serde_json::{Value, json};
use testbed::{BedDir, ControlPlane, Options, Port, Process, Prometheus, PrometheusOptions, control_plane::AuditEvent};
use tokio::sync::OnceCell;

/// How long anything awaited may take: the machine may be compiling.
pub const SOON: Duration = Duration::from_secs(40);

/// The servers that all tests share. They end with the process.
pub struct Shared {
    pub plane: ControlPlane,
    pub prometheus: Prometheus,
}

pub async fn shared() -> &'static Shared {
    static SHARED: OnceCell<Shared> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let exporter = exporter();
            let options = PrometheusOptions { name: Some("e2e".to_owned()), ..PrometheusOptions::default() };
            let (plane, prometheus) = tokio::join!(
                plane(Options { name: Some("e2e".to_owned()), ..Options::default() }),
                Prometheus::start(options.target("feature", exporter)),
            );
            Shared { plane, prometheus: prometheus.unwrap() }
        })
        .await
}

/// A control plane that knows the two kinds.
pub async fn plane(options: Options) -> ControlPlane {
    let plane = ControlPlane::start(options).await.unwrap();
    plane.apply_crds(&testbed::workspace_root().join("crds")).await.unwrap();
    plane
}

/// The features' gauges, by feature and name.
static GAUGES: Mutex<BTreeMap<(String, String), f64>> = Mutex::new(BTreeMap::new());

/// Serves the gauges from a thread of its own, which outlives the runtimes of the tests.
fn exporter() -> String {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let page = || async { Html("<html><body>Please sign in</body></html>") };
            let router = Router::new().route("/metrics", get(exposed)).route("/html/{*path}", any(page));
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
        });
    });
    address
}

async fn exposed() -> impl IntoResponse {
    let mut text = String::from("# TYPE feature_gauge gauge\n");
    for ((feature, name), value) in GAUGES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let value = if value.is_nan() { "NaN".to_owned() } else { value.to_string() };
        writeln!(text, "feature_gauge{{feature=\"{feature}\",name=\"{name}\"}} {value}").unwrap();
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// A namespace with a feature in it.
pub struct Feature<'a> {
    pub plane: &'a ControlPlane,
    pub prometheus: String,
    pub namespace: String,
    pub dir: BedDir,
}

/// A healthy feature: its configuration, two Deployments and the Service in front of them.
const FEATURE: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config, annotations: {team: learning}}
data: {ENABLE_LEARNING: "true", OTHER: kept}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: learning}
spec:
  replicas: 2
  selector: {matchLabels: {app: profile, version: learning}}
  template:
    metadata: {labels: {app: profile, version: learning}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: app, image: learning}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: baseline}
spec:
  replicas: 1
  selector: {matchLabels: {app: profile, version: baseline}}
  template:
    metadata: {labels: {app: profile, version: baseline}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: app, image: baseline}]}
---
apiVersion: v1
kind: Service
metadata: {name: profile}
spec:
  selector: {app: profile, version: learning}
  ports: [{port: 80, targetPort: 8080}]
"#;

/// The steps of the usual Immediate plan.
pub fn immediate_steps() -> Value {
    json!([
        {"name": "flag", "setConfig": {"configMapRef": {"name": "config"}, "data": {"ENABLE_LEARNING": "false", "MODE": "baseline"}}},
        {"name": "traffic", "switchService": {"serviceRef": {"name": "profile"}, "selector": {"version": "baseline"}}},
        {"name": "capacity", "scale": {"targetRef": deployment("learning"), "replicas": 0}},
    ])
}

pub fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name})
}

/// One step that sets a key of the feature's configuration.
pub fn flag_step() -> Value {
    json!([{"name": "flag", "setConfig": {"configMapRef": {"name": "config"}, "data": {"ENABLE_LEARNING": "false"}}}])
}

impl Feature<'static> {
    /// A namespace with the whole feature, its pods ready.
    pub async fn new(name: &str) -> Self {
        let feature = Self::empty(name).await;
        feature.apply(FEATURE).await;
        feature.ready("learning", 2).await;
        feature.ready("baseline", 1).await;
        feature
    }

    /// A namespace with only the feature's configuration: for tests that need no pods.
    pub async fn configured(name: &str) -> Self {
        let feature = Self::empty(name).await;
        feature.apply(FEATURE.split("---").next().unwrap()).await;
        feature
    }

    /// A namespace with nothing in it.
    pub async fn empty(name: &str) -> Self {
        let shared = shared().await;
        Self::on(&shared.plane, shared.prometheus.url(), name).await
    }
}

impl<'a> Feature<'a> {
    pub async fn on(plane: &'a ControlPlane, prometheus: String, name: &str) -> Self {
        let namespace = plane.namespace(name).await.unwrap();
        let dir = BedDir::create(Some(name)).unwrap();
        let feature = Self { plane, prometheus, namespace, dir };
        feature.gauge("errors", 0.0);
        feature
    }

    /// Sets a gauge of the feature. It is scraped within a quarter of a second.
    pub fn gauge(&self, name: &str, value: f64) {
        let key = (self.namespace.clone(), name.to_owned());
        GAUGES.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }

    /// The query for a gauge of the feature.
    pub fn query(&self, name: &str) -> String {
        format!("feature_gauge{{feature=\"{}\",name=\"{name}\"}}", self.namespace)
    }

    pub fn trigger(&self, name: &str, gauge: &str, hold: &str, rollback: &str) -> Value {
        json!({"name": name, "query": self.query(gauge), "above": 0.5, "for": hold, "rollback": rollback})
    }

    /// A rollout of this name with one trigger on the gauge `errors` and one plan, `immediate`.
    pub fn policy(&self, name: &str, steps: Value) -> Value {
        json!({
            "apiVersion": "learningloop.io/v1alpha1", "kind": "LearningRollout",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "interval": "1s",
                "cooldown": "1s",
                "triggers": [self.trigger("errors", "errors", "1s", "immediate")],
                "rollbacks": [{"name": "immediate", "type": "Immediate", "steps": steps}],
            }
        })
    }

    pub async fn apply(&self, manifest: impl ToString) {
        self.kubectl_with(&["apply", "-f", "-"], &manifest.to_string()).await;
    }

    /// kubectl in the feature's namespace; it must succeed.
    pub async fn kubectl(&self, args: &[&str]) -> String {
        self.kubectl_with(args, "").await
    }

    pub async fn kubectl_with(&self, args: &[&str], input: &str) -> String {
        let args = [&["--namespace", &self.namespace], args].concat();
        self.plane.kubectl_with_input(&args, input).await.unwrap().ok().unwrap()
    }

    pub fn client(&self) -> Client {
        self.plane.client()
    }

    // ---- the operator -------------------------------------------------------------------------------------------

    /// Starts an operator that minds only this namespace.
    pub fn operator(&self) -> Operator {
        self.operator_named("operator", &self.plane.kubeconfig().display().to_string())
    }

    /// The same under another name, with another kubeconfig.
    pub fn operator_named(&self, name: &str, kubeconfig: &str) -> Operator {
        let port = Port::reserve().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_learning-rollout-operator"));
        command
            .env("KUBECONFIG", kubeconfig)
            .args(["--prometheus-url", &self.prometheus, "--prometheus-timeout", "2s"])
            .args(["--namespace", &self.namespace, "--lease-namespace", &self.namespace])
            .args(["--identity", name, "--listen", &port.address(), "--log-format", "pretty"]);
        let process = Process::spawn(name, command, &self.dir.logs()).unwrap();
        Operator { _process: process, _port: port }
    }

    // ---- what is there ------------------------------------------------------------------------------------------

    pub fn rollouts(&self) -> Api<LearningRollout> {
        Api::namespaced(self.client(), &self.namespace)
    }

    pub fn rollbacks(&self) -> Api<LearningRollback> {
        Api::namespaced(self.client(), &self.namespace)
    }

    pub async fn rollout(&self, name: &str) -> LearningRollout {
        self.rollouts().get(name).await.unwrap()
    }

    pub async fn record(&self, name: &str) -> LearningRollback {
        self.rollbacks().get(name).await.unwrap()
    }

    /// All records of the namespace, oldest first.
    pub async fn records(&self) -> Vec<LearningRollback> {
        let mut records = self.rollbacks().list(&Default::default()).await.unwrap().items;
        records.sort_by_key(|record| (record.creation_timestamp(), record.name_any()));
        records
    }

    /// Waits until a rollout's status satisfies a condition.
    pub async fn until_rollout(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&LearningRolloutStatus) -> bool,
    ) -> LearningRollout {
        let api = self.rollouts();
        until(&format!("rollout {name}: {what}"), || async {
            let rollout = api.get(name).await.map_err(|error| error.to_string())?;
            let status = rollout.status.clone().unwrap_or_default();
            if holds(&status) { Ok(rollout) } else { Err(serde_json::to_string(&status).unwrap()) }
        })
        .await
    }

    /// Waits until a trigger is in a state, and its reason is this one where one is given.
    pub async fn until_trigger(&self, rollout: &str, state: TriggerState, reason: Option<&str>) -> TriggerStatus {
        let what = format!("trigger {state:?} {reason:?}");
        let wanted = |status: &TriggerStatus| {
            status.state == state && reason.is_none_or(|reason| status.reason.as_deref() == Some(reason))
        };
        let rollout = self.until_rollout(rollout, &what, |status| status.triggers.iter().any(wanted)).await;
        rollout.status.unwrap().triggers.into_iter().find(wanted).unwrap()
    }

    /// Waits until a record's status satisfies a condition.
    pub async fn until_record(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&LearningRollbackStatus) -> bool,
    ) -> LearningRollback {
        let api = self.rollbacks();
        until(&format!("record {name}: {what}"), || async {
            let record = api.get(name).await.map_err(|error| error.to_string())?;
            let status = record.status.clone().unwrap_or_default();
            if holds(&status) { Ok(record) } else { Err(serde_json::to_string(&status).unwrap()) }
        })
        .await
    }

    pub async fn until_phase(&self, name: &str, phase: Phase) -> LearningRollback {
        self.until_record(name, &format!("phase {phase:?}"), |status| status.phase == phase).await
    }

    /// Waits for the execution that a trigger starts, and until it has landed.
    pub async fn until_rolled_back(&self, rollout: &str) -> LearningRollback {
        let name = self.until_active(rollout).await;
        self.until_phase(&name, Phase::RolledBack).await
    }

    /// Waits for the rollout's claim, and answers with the name of the record.
    pub async fn until_active(&self, rollout: &str) -> String {
        let rollout = self.until_rollout(rollout, "an active execution", |status| status.active.is_some()).await;
        rollout.status.unwrap().active.unwrap().name
    }

    /// What a person wants of a record from now on.
    pub async fn wish(&self, record: &str, desired: &str) {
        let patch = json!({"spec": {"desiredState": desired, "decisionReason": "a test wants it"}});
        self.rollbacks().patch(record, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn restore(&self, record: &str) -> LearningRollback {
        self.wish(record, "Restored").await;
        self.until_phase(record, Phase::Restored).await
    }

    /// The message of the newest event with this reason, once there is one.
    pub async fn until_event(&self, reason: &str) -> String {
        let api: Api<Event> = Api::namespaced(self.client(), &self.namespace);
        until(&format!("an event {reason}"), || async {
            let events = api.list(&Default::default()).await.map_err(|error| error.to_string())?.items;
            let told: Vec<String> = events.iter().filter_map(|event| event.reason.clone()).collect();
            let event = events.into_iter().rfind(|event| event.reason.as_deref() == Some(reason));
            event.and_then(|event| event.message).ok_or_else(|| format!("{told:?}"))
        })
        .await
    }

    // ---- the feature's objects ----------------------------------------------------------------------------------

    pub fn objects(&self, kind: &str) -> Api<DynamicObject> {
        let (group, version, plural) = match kind {
            "ConfigMap" => ("", "v1", "configmaps"),
            "Service" => ("", "v1", "services"),
            "Deployment" => ("apps", "v1", "deployments"),
            "ReplicaSet" => ("apps", "v1", "replicasets"),
            other => panic!("{other} is not a kind of these tests"),
        };
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        Api::namespaced_with(self.client(), &self.namespace, &resource)
    }

    pub async fn object(&self, kind: &str, name: &str) -> Value {
        serde_json::to_value(self.objects(kind).get(name).await.unwrap()).unwrap()
    }

    /// Waits until an object satisfies a condition.
    pub async fn until_object(&self, kind: &str, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let api = self.objects(kind);
        until(&format!("{kind} {name}: {what}"), || async {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            let object = serde_json::to_value(object).unwrap();
            if holds(&object) { Ok(object) } else { Err(object.to_string()) }
        })
        .await
    }

    pub async fn ready(&self, deployment: &str, replicas: i64) {
        self.until_object("Deployment", deployment, "ready pods", |object| {
            object["status"]["readyReplicas"].as_i64().unwrap_or(0) == replicas
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
        })
        .await;
    }

    pub async fn flag(&self) -> Value {
        self.object("ConfigMap", "config").await["data"]["ENABLE_LEARNING"].clone()
    }

    /// All that a rollback may touch: to be equal before it and after the restore.
    pub async fn touched(&self) -> Value {
        let (config, service, learning) = tokio::join!(
            self.object("ConfigMap", "config"),
            self.object("Service", "profile"),
            self.object("Deployment", "learning"),
        );
        json!({
            "config": [config["data"], config["metadata"]["annotations"]],
            "service": [service["spec"], service["metadata"]["annotations"]],
            "learning": [learning["spec"], learning["metadata"]["annotations"]],
        })
    }

    pub async fn version(&self, kind: &str, name: &str) -> Value {
        self.object(kind, name).await["metadata"]["resourceVersion"].clone()
    }

    // ---- what was written ---------------------------------------------------------------------------------------

    /// The patches of a target that the operator sent in earnest, and that were carried out.
    pub fn patches(&self, resource: &str, name: &str) -> usize {
        self.patch_requests(resource, name).iter().filter(|event| event.code() == Some(200)).count()
    }

    pub fn patch_requests(&self, resource: &str, name: &str) -> Vec<AuditEvent> {
        let object = format!("{}/{name}", self.namespace);
        let mut events = self.plane.audit_events().unwrap();
        events.retain(|event| {
            event.verb == "patch"
                && event.stage == "ResponseComplete"
                && event.resource() == resource
                && event.object() == object
                && event.request_uri.contains("fieldManager=learning-rollout-operator")
                && !event.request_uri.contains("dryRun")
        });
        events
    }
}

/// A running operator. It is killed when dropped.
pub struct Operator {
    _process: Process,
    _port: Port,
}

/// Waits, and fails the test when it does not come.
pub async fn until<T, F: Future<Output = Result<T, String>>>(what: &str, look: impl FnMut() -> F) -> T {
    testbed::wait::until(what, SOON, look).await.unwrap()
}

/// The status of a condition, or why it is not there.
pub fn condition_of(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition], kind: &str) -> String {
    condition::get(conditions, kind)
        .map_or_else(|| "absent".to_owned(), |it| format!("{} {}: {}", it.status, it.reason, it.message))
}

/// A step of a record.
pub fn step<'a>(record: &'a LearningRollback, name: &str) -> &'a StepStatus {
    record.status.as_ref().unwrap().steps.iter().find(|step| step.name == name).unwrap()
}

pub fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][format!("learningloop.io/{name}")].as_str()
}
