//! The HTTP surface of one replica: exposition, health, one request, and the switches of the faults.
//!
//! Handlers translate between HTTP and the other modules and decide nothing themselves. The fault switches answer even
//! while the replica is down: whoever broke it must be able to mend it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use crate::faults::{Fault, Faults, Refused};
use crate::flags::Flags;
use crate::metrics::CONTENT_TYPE;
use crate::traffic::Traffic;

/// A level is a few bytes; nothing longer is read.
const BODY_LIMIT: usize = 1024;

/// What a replica's handlers see.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) index: usize,
    pub(crate) traffic: Arc<Mutex<Traffic>>,
    pub(crate) faults: Faults,
    pub(crate) flags: watch::Receiver<Flags>,
}

impl Replica {
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_up(&self) -> bool {
        self.traffic().is_up(self.index, *self.flags.borrow())
    }
}

pub(crate) fn router(replica: Replica) -> Router {
    Router::new()
        .route("/api/metrics/learning", get(metrics))
        .route("/api/analyze", get(analyze))
        .route("/healthz", get(healthz))
        .route("/faults", get(show_faults))
        .route("/faults/{name}", put(set_fault).delete(clear_fault))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(replica)
}

async fn metrics(State(replica): State<Replica>) -> Response {
    if !replica.is_up() {
        return down();
    }
    match replica.traffic().expose(replica.index) {
        Some(Ok(body)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response(),
        Some(Err(error)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n")).into_response()
        }
        None => down(),
    }
}

async fn healthz(State(replica): State<Replica>) -> Response {
    if replica.is_up() { "ok\n".into_response() } else { down() }
}

async fn analyze(State(replica): State<Replica>, headers: HeaderMap) -> Response {
    if !replica.is_up() {
        return down();
    }
    let asks_learning = headers.get("learning-enabled").is_some_and(|value| value == "true");
    let flags = *replica.flags.borrow();
    let outcome = replica.traffic().request(replica.index, flags, asks_learning);
    let status = if outcome.failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    (
        status,
        Json(json!({
            "version": outcome.version.as_str(),
            "failed": outcome.failed,
            "seconds": outcome.seconds,
        })),
    )
        .into_response()
}

async fn show_faults(State(replica): State<Replica>) -> Response {
    Json(replica.faults.show_all()).into_response()
}

/// `0.3` or `{"level": 0.3}`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Level {
    Bare(f64),
    Named { level: f64 },
}

async fn set_fault(State(replica): State<Replica>, Path(name): Path<String>, body: Bytes) -> Response {
    let Some(fault) = Fault::from_name(&name) else {
        return unknown(&name);
    };
    // The content type is not asked for: the body is JSON either way, and `curl -d 0.3` should do.
    let level = match serde_json::from_slice(&body) {
        Ok(Level::Bare(level) | Level::Named { level }) => level,
        Err(error) => {
            return refuse(
                StatusCode::BAD_REQUEST,
                format!("fault {name}: the body must be a number or {{\"level\": NUMBER}} ({error})"),
            );
        }
    };
    match replica.faults.set(fault, level) {
        Ok(()) => {
            tracing::info!(fault = fault.name(), level, "fault set");
            Json(replica.faults.show(fault)).into_response()
        }
        Err(Refused(why)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, why),
    }
}

async fn clear_fault(State(replica): State<Replica>, Path(name): Path<String>) -> Response {
    let Some(fault) = Fault::from_name(&name) else {
        return unknown(&name);
    };
    replica.faults.clear(fault);
    tracing::info!(fault = fault.name(), "fault cleared");
    Json(replica.faults.show(fault)).into_response()
}

fn down() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "this replica is down (fault down)\n").into_response()
}

fn unknown(name: &str) -> Response {
    let known = Fault::ALL.map(Fault::name).join(", ");
    refuse(StatusCode::NOT_FOUND, format!("no fault is called {name:?}; there are {known}"))
}

fn refuse(status: StatusCode, error: String) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}
