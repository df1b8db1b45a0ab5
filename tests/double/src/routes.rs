//! From a path and a method to a store operation: the URL space of kube-apiserver, discovery included.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, header, request::Parts};
use serde_json::{Value, json};

use crate::{
    discovery,
    log::{By, Request},
    object,
    refusal::{Cause, Refusal},
    resource::{Registry, Resource},
    selector::Selector,
    store::Store,
    watch::{Watching, metadata_only},
    write::{PatchKind, Target, Written},
};

use std::sync::Arc;

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    /// Discovery, version, health: answered from the registry.
    Discovery(String),
    /// A review, which is answered and never stored.
    Review,
    /// A resource, or one object of it.
    Resource {
        resource: Arc<Resource>,
        /// Absent: all namespaces.
        namespace: Option<String>,
        name: Option<String>,
        subresource: Option<String>,
        method: Method,
        query: BTreeMap<String, String>,
    },
}

/// The answer before it is put into HTTP.
pub(crate) enum Outcome {
    Object {
        code: u16,
        body: Value,
        changed: bool,
    },
    Refused(Refusal),
    Text(String),
    /// Not a path of this server: the one answer that is no JSON.
    Nowhere,
    Watch(Box<Watching>),
}

impl Outcome {
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::Object { code, .. } => *code,
            Self::Refused(refusal) => refusal.code,
            Self::Nowhere => 404,
            Self::Text(_) | Self::Watch(_) => 200,
        }
    }

    fn ok(body: Value) -> Self {
        Self::Object { code: 200, body, changed: false }
    }
}

/// Reads a request: what the log says of it, and where it goes.
pub(crate) fn read(registry: &Registry, by: By, parts: &Parts, body: &Bytes) -> (Request, Result<Route, Refusal>) {
    let query: BTreeMap<String, String> =
        form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let path = parts.uri.path().to_owned();
    let route = route(registry, &parts.method, &path, &query);
    let body = serde_json::from_slice(body).unwrap_or_else(|_| match body.as_ref() {
        b"" => Value::Null,
        other => Value::String(String::from_utf8_lossy(other).into_owned()),
    });
    let given = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let (resource, key, subresource) = match &route {
        Ok(Route::Resource { resource, namespace, name, subresource, .. }) => {
            let name = name.as_deref().unwrap_or_else(|| object::name(&body));
            let key = resource.key(namespace.as_deref().unwrap_or_default(), name);
            (Some(resource.qualified()), Some(key).filter(|key| !key.name.is_empty()), subresource.clone())
        }
        _ => (None, None, None),
    };
    let in_query = |name: &str, value: &str| query.get(name).is_some_and(|given| given == value);
    let in_body = body.pointer("/dryRun/0") == Some(&json!("All"));
    let request = Request {
        n: 0,
        mutation: None,
        by,
        method: parts.method.clone(),
        path,
        resource,
        key,
        subresource,
        dry_run: in_query("dryRun", "All") || (parts.method == Method::DELETE && in_body),
        watch: in_query("watch", "true") || in_query("watch", "1"),
        user: given("impersonate-user").map(str::to_owned),
        content_type: given("content-type").unwrap_or_default().to_owned(),
        body,
        answered: None,
        committed: false,
        changed: false,
        versions: (None, None),
        query,
    };
    (request, route)
}

fn route(registry: &Registry, method: &Method, path: &str, query: &BTreeMap<String, String>) -> Result<Route, Refusal> {
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let (group, version, rest) = match words.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Ok(Route::Discovery(path.to_owned())),
    };
    if group == "authorization.k8s.io" && rest.last().is_some_and(|plural| plural.ends_with("accessreviews")) {
        return Ok(Route::Review);
    }
    // /namespaces/NAME is itself an object, and also what the objects inside begin with.
    let (namespace, rest) = match rest {
        ["namespaces", namespace, inside @ ..] if !inside.is_empty() && !matches!(inside, ["status" | "finalize"]) => {
            (Some(*namespace), inside)
        }
        _ => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some(*name), None),
        [plural, name, subresource] => (*plural, Some(*name), Some(*subresource)),
        _ => return Err(Refusal::no_such_path()),
    };
    let Some(resource) = registry.by_path(group, version, plural) else {
        // Only a group that is compiled in answers for itself; the rest of the URL space is nobody's.
        if registry.is_builtin_group(group, version) {
            return Err(Refusal::no_such_path());
        }
        return Ok(Route::Discovery(path.to_owned()));
    };
    if namespace.is_some() && !resource.namespaced {
        return Err(Refusal::no_such_path());
    }
    if resource.namespaced && namespace.is_none() && (name.is_some() || *method != Method::GET) {
        return Err(Refusal::no_such_path());
    }
    if subresource.is_some_and(|subresource| subresource != "status" || !resource.status) {
        return Err(Refusal::no_such_path());
    }
    Ok(Route::Resource {
        resource,
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        subresource: subresource.map(str::to_owned),
        method: method.clone(),
        query: query.clone(),
    })
}

