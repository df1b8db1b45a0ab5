//! One run: the API server double, scripted metrics, the operator in its first and second life, and what came of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use apiserver_double::{Counting, Crash, Double, Moment, Request};
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use learning_rollout::{
    api::rollout::PrometheusSource,
    controller::{self, Scope, clock::Clock, context::Context, leader::Leadership, sources::Sources},
    prometheus::{Answer, QueryBackend, QueryError, RangeAnswer, Sample, Series},
    server::metrics::Metrics,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::scenarios::Scenario;

const NAMESPACE: &str = "learning";
const TARGETS: [(&str, &str); 4] =
    [("ConfigMap", "flags"), ("Service", "front"), ("Deployment", "learning"), ("Deployment", "baseline")];

/// Everything that exists apart from the operator.
pub(crate) struct World {
    pub(crate) double: Double,
    metrics: Script,
    clock: Clock,
}

/// Metrics as a test sets them.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<BTreeMap<String, f64>>>);

impl QueryBackend for Script {
    fn query<'a>(&'a self, expr: &'a str, time: Timestamp) -> BoxFuture<'a, Result<Arc<Answer>, QueryError>> {
        let value = self.0.lock().unwrap().get(expr).copied().unwrap_or(0.0);
        Box::pin(async move { Ok(Arc::new(vec![Sample { labels: BTreeMap::new(), value, time }])) })
    }

    fn query_range<'a>(
        &'a self,
        expr: &'a str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
    ) -> BoxFuture<'a, Result<Arc<RangeAnswer>, QueryError>> {
        let value = self.0.lock().unwrap().get(expr).copied().unwrap_or(0.0);
        let points = std::iter::successors(Some(start), |at| at.checked_add(step).ok().filter(|at| *at <= end));
        let series = Series { labels: BTreeMap::new(), points: points.map(|at| (at, value)).collect() };
        Box::pin(async move { Ok(Arc::new(vec![series])) })
    }
}

impl Sources for Script {
    fn find<'a>(
        &'a self,
        _: &'a str,
        _: Option<&'a PrometheusSource>,
    ) -> BoxFuture<'a, Result<Arc<dyn QueryBackend>, QueryError>> {
        let backend: Arc<dyn QueryBackend> = Arc::new(self.clone());
        Box::pin(async move { Ok(backend) })
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Counted requests of the operator.
    pub(crate) requests: usize,
    /// The same, one line each.
    pub(crate) lines: Vec<String>,
    /// Phases of all records, sorted.
    pub(crate) phases: Vec<String>,
    /// Writes that changed something, by target.
    pub(crate) writes: BTreeMap<String, usize>,
    targets: BTreeMap<String, Value>,
    /// Is the rollout still claimed, and which finalizers are left?
    bonds: Vec<String>,
}

impl Outcome {
    pub(crate) fn target(&self, name: &str) -> &Value {
        &self.targets[name]
    }

    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.targets.values().any(|object| object.to_string().contains(text))
    }

    pub(crate) fn difference(&self, reference: &Self) -> Option<String> {
        if self.phases != reference.phases {
            return Some(format!("phases {:?} instead of {:?}", self.phases, reference.phases));
        }
        if self.writes != reference.writes {
            return Some(format!("writes {:?} instead of {:?}", self.writes, reference.writes));
        }
        if self.bonds != reference.bonds {
            return Some(format!("bonds {:?} instead of {:?}", self.bonds, reference.bonds));
        }
        let other = self.targets.iter().find(|(name, object)| reference.targets.get(*name) != Some(object));
        other.map(|(name, object)| format!("{name} is {object} instead of {}", reference.targets[name]))
    }
}

impl World {
    /// Runs a scenario; the operator crashes at the n-th counted request, if it is to.
    pub(crate) async fn run(scenario: &Scenario, crash: Option<(usize, Moment)>) -> Outcome {
        let world = Self::new(scenario);
        if let Some((at, moment)) = crash {
            world.double.crash(Crash { at, moment, counting: Counting::matching(counted) });
        }
        let mut life = world.operator();
        {
            let mut story = std::pin::pin!(async {
                (scenario.story)(&world).await;
                // Long enough for anything that is still to come, or to come twice.
                tokio::time::sleep(Duration::from_secs(30)).await;
            });
            tokio::select! {
                () = &mut story => {}
                _ = world.double.crashed(), if crash.is_some() => {
                    life.abort();
                    _ = life.await;
                    life = world.operator();
                    story.await;
                }
            }
        }
        life.abort();
        _ = life.await;
        world.outcome()
    }

