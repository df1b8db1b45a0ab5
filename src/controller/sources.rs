//! Which Prometheus a rollout's queries go to.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::{
    api::rollout::PrometheusSource,
    prometheus::{QueryBackend, QueryError},
};

/// Finds the source of a rollout. A seam: tests script what is answered.
pub trait Sources: Send + Sync {
    /// The source of a rollout of this namespace; `None`: the operator's own.
    fn find<'a>(
        &'a self,
        namespace: &'a str,
        spec: Option<&'a PrometheusSource>,
    ) -> BoxFuture<'a, Result<Arc<dyn QueryBackend>, QueryError>>;
}
