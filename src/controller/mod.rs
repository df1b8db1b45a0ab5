//! The shell: watches, one task for each rollout, leadership, and the effects that `decide` asks for.

mod actor;
mod armed;
mod background;
mod claims;
pub mod clock;
pub mod context;
mod evaluate;
mod execute;
pub mod index;
pub mod leader;
pub mod sources;
mod verify;

use std::collections::HashMap;

use futures::StreamExt;
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::{
    context::Context,
    index::{Delivered, Feed, Index, Indexed, Key},
};
use crate::api::{rollback::LearningRollback, rollout::LearningRollout};

/// Which rollouts this operator minds.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Namespaces; empty: all.
    pub namespaces: Vec<String>,
    /// Label selector for rollouts.
    pub selector: Option<String>,
}

impl Scope {
    /// The namespaces of the watches; one `None` for all.
    fn namespaces(&self) -> Vec<Option<String>> {
        match self.namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().cloned().map(Some).collect(),
        }
    }
}

/// Watches and acts while this replica leads, until `stop` resolves.
pub async fn run(mut context: Context, scope: Scope, stop: impl Future<Output = ()>) {
    let index = Index::default();
    let mut feeds = JoinSet::new();
    let (listed, mut complete) = tokio::sync::mpsc::unbounded_channel();
    let mut awaited = 0usize;
    for namespace in scope.namespaces() {
        let rollouts = api::<LearningRollout>(&context.client, namespace.as_deref());
        let records = api::<LearningRollback>(&context.client, namespace.as_deref());
        let config = watcher::Config::default();
        let selected = scope.selector.iter().fold(config.clone(), |config, selector| config.labels(selector));
        feeds.spawn(feed(rollouts, selected, Feed::new(index.clone(), namespace.clone()), listed.clone()));
        feeds.spawn(feed(records, config, Feed::new(index.clone(), namespace), listed.clone()));
        awaited += 2;
    }
    tokio::pin!(stop);
    // Acting on half a list would take a record for lost, or an orphan for absent.
    while awaited > 0 {
        tokio::select! {
            () = &mut stop => return,
            _ = complete.recv() => awaited -= 1,
        }
    }
    context.metrics.set_synced();
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = context.leadership.until(true) => {}
        }
        let mut tasks = Tasks::default();
        let mut leadership = context.leadership.clone();
        info!("minding the rollouts");
        tokio::select! {
            () = &mut stop => return,
            () = leadership.until(false) => warn!("stopped: not leading any more"),
            () = tasks.mind(&context, &index) => {}
        }
        // Dropping the tasks ends them where they stand; the journal says how to go on.
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<Delivered<K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    Delivered<K>: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn feed<K>(
    api: Api<Delivered<K>>,
    config: watcher::Config,
    mut feed: Feed<K>,
    listed: tokio::sync::mpsc::UnboundedSender<()>,
) where
    K: Indexed + Resource<DynamicType = ()> + DeserializeOwned + std::fmt::Debug + Send + 'static,
    Delivered<K>: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let events = watcher(api, config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut first = true;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if feed.take(event) && first {
                    first = false;
                    let _ = listed.send(());
                }
            }
            Err(error) => warn!(kind = %K::kind(&()), %error, "watch failed; it is taken up again"),
        }
    }
}

/// The running tasks, one for each rollout in view.
#[derive(Default)]
struct Tasks {
    running: HashMap<Key, tokio::task::AbortHandle>,
    set: JoinSet<Key>,
}

impl Tasks {
    async fn mind(&mut self, context: &Context, index: &Index) {
        loop {
            for key in index.keys() {
                if !self.running.contains_key(&key) {
                    let (context, index, own) = (context.clone(), index.clone(), key.clone());
                    let handle = self.set.spawn(async move {
                        actor::guarded(context, index, own.clone()).await;
                        own
                    });
                    self.running.insert(key, handle);
                }
            }
            tokio::select! {
                () = index.appeared.notified() => {}
                Some(ended) = self.set.join_next(), if !self.set.is_empty() => {
                    if let Ok(key) = ended {
                        self.running.remove(&key);
                    }
                }
            }
        }
    }
}
