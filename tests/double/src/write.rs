//! How a request becomes a commit: create, update, patch and delete in the order in which kube-apiserver's generic
//! registry does them, so that the same mistake is answered by the same refusal. Deleting is in [`crate::lifecycle`].

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    builtin, object,
    ownership::{self, Writer},
    patch::{self, PatchError},
    refusal::{Cause, Refusal},
    resource::{Generation, ObjectKey, Resource},
    store::Store,
};

/// Which object a write is about, and how it is made.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) status: bool,
    pub(crate) dry_run: bool,
    pub(crate) manager: String,
}

/// The answer to a write that was not refused.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) code: u16,
    pub(crate) body: Value,
    /// Whether anything was stored: neither a dry run nor a no-op.
    pub(crate) changed: bool,
}

/// A patch by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply { force: bool },
}

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

impl Target {
    pub(crate) fn key(&self) -> ObjectKey {
        self.resource.key(&self.namespace, &self.name)
    }

    fn writer(&self, store: &Store) -> Writer {
        Writer {
            manager: self.manager.clone(),
            api_version: self.resource.api_version(),
            subresource: if self.status { "status".to_owned() } else { String::new() },
            time: store.now(),
        }
    }

    fn invalid(&self, causes: &[Cause]) -> Refusal {
        Refusal::invalid(&self.resource.group, &self.resource.kind, &self.name, causes)
    }

    pub(crate) fn not_found(&self) -> Refusal {
        Refusal::not_found(&self.resource, &self.name)
    }

    /// The name and namespace of a body have to be those of the URL, where it says any.
    fn check_names(&self, body: &Value) -> Result<(), Refusal> {
        let (name, namespace) = (object::name(body), object::namespace(body));
        if self.resource.namespaced && !namespace.is_empty() && namespace != self.namespace {
            return Err(Refusal::bad_request(&format!(
                "the namespace of the provided object does not match the namespace sent on the request ({namespace} and {})",
                self.namespace
            )));
        }
        if !name.is_empty() && name != self.name {
            return Err(Refusal::bad_request(&format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.name
            )));
        }
        Ok(())
    }

    fn check_kind(&self, body: &Value) -> Result<(), Refusal> {
        let (version, kind) = (object::text(body, "/apiVersion"), object::text(body, "/kind"));
        let right = (version.is_empty() || version == self.resource.api_version())
            && (kind.is_empty() || kind == self.resource.kind);
        if right {
            return Ok(());
        }
        Err(Refusal::bad_request(&format!(
            "the object provided is a {kind} of {version}, but {} is served here",
            self.resource.qualified()
        )))
    }
}

impl Store {
    /// POST to a collection.
    pub(crate) fn create(&mut self, target: Target, body: &Value) -> Result<Written, Refusal> {
        let mut new = body.clone();
        object::metadata_mut(&mut new).remove("managedFields");
        self.create_owned(target, new, true)
    }

