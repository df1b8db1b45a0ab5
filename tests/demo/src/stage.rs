//! The servers of the demo, and how to reach them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;
use testbed::{ControlPlane, Options, Process, Prometheus, PrometheusOptions, tools, wait, workspace_root};

use crate::story::Story;

/// Namespace of the sample.
pub(crate) const NAMESPACE: &str = "learning";
/// Flags that the rollbacks set; the demo plays the kubelet that mounts them.
const FLAGS: [&str; 3] = ["ENABLE_LEARNING", "ENABLE_REAL_TIME_LEARNING", "ENABLE_VOICE_FEEDBACK"];
const READY: Duration = Duration::from_secs(120);

/// Everything that runs.
pub(crate) struct Stage {
    operator: Option<Process>,
    feature: Process,
    pub(crate) prometheus: Prometheus,
    replicas: Vec<String>,
    config: PathBuf,
    logs: PathBuf,
    kubeconfig: PathBuf,
    borrowed: bool,
    mirror: tokio::task::JoinHandle<()>,
    // Last, so that it ends last.
    _plane: Option<ControlPlane>,
}

impl Stage {
    pub(crate) async fn set(story: &Story) -> anyhow::Result<Self> {
        let context = std::env::var("CONTEXT").ok().filter(|context| !context.is_empty());
        let scratch = testbed::target_dir().join(format!("demo-{}", std::process::id()));
        let (config, logs) = (scratch.join("config"), scratch.join("logs"));
        fs::create_dir_all(&config).with_context(|| format!("cannot create {}", config.display()))?;
        for flag in FLAGS {
            fs::write(config.join(flag), "true")?;
        }
        let (plane, kubeconfig) = match &context {
            Some(context) => (None, borrow(context, &scratch)?),
            None => {
                let plane = ControlPlane::start(Options { name: Some("demo".into()), ..Options::default() }).await?;
                let kubeconfig = plane.kubeconfig();
                (Some(plane), kubeconfig)
            }
        };
        story.happened("the control plane is ready");
        let (feature, replicas) = start_feature(&config, &logs).await?;
        let prometheus = start_prometheus(&scratch, &replicas).await?;
        story.happened("Prometheus scrapes three replicas of the learning loop");
        let mirror = tokio::spawn(mirror(kubeconfig.clone(), config.clone()));
        let borrowed = plane.is_none();
        let mut stage = Self {
            operator: None,
            feature,
            prometheus,
            replicas,
            config,
            logs,
            kubeconfig,
            borrowed,
            mirror,
            _plane: plane,
        };
        stage.kubectl(&["apply", "-f", &file("crds")]).await?;
        stage
            .kubectl(&[
                "wait",
                "--for=condition=Established",
                "--timeout=60s",
                "crd/learningrollouts.learningloop.io",
                "crd/learningrollbacks.learningloop.io",
            ])
            .await?;
        stage.kubectl(&["apply", "-f", &file("manifests/samples/workload.yaml")]).await?;
        stage
            .kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Available", "--timeout=120s", "deployment", "--all"])
            .await?;
        stage.start_operator()?;
        stage.kubectl(&["apply", "-f", &file("manifests/samples/demo/learning-rollout.yaml")]).await?;
        story.happened("the operator runs, and the policy with its six triggers is applied");
        Ok(stage)
    }

    /// Starts the operator, or starts it again.
    pub(crate) fn start_operator(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(binary("learning-rollout-operator")?);
        command.args(["--prometheus-url", &self.prometheus.url(), "--listen", "127.0.0.1:0", "--log-format", "pretty"]);
        command.env("KUBECONFIG", &self.kubeconfig);
        self.operator = Some(Process::spawn("operator", command, &self.logs)?);
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill_operator(&mut self) -> anyhow::Result<()> {
        self.operator.take().context("the operator does not run")?.kill()
    }

    /// Fails if a process that should run has ended.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.feature.ensure_running()?;
        self.operator.as_ref().map_or(Ok(()), Process::ensure_running)
    }

    /// Sets a fault of the feature; 0 clears it.
    pub(crate) async fn fault(&self, name: &str, level: f64) -> anyhow::Result<()> {
        let url = format!("http://{}/faults/{name}", self.replicas.first().context("no replica")?);
        let client = reqwest::Client::builder().no_proxy().build()?;
        let response = client.put(url).body(level.to_string()).send().await?;
        if !response.status().is_success() {
            bail!("the learning loop refused the fault {name}: {}", response.status());
        }
        Ok(())
    }

