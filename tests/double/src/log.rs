//! What was asked of the double, in order: the record that crash tests count and compare.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;

use crate::{object, resource::ObjectKey};

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// A client from [`crate::Double::client`]: the program under test, in its n-th life.
    Client(usize),
    /// A client from [`crate::Double::bystander`]: the test itself, a person, another controller. Its requests are
    /// never counted for a crash, never frozen, and never part of [`crate::Double::writes_per_object`].
    Bystander,
}

/// One request that reached the API server.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its place among all requests of the clients under test, from 1 (0 for a bystander's).
    pub n: usize,
    /// Its place among their mutating requests, from 1; absent for reads (and for a bystander's).
    pub mutation: Option<usize>,
    /// Who sent it.
    pub by: By,
    /// HTTP method.
    pub method: Method,
    /// Path, without the query.
    pub path: String,
    /// Query parameters, decoded.
    pub query: BTreeMap<String, String>,
    /// `plural.group`, when the path names a served resource.
    pub resource: Option<String>,
    /// The object, when the path or (on create) the body names one.
    pub key: Option<ObjectKey>,
    /// `status`, `scale`…
    pub subresource: Option<String>,
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `watch=true`.
    pub watch: bool,
    /// `Impersonate-User`.
    pub user: Option<String>,
    /// `Content-Type`.
    pub content_type: String,
    /// The body: JSON where it is, else a string; `null` when empty.
    pub body: Value,
    /// The status code that was answered; absent while unanswered, and for ever when the crash came first.
    pub answered: Option<u16>,
    /// The write was accepted and is no dry run (a no-op write is committed, too).
    pub committed: bool,
    /// Something was stored: a version more.
    pub changed: bool,
    /// The object's resourceVersion before and after.
    pub versions: (Option<String>, Option<String>),
}

impl Request {
    /// Whether it wants to change something (dry runs included: they are requests that can be lost).
    pub fn is_mutating(&self) -> bool {
        matches!(self.method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
    }

    /// Method and kind, e.g. `request.is("PATCH", "ConfigMap")`.
    pub fn is(&self, method: &str, kind: &str) -> bool {
        self.method.as_str() == method && self.key.as_ref().is_some_and(|key| key.kind == kind)
    }

    /// The body of a JSON Patch sets or tests this pointer; for reading logs in tests.
    pub fn patches(&self, pointer: &str) -> bool {
        let operations = self.body.as_array();
        operations.into_iter().flatten().any(|operation| object::text(operation, "/path") == pointer)
    }

    /// One line for a person: `12 PATCH /api/v1/… (dry run) → 200, 105 → 106`.
    pub fn line(&self) -> String {
        let mut line = format!("{} {} {}", self.n, self.method, self.path);
        if self.dry_run {
            line.push_str(" (dry run)");
        }
        match self.answered {
            Some(code) => line.push_str(&format!(" → {code}")),
            None => line.push_str(" → never answered"),
        }
        if self.changed {
            let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
            line.push_str(&format!(", {} → {}", version(&self.versions.0), version(&self.versions.1)));
        }
        line
    }
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) requests: Vec<Request>,
    pub(crate) counted: usize,
    pub(crate) mutations: usize,
}

impl Log {
    /// Takes a request in, gives it its numbers, and returns where its outcome is to be noted.
    pub(crate) fn receive(&mut self, mut request: Request) -> usize {
        if request.by != By::Bystander {
            self.counted += 1;
            request.n = self.counted;
            if request.is_mutating() {
                self.mutations += 1;
                request.mutation = Some(self.mutations);
            }
        }
        self.requests.push(request);
        self.requests.len() - 1
    }

    pub(crate) fn writes(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| request.changed && request.by != By::Bystander)
    }

    pub(crate) fn writes_per_object(&self) -> BTreeMap<ObjectKey, usize> {
        let mut counts = BTreeMap::new();
        for key in self.writes().filter_map(|request| request.key.clone()) {
            *counts.entry(key).or_insert(0) += 1;
        }
        counts
    }
}