    /// Creates; `record` says whether the writer is still to be credited with what it wrote.
    fn create_owned(&mut self, mut target: Target, mut new: Value, record: bool) -> Result<Written, Refusal> {
        target.check_kind(&new)?;
        if target.name.is_empty() {
            target.name = object::name(&new).to_owned();
        }
        target.check_names(&new)?;
        let prefix = object::text(&new, "/metadata/generateName").to_owned();
        if target.name.is_empty() && !prefix.is_empty() {
            target.name = format!("{prefix}{:05x}", self.revision() + 1);
        }
        if target.name.is_empty() {
            return Err(target.invalid(&[Cause::required("metadata.name", "name or generateName is required")]));
        }
        self.check_namespace(&target)?;
        if let Some(why) = builtin::undecodable(&target.resource, &new) {
            return Err(Refusal::bad_request(&why));
        }

        let key = target.key();
        object::set_metadata(&mut new, "name", target.name.as_str());
        if target.resource.namespaced {
            object::set_metadata(&mut new, "namespace", target.namespace.as_str());
        }
        new["apiVersion"] = json!(target.resource.api_version());
        new["kind"] = json!(target.resource.kind);
        for member in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
            object::metadata_mut(&mut new).remove(member);
        }
        if target.resource.status
            && let Some(members) = new.as_object_mut()
        {
            members.remove("status");
        }
        if target.resource.generation != Generation::None {
            object::set_metadata(&mut new, "generation", 1);
        }
        builtin::normalise(&target.resource, &mut new);
        self.validate(&target, None, &new)?;
        if !matches!(object::resource_version(&new), "" | "0") {
            return Err(Refusal::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        if self.get(&key).is_some() {
            return Err(Refusal::already_exists(&target.resource, &target.name));
        }

        object::metadata_mut(&mut new).remove("resourceVersion");
        object::set_metadata(&mut new, "creationTimestamp", self.now());
        if record {
            ownership::record_update(None, &mut new, &target.writer(self));
        }
        if target.dry_run {
            object::set_metadata(&mut new, "uid", "dddddddd-0000-4000-8000-000000000000");
            return Ok(Written { code: 201, body: new, changed: false });
        }
        let uid = self.next_uid(&key);
        object::set_metadata(&mut new, "uid", uid);
        self.admit(&target.resource, &mut new);
        let body = self.commit(&target.resource, key, Some(new));
        Ok(Written { code: 201, body, changed: true })
    }

    /// PUT.
    pub(crate) fn replace(&mut self, target: &Target, body: &Value) -> Result<Written, Refusal> {
        target.check_kind(body)?;
        target.check_names(body)?;
        if let Some(why) = builtin::undecodable(&target.resource, body) {
            return Err(Refusal::bad_request(&why));
        }
        let Some(old) = self.get(&target.key()).cloned() else {
            if !target.resource.create_on_update || target.status {
                return Err(target.not_found());
            }
            if !object::uid(body).is_empty() {
                let why = "StorageError: invalid object, Code: 4, Precondition failed: UID in precondition, but there is no object";
                return Err(Refusal::conflict(&target.resource, &target.name, why));
            }
            return self.create(target.clone(), body);
        };
        let uid = object::uid(body);
        if !uid.is_empty() && uid != object::uid(&old) {
            return Err(Refusal::conflict(
                &target.resource,
                &target.name,
                &precondition("UID", uid, object::uid(&old)),
            ));
        }
        self.update(target, old, body.clone(), true)
    }

    /// PATCH.
    pub(crate) fn patch(&mut self, target: &Target, kind: PatchKind, patch: &[u8]) -> Result<Written, Refusal> {
        let old = self.get(&target.key()).cloned();
        if let PatchKind::Apply { force } = kind {
            return self.apply(target, old, patch, force);
        }
        let old = old.ok_or_else(|| target.not_found())?;
        let patched = match kind {
            PatchKind::Json => patch::json_patch(&old, patch),
            _ => patch::merge_patch(&old, patch),
        };
        let new = patched.map_err(|error| match error {
            PatchError::Malformed(why) => Refusal::bad_request(&why),
            PatchError::Refused(_) => Refusal::patch_failed(),
        })?;
        let moved = ["apiVersion", "kind"].iter().any(|member| new.get(member) != old.get(member));
        if moved {
            let cause =
                Cause::invalid("kind", &format!("Invalid value: {}: must be {}", new["kind"], target.resource.kind));
            return Err(target.invalid(&[cause]));
        }
        if let Some(why) = builtin::undecodable(&target.resource, &new) {
            // Decoding the result failed: unlike a failed test, this one has a cause.
            let cause = Cause::invalid("patch", &format!("Invalid value: {why}"));
            return Err(Refusal::invalid("", "", "", &[cause]));
        }
        target.check_names(&new)?;
        self.update(target, old, new, true)
    }

    fn apply(&mut self, target: &Target, old: Option<Value>, body: &[u8], force: bool) -> Result<Written, Refusal> {
        if target.manager.is_empty() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(Refusal::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
        }
        let configuration: Value = serde_json::from_slice(body).map_err(|error| {
            Refusal::bad_request(&format!("error decoding YAML: the double reads JSON only: {error}"))
        })?;
        target.check_kind(&configuration)?;
        target.check_names(&configuration)?;
        if configuration["metadata"].get("managedFields").is_some() {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        let applied =
            ownership::apply(old.as_ref(), &configuration, &target.writer(self), force).map_err(|conflicts| {
                let mut managers: Vec<&str> = conflicts.iter().map(|(manager, _)| manager.as_str()).collect();
                managers.dedup();
                let causes: Vec<Cause> = conflicts.iter().map(|(_, cause)| cause.clone()).collect();
                let message = format!("Apply failed with {} conflicts with {}", causes.len(), managers.join(", "));
                let mut refusal = Refusal::new(409, "Conflict", &message);
                refusal.details = Refusal::invalid("", "", "", &causes).details;
                refusal
            })?;
        let Some(old) = old else {
            return self.create_applied(target, applied);
        };
        self.update(target, old, applied, false)
    }

    fn create_applied(&mut self, target: &Target, applied: Value) -> Result<Written, Refusal> {
        if !object::uid(&applied).is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                object::uid(&applied)
            );
            return Err(Refusal::conflict(&target.resource, &target.name, &why));
        }
        self.create_owned(target.clone(), applied, false)
    }

