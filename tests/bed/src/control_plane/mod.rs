//! A Kubernetes control plane: etcd, kube-apiserver with RBAC, kube-controller-manager, kube-scheduler, and kwok in the
//! kubelets' place. Nothing runs in its pods; all else is what a cluster does.
//!
//! This module starts, stops and awaits the servers. How each is started is in [`commands`], who may talk to the API
//! server and with what is in [`access`], and what tests ask of a running one (namespaces, CRDs, manifests) in
//! [`cluster`].

mod access;
mod cluster;
mod commands;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;

pub use access::KubectlOutput;
pub use cluster::AuditEvent;

use crate::wait::{self, Observation};
use crate::{BedDir, Port, Process};

/// How long any part of the control plane may take. It takes three seconds where nothing else runs; a machine that
/// compiles meanwhile is much slower, and a bed that gives up too early is of no use to anybody.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// What to start. The default is all of it, with two nodes and an audit log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names the bed's directory; else the test's thread does.
    pub name: Option<String>,
    /// Without it there are no rollouts, EndpointSlices or garbage collection, deleted namespaces stay Terminating,
    /// aggregated ClusterRoles (`view`, `edit`, `admin`) are empty, and the bed itself makes the default
    /// ServiceAccounts of its namespaces.
    pub controller_manager: bool,
    /// Without it pods stay Pending.
    pub scheduler: bool,
    /// How many nodes kwok plays; 0 leaves kwok out.
    pub nodes: usize,
    /// Whether requests are logged, at level Metadata, to [`ControlPlane::audit_log`].
    pub audit_log: bool,
    /// Further flags of kube-apiserver.
    pub apiserver_flags: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            controller_manager: true,
            scheduler: true,
            nodes: 2,
            audit_log: true,
            apiserver_flags: Vec::new(),
        }
    }
}

impl Options {
    /// Only the API server and its etcd: for tests of schemas, patches and permissions.
    pub fn api_only() -> Self {
        Self { controller_manager: false, scheduler: false, nodes: 0, ..Self::default() }
    }
}

/// The servers, in the order in which they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    Kwok,
    Scheduler,
    ControllerManager,
    ApiServer,
    Etcd,
}

/// A running control plane. It ends when this value is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    // Before the ports and the directory: fields are dropped in order.
    processes: Mutex<BTreeMap<Component, Arc<Process>>>,
    options: Options,
    ports: Ports,
    dir: BedDir,
}

#[derive(Debug)]
struct Ports {
    apiserver: Port,
    etcd: Port,
    etcd_peer: Port,
}

impl ControlPlane {
    /// Starts it and waits until the API server is ready, the nodes are Ready and schedulable, and pods can be created
    /// in namespace `default`.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        crate::install_tls_provider();
        let plane = Self {
            processes: Mutex::default(),
            ports: Ports { apiserver: Port::reserve()?, etcd: Port::reserve()?, etcd_peer: Port::reserve()? },
            dir: BedDir::create(options.name.as_deref())?,
            options,
        };
        plane.write_credentials()?;
        plane.run(Component::Etcd)?;
        plane.start_apiserver().await?;
        if plane.options.controller_manager {
            plane.run(Component::ControllerManager)?;
        }
        if plane.options.scheduler {
            plane.run(Component::Scheduler)?;
        }
        if plane.options.nodes > 0 {
            plane.run(Component::Kwok)?;
        }
        plane.create_nodes().await?;
        plane.nodes_ready().await?;
        plane.default_service_account("default").await?;
        Ok(plane)
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("https://{}", self.ports.apiserver.address())
    }

    pub fn dir(&self) -> &BedDir {
        &self.dir
    }

    /// The log of one component.
    pub fn log(&self, component: Component) -> PathBuf {
        self.dir.logs().join(format!("{}.log", component.program()))
    }

    /// The audit log: one JSON object of kind Event (audit.k8s.io/v1) a line, written before the answer is sent.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.logs().join("audit.log")
    }

    /// A component's process, to stop, continue or measure it. Fails if it does not run.
    pub fn process(&self, component: Component) -> anyhow::Result<Arc<Process>> {
        let process = self.processes().get(&component).cloned();
        process.with_context(|| format!("{} does not run", component.program()))
    }

    /// Ends the API server as a crash does. Its port and data stay; etcd and the controllers run on.
    pub fn stop_apiserver(&self) -> anyhow::Result<()> {
        let process = self.processes().remove(&Component::ApiServer);
        process.map_or(Ok(()), |process| process.kill())
    }

    /// Starts the API server, on its port and data, and waits until it is ready.
    pub async fn start_apiserver(&self) -> anyhow::Result<()> {
        self.run(Component::ApiServer)?;
        self.until("the API server's /readyz", || async {
            // Built anew each time: the serving certificate is made by the API server on its first start.
            let client = self.admin_client()?;
            let request = http_get("/readyz?verbose")?;
            anyhow::Ok(client.request_text(request).await?)
        })
        .await?;
        Ok(())
    }

    fn run(&self, component: Component) -> anyhow::Result<()> {
        let process = Process::spawn(component.program(), self.command(component)?, &self.dir.logs())?;
        self.processes().insert(component, Arc::new(process));
        Ok(())
    }

    /// Waits for a condition of the control plane, but not after one of its processes has ended.
    async fn until<O, F>(&self, what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<O::Value>
    where
        O: Observation,
        F: Future<Output = O>,
    {
        wait::until(what, READY_WITHIN, || {
            let look = look();
            async move {
                match look.await.into_result() {
                    Ok(value) => Ok(Ok(value)),
                    Err(seen) => self.ensure_running().map_or_else(|dead| Ok(Err(dead)), |()| Err(seen)),
                }
            }
        })
        .await?
    }

    fn ensure_running(&self) -> anyhow::Result<()> {
        self.processes().values().try_for_each(|process| process.ensure_running())
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<Component, Arc<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn http_get(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}

/// A path as an argument.
fn text(path: &Path) -> String {
    path.display().to_string()
}
