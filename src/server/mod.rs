//! Probes and metrics over HTTP.

pub mod metrics;

use std::{io, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use self::metrics::Metrics;

/// Serves `/livez`, `/readyz` and `/metrics` until `stop` resolves.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(metrics);
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

/// Ready once the first lists are complete; a replica that does not lead is ready too.
async fn readyz(State(metrics): State<Arc<Metrics>>) -> (StatusCode, &'static str) {
    match metrics.is_synced() {
        true => (StatusCode::OK, "ok\n"),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the first lists of LearningRollouts and LearningRollbacks are not complete\n",
        ),
    }
}

async fn render(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    let content = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match metrics.render() {
        Ok(text) => (StatusCode::OK, content, text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, content, String::new()),
    }
}
