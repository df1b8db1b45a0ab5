//! Which Prometheus a rollout's queries go to, with its credentials.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use crate::{
    api::rollout::{PrometheusSource, SecretRef},
    prometheus::{self, Auth, QueryBackend, QueryError, Secret, SourceConfig, Trust},
    steps::cluster::REQUEST_TIMEOUT,
};

/// How long what was read from a Secret is used before it is read again.
const CREDENTIALS_TTL: Duration = Duration::from_secs(300);

/// Finds the source of a rollout. A seam: tests script what is answered.
pub trait Sources: Send + Sync {
    /// The source of a rollout of this namespace; `None`: the operator's own.
    fn find<'a>(
        &'a self,
        namespace: &'a str,
        spec: Option<&'a PrometheusSource>,
    ) -> BoxFuture<'a, Result<Arc<dyn QueryBackend>, QueryError>>;
}

/// Sources as the cluster describes them.
pub struct ClusterSources {
    client: Client,
    own: Option<SourceConfig>,
    sources: prometheus::Sources,
    resolved: Mutex<HashMap<(String, PrometheusSource), (SourceConfig, Instant)>>,
}

impl ClusterSources {
    /// `own` is the source of rollouts that name none.
    pub fn new(client: Client, own: Option<SourceConfig>, sources: prometheus::Sources) -> Self {
        Self { client, own, sources, resolved: Mutex::new(HashMap::new()) }
    }

    async fn resolve(&self, namespace: &str, spec: Option<&PrometheusSource>) -> Result<SourceConfig, QueryError> {
        let Some(spec) = spec else {
            return self.own.clone().ok_or(QueryError::UrlInvalid {
                problem: "the rollout names no Prometheus (spec.prometheus.url), and the operator has none (--prometheus-url)",
            });
        };
        let key = (namespace.to_owned(), spec.clone());
        if let Some((config, read_at)) = self.resolved.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
            && read_at.elapsed() < CREDENTIALS_TTL
        {
            return Ok(config.clone());
        }
        let config = SourceConfig {
            timeout: spec.timeout.get(),
            auth: self.auth(namespace, spec.secret_ref.as_ref()).await?,
            ca_pem: match &spec.ca_secret_ref {
                Some(reference) => Some(self.key(namespace, reference, "ca.crt").await?),
                None => None,
            },
            headers: spec.headers.iter().map(|(name, value)| (name.clone(), Secret::new(value))).collect(),
            ..SourceConfig::new(spec.url.clone(), Trust::FromObject)
        };
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        resolved.retain(|_, (_, read_at)| read_at.elapsed() < CREDENTIALS_TTL);
        resolved.insert(key, (config.clone(), Instant::now()));
        drop(resolved);
        // Whoever brings a source in sweeps out those that nobody has used for a while.
        self.sources.sweep();
        Ok(config)
    }

    async fn auth(&self, namespace: &str, reference: Option<&SecretRef>) -> Result<Auth, QueryError> {
        let Some(reference) = reference else { return Ok(Auth::None) };
        let data = self.secret(namespace, &reference.name).await?;
        let text = |key: &str| data.get(key).and_then(|value| std::str::from_utf8(value).ok()).map(str::trim);
        match (text("token"), text("username"), text("password")) {
            (Some(token), ..) => Ok(Auth::Bearer(Secret::new(token))),
            (None, Some(user), Some(password)) => {
                Ok(Auth::Basic { user: user.to_owned(), password: Secret::new(password) })
            }
            _ => Err(QueryError::CredentialsMissing {
                what: format!("Secret {} has neither the key token nor the keys username and password", reference.name),
            }),
        }
    }

    async fn key(&self, namespace: &str, reference: &SecretRef, key: &str) -> Result<Vec<u8>, QueryError> {
        let mut data = self.secret(namespace, &reference.name).await?;
        data.remove(key).ok_or_else(|| QueryError::CredentialsMissing {
            what: format!("Secret {} has no key {key}", reference.name),
        })
    }

    async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<std::collections::BTreeMap<String, Vec<u8>>, QueryError> {
        let secrets: Api<KubeSecret> = Api::namespaced(self.client.clone(), namespace);
        let missing = |what| QueryError::CredentialsMissing { what };
        match timeout(REQUEST_TIMEOUT, secrets.get_opt(name)).await {
            Ok(Ok(Some(secret))) => {
                Ok(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect())
            }
            Ok(Ok(None)) => Err(missing(format!("Secret {name} does not exist"))),
            Ok(Err(_)) | Err(_) => Err(missing(format!("Secret {name} could not be read"))),
        }
    }
}

impl Sources for ClusterSources {
    fn find<'a>(
        &'a self,
        namespace: &'a str,
        spec: Option<&'a PrometheusSource>,
    ) -> BoxFuture<'a, Result<Arc<dyn QueryBackend>, QueryError>> {
        Box::pin(async move {
            let config = self.resolve(namespace, spec).await?;
            let source: Arc<dyn QueryBackend> = self.sources.get(&config)?;
            Ok(source)
        })
    }
}
