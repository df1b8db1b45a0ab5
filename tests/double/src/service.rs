//! The tower Service: an HTTP request in, an HTTP answer out, with the faults of the moment in between.
//!
//! Everything a request does to the store happens under one lock, in one piece, as etcd's transactions do it. Outside
//! of the lock there are only waits: for a delay, for a thaw, or for ever.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream};
use http::{HeaderMap, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::Value;
use tokio::sync::watch;
use tower::{BoxError, Service};

use crate::{
    controllers::Controllers,
    faults::{Fault, Faults, Moment},
    log::{By, Log, Request},
    refusal::Refusal,
    resource::ObjectKey,
    routes::{self, Outcome, Route},
    store::{Change, Store},
    watch::{self as watching},
};

/// Called after each commit with the object's key and its new state; `null` after a deletion.
pub(crate) type Hook = Arc<dyn Fn(&ObjectKey, &Value) + Send + Sync>;

type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// Whether the process behind a client still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// Stopped, and perhaps to be continued.
    Stopped,
    Dead,
}

pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) log: Log,
    pub(crate) faults: Faults,
    pub(crate) lives: BTreeMap<usize, Life>,
    pub(crate) controllers: Option<Controllers>,
    pub(crate) hooks: Vec<Hook>,
    /// Moves when all watches are closed.
    pub(crate) watch_epoch: u64,
    /// Watches stay open and say nothing.
    pub(crate) muted: bool,
    /// The request that the last crash struck.
    pub(crate) crashed: Option<Request>,
}

impl State {
    pub(crate) fn is_frozen(&self, by: By) -> bool {
        self.life(by) != Life::Running
    }

    fn life(&self, by: By) -> Life {
        match by {
            By::Client(generation) => self.lives.get(&generation).copied().unwrap_or(Life::Running),
            By::Bystander => Life::Running,
        }
    }

    fn kill(&mut self, by: By, request: &Request) {
        if let By::Client(generation) = by {
            self.lives.insert(generation, Life::Dead);
            self.crashed = Some(request.clone());
        }
    }
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// Moves whenever the state may have changed in a way that somebody waits for.
    pub(crate) signal: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                store: Store::new(),
                log: Log::default(),
                faults: Faults::default(),
                lives: BTreeMap::new(),
                controllers: None,
                hooks: Vec::new(),
                watch_epoch: 0,
                muted: false,
                crashed: None,
            }),
            signal: watch::Sender::new(0),
        }
    }

    /// Looks at the state.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut state)
    }

    /// Changes the state: controllers follow, watches wake, hooks are told once the lock is free again.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (answer, hooks, changes) = self.with(|state| {
            let answer = change(state);
            let changes = settle(state);
            (answer, state.hooks.clone(), changes)
        });
        self.signal.send_modify(|count| *count += 1);
        for change in changes {
            let shown = change.after.as_ref().unwrap_or(&Value::Null);
            for hook in &hooks {
                hook(&change.key, shown);
            }
        }
        answer
    }
}

/// Lets the controllers follow what was committed until they have nothing more to do.
fn settle(state: &mut State) -> Vec<Change> {
    let mut all = Vec::new();
    // Each round answers the changes of the one before; a set of controllers that never comes to rest is a bug.
    for _ in 0..32 {
        let fresh = std::mem::take(&mut state.store.fresh);
        if fresh.is_empty() {
            return all;
        }
        if let Some(controllers) = &state.controllers {
            controllers.follow(&mut state.store, &fresh);
        }
        all.extend(fresh);
    }
    panic!("the double's controllers do not come to rest; last change: {:?}", all.last().map(|change| &change.key));
}

/// One client's connection to the double.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) by: By,
}

impl Service<http::Request<Body>> for Connection {
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let connection = self.clone();
        Box::pin(async move { connection.serve(request).await })
    }
}

/// What is to happen to a request that has been let in.
struct Admitted {
    /// Its line in the log.
    entry: usize,
    route: Result<Route, Refusal>,
    crash: Option<Moment>,
    fault: Option<Fault>,
}

impl Connection {
    async fn serve(self, request: http::Request<Body>) -> Result<Response<AnswerBody>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        // A real server is never instantaneous: let everything else that is ready run first.
        tokio::task::yield_now().await;
        self.until_running().await;

        let admitted = self.admit(&parts, &body);
        let entry = admitted.entry;
        if admitted.crash == Some(Moment::Before) {
            return self.die(entry).await;
        }
        if admitted.crash.is_none() {
            match admitted.fault.clone() {
                Some(Fault::Status(refusal)) => return Ok(self.answer_refused(entry, &refusal)),
                Some(Fault::DropConnection) => {
                    return Err(broken("connection reset before the request was sent"));
                }
                Some(Fault::Answer(text)) => {
                    self.note_answer(entry, 200);
                    return Ok(answer(200, &[], Bytes::from(text)));
                }
                Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
                _ => {}
            }
        }

