//! What the watches say: each rollout with its records, kept by one synchronous structure that tasks read and are woken
//! by. Nothing is decided on it alone: every write goes by resourceVersion or by a fence.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::{ResourceExt, runtime::watcher};
use tokio::sync::Notify;
use tracing::warn;

use crate::api::{rollback::LearningRollback, rollout::LearningRollout};

/// Label of a record: the name of its rollout.
pub const ROLLOUT_LABEL: &str = "learningloop.io/rollout";

/// A rollout by namespace and name. It may not exist: its records may have outlived it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name of the rollout.
    pub name: String,
}

/// What is known of one rollout.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The policy, if it exists.
    pub rollout: Option<Arc<LearningRollout>>,
    /// Its records, by name.
    pub records: BTreeMap<String, Arc<LearningRollback>>,
    /// Records that could not be read: they count as in force.
    pub unreadable: BTreeMap<String, String>,
    wake: Arc<Notify>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.rollout.is_none() && self.records.is_empty() && self.unreadable.is_empty()
    }

    /// Resolves when something about the rollout has changed.
    pub fn changed(&self) -> Arc<Notify> {
        self.wake.clone()
    }
}

/// All rollouts and records in view.
#[derive(Clone, Debug, Default)]
pub struct Index {
    entries: Arc<Mutex<HashMap<Key, Entry>>>,
    /// Woken when a rollout comes into view.
    pub appeared: Arc<Notify>,
}

/// An object of either kind, as a watch delivers it.
pub trait Indexed: Clone {
    /// The rollout it belongs to.
    fn key(&self) -> Option<Key>;
    /// Puts it into its rollout's entry.
    fn insert(&self, entry: &mut Entry);
    /// Takes it out again.
    fn remove(entry: &mut Entry, name: &str);
    /// Names of objects of this kind in an entry.
    fn names(key: &Key, entry: &Entry) -> Vec<String>;
    /// An object that could not be read.
    fn insert_unreadable(entry: &mut Entry, name: &str, why: &str);
}

impl Indexed for LearningRollout {
    fn key(&self) -> Option<Key> {
        Some(Key { namespace: self.namespace()?, name: self.name_any() })
    }

    fn insert(&self, entry: &mut Entry) {
        entry.rollout = Some(Arc::new(self.clone()));
    }

    fn remove(entry: &mut Entry, _: &str) {
        entry.rollout = None;
    }

    fn names(key: &Key, entry: &Entry) -> Vec<String> {
        entry.rollout.iter().map(|_| key.name.clone()).collect()
    }

    fn insert_unreadable(entry: &mut Entry, _: &str, _: &str) {
        // A policy that cannot be read guards nothing; what it started stays in force by its records.
        entry.rollout = None;
    }
}

impl Indexed for LearningRollback {
    fn key(&self) -> Option<Key> {
        Some(Key { namespace: self.namespace()?, name: self.spec.rollout_ref.name.clone() })
    }

    fn insert(&self, entry: &mut Entry) {
        entry.unreadable.remove(&self.name_any());
        entry.records.insert(self.name_any(), Arc::new(self.clone()));
    }

    fn remove(entry: &mut Entry, name: &str) {
        entry.records.remove(name);
        entry.unreadable.remove(name);
    }

    fn names(_: &Key, entry: &Entry) -> Vec<String> {
        entry.records.keys().chain(entry.unreadable.keys()).cloned().collect()
    }

    fn insert_unreadable(entry: &mut Entry, name: &str, why: &str) {
        entry.records.remove(name);
        entry.unreadable.insert(name.to_owned(), why.to_owned());
    }
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a rollout. `None`: neither it nor a record of it is in view.
    pub fn get(&self, key: &Key) -> Option<Entry> {
        self.lock().get(key).cloned()
    }

    /// All keys in view.
    pub fn keys(&self) -> Vec<Key> {
        self.lock().keys().cloned().collect()
    }

