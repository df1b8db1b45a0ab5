//! How objects begin and end: deletion with its preconditions and finalizers, namespaces that hold what is in them,
//! and what the API server itself adds to some kinds when they are created.

use serde_json::{Value, json};

use crate::{
    object,
    refusal::Refusal,
    resource::{Generation, ObjectKey, Resource},
    store::Store,
    write::{Target, Written, precondition},
};

impl Store {
    /// DELETE of one object, with the preconditions of its `DeleteOptions`.
    pub(crate) fn delete(&mut self, target: &Target, options: &Value) -> Result<Written, Refusal> {
        let key = target.key();
        let old = self.get(&key).cloned().ok_or_else(|| target.not_found())?;
        let wanted = |member: &str| object::text(options, &format!("/preconditions/{member}")).to_owned();
        for (label, member, actual) in
            [("UID", "uid", object::uid(&old)), ("ResourceVersion", "resourceVersion", object::resource_version(&old))]
        {
            let wanted = wanted(member);
            if !wanted.is_empty() && wanted != actual {
                let why = precondition(label, &wanted, actual);
                return Err(Refusal::conflict(&target.resource, &target.name, &why));
            }
        }

        let held = !object::finalizers(&old).is_empty() || self.waits_for_contents(&target.resource, &key);
        if held && object::is_deleting(&old) {
            return Ok(Written { code: 200, body: old, changed: false });
        }
        if held {
            let mut marked = old;
            object::set_metadata(&mut marked, "deletionTimestamp", self.now());
            object::set_metadata(&mut marked, "deletionGracePeriodSeconds", 0);
            if target.resource.kind == "Namespace" {
                marked["status"]["phase"] = json!("Terminating");
            } else if target.resource.generation != Generation::None {
                let next = object::generation(&marked) + 1;
                object::set_metadata(&mut marked, "generation", next);
            }
            if target.dry_run {
                return Ok(Written { code: 200, body: marked, changed: false });
            }
            let body = self.commit(&target.resource, key, Some(marked));
            return Ok(Written { code: 200, body, changed: true });
        }

        let mut body = old.clone();
        if !target.dry_run {
            body = self.commit(&target.resource, key, None);
        }
        if !target.resource.returns_deleted {
            let mut details = json!({"name": target.name, "kind": target.resource.plural, "uid": object::uid(&old)});
            if !target.resource.group.is_empty() {
                details["group"] = json!(target.resource.group);
            }
            body =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        }
        Ok(Written { code: 200, body, changed: !target.dry_run })
    }

    /// A namespace goes only when it is empty, which is the namespace controller's doing.
    pub(crate) fn waits_for_contents(&self, resource: &Resource, key: &ObjectKey) -> bool {
        resource.kind == "Namespace" && self.all().any(|(other, _)| other.namespace == key.name)
    }

    /// The admission plugin NamespaceLifecycle: nothing is made in a namespace that is missing or ending.
    pub(crate) fn check_namespace(&self, target: &Target) -> Result<(), Refusal> {
        if !target.resource.namespaced {
            return Ok(());
        }
        let Some(namespaces) = self.registry.by_kind("Namespace") else {
            return Ok(());
        };
        let Some(namespace) = self.get(&namespaces.key("", &target.namespace)) else {
            return Err(Refusal::not_found(&namespaces, &target.namespace));
        };
        if !object::is_deleting(namespace) {
            return Ok(());
        }
        let why =
            format!("unable to create new content in namespace {} because it is being terminated", target.namespace);
        let mut refusal = Refusal::forbidden(&target.resource, &target.name, &why);
        refusal.details["causes"] = json!([{
            "reason": "NamespaceTerminating", "field": "metadata.namespace",
            "message": format!("namespace {} is being terminated", target.namespace),
        }]);
        Err(refusal)
    }

    /// What creating has as a consequence inside the API server itself.
    pub(crate) fn admit(&mut self, resource: &Resource, new: &mut Value) {
        match resource.kind.as_str() {
            "Namespace" => {
                let name = object::name(new).to_owned();
                new["spec"] = json!({"finalizers": ["kubernetes"]});
                new["status"] = json!({"phase": "Active"});
                new["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
            }
            "CustomResourceDefinition" => {
                new["status"] = json!({"conditions": [
                    {"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"},
                ]});
                self.register_definition(new);
            }
            _ => {}
        }
    }

    /// Serves what a CustomResourceDefinition defines (its storage version; its schema is not looked at).
    pub(crate) fn register_definition(&mut self, definition: &Value) {
        let spec = &definition["spec"];
        let versions = spec["versions"].as_array().cloned().unwrap_or_default();
        let Some(version) = versions.iter().find(|version| version["storage"] == json!(true)) else {
            return;
        };
        let mut resource = Resource::custom(
            object::text(spec, "/group"),
            object::text(version, "/name"),
            object::text(spec, "/names/plural"),
            object::text(spec, "/names/kind"),
            version.pointer("/subresources/status").is_some(),
        );
        resource.namespaced = object::text(spec, "/scope") == "Namespaced";
        self.registry.add(resource);
    }
}
