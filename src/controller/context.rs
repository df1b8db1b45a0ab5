//! What every task of the controller shares, and how a request can set a pass back.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Event as CoreEvent, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Api, Client, Resource, ResourceExt, api::PostParams};
use sha2::{Digest, Sha256};
use tokio::time;
use tracing::{info, warn};

use super::{
    clock::Clock,
    leader::{Leadership, NotLeading},
    sources::Sources,
};
use crate::{
    decide::rollback::Event,
    server::metrics::Metrics,
    steps::cluster::{FIELD_MANAGER, REQUEST_TIMEOUT, Refusal},
};

/// What every task shares.
#[derive(Clone)]
pub struct Context {
    /// The operator's own identity. Its retries are off: deciding again is the retry.
    pub client: Client,
    /// The one clock.
    pub clock: Clock,
    /// The right to write.
    pub leadership: Leadership,
    /// Where metrics are asked.
    pub sources: Arc<dyn Sources>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What `$(cluster)` stands for in queries.
    pub cluster: Arc<str>,
    /// Rollouts are selected by labels: a record whose rollout is not in view belongs to another operator.
    pub selective: bool,
}

/// Why a pass ended early. None of them is the record's fault; it is taken up again.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Setback {
    /// The object changed meanwhile: read it again, decide again.
    #[error("the object has changed")]
    Changed,
    /// It does not exist any more.
    #[error("the object does not exist any more")]
    Gone,
    /// Another replica leads.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// No answer, or a refusal.
    #[error("{0}")]
    Refused(String),
}

impl From<Refusal> for Setback {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Changed => Self::Changed,
            Refusal::NotFound => Self::Gone,
            other => Self::Refused(other.to_string()),
        }
    }
}

impl Context {
    /// A request with an end. After a time-out it may have been carried out.
    pub(super) async fn limited<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Setback> {
        match time::timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Refusal::of(&error).into()),
            Err(_) => Err(Setback::Refused(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))),
        }
    }

    /// Tells people by a Kubernetes Event, off the path of the rollback. The name is made from what is told, so that a
    /// repeated pass does not tell it twice.
    pub(super) fn publish<K: Resource<DynamicType = ()>>(&self, object: &K, event: &Event) {
        let kind = K::kind(&());
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        let text = &event.message;
        match event.warning {
            true => warn!(%kind, name, namespace, reason = event.reason, "{text}"),
            false => info!(%kind, name, namespace, reason = event.reason, "{text}"),
        }
        let version = object.meta().resource_version.clone().unwrap_or_default();
        let uid = object.meta().uid.clone().unwrap_or_default();
        let told = Sha256::digest(format!("{uid}/{version}/{}/{}", event.reason, event.message));
        let hash: String = told.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let now = Time(self.clock.now());
        let body = CoreEvent {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{hash}")),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(kind.into_owned()),
                name: Some(name),
                namespace: Some(namespace.clone()),
                uid: Some(uid),
                ..ObjectReference::default()
            },
            reason: Some(event.reason.to_owned()),
            message: Some(event.message.chars().take(1000).collect()),
            type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
            source: Some(EventSource { component: Some(FIELD_MANAGER.to_owned()), ..EventSource::default() }),
            reporting_component: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(FIELD_MANAGER.to_owned()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..CoreEvent::default()
        };
        let context = self.clone();
        tokio::spawn(async move {
            let events: Api<CoreEvent> = Api::namespaced(context.client.clone(), &namespace);
            let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            match context.limited(events.create(&parameters, &body)).await {
                Ok(_) | Err(Setback::Changed) => {}
                Err(setback) => warn!(error = %setback, "an event could not be recorded"),
            }
        });
    }
}

/// How long a task waits after a setback before it tries again.
pub(super) fn pause(setbacks: u32) -> Duration {
    (Duration::from_millis(50) * 2u32.pow(setbacks.min(8))).min(Duration::from_secs(5))
}