    /// Changes one entry and wakes its task.
    fn edit(&self, key: &Key, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.lock();
        let fresh = !entries.contains_key(key);
        let entry = entries.entry(key.clone()).or_default();
        change(entry);
        entry.wake.notify_one();
        if entry.is_empty() {
            entries.remove(key);
        }
        if fresh {
            self.appeared.notify_one();
        }
    }
}

/// One watch, feeding the index. A relist replaces what the watch had brought before.
pub struct Feed<K> {
    index: Index,
    /// The namespace that the watch covers; `None`: all.
    namespace: Option<String>,
    listed: Option<HashSet<(Key, String)>>,
    kind: std::marker::PhantomData<K>,
}

/// An object, or what little is known of one that could not be read.
pub type Delivered<K> = kube::core::DeserializeGuard<K>;

impl<K: Indexed + kube::Resource<DynamicType = ()>> Feed<K> {
    /// A feed for a watch of one namespace, or of all.
    pub fn new(index: Index, namespace: Option<String>) -> Self {
        Self { index, namespace, listed: None, kind: std::marker::PhantomData }
    }

    /// Takes in one event. True when the first list is complete.
    pub fn take(&mut self, event: watcher::Event<Delivered<K>>) -> bool {
        match event {
            watcher::Event::Init => self.listed = Some(HashSet::new()),
            watcher::Event::InitApply(object) => {
                let place = self.put(object);
                if let (Some(listed), Some(place)) = (&mut self.listed, place) {
                    listed.insert(place);
                }
            }
            watcher::Event::InitDone => {
                if let Some(listed) = self.listed.take() {
                    self.drop_unlisted(&listed);
                }
                return true;
            }
            watcher::Event::Apply(object) => {
                self.put(object);
            }
            watcher::Event::Delete(object) => {
                if let Some((key, name)) = place(&object) {
                    self.index.edit(&key, |entry| K::remove(entry, &name));
                }
            }
        }
        false
    }

    fn put(&self, object: Delivered<K>) -> Option<(Key, String)> {
        let place = place(&object);
        let Some((key, name)) = &place else {
            let (kind, name) = (K::kind(&()), object.name_any());
            warn!(%kind, name, namespace = object.namespace(), "cannot be read and belongs to no known rollout: left alone");
            return None;
        };
        match &object.0 {
            Ok(object) => self.index.edit(key, |entry| object.insert(entry)),
            Err(invalid) => {
                warn!(kind = %K::kind(&()), name, namespace = key.namespace, error = %invalid.error, "cannot be read: left alone");
                let why = invalid.error.clone();
                self.index.edit(key, |entry| K::insert_unreadable(entry, name, &why));
            }
        }
        place
    }

    fn drop_unlisted(&self, listed: &HashSet<(Key, String)>) {
        for key in self.index.keys() {
            if self.namespace.as_ref().is_some_and(|namespace| *namespace != key.namespace) {
                continue;
            }
            let Some(entry) = self.index.get(&key) else { continue };
            for name in K::names(&key, &entry) {
                if !listed.contains(&(key.clone(), name.clone())) {
                    self.index.edit(&key, |entry| K::remove(entry, &name));
                }
            }
        }
    }
}

/// Where an object belongs. One that cannot be read is placed by its label, or by its name for a rollout.
fn place<K: Indexed + kube::Resource<DynamicType = ()>>(object: &Delivered<K>) -> Option<(Key, String)> {
    let name = object.name_any();
    let key = match &object.0 {
        Ok(object) => object.key()?,
        Err(_) => {
            let namespace = object.namespace()?;
            let rollout = match object.labels().get(ROLLOUT_LABEL) {
                Some(rollout) => rollout.clone(),
                None if K::kind(&()) == "LearningRollout" => name.clone(),
                None => return None,
            };
            Key { namespace, name: rollout }
        }
    };
    Some((key, name))
}
