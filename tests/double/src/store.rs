//! The objects, their one revision counter, and the history that watches are served from.
//!
//! Everything stored passes through [`Store::commit`], which is where revisions are counted. The rules by which a
//! request becomes a commit are in [`crate::write`]; nothing here refuses anything.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    builtin, object,
    refusal::Cause,
    resource::{Generation, ObjectKey, Registry, Resource},
};

/// What decides about a write beyond the built-in validation: the object before (none on create) and after.
pub type Validation = Arc<dyn Fn(Option<&Value>, &Value) -> Vec<Cause> + Send + Sync>;

/// One committed change, as watches and hooks see it.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) resource: Arc<Resource>,
    pub(crate) key: ObjectKey,
    pub(crate) before: Option<Value>,
    /// Absent after a deletion.
    pub(crate) after: Option<Value>,
    /// The object to show: the new state, or the last one with the revision of its deletion.
    pub(crate) shown: Value,
}

pub(crate) struct Store {
    pub(crate) registry: Registry,
    pub(crate) validations: Vec<(String, Validation)>,
    objects: BTreeMap<ObjectKey, Value>,
    revision: u64,
    history: VecDeque<Change>,
    history_limit: usize,
    /// Watches may not begin before this revision any more.
    compacted: u64,
    uids: u64,
    /// Whom each uid was given to, for comparing runs.
    pub(crate) given: BTreeMap<String, ObjectKey>,
    /// Changes since they were last taken, for hooks and controllers.
    pub(crate) fresh: Vec<Change>,
    started: (SystemTime, tokio::time::Instant),
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            registry: Registry::default(),
            validations: Vec::new(),
            objects: BTreeMap::new(),
            revision: 100,
            history: VecDeque::new(),
            history_limit: 100_000,
            compacted: 100,
            uids: 0,
            given: BTreeMap::new(),
            fresh: Vec::new(),
            started: (SystemTime::now(), tokio::time::Instant::now()),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Wall-clock time that follows tokio's clock, so that a paused clock also pauses timestamps.
    pub(crate) fn now(&self) -> String {
        let (wall, start) = self.started;
        let now = wall + start.elapsed();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
    }

    /// The next uid: counted, so that two runs of the same requests give the same ones.
    pub(crate) fn next_uid(&mut self, key: &ObjectKey) -> String {
        self.uids += 1;
        let uid = format!("{:08x}-0000-4000-8000-{:012x}", self.uids, self.uids);
        self.given.insert(uid.clone(), key.clone());
        uid
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(key)
    }

    /// The objects of a resource in order of namespace and name.
    pub(crate) fn list<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Value)> {
        self.objects.iter().filter(move |(key, _)| {
            key.group == resource.group
                && key.kind == resource.kind
                && namespace.is_none_or(|namespace| key.namespace == namespace)
        })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&ObjectKey, &Value)> {
        self.objects.iter()
    }

    /// Stores a new state (or, with `None`, the absence of any) under a new revision and returns it as stored.
    pub(crate) fn commit(&mut self, resource: &Arc<Resource>, key: ObjectKey, after: Option<Value>) -> Value {
        self.revision += 1;
        let revision = self.revision.to_string();
        let before = self.objects.remove(&key);
        let mut shown = after.clone().or_else(|| before.clone()).unwrap_or(Value::Null);
        object::set_metadata(&mut shown, "resourceVersion", revision);
        if after.is_some() {
            self.objects.insert(key.clone(), shown.clone());
        }
        let change = Change {
            revision: self.revision,
            resource: resource.clone(),
            key,
            before,
            after: after.map(|_| shown.clone()),
            shown: shown.clone(),
        };
        self.fresh.push(change.clone());
        self.history.push_back(change);
        while self.history.len() > self.history_limit {
            if let Some(oldest) = self.history.pop_front() {
                self.compacted = oldest.revision;
            }
        }
        shown
    }

    pub(crate) fn limit_history(&mut self, limit: usize) {
        self.history_limit = limit;
        while self.history.len() > limit {
            if let Some(oldest) = self.history.pop_front() {
                self.compacted = oldest.revision;
            }
        }
    }

    /// Forgets the history: every watch that has not seen the present revision is too old.
    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.revision;
    }

    /// What happened after a revision, or that it is too long ago to say.
    pub(crate) fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Change>, String> {
        if revision < self.compacted {
            return Err(format!("too old resource version: {revision} ({})", self.compacted));
        }
        Ok(self.history.iter().filter(move |change| change.revision > revision))
    }

    /// Stores an object as it is, apart from what every stored object has: seeds and controllers.
    pub(crate) fn place(&mut self, resource: &Arc<Resource>, mut object: Value) -> Value {
        let key = resource.key(object::namespace(&object), object::name(&object));
        assert!(!key.name.is_empty(), "{} without metadata.name", resource.kind);
        builtin::normalise(resource, &mut object);
        let old = self.get(&key).cloned().unwrap_or(Value::Null);
        for member in ["uid", "creationTimestamp", "generation"] {
            if object["metadata"].get(member).is_none() && old["metadata"].get(member).is_some() {
                object::copy_metadata(&old, &mut object, member);
            }
        }
        if object::uid(&object).is_empty() {
            let uid = self.next_uid(&key);
            object::set_metadata(&mut object, "uid", uid);
        } else {
            self.given.insert(object::uid(&object).to_owned(), key.clone());
        }
        if object::text(&object, "/metadata/creationTimestamp").is_empty() {
            object::set_metadata(&mut object, "creationTimestamp", self.now());
        }
        if resource.generation != Generation::None && object::generation(&object) == 0 {
            object::set_metadata(&mut object, "generation", 1);
        }
        self.commit(resource, key, Some(object))
    }

    /// Puts a namespace in place, as if somebody had made it long ago.
    pub(crate) fn ensure_namespace(&mut self, name: &str) {
        let Some(resource) = self.registry.by_kind("Namespace") else {
            return;
        };
        let key = resource.key("", name);
        if self.objects.contains_key(&key) {
            return;
        }
        let uid = self.next_uid(&key);
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": name, "uid": uid, "creationTimestamp": self.now(),
                "labels": {"kubernetes.io/metadata.name": name},
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        self.commit(&resource, key, Some(namespace));
    }
}