        let outcome = self.carry_out(&admitted, &parts.headers, &body);
        match admitted.crash {
            Some(Moment::Committed) => return self.die(entry).await,
            Some(_) => {
                self.note(entry, &outcome);
                self.kill(entry);
                return Ok(self.deliver(outcome));
            }
            None => {}
        }
        match admitted.fault {
            Some(Fault::CommitThenStatus(refusal)) => {
                return Ok(self.answer_refused(entry, &refusal));
            }
            Some(Fault::CommitThenDrop) => {
                return Err(broken("connection reset before the answer"));
            }
            Some(Fault::CommitThenDelay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::TruncateBody(bytes)) => {
                self.note(entry, &outcome);
                return Ok(truncated(outcome, bytes));
            }
            _ => {}
        }
        // The process may have died or been stopped while the request was under way.
        self.until_running().await;
        self.note(entry, &outcome);
        Ok(self.deliver(outcome))
    }

    /// Returns at once for a running process, after the thaw for a stopped one, and never for a dead one.
    async fn until_running(&self) {
        let mut signal = self.shared.signal.subscribe();
        while self.shared.with(|state| state.is_frozen(self.by)) {
            if signal.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn admit(&self, parts: &http::request::Parts, body: &Bytes) -> Admitted {
        self.shared.with(|state| {
            let (request, route) = routes::read(&state.store.registry, self.by, parts, body);
            let entry = state.log.receive(request);
            let request = &state.log.requests[entry];
            let counted = self.by != By::Bystander;
            Admitted {
                entry,
                route,
                crash: counted.then(|| state.faults.crash(request)).flatten(),
                fault: counted.then(|| state.faults.fault(request)).flatten(),
            }
        })
    }

    fn carry_out(&self, admitted: &Admitted, headers: &HeaderMap, body: &Bytes) -> Outcome {
        let route = match &admitted.route {
            Ok(route) => route,
            Err(refusal) => return Outcome::Refused(refusal.clone()),
        };
        self.shared.change(|state| {
            let key = state.log.requests[admitted.entry].key.clone();
            let version = |state: &State| {
                let object = state.store.get(key.as_ref()?)?;
                Some(crate::object::resource_version(object).to_owned())
            };
            let before = version(state);
            let outcome = routes::carry_out(&mut state.store, route, headers, body, self.by);
            let after = version(state);
            let logged = &mut state.log.requests[admitted.entry];
            logged.versions = (before, after);
            if let Outcome::Object { changed, body, .. } = &outcome {
                logged.committed = logged.is_mutating() && !logged.dry_run;
                logged.changed = *changed;
                if logged.key.is_none() && *changed {
                    // A generated name is known only now.
                    logged.key = state
                        .store
                        .registry
                        .by_object(crate::object::text(body, "/apiVersion"), crate::object::text(body, "/kind"))
                        .map(|resource| resource.key(crate::object::namespace(body), crate::object::name(body)));
                }
            }
            outcome
        })
    }

    fn kill(&self, entry: usize) {
        self.shared.change(|state| {
            let request = state.log.requests[entry].clone();
            state.kill(self.by, &request);
        });
    }

    async fn die(&self, entry: usize) -> Result<Response<AnswerBody>, BoxError> {
        self.kill(entry);
        std::future::pending().await
    }

    fn note_answer(&self, entry: usize, code: u16) {
        self.shared.with(|state| state.log.requests[entry].answered = Some(code));
    }

    fn note(&self, entry: usize, outcome: &Outcome) {
        self.note_answer(entry, outcome.code());
    }

    fn answer_refused(&self, entry: usize, refusal: &Refusal) -> Response<AnswerBody> {
        self.note_answer(entry, refusal.code);
        refused(refusal)
    }

    fn deliver(&self, outcome: Outcome) -> Response<AnswerBody> {
        match outcome {
            Outcome::Object { code, body, .. } => answer(code, &[], Bytes::from(body.to_string())),
            Outcome::Refused(refusal) => refused(&refusal),
            Outcome::Text(text) => answer(200, &[], Bytes::from(text)),
            Outcome::Nowhere => answer(404, &[], Bytes::from_static(NOWHERE)),
            Outcome::Watch(watch) => {
                let lines = watching::stream(&self.shared, *watch);
                let frames = lines.map(|line| Ok::<_, BoxError>(Frame::data(line)));
                response(200, &[], StreamBody::new(frames).boxed_unsync())
            }
        }
    }
}

/// What Go's HTTP server says of a path that nobody has taken.
const NOWHERE: &[u8] = b"404 page not found\n";

fn broken(why: &str) -> BoxError {
    Box::new(io::Error::new(io::ErrorKind::ConnectionReset, why))
}

fn refused(refusal: &Refusal) -> Response<AnswerBody> {
    answer(refusal.code, &refusal.headers, Bytes::from(refusal.status().to_string()))
}

fn answer(code: u16, headers: &[(String, String)], body: Bytes) -> Response<AnswerBody> {
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    response(code, headers, body)
}

fn response(code: u16, headers: &[(String, String)], body: AnswerBody) -> Response<AnswerBody> {
    let mut builder = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    builder.body(body).expect("a fault script's headers are valid")
}

fn truncated(outcome: Outcome, bytes: usize) -> Response<AnswerBody> {
    let code = outcome.code();
    let whole = match outcome {
        Outcome::Object { body, .. } => body.to_string(),
        Outcome::Refused(refusal) => refusal.status().to_string(),
        Outcome::Text(text) => text,
        Outcome::Nowhere => String::from_utf8_lossy(NOWHERE).into_owned(),
        // A watch has no end to break off from; what is cut is its first line.
        Outcome::Watch(_) => "{\"type\":\"ADDED\",\"object\":{".to_owned(),
    };
    let mut kept = Bytes::from(whole);
    kept.truncate(bytes);
    let end = io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed within the body");
    let frames = stream::iter([Ok(Frame::data(kept)), Err::<_, BoxError>(Box::new(end))]);
    response(code, &[], StreamBody::new(frames).boxed_unsync())
}