    pub(crate) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        kubectl(&self.kubeconfig, args).await
    }

    /// Runs a verb of the plugin, as `kubectl learning-rollout` would.
    pub(crate) async fn plugin(&self, args: &[&str]) -> anyhow::Result<String> {
        let program = binary("kubectl-learning_rollout")?;
        run(Command::new(program).args(args).env("KUBECONFIG", &self.kubeconfig)).await
    }

    pub(crate) async fn object(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", kind, name, "-n", NAMESPACE, "-o", "json"]).await?)?)
    }

    pub(crate) async fn objects(&self, kind: &str) -> anyhow::Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.kubectl(&["get", kind, "-n", NAMESPACE, "-o", "json"]).await?)?;
        Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    pub(crate) fn prometheus_url(&self) -> String {
        self.prometheus.url()
    }

    /// Leaves nothing behind on a cluster that was here before; the rest ends with this process.
    pub(crate) async fn clear(mut self) -> anyhow::Result<()> {
        self.mirror.abort();
        if self.borrowed {
            self.kubectl(&["delete", "lro,lrb", "--all", "-n", NAMESPACE, "--timeout=60s"]).await?;
            self.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=120s"]).await?;
        }
        if let Some(operator) = self.operator.take() {
            operator.terminate()?;
            operator.wait(Duration::from_secs(10)).await?;
        }
        fs::remove_dir_all(&self.config).ok();
        Ok(())
    }
}

/// A kubeconfig of its own for a context that exists.
fn borrow(context: &str, scratch: &Path) -> anyhow::Result<PathBuf> {
    let output = Command::new(tools::find("controlplane", "kubectl")?)
        .args(["config", "view", "--minify", "--flatten", "--context", context])
        .output()?;
    if !output.status.success() {
        bail!("CONTEXT={context}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let kubeconfig = scratch.join("kubeconfig");
    fs::write(&kubeconfig, output.stdout)?;
    Ok(kubeconfig)
}

async fn start_feature(config: &Path, logs: &Path) -> anyhow::Result<(Process, Vec<String>)> {
    let mut command = Command::new(binary("learning-loop")?);
    command.arg("--config-dir").arg(config);
    for _ in 0..3 {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    let feature = Process::spawn("learning-loop", command, logs)?;
    let replicas = wait::until("the learning loop's three addresses", READY, || async {
        feature.ensure_running()?;
        let log = feature.log();
        let addresses: Vec<String> =
            log.lines().filter_map(|line| line.strip_prefix("listening on ")).map(str::to_owned).collect();
        if addresses.len() == 3 { Ok(addresses) } else { Err(anyhow::anyhow!("{} addresses", addresses.len())) }
    })
    .await?;
    Ok((feature, replicas))
}

async fn start_prometheus(scratch: &Path, replicas: &[String]) -> anyhow::Result<Prometheus> {
    let targets = scratch.join("targets.json");
    fs::write(&targets, serde_json::json!([{"targets": replicas}]).to_string())?;
    let targets = targets.canonicalize()?;
    let config = fs::read_to_string(file("manifests/samples/demo/prometheus.yml"))?
        .replace("rules.yaml", "rules-0.yaml")
        .replace("targets.json", &targets.display().to_string());
    let rules = fs::read_to_string(file("manifests/samples/demo/rules.yaml"))?;
    Prometheus::start(PrometheusOptions {
        name: Some("demo-prometheus".into()),
        config: Some(config),
        rules: vec![rules],
        ..PrometheusOptions::default()
    })
    .await
}

/// Plays the kubelet: what the ConfigMap says is what the feature reads, a second later.
async fn mirror(kubeconfig: PathBuf, config: PathBuf) {
    loop {
        let shown =
            kubectl(&kubeconfig, &["get", "configmap", "learning-loop-config", "-n", NAMESPACE, "-o", "json"]).await;
        if let Ok(map) = shown.and_then(|text| Ok(serde_json::from_str::<Value>(&text)?)) {
            for flag in FLAGS {
                if let Some(value) = map.pointer(&format!("/data/{flag}")).and_then(Value::as_str) {
                    fs::write(config.join(flag), value).ok();
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn kubectl(kubeconfig: &Path, args: &[&str]) -> anyhow::Result<String> {
    run(Command::new(tools::find("controlplane", "kubectl")?).args(args).env("KUBECONFIG", kubeconfig)).await
}

async fn run(command: &mut Command) -> anyhow::Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let mut child = tokio::process::Command::from(std::mem::replace(command, Command::new("true")));
    let output = tokio::time::timeout(READY * 2, child.kill_on_drop(true).output()).await.context(shown.clone())??;
    if !output.status.success() {
        bail!("{shown}: {}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A file of the workspace.
fn file(path: &str) -> String {
    workspace_root().join(path).display().to_string()
}

/// A program that was built beside this one.
fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is not built: use `make demo`", path.display());
    }
    Ok(path)
}
