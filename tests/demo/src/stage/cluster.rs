//! The cluster: one of the test bed, or the one of a kubeconfig context. Everything is done with kubectl or with a
//! client of the same kubeconfig, so that both are the same to the story.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use testbed::{BedDir, ControlPlane, Options, tools};

/// Where the sample manifests are at home.
pub(crate) const NAMESPACE: &str = "learning";

/// For one kubectl, its own waits included.
const KUBECTL_WITHIN: Duration = Duration::from_secs(120);

const CRDS: [&str; 2] = ["learningrollouts.learningloop.io", "learningrollbacks.learningloop.io"];

pub(crate) struct Cluster {
    pub(crate) client: Client,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
    plugin: PathBuf,
    kind: Kind,
}

enum Kind {
    /// Ends with this value.
    Bed(ControlPlane),
    /// Somebody's own.
    Context { name: String, had_crds: bool },
}

impl Cluster {
    /// A control plane of the demo's own.
    pub(crate) async fn start(dir: &BedDir) -> anyhow::Result<Self> {
        let plane =
            ControlPlane::start(Options { name: Some("demo-cluster".to_owned()), ..Options::default() }).await?;
        let kubeconfig = plane.kubeconfig();
        Self::new(kubeconfig, dir, Kind::Bed(plane)).await
    }

    /// The cluster of a context, if there is nothing in it that the demo would harm.
    pub(crate) async fn of_context(context: &str, dir: &BedDir) -> anyhow::Result<Self> {
        let kubeconfig = only_context(context, dir).await?;
        let kind = Kind::Context { name: context.to_owned(), had_crds: false };
        let mut cluster = Self::new(kubeconfig, dir, kind).await?;
        let found = cluster.kubectl(&["get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"]).await?;
        ensure!(
            found.is_empty(),
            "context {context} has a namespace {NAMESPACE}, which the demo creates and removes: delete it first, \
             or use another cluster"
        );
        let crds = cluster.kubectl(&["get", "crd", CRDS[0], "--ignore-not-found", "-o", "name"]).await?;
        // A replica elsewhere would act on the demo's rollout too.
        let holders = "jsonpath={range .items[?(@.spec.holderIdentity)]}{.metadata.name}{\"\\n\"}{end}";
        let leases = cluster.kubectl(&["get", "leases", "-A", "-o", holders]).await?;
        ensure!(
            !leases.lines().any(|name| name.starts_with("learning-rollout-operator")),
            "context {context} has a LearningRollout operator already, which would act on the demo's rollout too: \
             scale it to 0 first, or use another cluster"
        );
        cluster.kind = Kind::Context { name: context.to_owned(), had_crds: !crds.is_empty() };
        Ok(cluster)
    }

    async fn new(kubeconfig: PathBuf, dir: &BedDir, kind: Kind) -> anyhow::Result<Self> {
        let read = Kubeconfig::read_from(&kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        // Whoever waits looks again, and says what was seen last.
        config.default_retry = false;
        Ok(Self {
            client: Client::try_from(config)?,
            kubectl: tools::find("controlplane", "kubectl")?,
            kubeconfig,
            cache: dir.data().join("kubectl-cache"),
            plugin: super::own_folder()?,
            kind,
        })
    }

    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Bed(_) => {
                "A Kubernetes control plane (kube-apiserver, etcd, controllers, scheduler; kwok plays the kubelets)"
                    .to_owned()
            }
            Kind::Context { name, .. } => format!("The cluster of context {name}"),
        }
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder that has `kubectl-learning_rollout`.
    pub(crate) fn path_of_plugin(&self) -> &Path {
        &self.plugin
    }

    pub(crate) fn logs(&self) -> Option<PathBuf> {
        match &self.kind {
            Kind::Bed(plane) => Some(plane.dir().logs()),
            Kind::Context { .. } => None,
        }
    }

    /// Runs kubectl with exactly these arguments; answers what it printed, or fails with what it complained of.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(self.plugin.clone()).chain(std::env::split_paths(&path)))?;
        let mut command = tokio::process::Command::new(&self.kubectl);
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", &self.cache).env("PATH", path);
        run(command, &format!("kubectl {}", args.join(" "))).await
    }

    pub(crate) async fn apply(&self, path: &Path) -> anyhow::Result<()> {
        let path = path.to_str().context("a path that is no text")?;
        self.kubectl(&["apply", "-f", path]).await.map(drop)
    }

    /// Waits until the two kinds are served and every pod of the workload is ready.
    pub(crate) async fn until_served(&self) -> anyhow::Result<()> {
        let [rollouts, rollbacks] = CRDS;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", rollouts, rollbacks]).await?;
        let wait = ["wait", "--for=condition=Available", "--timeout=100s", "deployment", "--all", "-n", NAMESPACE];
        self.kubectl(&wait).await.map(drop)
    }

    /// Ends a cluster of the demo's own; removes from another what the demo has made there.
    pub(crate) async fn end(&self) -> anyhow::Result<()> {
        let Kind::Context { had_crds, .. } = &self.kind else { return Ok(()) };
        // A record in force holds its namespace until an operator lets go of it, and the demo's runs no more.
        if let Ok(records) = self.kubectl(&["get", "lrb", "-n", NAMESPACE, "-o", "name"]).await {
            for record in records.lines() {
                let none = r#"{"metadata":{"finalizers":null}}"#;
                self.kubectl(&["patch", record, "-n", NAMESPACE, "--type=merge", "-p", none]).await?;
            }
        }
        self.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=100s"]).await?;
        if !had_crds {
            let [rollouts, rollbacks] = CRDS;
            self.kubectl(&["delete", "crd", rollouts, rollbacks, "--ignore-not-found", "--timeout=60s"]).await?;
        }
        Ok(())
    }
}

/// A kubeconfig with nothing but this context, which is what the operator takes. It holds credentials: it is for the
/// owner's eyes, and goes with the demo's data.
async fn only_context(context: &str, dir: &BedDir) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::OpenOptionsExt;

    let mut command = tokio::process::Command::new(tools::find("controlplane", "kubectl")?);
    command.args(["config", "view", "--raw", "--minify", "--flatten", "--context", context]);
    let text = run(command, &format!("kubectl config view --context {context}")).await?;
    let path = dir.data().join("kubeconfig");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    Ok(path)
}

async fn run(mut command: tokio::process::Command, shown: &str) -> anyhow::Result<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(KUBECTL_WITHIN, command.output())
        .await
        .map_err(|_| anyhow!("{shown} did not end within {KUBECTL_WITHIN:?}"))?
        .with_context(|| format!("cannot run {shown}"))?;
    let [said, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if !output.status.success() {
        bail!("{shown} failed: {}{}", complained.trim_end(), said.trim_end());
    }
    Ok(said)
}
