//! The answers that are not an object: `metav1.Status`, with the codes, reasons and messages of kube-apiserver.
//!
//! Only what clients can see and act upon is reproduced; every constructor here answers one question a client
//! asks of an error (is it a conflict? has it causes? may it be retried?).

use serde_json::{Value, json};

use crate::resource::Resource;

/// A refusal by the API server: an HTTP status code and a `metav1.Status`.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The HTTP status code, repeated in the body.
    pub code: u16,
    /// `metav1.StatusReason`, e.g. `Conflict`; empty is Kubernetes' `Unknown`.
    pub reason: String,
    /// What a person reads.
    pub message: String,
    /// `metav1.StatusDetails`, `null` when there are none.
    pub details: Value,
    /// Further headers of the answer, e.g. `Retry-After`.
    pub headers: Vec<(String, String)>,
}

/// One `metav1.StatusCause`: the field at fault, which is what tells a validation failure from a failed patch.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueForbidden`, `FieldValueRequired`…
    pub kind: String,
    /// The path of the field, e.g. `spec.replicas`.
    pub field: String,
    /// The sentence, without the field.
    pub message: String,
}

impl Cause {
    /// A value that this field may not have.
    pub fn invalid(field: &str, message: &str) -> Self {
        Self::new("FieldValueInvalid", field, message)
    }

    /// A change that this field does not allow.
    pub fn forbidden(field: &str, message: &str) -> Self {
        Self::new("FieldValueForbidden", field, &format!("Forbidden: {message}"))
    }

    /// A field that has to be there.
    pub fn required(field: &str, message: &str) -> Self {
        Self::new("FieldValueRequired", field, &format!("Required value: {message}"))
    }

    fn new(kind: &str, field: &str, message: &str) -> Self {
        Self { kind: kind.to_owned(), field: field.to_owned(), message: message.to_owned() }
    }

    fn value(&self) -> Value {
        json!({"reason": self.kind, "field": self.field, "message": self.message})
    }
}

impl Refusal {
    /// Any status at all, for scripted faults.
    pub fn new(code: u16, reason: &str, message: &str) -> Self {
        Self { code, reason: reason.to_owned(), message: message.to_owned(), details: Value::Null, headers: Vec::new() }
    }

    /// Adds a header, such as `Retry-After`.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = json!({"group": resource.group, "kind": resource.plural, "name": name});
        prune_empty(&mut self.details);
        self
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.qualified());
        Self::new(404, "NotFound", &message).about(resource, name)
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.qualified());
        Self::new(409, "AlreadyExists", &message).about(resource, name)
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let resources = resource.qualified();
        let message = format!("Operation cannot be fulfilled on {resources} {name:?}: {why}");
        Self::new(409, "Conflict", &message).about(resource, name)
    }

    pub(crate) fn bad_request(message: &str) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", resource.qualified());
        Self::new(403, "Forbidden", &message).about(resource, name)
    }

    /// Validation failed: this one *has* causes.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let sentences: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let listed = match sentences.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut refusal = Self::new(422, "Invalid", &format!("{qualified} {name:?} is invalid: {listed}"));
        refusal.details = json!({
            "group": group, "kind": kind, "name": name,
            "causes": causes.iter().map(Cause::value).collect::<Vec<_>>(),
        });
        prune_empty(&mut refusal.details);
        refusal
    }

    /// A JSON Patch that does not apply, a failed `test` included: no causes, and a message that says nothing.
    pub(crate) fn patch_failed() -> Self {
        let mut refusal = Self::new(422, "Invalid", "the server rejected our request due to an error in our request");
        refusal.details = json!({});
        refusal
    }

    /// The path names nothing that is served.
    pub(crate) fn no_such_path() -> Self {
        let mut refusal = Self::new(404, "NotFound", "the server could not find the requested resource");
        refusal.details = json!({});
        refusal
    }

    pub(crate) fn method_not_allowed(resource: &Resource, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind {:?}", resource.qualified());
        Self::new(405, "MethodNotAllowed", &message).about(resource, "")
    }

    pub(crate) fn expired(message: &str) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The body of the answer.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if self.reason.is_empty() {
            status.as_object_mut().expect("a literal").remove("reason");
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

/// Go omits empty members of details.
fn prune_empty(details: &mut Value) {
    if let Some(members) = details.as_object_mut() {
        members.retain(|_, value| value.as_str() != Some(""));
    }
}
