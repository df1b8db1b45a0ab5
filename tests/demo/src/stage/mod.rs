//! What the story happens on: a cluster, Prometheus, the sample feature and the operator. It starts and ends them;
//! what is done with them is in the acts.

mod cluster;
mod feature;
mod operator;

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::json;
use testbed::{BedDir, Prometheus, PrometheusOptions, workspace_root};

pub(crate) use self::cluster::{Cluster, NAMESPACE};
pub(crate) use self::{feature::Feature, operator::Operator};
use crate::narrator::Narrator;

/// Everything that runs. Fields are dropped in order: whoever talks to another goes first.
pub(crate) struct Stage {
    pub(crate) operator: Operator,
    pub(crate) feature: Feature,
    pub(crate) prometheus: Prometheus,
    pub(crate) cluster: Cluster,
    dir: BedDir,
}

impl Stage {
    /// Starts all of it, and waits until each part is ready. `None`: `stop` came first, and nothing is left behind.
    pub(crate) async fn set(
        narrator: &Narrator,
        context: Option<&str>,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<Option<Self>> {
        let mut stop = std::pin::pin!(stop);
        narrator.line("The LearningRollout demo: break a feature, watch it being rolled back, put it back.");
        let dir = BedDir::create(Some("demo"))?;
        let cluster = async {
            match context {
                Some(context) => Cluster::of_context(context, &dir).await,
                None => Cluster::start(&dir).await,
            }
        };
        let cluster = tokio::select! {
            cluster = cluster => cluster?,
            () = &mut stop => return Ok(None),
        };
        let filled = tokio::select! {
            filled = Self::fill(narrator, &cluster, &dir) => filled.map(Some),
            () = &mut stop => Ok(None),
        };
        if let Ok(Some((prometheus, feature, operator))) = filled {
            return Ok(Some(Self { operator, feature, prometheus, cluster, dir }));
        }
        // What was made in a cluster of somebody's own must not stay there, whatever ended this.
        let cleaned = cluster.end().await.context("could not clean up");
        filled.and(cleaned).map(|()| None)
    }

    async fn fill(
        narrator: &Narrator,
        cluster: &Cluster,
        dir: &BedDir,
    ) -> anyhow::Result<(Prometheus, Feature, Operator)> {
        narrator.line(&format!("{} is ready.", cluster.describe()));
        for (file, what) in [
            ("crds", "the two kinds, LearningRollout and LearningRollback"),
            ("manifests/samples/workload.yaml", "the feature's Deployments, Services and ConfigMap"),
        ] {
            cluster.apply(&workspace_root().join(file)).await?;
            narrator.line(&format!("kubectl apply -f {file}: {what}."));
        }
        cluster.until_served().await?;
        let feature = Feature::start(cluster, dir).await?;
        let prometheus = start_prometheus(feature.addresses()).await?;
        narrator.line(
            "The feature's metrics come from three replicas of examples/learning-loop on this machine, which follow",
        );
        narrator.output("the ConfigMap as a mounted volume does; Prometheus scrapes them every second.");
        let operator = Operator::start(cluster, &prometheus.url(), dir).await?;
        narrator.line("The operator runs and leads.");
        cluster.apply(&workspace_root().join("manifests/samples/demo/learning-rollout.yaml")).await?;
        narrator.line(
            "kubectl apply -f manifests/samples/demo/learning-rollout.yaml: six triggers, three plans; the shipped",
        );
        narrator.output("sample with seconds in place of minutes.");
        Ok((prometheus, feature, operator))
    }

    /// Where logs are.
    pub(crate) fn places(&self) -> Vec<String> {
        let mut places = vec![format!("{}  the operator's and the feature's logs", shown(&self.dir.logs()))];
        places.push(format!("{}  Prometheus", shown(&self.prometheus.dir().logs())));
        places
            .extend(self.cluster.logs().map(|logs| format!("{}  the control plane, with its audit log", shown(&logs))));
        places
    }

    /// What a person may type while it runs on.
    pub(crate) fn invitations(&self) -> Vec<String> {
        vec![
            format!("export KUBECONFIG={}", self.cluster.kubeconfig().display()),
            format!("export PATH={}:$PATH", self.cluster.path_of_plugin().display()),
            format!("kubectl get lro,lrb -n {NAMESPACE}"),
            format!(
                "curl -X PUT -d 0.3 {}/faults/errors      # break the feature; -X DELETE heals it",
                self.feature.url()
            ),
            "kubectl learning-rollout restore learning-loop -n learning --reason 'found it'".to_owned(),
            format!("{}      # Prometheus", self.prometheus.url()),
        ]
    }

    /// Ends everything, and removes what was made in somebody's own cluster.
    pub(crate) async fn end(self, narrator: &Narrator) -> anyhow::Result<()> {
        let Self { operator, feature, prometheus, cluster, dir: _dir } = self;
        let ended = operator.end().await;
        drop((feature, prometheus));
        // Whatever became of the operator, nothing may stay in somebody's cluster.
        cluster.end().await?;
        ended?;
        narrator.line("Everything has ended.");
        Ok(())
    }
}

/// The demo's Prometheus, scraping `targets`.
async fn start_prometheus(targets: &[String]) -> anyhow::Result<Prometheus> {
    let samples = workspace_root().join("manifests/samples/demo");
    let config = read(&samples.join("prometheus.yml"))?;
    let options = PrometheusOptions {
        name: Some("demo-prometheus".to_owned()),
        config: Some(config),
        ..PrometheusOptions::default()
    };
    let prometheus = Prometheus::start(options).await?;
    // Both are named by the configuration, relative to it.
    prometheus.dir().write("rules.yaml", read(&samples.join("rules.yaml"))?)?;
    prometheus.dir().write("targets.json", json!([{ "targets": targets }]).to_string())?;
    prometheus.reload().await?;
    Ok(prometheus)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A path as people say it: from the workspace's root where it is below that.
fn shown(path: &Path) -> String {
    let root = workspace_root().canonicalize().unwrap_or_default();
    path.strip_prefix(&root).unwrap_or(path).display().to_string()
}

/// A program of this workspace, built beside this one.
fn program(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let path = own_folder()?.join(name);
    ensure!(path.exists(), "{} is missing: `make demo` builds it", path.display());
    Ok(path)
}

fn own_folder() -> anyhow::Result<std::path::PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    Ok(own.parent().context("this program is in no folder")?.to_owned())
}
