//! A Kubernetes API server in memory, as a tower Service, that crashes its client where a test wants it to.
//!
//! The operator under test runs against [`Double::client`] in the same process: requests keep the semantics of
//! kube-apiserver (resourceVersions and conflicts, JSON Patch with its failed tests, status subresources, generations,
//! finalizers, dry runs, watches), but nothing leaves the process, no thread sleeps, and tokio's clock may be paused.
//!
//! ```no_run
//! # async fn operator(_: kube::Client) {}
//! # async fn run() {
//! use apiserver_double::{Crash, Double, Moment};
//!
//! let double = Double::new();
//! double.put(serde_json::json!({
//!     "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "flags", "namespace": "learning"},
//! }));
//! double.crash(Crash::at(3, Moment::Committed));
//! let first_life = tokio::spawn(operator(double.client()));
//! double.crashed().await;
//! first_life.abort();
//! operator(double.client()).await; // the second life
//! println!("{:?}", double.writes_per_object());
//! # }
//! ```
//!
//! The double keeps no schema and knows no users: custom resources are stored as they come (see
//! [`Double::validate`] for rules of one's own), and everybody may do everything (script a [`Fault`] for a 403).
//! [`conformance`] holds it to the truth: the same scenarios run against a real kube-apiserver.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a broken assumption of the double has to stop the test"
)]

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use kube::Client;
use serde_json::Value;

mod builtin;
pub mod conformance;
mod controllers;
mod discovery;
mod faults;
mod lifecycle;
mod log;
mod object;
mod ownership;
pub mod patch;
mod refusal;
mod resource;
mod routes;
mod selector;
mod service;
mod snapshot;
mod store;
mod watch;
mod write;

pub use faults::{Counting, Crash, Fault, Moment, Predicate, Times};
pub use log::{By, Request};
pub use refusal::{Cause, Refusal};
pub use resource::{Generation, ObjectKey, Resource};
pub use store::Validation;

use controllers::Controllers;
use service::{Connection, Life, Shared};

/// The API server. Cloning gives another handle on the same one; when the last handle goes, its watches end.
#[derive(Clone)]
pub struct Double {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    generations: AtomicUsize,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.change(|state| state.watch_epoch += 1);
    }
}

impl Default for Double {
    fn default() -> Self {
        Self::new()
    }
}

/// Making one, and what it serves.
impl Double {
    /// An API server with the namespace `default` and the kinds the operator meets.
    pub fn new() -> Self {
        let shared = Arc::new(Shared::new());
        shared.change(|state| state.store.ensure_namespace("default"));
        Self { handle: Arc::new(Handle { shared, generations: AtomicUsize::new(0) }) }
    }

    /// Lets workloads have pods, Services endpoints, Jobs an end, and orphans none: synchronously, after each commit.
    #[must_use]
    pub fn with_controllers(self) -> Self {
        self.shared().change(|state| {
            let controllers = Controllers::default();
            controllers.resync(&mut state.store);
            state.controllers = Some(controllers);
        });
        self
    }

    /// The pods of this workload are not ready until [`Double::release_workload`].
    pub fn hold_workload(&self, namespace: &str, name: &str) {
        self.resync_with(|controllers| {
            controllers.held.insert((namespace.to_owned(), name.to_owned()));
        });
    }

    /// The pods of this workload may be ready again.
    pub fn release_workload(&self, namespace: &str, name: &str) {
        self.resync_with(|controllers| {
            controllers.held.remove(&(namespace.to_owned(), name.to_owned()));
        });
    }

    fn resync_with(&self, change: impl FnOnce(&mut Controllers)) {
        self.shared().change(|state| {
            let mut controllers = state.controllers.take().expect("holding a workload needs with_controllers()");
            change(&mut controllers);
            controllers.resync(&mut state.store);
            state.controllers = Some(controllers);
        });
    }

    /// Serves one more resource (or replaces one of the same group and plural).
    pub fn register(&self, resource: Resource) {
        self.shared().change(|state| state.store.registry.add(resource));
    }