/// Does what a request asks for.
pub(crate) fn carry_out(store: &mut Store, route: &Route, headers: &HeaderMap, body: &Bytes, by: By) -> Outcome {
    match route {
        Route::Discovery(path) => discovery::answer(&store.registry, path).map_or_else(
            || Outcome::Nowhere,
            |answer| match answer {
                Value::String(text) => Outcome::Text(text),
                body => Outcome::ok(body),
            },
        ),
        Route::Review => review(body),
        Route::Resource { .. } => {
            let call = Call::new(route, headers, body, by);
            call.carry_out(store).unwrap_or_else(Outcome::Refused)
        }
    }
}

/// Access reviews are always allowed; a test that wants a denial scripts a fault.
fn review(body: &Bytes) -> Outcome {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut review) => {
            review["status"] = json!({"allowed": true});
            Outcome::Object { code: 201, body: review, changed: false }
        }
        Err(error) => Outcome::Refused(Refusal::bad_request(&error.to_string())),
    }
}

/// A request to a resource, unpacked.
struct Call<'a> {
    resource: &'a Arc<Resource>,
    namespace: &'a Option<String>,
    name: &'a Option<String>,
    status: bool,
    method: &'a Method,
    query: &'a BTreeMap<String, String>,
    content_type: &'a str,
    metadata_only: bool,
    manager: String,
    body: &'a Bytes,
    by: By,
}

