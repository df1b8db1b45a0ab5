//! Watches: a stream of newline-delimited events, from a revision or from an initial list, until somebody ends it.
//!
//! A watch only reads the store's history, under the lock and never across an await; time-outs are tokio's, so a paused
//! clock works.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use crate::{
    log::By,
    object,
    refusal::Refusal,
    resource::Resource,
    selector::Selector,
    service::Shared,
    store::{Change, Store},
};

/// What a watch was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Watching {
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: Option<String>,
    pub(crate) selector: Selector,
    /// Absent, or `0`: begin with the present state.
    pub(crate) since: Option<u64>,
    /// `sendInitialEvents=true`: a bookmark says where the present state ends.
    pub(crate) initial_events: bool,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) metadata_only: bool,
    pub(crate) by: By,
}

struct Cursor {
    shared: Weak<Shared>,
    watching: Watching,
    /// The last revision this watch has seen.
    seen: u64,
    /// Lines not yet sent.
    pending: VecDeque<Bytes>,
    deadline: Option<Instant>,
    /// Moves with every commit, freeze and closing.
    signal: watch::Receiver<u64>,
    /// Watches begun before the present closing number are over.
    epoch: u64,
    finished: bool,
}

impl Watching {
    fn covers(&self, change: &Change) -> bool {
        change.resource.group == self.resource.group
            && change.resource.kind == self.resource.kind
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == change.key.namespace)
    }

    /// A change as this watch sees it: an object that begins to match is added, one that ceases to is deleted.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let matched = change.before.as_ref().is_some_and(|object| self.selector.matches(object));
        let matches = change.after.as_ref().is_some_and(|object| self.selector.matches(object));
        let kind = match (matched, matches) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        if kind != "DELETED" {
            return Some(self.line(kind, &change.shown));
        }
        // What is shown of an object that is gone is its last state as the watch knew it, at the new version.
        let mut last = change.before.clone().unwrap_or_default();
        object::set_metadata(&mut last, "resourceVersion", change.revision.to_string());
        Some(self.line(kind, &last))
    }

    fn line(&self, kind: &str, shown: &Value) -> Bytes {
        let shown = if self.metadata_only { metadata_only(shown) } else { shown.clone() };
        line(kind, &shown)
    }

    fn bookmark(&self, revision: u64, ends_initial: bool) -> Bytes {
        let mut bookmark = json!({
            "apiVersion": self.resource.api_version(), "kind": self.resource.kind,
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
        });
        if ends_initial {
            bookmark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        if self.metadata_only {
            bookmark["apiVersion"] = json!("meta.k8s.io/v1");
            bookmark["kind"] = json!("PartialObjectMetadata");
        }
        line("BOOKMARK", &bookmark)
    }

    /// The lines a watch begins with, and the revision they bring it to.
    fn opening(&self, store: &Store) -> (VecDeque<Bytes>, u64) {
        let mut lines = VecDeque::new();
        if let Some(since) = self.since.filter(|_| !self.initial_events) {
            return (lines, since);
        }
        for (_, shown) in store.list(&self.resource, self.namespace.as_deref()) {
            if self.selector.matches(shown) {
                lines.push_back(self.line("ADDED", shown));
            }
        }
        if self.initial_events && self.bookmarks {
            lines.push_back(self.bookmark(store.revision(), true));
        }
        (lines, store.revision())
    }
}

/// An object reduced as `Accept: …;as=PartialObjectMetadata` asks.
pub(crate) fn metadata_only(object: &Value) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": object["metadata"],
    })
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut text = json!({"type": kind, "object": object}).to_string();
    text.push('\n');
    Bytes::from(text)
}

/// The stream behind a watch request.
pub(crate) fn stream(shared: &Arc<Shared>, watching: Watching) -> impl Stream<Item = Bytes> + Send + use<> {
    let (pending, seen, epoch) = shared.with(|state| {
        let (pending, seen) = watching.opening(&state.store);
        (pending, seen, state.watch_epoch)
    });
    let cursor = Cursor {
        shared: Arc::downgrade(shared),
        deadline: watching.timeout.map(|timeout| Instant::now() + timeout),
        signal: shared.signal.subscribe(),
        watching,
        seen,
        pending,
        epoch,
        finished: false,
    };
    stream::unfold(cursor, |mut cursor| async move {
        let line = cursor.next().await?;
        Some((line, cursor))
    })
}

/// What a watch does next.
enum Next {
    Go,
    /// The process behind it is dead or stopped: it sees nothing, not even the end.
    Frozen,
    Over,
}

impl Cursor {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.signal.mark_unchanged();
            match self.refill() {
                Next::Over => return None,
                Next::Frozen => {
                    self.signal.changed().await.ok()?;
                    continue;
                }
                Next::Go => {}
            }
            if let Some(line) = self.pending.pop_front() {
                return Some(line);
            }
            if self.finished {
                return None;
            }
            let ended = async {
                match self.deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = self.signal.changed() => changed.ok()?,
                () = ended => {
                    self.finished = true;
                    if self.watching.bookmarks {
                        self.pending.push_back(self.watching.bookmark(self.seen, false));
                    }
                }
            }
        }
    }

    /// Takes over what has happened since.
    fn refill(&mut self) -> Next {
        let Some(shared) = self.shared.upgrade() else {
            return Next::Over;
        };
        shared.with(|state| {
            if state.is_frozen(self.watching.by) {
                return Next::Frozen;
            }
            if state.watch_epoch != self.epoch {
                return Next::Over;
            }
            if state.muted || self.finished {
                return Next::Go;
            }
            match state.store.since(self.seen) {
                Ok(changes) => {
                    for change in changes.filter(|change| self.watching.covers(change)) {
                        self.pending.extend(self.watching.event(change));
                    }
                    self.seen = self.seen.max(state.store.revision());
                }
                Err(too_old) => {
                    self.pending.push_back(line("ERROR", &Refusal::expired(&too_old).status()));
                    self.finished = true;
                }
            }
            Next::Go
        })
    }
}