    /// Serves what a CustomResourceDefinition defines; its schema is not looked at.
    pub fn register_definition(&self, definition: &Value) {
        self.shared().change(|state| state.store.register_definition(definition));
    }

    /// Adds validation of a kind (`Kind` or `Kind.group`): causes make the write a 422. It is given the object before
    /// (none on create) and after, and must not call the double.
    pub fn validate(
        &self,
        kind: &str,
        validation: impl Fn(Option<&Value>, &Value) -> Vec<Cause> + Send + Sync + 'static,
    ) {
        self.shared().change(|state| state.store.validations.push((kind.to_owned(), Arc::new(validation))));
    }

    /// Keeps so many changes for watches to begin from; older ones are answered with 410.
    pub fn limit_history(&self, changes: usize) {
        self.shared().change(|state| state.store.limit_history(changes));
    }

    /// Is told of every commit (of clients, seeds and controllers alike) once the state may be looked at again.
    /// A deletion is `null`.
    pub fn on_commit(&self, hook: impl Fn(&ObjectKey, &Value) + Send + Sync + 'static) {
        self.shared().change(|state| state.hooks.push(Arc::new(hook)));
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

/// Clients, and their end.
impl Double {
    /// A client for the program under test, of a new generation: its next life. Needs a tokio runtime.
    pub fn client(&self) -> Client {
        let generation = self.handle.generations.fetch_add(1, Ordering::SeqCst) + 1;
        self.connect(By::Client(generation))
    }

    /// A client for everybody else: never counted, frozen or faulted.
    pub fn bystander(&self) -> Client {
        self.connect(By::Bystander)
    }

    fn connect(&self, by: By) -> Client {
        let shared = self.shared().clone();
        Client::new(Connection { shared, by }, "default")
    }

    /// The generation of the latest [`Double::client`], the first being 1.
    pub fn generation(&self) -> usize {
        self.handle.generations.load(Ordering::SeqCst)
    }

    /// Arms a crash; its counting begins now. It strikes once, and a new one may be armed after it.
    pub fn crash(&self, crash: Crash) {
        self.shared().change(|state| {
            state.crashed = None;
            state.faults.arm(crash);
        });
    }

    /// Takes an armed crash back.
    pub fn disarm(&self) {
        self.shared().change(|state| state.faults.disarm());
    }

    /// Resolves when the armed crash has struck, with the request it struck.
    pub fn crashed(&self) -> impl Future<Output = Request> + Send + use<> {
        let shared = self.shared().clone();
        async move {
            let mut signal = shared.signal.subscribe();
            loop {
                if let Some(request) = shared.with(|state| state.crashed.clone()) {
                    return request;
                }
                signal.changed().await.expect("the sender is held above");
            }
        }
    }

    /// Whether the armed crash has struck.
    pub fn has_crashed(&self) -> bool {
        self.shared().with(|state| state.crashed.is_some())
    }

    /// Stops a generation as SIGSTOP would: requests wait, watches are silent, until [`Double::thaw`].
    pub fn freeze(&self, generation: usize) {
        self.set_life(generation, Life::Stopped);
    }

    /// Continues a stopped generation: what it was waiting for now happens.
    pub fn thaw(&self, generation: usize) {
        self.set_life(generation, Life::Running);
    }

    fn set_life(&self, generation: usize, life: Life) {
        self.shared().change(|state| {
            // The dead stay dead.
            if state.lives.get(&generation) != Some(&Life::Dead) {
                state.lives.insert(generation, life);
            }
        });
    }

    /// Scripts a fault for requests of clients under test; of several that strike, the first scripted is taken. The
    /// predicate must not call the double.
    pub fn on(&self, predicate: impl Fn(&Request) -> bool + Send + Sync + 'static, times: Times, fault: Fault) {
        self.shared().change(|state| state.faults.script(Arc::new(predicate), times, fault));
    }

    /// Takes all scripted faults back.
    pub fn clear_faults(&self) {
        self.shared().change(|state| state.faults.clear());
    }

    /// Ends all open watches cleanly, as a server does now and then.
    pub fn close_watches(&self) {
        self.shared().change(|state| state.watch_epoch += 1);
    }

    /// While muted, watches stay open and say nothing; what they missed comes when they are unmuted.
    pub fn mute_watches(&self, muted: bool) {
        self.shared().change(|state| state.muted = muted);
    }

    /// Compacts the history: a watch from any revision but the present is answered with 410.
    pub fn compact(&self) {
        self.shared().change(|state| state.store.compact());
    }
}

/// What happened, and what is there.
impl Double {
    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared().with(|state| state.log.requests.clone())
    }

    /// The requests of clients under test that want to change something, dry runs included.
    pub fn mutating_requests(&self) -> Vec<Request> {
        self.shared().with(|state| {
            let requests = state.log.requests.iter();
            requests.filter(|request| request.mutation.is_some()).cloned().collect()
        })
    }

    /// The requests of clients under test that changed something: committed, no dry run, no no-op.
    pub fn writes(&self) -> Vec<Request> {
        self.shared().with(|state| state.log.writes().cloned().collect())
    }

    /// How often clients under test changed each object.
    pub fn writes_per_object(&self) -> BTreeMap<ObjectKey, usize> {
        self.shared().with(|state| state.log.writes_per_object())
    }

    /// Forgets all requests and begins to count anew.
    pub fn clear_log(&self) {
        self.shared().change(|state| state.log = log::Log::default());
    }

    /// Seeds an object, or replaces it whole, status included: what it lacks of uid, timestamps and generation is
    /// filled in, and its namespace is made. Returns it as stored.
    pub fn put(&self, object: Value) -> Value {
        self.shared().change(|state| {
            let (version, kind) = (object::text(&object, "/apiVersion"), object::text(&object, "/kind"));
            let resource = state
                .store
                .registry
                .by_object(version, kind)
                .unwrap_or_else(|| panic!("{kind} of {version} is not served: register it first"));
            if resource.namespaced {
                let namespace = object::namespace(&object).to_owned();
                assert!(!namespace.is_empty(), "{kind} {} needs a namespace", object::name(&object));
                state.store.ensure_namespace(&namespace);
            }
            state.store.place(&resource, object)
        })
    }

    /// Removes an object at once, finalizers or not; returns what was there.
    pub fn remove(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared().change(|state| {
            let resource = state.store.registry.by_kind(kind)?;
            let key = resource.key(namespace, name);
            let old = state.store.get(&key).cloned()?;
            state.store.commit(&resource, key, None);
            Some(old)
        })
    }

    /// An object by kind (`Kind`, or `Kind.group` where that is not enough).
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared().with(|state| {
            let resource = state.store.registry.by_kind(kind)?;
            state.store.get(&resource.key(namespace, name)).cloned()
        })
    }

    /// All objects of a kind, by namespace and name.
    pub fn objects(&self, kind: &str) -> Vec<Value> {
        self.shared().with(|state| {
            let resource = state.store.registry.by_kind(kind);
            let resource = resource.unwrap_or_else(|| panic!("{kind} is not served"));
            state.store.list(&resource, None).map(|(_, object)| object.clone()).collect()
        })
    }

    /// The managers that own the member at a JSON pointer, or something below it.
    pub fn owners(&self, kind: &str, namespace: &str, name: &str, pointer: &str) -> Vec<String> {
        self.get(kind, namespace, name).map(|object| ownership::owners(&object, pointer)).unwrap_or_default()
    }

    /// All objects but events and leases, with what differs between equal runs normalised.
    pub fn dump_stable(&self) -> BTreeMap<String, Value> {
        self.shared().with(|state| snapshot::stable(&state.store))
    }

    /// The present resourceVersion.
    pub fn revision(&self) -> u64 {
        self.shared().with(|state| state.store.revision())
    }
}
