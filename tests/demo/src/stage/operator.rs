//! The operator: the real program, as somebody would run it outside a cluster. It can be killed and started again.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use testbed::{BedDir, Port, Process};

use super::cluster::{Cluster, NAMESPACE};

/// A killed leader's lease lasts 8 s.
const LEADS_WITHIN: Duration = Duration::from_secs(30);

pub(crate) struct Operator {
    process: Process,
    run: Run,
}

/// How it is started.
struct Run {
    kubeconfig: PathBuf,
    prometheus: String,
    logs: PathBuf,
    listen: Port,
    starts: u32,
}

impl Operator {
    pub(crate) async fn start(cluster: &Cluster, prometheus: &str, dir: &BedDir) -> anyhow::Result<Self> {
        let mut run = Run {
            kubeconfig: cluster.kubeconfig().to_owned(),
            prometheus: prometheus.to_owned(),
            logs: dir.logs(),
            listen: Port::reserve()?,
            starts: 0,
        };
        Ok(Self { process: run.start().await?, run })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn ensure_running(&self) -> anyhow::Result<()> {
        self.process.ensure_running()
    }

    /// SIGKILL: it finishes nothing and gives nothing back.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// Starts it after [`Operator::kill`], and waits until it leads.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = self.run.start().await?;
        Ok(())
    }

    /// Asks it to end, and sees to it.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        if self.process.exit_status()?.is_none() {
            self.process.terminate()?;
            // One that does not end is killed by its drop.
            let _ = self.process.wait(Duration::from_secs(10)).await;
        }
        Ok(())
    }
}

impl Run {
    async fn start(&mut self) -> anyhow::Result<Process> {
        self.starts += 1;
        let mut command = Command::new(super::program("learning-rollout-operator")?);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .args(["--prometheus-url", &self.prometheus])
            .args(["--listen", &self.listen.address()])
            .args(["--namespace", NAMESPACE, "--lease-namespace", NAMESPACE])
            .args(["--log-format", "pretty"]);
        let process = Process::spawn(format!("operator-{}", self.starts), command, &self.logs)?;
        process.until_logged("minding the rollouts", LEADS_WITHIN).await?;
        Ok(process)
    }
}