    fn new(scenario: &Scenario) -> Self {
        let double = Double::new().with_controllers();
        let metadata = |name: &str| json!({"name": name, "namespace": NAMESPACE});
        double.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("flags"),
            "data": {"LEARNING": "true", "VOICE": "true"}}));
        for (name, replicas) in [("learning", 3), ("baseline", 2)] {
            let labels = json!({"app": "front", "version": name});
            double.put(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(name), "spec": {
                "replicas": replicas, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": []}}}}));
        }
        double.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("front"),
            "spec": {"selector": {"app": "front", "version": "learning"}, "ports": [{"port": 80}]}}));
        double.put(
            json!({"apiVersion": "learningloop.io/v1alpha1", "kind": "LearningRollout", "metadata": metadata("loop"),
            "spec": {"interval": "1s", "cooldown": "1h", "mode": "Enforce", "suspend": false, "historyLimit": 10,
                "triggers": [
                    {"name": "errors", "query": "errors", "above": 0.5, "for": "2s", "rollback": "immediate"},
                    {"name": "failures", "query": "failures", "above": 0.5, "for": "2s", "rollback": "disable"},
                ],
                "rollbacks": scenario.plans}}),
        );
        let clock = Clock::scripted("2026-01-01T00:00:00Z".parse().unwrap());
        Self { double, metrics: Script::default(), clock }
    }

    /// A life of the operator.
    fn operator(&self) -> JoinHandle<()> {
        let context = Context {
            client: self.double.client(),
            clock: self.clock,
            leadership: Leadership::alone(self.clock),
            sources: Arc::new(self.metrics.clone()),
            metrics: Arc::new(Metrics::default()),
            cluster: "".into(),
            selective: false,
        };
        tokio::spawn(controller::run(context, Scope::default(), std::future::pending()))
    }

    /// Sets a metric.
    pub(crate) fn say(&self, metric: &str, value: f64) {
        self.metrics.0.lock().unwrap().insert(metric.to_owned(), value);
    }

    /// Waits for something, on the scripted clock.
    pub(crate) async fn until(&self, what: &str, seen: impl Fn(&Self) -> bool) {
        for _ in 0..1200 {
            if seen(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log: Vec<String> = self.double.requests().iter().rev().take(15).map(Request::line).collect();
        panic!("waited for {what}; records {:?}; last requests {log:#?}", self.double.objects("LearningRollback"));
    }

    /// Names and phases of the records.
    pub(crate) fn records(&self) -> Vec<(String, String)> {
        let text = |object: &Value, pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let records = self.double.objects("LearningRollback");
        records.iter().map(|record| (text(record, "/metadata/name"), text(record, "/status/phase"))).collect()
    }

    pub(crate) fn phase(&self, name: &str) -> String {
        self.records().into_iter().find(|(of, _)| of == name).map(|(_, phase)| phase).unwrap_or_default()
    }

    /// A person sets desiredState.
    pub(crate) async fn decide(&self, record: &str, state: &str) {
        let resource = ApiResource {
            group: "learningloop.io".into(),
            version: "v1alpha1".into(),
            api_version: "learningloop.io/v1alpha1".into(),
            kind: "LearningRollback".into(),
            plural: "learningrollbacks".into(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.double.bystander(), NAMESPACE, &resource);
        let patch = json!({"spec": {"desiredState": state}});
        api.patch(record, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    fn outcome(&self) -> Outcome {
        let requests: Vec<Request> = self.double.requests().into_iter().filter(counted).collect();
        let mut writes = BTreeMap::new();
        for request in requests.iter().filter(|request| request.committed && request.changed) {
            let Some(key) = &request.key else { continue };
            if TARGETS.contains(&(key.kind.as_str(), key.name.as_str())) {
                *writes.entry(format!("{} {}", key.kind, key.name)).or_default() += 1;
            }
        }
        let mut phases: Vec<String> = self.records().into_iter().map(|(_, phase)| phase).collect();
        phases.sort();
        let targets = TARGETS.iter().map(|(kind, name)| {
            let object = self.double.get(kind, NAMESPACE, name).unwrap();
            (format!("{kind} {name}"), stable(&object))
        });
        let rollout = self.double.get("LearningRollout", NAMESPACE, "loop").unwrap();
        let mut bonds = vec![format!("claimed: {}", rollout.pointer("/status/active").is_some())];
        bonds.extend(self.double.objects("LearningRollback").iter().map(|record| {
            let phase = record.pointer("/status/phase").cloned().unwrap_or_default();
            format!("{phase}: {}", record.pointer("/metadata/finalizers").cloned().unwrap_or_default())
        }));
        bonds.sort();
        Outcome {
            requests: requests.len(),
            lines: requests.iter().map(Request::line).collect(),
            phases,
            writes,
            targets: targets.collect(),
            bonds,
        }
    }
}

/// Events are told at least once and off the path; everything else that wants to change something counts.
fn counted(request: &Request) -> bool {
    request.is_mutating() && request.key.as_ref().is_none_or(|key| key.kind != "Event")
}

/// An object without what differs from run to run: versions, and the tokens and marks made from uids.
fn stable(object: &Value) -> Value {
    let mut stable = json!({
        "annotations": object.pointer("/metadata/annotations"),
        "data": object.get("data"),
        "spec": object.get("spec"),
    });
    if let Some(fence) = stable.pointer_mut("/annotations/learningloop.io~1fence") {
        *fence = json!("a token");
    }
    if let Some(note) = stable.pointer_mut("/annotations/learningloop.io~1undo") {
        let told: Value = serde_json::from_str(note.as_str().unwrap()).unwrap();
        let fields: Vec<Value> =
            told["steps"].as_object().unwrap().values().map(|step| step["fields"].clone()).collect();
        *note = json!(fields.iter().map(marked).collect::<Vec<_>>());
    }
    marked(&stable)
}

/// Restart marks name the record that made them.
fn marked(value: &Value) -> Value {
    match value {
        Value::String(text) if text.ends_with("-restart") || text.ends_with("-three") => json!("a mark"),
        Value::String(text) if text.ends_with("-restored") => json!("a mark of a restore"),
        Value::Array(items) => items.iter().map(marked).collect(),
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), marked(value))).collect(),
        other => other.clone(),
    }
}
