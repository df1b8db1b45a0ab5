//! From the kubeconfig to a client, as kubectl would.

use std::time::Duration;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{
    args::Global,
    error::{Error, Result, chain},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster and the namespace that is meant.
pub struct Connection {
    pub client: Client,
    pub namespace: String,
}

pub async fn connect(global: &Global) -> Result<Connection> {
    let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
    let mut config = match &global.kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None if global.context.is_some() => Config::from_kubeconfig(&options).await?,
        // Inside a pod there is no kubeconfig, and kubectl does without it too.
        None => Config::infer().await.map_err(|error| Error::Connection(chain(&error)))?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // A person sees an error sooner than kube's own retries end, and a create that is sent twice would be two rollbacks.
    config.default_retry = false;
    let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    // Whoever comes first installs it; all of them want *ring*.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_from(config).map_err(|error| Error::Connection(chain(&error)))?;
    Ok(Connection { client, namespace })
}
