//! What the API server serves: one [`Resource`] per plural, with the few traits in which kinds differ.
//!
//! These traits are facts about kube-apiserver's registry strategies, not a schema: whether a status subresource
//! exists, what moves `metadata.generation`, whether a PUT may create or may come without a resourceVersion.

use std::{fmt, sync::Arc};

/// What moves `metadata.generation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// The kind has no generation (ConfigMap, Secret, Service, Lease…).
    None,
    /// A change of `spec`.
    Spec,
    /// A change of `spec` or of the annotations: Deployments copy theirs to their replica sets.
    SpecAndAnnotations,
    /// A change of anything but `metadata` (and `status`, where that is a subresource): custom resources.
    AllButMetadata,
}

/// One served resource.
#[derive(Debug, Clone)]
pub struct Resource {
    /// API group; empty for core.
    pub group: String,
    /// The one version that is served.
    pub version: String,
    /// The plural of the URL.
    pub plural: String,
    /// The kind of its objects.
    pub kind: String,
    /// False for cluster-scoped resources.
    pub namespaced: bool,
    /// Whether `/status` exists, which also shields `.status` from writes to the main resource.
    pub status: bool,
    /// Whether empty maps and nulls vanish, as they do through Go's typed structs; custom resources keep them.
    pub builtin: bool,
    /// What moves the generation.
    pub generation: Generation,
    /// Whether PUT on a missing name creates it.
    pub create_on_update: bool,
    /// Whether PUT may come without a resourceVersion.
    pub unconditional_update: bool,
    /// Whether DELETE answers with the object rather than with a Status.
    pub returns_deleted: bool,
}

impl Resource {
    /// A namespaced kind compiled into the API server.
    pub fn builtin(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            kind: kind.to_owned(),
            namespaced: true,
            status: false,
            builtin: true,
            generation: Generation::None,
            create_on_update: false,
            unconditional_update: true,
            returns_deleted: false,
        }
    }

    /// A namespaced kind from a CustomResourceDefinition; `status` says whether it declares that subresource.
    pub fn custom(group: &str, version: &str, plural: &str, kind: &str, status: bool) -> Self {
        Self {
            status,
            builtin: false,
            generation: Generation::AllButMetadata,
            unconditional_update: false,
            ..Self::builtin(group, version, plural, kind)
        }
    }

    fn with_status(mut self, generation: Generation) -> Self {
        self.status = true;
        self.generation = generation;
        self
    }

    /// `group/version`, or just the version for core: an object's `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `plural.group`, as error messages name a resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The key of one of its objects.
    pub fn key(&self, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey {
            group: self.group.clone(),
            kind: self.kind.clone(),
            namespace: if self.namespaced { namespace.to_owned() } else { String::new() },
            name: name.to_owned(),
        }
    }

    /// `Kind` or `Kind.group`, either of which names a resource in the helpers of [`crate::Double`].
    pub(crate) fn answers_to(&self, kind: &str) -> bool {
        match kind.split_once('.') {
            None => self.kind == kind,
            Some((kind, group)) => self.kind == kind && self.group == group,
        }
    }
}

/// Which object, for as long as it is called that: the key under which writes are counted and compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// API group; empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if self.namespace.is_empty() {
            write!(f, " {}", self.name)
        } else {
            write!(f, " {}/{}", self.namespace, self.name)
        }
    }
}

/// The resources served at this moment.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    resources: Vec<Arc<Resource>>,
}

impl Registry {
    pub(crate) fn add(&mut self, resource: Resource) {
        self.resources.retain(|known| known.group != resource.group || known.plural != resource.plural);
        self.resources.push(Arc::new(resource));
    }

    pub(crate) fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.resources
            .iter()
            .find(|known| known.group == group && known.version == version && known.plural == plural)
            .cloned()
    }

    pub(crate) fn is_builtin_group(&self, group: &str, version: &str) -> bool {
        self.resources.iter().any(|known| known.builtin && known.group == group && known.version == version)
    }

    pub(crate) fn by_object(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        self.resources.iter().find(|known| known.kind == kind && known.api_version() == api_version).cloned()
    }

    pub(crate) fn by_kind(&self, kind: &str) -> Option<Arc<Resource>> {
        self.resources.iter().find(|known| known.answers_to(kind)).cloned()
    }

    pub(crate) fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }
}

impl Default for Registry {
    fn default() -> Self {
        let core = |plural, kind| Resource::builtin("", "v1", plural, kind);
        let lone = |mut resource: Resource| {
            resource.namespaced = false;
            resource
        };
        let returned = |mut resource: Resource| {
            resource.returns_deleted = true;
            resource
        };
        let puttable = |mut resource: Resource| {
            resource.create_on_update = true;
            resource
        };
        let mut lease = puttable(Resource::builtin("coordination.k8s.io", "v1", "leases", "Lease"));
        lease.unconditional_update = false;
        let mut slices = Resource::builtin("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
        slices.generation = Generation::AllButMetadata;
        let served = [
            core("configmaps", "ConfigMap"),
            core("secrets", "Secret"),
            puttable(returned(core("services", "Service").with_status(Generation::None))),
            returned(core("pods", "Pod").with_status(Generation::Spec)),
            returned(core("serviceaccounts", "ServiceAccount")),
            puttable(core("events", "Event")),
            lone(returned(core("namespaces", "Namespace").with_status(Generation::None))),
            Resource::builtin("apps", "v1", "deployments", "Deployment").with_status(Generation::SpecAndAnnotations),
            Resource::builtin("apps", "v1", "statefulsets", "StatefulSet").with_status(Generation::Spec),
            Resource::builtin("batch", "v1", "jobs", "Job").with_status(Generation::Spec),
            slices,
            lease,
            puttable(Resource::builtin("events.k8s.io", "v1", "events", "Event")),
            Resource::builtin("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
                .with_status(Generation::None),
            lone(
                Resource::builtin(
                    "apiextensions.k8s.io",
                    "v1",
                    "customresourcedefinitions",
                    "CustomResourceDefinition",
                )
                .with_status(Generation::Spec),
            ),
            Resource::custom("networking.istio.io", "v1", "virtualservices", "VirtualService", true),
            Resource::custom("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute", true),
            Resource::custom("learningloop.io", "v1alpha1", "learningrollouts", "LearningRollout", true),
            Resource::custom("learningloop.io", "v1alpha1", "learningrollbacks", "LearningRollback", true),
        ];
        Self { resources: served.into_iter().map(Arc::new).collect() }
    }
}