    /// From here on PUT and PATCH are one: the object as it is, and as the client wants it.
    fn update(&mut self, target: &Target, old: Value, mut new: Value, record: bool) -> Result<Written, Refusal> {
        let resource = &target.resource;
        match object::resource_version(&new) {
            "" | "0" if resource.unconditional_update => {}
            "" | "0" => {
                let cause =
                    Cause::invalid("metadata.resourceVersion", "Invalid value: 0: must be specified for an update");
                return Err(Refusal::invalid(&resource.group, &resource.plural, &target.name, &[cause]));
            }
            given if given != object::resource_version(&old) => {
                return Err(Refusal::conflict(resource, &target.name, MODIFIED));
            }
            _ => {}
        }

        for member in
            ["resourceVersion", "creationTimestamp", "generation", "name", "namespace", "deletionGracePeriodSeconds"]
        {
            object::copy_metadata(&old, &mut new, member);
        }
        if object::is_deleting(&old) {
            object::copy_metadata(&old, &mut new, "deletionTimestamp");
        }
        if object::uid(&new).is_empty() {
            object::copy_metadata(&old, &mut new, "uid");
        }
        for member in ["apiVersion", "kind"] {
            object::copy_top(&old, &mut new, member);
        }
        if target.status {
            builtin::only_status(resource, &old, &mut new);
        } else if resource.status {
            object::copy_top(&old, &mut new, "status");
        }
        builtin::normalise(resource, &mut new);
        self.bump_generation(target, &old, &mut new);
        self.validate(target, Some(&old), &new)?;
        if record {
            ownership::record_update(Some(&old), &mut new, &target.writer(self));
        }

        if unchanged(&old, &new) {
            return Ok(Written { code: 200, body: old, changed: false });
        }
        if target.dry_run {
            return Ok(Written { code: 200, body: new, changed: false });
        }
        let key = target.key();
        if object::is_deleting(&old) && object::finalizers(&new).is_empty() && !self.waits_for_contents(resource, &key)
        {
            self.commit(resource, key, None);
            return Ok(Written { code: 200, body: new, changed: true });
        }
        let body = self.commit(resource, key, Some(new));
        Ok(Written { code: 200, body, changed: true })
    }

    fn bump_generation(&self, target: &Target, old: &Value, new: &mut Value) {
        let (resource, main) = (&target.resource, !target.status);
        let differs = |pointer: &str| old.pointer(pointer) != new.pointer(pointer);
        let bump = match resource.generation {
            Generation::None => false,
            Generation::Spec => differs("/spec"),
            Generation::SpecAndAnnotations => differs("/spec") || (main && differs("/metadata/annotations")),
            Generation::AllButMetadata => {
                builtin::generation_relevant(resource, old) != builtin::generation_relevant(resource, new)
            }
        };
        if bump {
            object::set_metadata(new, "generation", object::generation(old) + 1);
        }
    }

    fn validate(&self, target: &Target, old: Option<&Value>, new: &Value) -> Result<(), Refusal> {
        let mut causes = Vec::new();
        if let Some(old) = old {
            causes.extend(builtin::validate_metadata_update(old, new));
        }
        causes.extend(builtin::validate(&target.resource, old, new));
        for (kind, validation) in &self.validations {
            if target.resource.answers_to(kind) {
                causes.extend(validation(old, new));
            }
        }
        if causes.is_empty() { Ok(()) } else { Err(target.invalid(&causes)) }
    }
}

pub(crate) fn precondition(what: &str, wanted: &str, actual: &str) -> String {
    format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}")
}

/// Whether nothing but the timestamps of managed fields differs, which is no reason for a new version.
fn unchanged(old: &Value, new: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        for member in ["managedFields", "resourceVersion"] {
            object::metadata_mut(&mut object).remove(member);
        }
        object
    };
    without(old) == without(new) && ownership::same_but_for_time(old, new)
}
