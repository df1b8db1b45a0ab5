//! Reading and patching objects of one namespace, as one identity, each request with an end.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use kube::{Client, Error};
use serde_json::Value;

use crate::{api::rollback::Target, decide::rollback::Failure};

/// The name under which the operator's writes stand in managedFields.
pub const FIELD_MANAGER: &str = "learning-rollout-operator";

/// How long one request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// One namespace, seen and written as one identity.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    impersonate: Option<String>,
}

/// Why the API server did not do what it was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// 404.
    #[error("not found")]
    NotFound,
    /// 409, or 422 without causes: what the patch relied on does not stand any more.
    #[error("the object has changed")]
    Changed,
    /// 422 with causes, or another 4xx: it will say the same again.
    #[error("{0}")]
    Invalid(String),
    /// 401 or 403; the message names the verb that is missing.
    #[error("{0}")]
    Forbidden(String),
    /// No answer, or one that says nothing about what happened.
    #[error("{0}")]
    Unclear(String),
}

impl Refusal {
    /// Judges an error of the client.
    pub fn of(error: &Error) -> Self {
        let Error::Api(status) = error else { return Self::Unclear(plain(error)) };
        let causes = status.details.as_ref().map_or(0, |details| details.causes.len());
        match StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR) {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::CONFLICT => Self::Changed,
            StatusCode::UNPROCESSABLE_ENTITY if causes == 0 => Self::Changed,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Forbidden(status.message.clone()),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Self::Unclear(status.message.clone()),
            code if code.is_client_error() => Self::Invalid(status.message.clone()),
            _ => Self::Unclear(format!("the API server answered {}: {}", status.code, status.reason)),
        }
    }

    /// The same as a failure of a step.
    pub fn failure(&self) -> Failure {
        let (reason, permanent) = match self {
            Self::NotFound => ("TargetNotFound", false),
            Self::Changed => ("Conflict", false),
            Self::Invalid(_) => ("Refused", true),
            Self::Forbidden(_) => ("Forbidden", false),
            Self::Unclear(_) => ("Unreachable", false),
        };
        Failure { reason: reason.to_owned(), message: self.to_string(), permanent }
    }
}

/// A client error without what a server may have put into it.
fn plain(error: &Error) -> String {
    match error {
        Error::Service(_) | Error::HyperError(_) => "the API server could not be reached".to_owned(),
        Error::SerdeError(_) => "the API server's answer could not be read".to_owned(),
        _ => "the request to the API server failed".to_owned(),
    }
}

impl Cluster {
    /// A namespace as this client sees it; `service_account`: as that ServiceAccount of the namespace.
    pub fn new(client: Client, namespace: &str, service_account: Option<&str>) -> Self {
        let impersonate = service_account.map(|name| format!("system:serviceaccount:{namespace}:{name}"));
        Self { client, namespace: namespace.to_owned(), impersonate }
    }

    /// Reads an object by quorum. `None`: there is none.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn get(&self, target: &Target) -> Result<Option<Value>, Refusal> {
        match self.send(Method::GET, &self.path(target), None).await {
            Ok(object) => Ok(Some(object)),
            Err(Refusal::NotFound) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Sends a JSON Patch, and answers with the object as it is then.
    ///
    /// # Errors
    /// When a test of the patch fails, when the server refuses, or when it does not answer in time: then it may have
    /// been committed.
    pub async fn patch(&self, target: &Target, operations: &Value, dry_run: bool) -> Result<Value, Refusal> {
        let all = if dry_run { "&dryRun=All" } else { "" };
        let path = format!("{}?fieldManager={FIELD_MANAGER}{all}", self.path(target));
        self.send(Method::PATCH, &path, Some(operations)).await
    }

    /// Lists objects of the namespace by labels.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn list(&self, group: &str, plural: &str, labels: Option<&str>) -> Result<Vec<Value>, Failure> {
        let labels = labels.map_or_else(String::new, |labels| format!("?labelSelector={}", percent(labels)));
        let path = format!("/{group}/namespaces/{}/{plural}{labels}", self.namespace);
        match self.send(Method::GET, &path, None).await {
            Ok(mut list) => Ok(match list.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }),
            // A kind that the cluster does not serve has no objects.
            Err(Refusal::NotFound) => Ok(Vec::new()),
            Err(refusal) => Err(refusal.failure()),
        }
    }

    fn path(&self, target: &Target) -> String {
        let root = if target.api_version.contains('/') { "apis" } else { "api" };
        let plural = format!("{}s", target.kind.to_ascii_lowercase());
        format!("/{root}/{}/namespaces/{}/{plural}/{}", target.api_version, self.namespace, target.name)
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Refusal> {
        let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, "application/json");
        if let Some(user) = &self.impersonate {
            request = request.header("Impersonate-User", user);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json-patch+json");
                as_go_writes_it(body)?
            }
            None => Vec::new(),
        };
        let request = request.body(body).map_err(|error| Refusal::Invalid(error.to_string()))?;
        match tokio::time::timeout(REQUEST_TIMEOUT, self.client.request::<Value>(request)).await {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(error)) => Err(Refusal::of(&error)),
            Err(_) => Err(Refusal::Unclear(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))),
        }
    }
}

/// JSON as Go's encoder writes it. The API server compares the texts of a patch's `test` and of the stored value: one of
/// these characters, spelt plainly, would never be equal to itself.
fn as_go_writes_it(body: &Value) -> Result<Vec<u8>, Refusal> {
    let text = serde_json::to_string(body).map_err(|error| Refusal::Invalid(error.to_string()))?;
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            plain => escaped.push(plain),
        }
    }
    Ok(escaped.into_bytes())
}

/// Escapes a label selector for a query string.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_spells_values_as_the_api_server_does() {
        let body = serde_json::json!({"value": "a<b && c>d\u{2028}"});
        let bytes = as_go_writes_it(&body).unwrap();
        assert_eq!(bytes, br#"{"value":"a\u003cb \u0026\u0026 c\u003ed\u2028"}"#);
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), body);
    }
}