impl<'a> Call<'a> {
    fn new(route: &'a Route, headers: &'a HeaderMap, body: &'a Bytes, by: By) -> Self {
        let Route::Resource { resource, namespace, name, subresource, method, query } = route else {
            unreachable!("only routes to resources are called");
        };
        let header =
            |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = header(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        let agent = header(header::USER_AGENT).split('/').next().unwrap_or_default();
        // An apply has to name its manager; other writes are credited to the client program.
        let fallback = match content_type {
            "application/apply-patch+yaml" => "",
            _ if agent.is_empty() => "unknown",
            _ => agent,
        };
        Self {
            resource,
            namespace,
            name,
            status: subresource.is_some(),
            method,
            query,
            content_type,
            metadata_only: header(header::ACCEPT).contains("as=PartialObjectMetadata"),
            manager: query.get("fieldManager").map_or(fallback, String::as_str).to_owned(),
            body,
            by,
        }
    }

    fn carry_out(&self, store: &mut Store) -> Result<Outcome, Refusal> {
        match (self.method.as_str(), self.name) {
            ("GET", None) if self.asked("watch") => Ok(Outcome::Watch(Box::new(self.watching()?))),
            ("GET", None) => self.list(store),
            ("GET", Some(name)) => {
                let key = self.resource.key(self.namespace.as_deref().unwrap_or_default(), name);
                let found = store.get(&key).ok_or_else(|| Refusal::not_found(self.resource, name))?;
                Ok(Outcome::ok(self.shown(found)))
            }
            ("POST", None) => {
                let body = self.json()?;
                store.create(self.target(&body)?, &body).map(|written| self.written(written))
            }
            ("PUT", Some(_)) => {
                let body = self.json()?;
                store.replace(&self.target(&body)?, &body).map(|written| self.written(written))
            }
            ("PATCH", Some(_)) => {
                let target = self.target(&Value::Null)?;
                store.patch(&target, self.patch_kind()?, self.body).map(|written| self.written(written))
            }
            ("DELETE", Some(_)) => {
                let options = if self.body.is_empty() { Value::Null } else { self.json()? };
                store.delete(&self.target(&options)?, &options).map(|written| self.written(written))
            }
            ("DELETE", None) => self.delete_collection(store),
            (method, _) => Err(Refusal::method_not_allowed(self.resource, &method.to_lowercase())),
        }
    }

    fn asked(&self, parameter: &str) -> bool {
        self.query.get(parameter).is_some_and(|value| matches!(value.as_str(), "true" | "1"))
    }

    fn json(&self) -> Result<Value, Refusal> {
        let body: Value = serde_json::from_slice(self.body)
            .map_err(|error| Refusal::bad_request(&format!("couldn't get version/kind; json parse error: {error}")))?;
        if body.is_object() { Ok(body) } else { Err(Refusal::bad_request("the body is no object")) }
    }

    fn target(&self, body: &Value) -> Result<Target, Refusal> {
        let dry_run = match self.query.get("dryRun").map(String::as_str) {
            None => body.pointer("/dryRun/0") == Some(&json!("All")),
            Some("All") => true,
            Some(other) => {
                let message = format!("Unsupported value: {other:?}: supported values: \"All\"");
                let kind = match *self.method {
                    Method::POST => "CreateOptions",
                    Method::PUT => "UpdateOptions",
                    Method::PATCH => "PatchOptions",
                    _ => "DeleteOptions",
                };
                return Err(Refusal::invalid("meta.k8s.io", kind, "", &[Cause::invalid("dryRun", &message)]));
            }
        };
        Ok(Target {
            resource: self.resource.clone(),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: self.name.clone().unwrap_or_default(),
            status: self.status,
            dry_run,
            manager: self.manager.clone(),
        })
    }

    fn patch_kind(&self) -> Result<PatchKind, Refusal> {
        match self.content_type {
            "application/json-patch+json" => Ok(PatchKind::Json),
            "application/merge-patch+json" => Ok(PatchKind::Merge),
            "application/strategic-merge-patch+json" if self.resource.builtin => Ok(PatchKind::Strategic),
            "application/apply-patch+yaml" => Ok(PatchKind::Apply { force: self.asked("force") }),
            other => Err(Refusal::new(
                415,
                "UnsupportedMediaType",
                &format!("the body of the request was in an unknown format - {other:?}"),
            )),
        }
    }

    fn shown(&self, object: &Value) -> Value {
        if self.metadata_only { metadata_only(object) } else { object.clone() }
    }

    fn written(&self, written: Written) -> Outcome {
        let whole = written.body["kind"] == json!("Status");
        Outcome::Object {
            code: written.code,
            body: if whole { written.body } else { self.shown(&written.body) },
            changed: written.changed,
        }
    }

    fn list(&self, store: &Store) -> Result<Outcome, Refusal> {
        let selector = Selector::parse(self.resource, self.query)?;
        let exact = self.query.get("resourceVersionMatch").map(String::as_str) == Some("Exact");
        let revision = store.revision().to_string();
        if exact && self.query.get("resourceVersion") != Some(&revision) {
            return Err(Refusal::expired(
                "The provided resource version is too old; the double keeps only the present one.",
            ));
        }
        let items: Vec<Value> = store
            .list(self.resource, self.namespace.as_deref())
            .filter(|(_, object)| selector.matches(object))
            .map(|(_, object)| self.shown(object))
            .collect();
        let (version, kind) = if self.metadata_only {
            ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata")
        } else {
            (self.resource.api_version(), self.resource.kind.as_str())
        };
        Ok(Outcome::ok(json!({
            "apiVersion": version, "kind": format!("{kind}List"),
            "metadata": {"resourceVersion": revision}, "items": items,
        })))
    }

    fn delete_collection(&self, store: &mut Store) -> Result<Outcome, Refusal> {
        let selector = Selector::parse(self.resource, self.query)?;
        let doomed: Vec<Value> = store
            .list(self.resource, self.namespace.as_deref())
            .filter(|(_, object)| selector.matches(object))
            .map(|(_, object)| object.clone())
            .collect();
        let mut target = self.target(&Value::Null)?;
        let mut changed = false;
        for object in &doomed {
            target.name = object::name(object).to_owned();
            changed |= store.delete(&target, &Value::Null)?.changed;
        }
        let body = json!({
            "apiVersion": self.resource.api_version(), "kind": format!("{}List", self.resource.kind),
            "metadata": {"resourceVersion": store.revision().to_string()}, "items": doomed,
        });
        Ok(Outcome::Object { code: 200, body, changed })
    }

    fn watching(&self) -> Result<Watching, Refusal> {
        let number = |parameter: &str| -> Result<Option<u64>, Refusal> {
            match self.query.get(parameter).map(String::as_str) {
                None | Some("" | "0") => Ok(None),
                Some(text) => {
                    text.parse().map(Some).map_err(|_| Refusal::bad_request(&format!("invalid {parameter}: {text:?}")))
                }
            }
        };
        Ok(Watching {
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            selector: Selector::parse(self.resource, self.query)?,
            since: number("resourceVersion")?,
            initial_events: self.asked("sendInitialEvents"),
            bookmarks: self.asked("allowWatchBookmarks"),
            timeout: number("timeoutSeconds")?.map(Duration::from_secs),
            metadata_only: self.metadata_only,
            by: self.by,
        })
    }
}
