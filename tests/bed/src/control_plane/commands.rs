//! How each server is started: its flags, and why those that are not obvious.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

use super::access::Identity;
use super::{Component, ControlPlane, text};
use crate::tools;

/// Of Services. Nothing answers there.
const SERVICE_CIDR: &str = "10.96.0.0/16";
/// Of pods, as kwok hands them out. They are nobody's addresses: nothing may be sent there.
const POD_CIDR: &str = "10.244.0.0/16";

const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

impl Component {
    /// The name of its program, and of its log.
    pub fn program(self) -> &'static str {
        match self {
            Self::Kwok => "kwok",
            Self::Scheduler => "kube-scheduler",
            Self::ControllerManager => "kube-controller-manager",
            Self::ApiServer => "kube-apiserver",
            Self::Etcd => "etcd",
        }
    }
}

impl ControlPlane {
    pub(super) fn command(&self, component: Component) -> anyhow::Result<Command> {
        let mut command = Command::new(tools::find("controlplane", component.program())?);
        command.args(match component {
            Component::Etcd => self.etcd_flags(),
            Component::ApiServer => self.apiserver_flags()?,
            Component::ControllerManager => self.controller_manager_flags(),
            Component::Scheduler => self.scheduler_flags(),
            Component::Kwok => self.kwok_flags()?,
        });
        // Some read settings from the home folder; they find none here.
        command.env("HOME", self.dir.path()).env_remove("KUBECONFIG").current_dir(self.dir.path());
        Ok(command)
    }

    fn etcd_flags(&self) -> Vec<String> {
        let (client, peer) = (self.ports.etcd.http(), self.ports.etcd_peer.http());
        vec![
            format!("--data-dir={}", text(&self.dir.data().join("etcd"))),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // A machine that loses power takes the test with it.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ]
    }

    fn apiserver_flags(&self) -> anyhow::Result<Vec<String>> {
        let key = text(&self.service_account_key());
        let mut flags = vec![
            format!("--etcd-servers={}", self.ports.etcd.http()),
            "--bind-address=127.0.0.1".to_owned(),
            // Else it looks for the address of the default route, which a closed machine has not.
            "--advertise-address=127.0.0.1".to_owned(),
            // The `kubernetes` Service's endpoints must not be loopback addresses; it goes without.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={}", self.ports.apiserver.number()),
            format!("--cert-dir={}", text(&self.cert_dir())),
            format!("--token-auth-file={}", text(&self.token_file())),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={key}"),
            format!("--service-account-signing-key-file={key}"),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            "--allow-privileged=true".to_owned(),
            "--profiling=false".to_owned(),
        ];
        if self.options.audit_log {
            let policy = self.dir.write("audit-policy.yaml", AUDIT_POLICY)?;
            flags.push(format!("--audit-policy-file={}", text(&policy)));
            flags.push(format!("--audit-log-path={}", text(&self.audit_log())));
            // No rotation: a test counts all of it.
            flags.push("--audit-log-maxsize=0".to_owned());
        }
        flags.extend(self.options.apiserver_flags.iter().cloned());
        Ok(flags)
    }

    fn controller_manager_flags(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", text(&self.kubeconfig_of(Identity::ControllerManager))),
            format!("--service-account-private-key-file={}", text(&self.service_account_key())),
            format!("--root-ca-file={}", text(&self.ca_file())),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            // Alone, it need not be elected: that saves a start-up's wait and writes that a test would count.
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            // The defaults throttle a thousand Deployments to minutes.
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
        ]
    }

    fn scheduler_flags(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", text(&self.kubeconfig_of(Identity::Scheduler))),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
        ]
    }

    fn kwok_flags(&self) -> anyhow::Result<Vec<String>> {
        let mut flags = vec![
            format!("--kubeconfig={}", text(&self.kubeconfig_of(Identity::Kwok))),
            "--manage-all-nodes=true".to_owned(),
            // Without leases the nodes, and then their pods, go NotReady after 50 s.
            "--node-lease-duration-seconds=40".to_owned(),
            format!("--cidr={POD_CIDR}"),
            "--node-ip=10.0.0.1".to_owned(),
        ];
        for stage in kwok_stages()? {
            flags.push(format!("--config={}", text(&stage)));
        }
        Ok(flags)
    }
}

/// What kwok's nodes and pods do: its stages, as its own module has them.
fn kwok_stages() -> anyhow::Result<Vec<PathBuf>> {
    let folder = tools::find("controlplane", "kwok-stages")?;
    let mut stages = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        stages.push(entry?.path());
    }
    ensure!(!stages.is_empty(), "{} has no stages: remove it and run `make tools`", folder.display());
    stages.sort();
    Ok(stages)
}
