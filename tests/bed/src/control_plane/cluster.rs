//! What tests ask of a running control plane: nodes, namespaces, CRDs, manifests, and what the audit log says.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ListParams, ObjectMeta, PostParams};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ControlPlane, text};
use crate::wait;

const CRD_WITHIN: Duration = Duration::from_secs(60);

impl ControlPlane {
    /// Creates a namespace that nobody has used, `PREFIX-N-PID`, in which pods can be created.
    pub async fn namespace(&self, prefix: &str) -> anyhow::Result<String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{number}-{}", std::process::id());
        let namespaces: Api<Namespace> = Api::all(self.client());
        let object = Namespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        namespaces.create(&PostParams::default(), &object).await.with_context(|| format!("no namespace {name}"))?;
        self.default_service_account(&name).await?;
        Ok(name)
    }

    /// `kubectl apply` of a manifest, which may hold several documents. Returns what kubectl printed.
    pub async fn kubectl_apply(&self, manifest: &str) -> anyhow::Result<String> {
        self.kubectl_with_input(&["apply", "-f", "-"], manifest).await?.ok()
    }

    /// Applies the CustomResourceDefinitions of a folder and waits until the API server serves them all.
    pub async fn apply_crds(&self, dir: &Path) -> anyhow::Result<Vec<String>> {
        let args = ["apply", "--server-side", "--output=name", "-f", &text(dir)];
        let applied = self.kubectl(&args).await?.ok()?;
        let names: Vec<String> = applied
            .lines()
            .filter_map(|line| line.strip_prefix("customresourcedefinition.apiextensions.k8s.io/"))
            .map(str::to_owned)
            .collect();
        ensure!(!names.is_empty(), "{} holds no CustomResourceDefinition", dir.display());
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client());
        for name in &names {
            wait::until(format!("CustomResourceDefinition {name} to be Established"), CRD_WITHIN, || async {
                let conditions = definitions.get(name).await?.status.and_then(|status| status.conditions);
                match conditions.iter().flatten().any(|c| c.type_ == "Established" && c.status == "True") {
                    true => Ok(()),
                    false => Err(anyhow::anyhow!("conditions {conditions:?}")),
                }
            })
            .await?;
        }
        self.custom_resources_served(&names).await?;
        Ok(names)
    }

    /// Established comes before the first answer: until its storage is there, a kind answers 404, then 429.
    async fn custom_resources_served(&self, names: &[String]) -> anyhow::Result<()> {
        let args = ["get", &names.join(","), "--all-namespaces", "--request-timeout=5s"];
        wait::until(format!("{} to be served", names.join(" and ")), CRD_WITHIN, || async {
            self.kubectl(&args).await?.ok()
        })
        .await?;
        Ok(())
    }

    /// The requests answered so far, in order. Needs [`super::Options::audit_log`].
    pub fn audit_events(&self) -> anyhow::Result<Vec<AuditEvent>> {
        let path = self.audit_log();
        let log = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // A last line without its end is still being written.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| format!("audit log line {line}"))).collect()
    }

    pub(super) async fn create_nodes(&self) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        // No pod costs anything, so that nothing ever waits for room.
        let room = json!({"cpu": "1000", "memory": "4Ti", "ephemeral-storage": "4Ti", "pods": "10000"});
        for number in 0..self.options.nodes {
            let name = format!("node-{number}");
            let node: Node = serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
                "status": {"allocatable": room, "capacity": room},
            }))?;
            nodes.create(&PostParams::default(), &node).await.with_context(|| format!("cannot create node {name}"))?;
        }
        Ok(())
    }

    /// Waits until every node is Ready and, as far as somebody is there to see to it, free of the taint new nodes have.
    pub(super) async fn nodes_ready(&self) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        self.until("every node to be Ready and schedulable", || async {
            let listed = nodes.list(&ListParams::default()).await?.items;
            let waiting: Vec<String> = listed.iter().filter(|node| !self.usable(node)).map(describe).collect();
            ensure!(listed.len() >= self.options.nodes, "{} of {} nodes", listed.len(), self.options.nodes);
            ensure!(waiting.is_empty(), "{}", waiting.join("; "));
            Ok(())
        })
        .await
    }

    fn usable(&self, node: &Node) -> bool {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_some_and(|taints| !taints.is_empty());
        ready && !(taints && self.options.controller_manager)
    }

    /// Waits for the ServiceAccount without which no pod is admitted, or makes it where no controller does.
    pub(super) async fn default_service_account(&self, namespace: &str) -> anyhow::Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        if !self.options.controller_manager {
            let account = ServiceAccount {
                metadata: ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() },
                ..ServiceAccount::default()
            };
            // Namespace default itself is made by the API server a moment after it is ready.
            self.until(&format!("ServiceAccount {namespace}/default to be created"), || async {
                match accounts.create(&PostParams::default(), &account).await {
                    Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                    other => other.map(drop),
                }
            })
            .await?;
            return Ok(());
        }
        self.until(&format!("ServiceAccount {namespace}/default"), || accounts.get("default")).await?;
        Ok(())
    }
}

fn describe(node: &Node) -> String {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let conditions: Vec<String> =
        conditions.into_iter().flatten().map(|condition| format!("{}={}", condition.type_, condition.status)).collect();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let taints: Vec<&str> = taints.into_iter().flatten().map(|taint| taint.key.as_str()).collect();
    format!("node {name}: conditions [{}], taints [{}]", conditions.join(", "), taints.join(", "))
}

/// One answered request, as the API server's audit log tells it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`
    pub verb: String,
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    pub stage: String,
    user: Value,
    #[serde(default)]
    pub user_agent: String,
    #[serde(default)]
    object_ref: Value,
    #[serde(default)]
    response_status: Value,
}

impl AuditEvent {
    /// The name of who asked.
    pub fn user(&self) -> &str {
        self.user["username"].as_str().unwrap_or_default()
    }

    /// `deployments`, or `deployments/scale`.
    pub fn resource(&self) -> String {
        let [resource, subresource] = ["resource", "subresource"].map(|key| self.object_ref[key].as_str());
        match (resource.unwrap_or_default(), subresource) {
            (resource, None) => resource.to_owned(),
            (resource, Some(subresource)) => format!("{resource}/{subresource}"),
        }
    }

    /// `NAMESPACE/NAME`, either part empty where there is none.
    pub fn object(&self) -> String {
        let [namespace, name] = ["namespace", "name"].map(|key| self.object_ref[key].as_str().unwrap_or_default());
        format!("{namespace}/{name}")
    }

    /// The HTTP status of the answer.
    pub fn code(&self) -> Option<u64> {
        self.response_status["code"].as_u64()
    }

    /// Whether it changed something, or was meant to.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }
}
