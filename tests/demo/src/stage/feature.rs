//! The feature: three replicas of the sample learning loop on this machine. kubelet's part is played here: the
//! ConfigMap's keys are written to the folder that the service reads, as a mounted volume has them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use testbed::{BedDir, Port, Process};
use tokio::{task::JoinHandle, time};

use super::cluster::{Cluster, NAMESPACE};

const REPLICAS: usize = 3;
const CONFIG_MAP: &str = "learning-loop-config";

pub(crate) struct Feature {
    volume: JoinHandle<()>,
    process: Process,
    addresses: Vec<String>,
    http: reqwest::Client,
    _ports: Vec<Port>,
}

impl Feature {
    pub(crate) async fn start(cluster: &Cluster, dir: &BedDir) -> anyhow::Result<Self> {
        let ports = (0..REPLICAS).map(|_| Port::reserve()).collect::<anyhow::Result<Vec<_>>>()?;
        let addresses: Vec<String> = ports.iter().map(Port::address).collect();
        let volume = Volume {
            config_maps: Api::namespaced(cluster.client.clone(), NAMESPACE),
            folder: dir.data().join("learning-loop-config"),
        };
        std::fs::create_dir_all(&volume.folder)?;
        volume.sync().await?;
        let mut command = Command::new(super::program("learning-loop")?);
        command.arg("--listen").arg(addresses.join(",")).arg("--config-dir").arg(&volume.folder);
        let process = Process::spawn("learning-loop", command, &dir.logs())?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let feature = Self { volume: tokio::spawn(volume.follow()), process, addresses, http, _ports: ports };
        let url = format!("{}/healthz", feature.url());
        feature
            .process
            .until_ready("an answer", Duration::from_secs(30), || async {
                feature.http.get(&url).send().await?.error_for_status()
            })
            .await?;
        Ok(feature)
    }

    /// `host:port` of every replica.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Of its first replica; faults are common to all.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addresses.first().map(String::as_str).unwrap_or_default())
    }

    pub(crate) async fn break_by(&self, fault: &str, level: f64) -> anyhow::Result<()> {
        self.process.ensure_running()?;
        let request = self.http.put(format!("{}/faults/{fault}", self.url())).body(level.to_string());
        request.send().await?.error_for_status().with_context(|| format!("cannot set the fault {fault}")).map(drop)
    }

    pub(crate) async fn heal(&self, fault: &str) -> anyhow::Result<()> {
        let request = self.http.delete(format!("{}/faults/{fault}", self.url()));
        request.send().await?.error_for_status().with_context(|| format!("cannot clear the fault {fault}")).map(drop)
    }
}

impl Drop for Feature {
    fn drop(&mut self) {
        self.volume.abort();
    }
}

/// A ConfigMap as a folder.
struct Volume {
    config_maps: Api<ConfigMap>,
    folder: PathBuf,
}

impl Volume {
    /// Every second. What cannot be read stays as it is, as in a pod.
    async fn follow(self) {
        let mut tick = time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let _ = time::timeout(Duration::from_secs(5), self.sync()).await;
        }
    }

    async fn sync(&self) -> anyhow::Result<()> {
        let data = self.config_maps.get(CONFIG_MAP).await?.data.unwrap_or_default();
        for (key, value) in &data {
            ensure!(!key.contains('/'), "{key} is no file name");
            // Renamed when whole: a reader finds the old value or the new one.
            let part = self.folder.join(format!(".{key}"));
            std::fs::write(&part, value)?;
            std::fs::rename(&part, self.folder.join(key))?;
        }
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if !data.contains_key(entry.file_name().to_string_lossy().as_ref()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
