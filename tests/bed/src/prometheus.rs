//! A Prometheus of a test's own, new or old, that can be stopped and started again on its port and data.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{BedDir, Port, Process, tools};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// Which server to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrometheusVersion {
    /// The present one.
    #[default]
    V3,
    /// The one of Debian 12, which users still run.
    V2_42,
}

impl PrometheusVersion {
    /// `prometheus` or `promtool` of this version.
    pub fn tool(self, name: &str) -> anyhow::Result<PathBuf> {
        match self {
            Self::V3 => tools::find("prometheus", name),
            Self::V2_42 => tools::find("prometheus-2.42", name),
        }
    }
}

/// What to start. The default scrapes nothing.
#[derive(Clone, Debug)]
pub struct PrometheusOptions {
    pub version: PrometheusVersion,
    /// Names the bed's directory; else the test's thread does.
    pub name: Option<String>,
    /// The whole configuration file. When it is given, intervals, targets and rules are its own affair.
    pub config: Option<String>,
    pub scrape_interval: Duration,
    pub evaluation_interval: Duration,
    /// `job name → host:port`, scraped at /metrics.
    pub targets: Vec<(String, String)>,
    /// Rule files, as their YAML.
    pub rules: Vec<String>,
    /// Samples it holds from the start, in OpenMetrics text with timestamps (seconds), ending in `# EOF`.
    pub samples: Option<String>,
    /// Further flags, such as `--enable-feature=…` or `--web.enable-remote-write-receiver`.
    pub flags: Vec<String>,
}

impl Default for PrometheusOptions {
    fn default() -> Self {
        Self {
            version: PrometheusVersion::default(),
            name: None,
            config: None,
            scrape_interval: Duration::from_millis(250),
            evaluation_interval: Duration::from_millis(250),
            targets: Vec::new(),
            rules: Vec::new(),
            samples: None,
            flags: Vec::new(),
        }
    }
}

impl PrometheusOptions {
    pub fn version(version: PrometheusVersion) -> Self {
        Self { version, ..Self::default() }
    }

    #[must_use]
    pub fn target(mut self, job: impl Into<String>, address: impl Into<String>) -> Self {
        self.targets.push((job.into(), address.into()));
        self
    }

    fn render(&self, rule_files: usize) -> String {
        if let Some(config) = &self.config {
            return config.clone();
        }
        let mut config = format!(
            "global:\n  scrape_interval: {}ms\n  scrape_timeout: {0}ms\n  evaluation_interval: {}ms\n",
            self.scrape_interval.as_millis(),
            self.evaluation_interval.as_millis(),
        );
        config.push_str("rule_files:\n");
        for number in 0..rule_files {
            let _ = writeln!(config, "- rules-{number}.yaml");
        }
        config.push_str("scrape_configs:\n");
        for (job, address) in &self.targets {
            let _ = writeln!(config, "- job_name: {job:?}\n  static_configs:\n  - targets: [{address:?}]");
        }
        config
    }
}

/// A running (or stopped) Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    // Before the directory and the port: fields are dropped in order.
    process: Mutex<Option<Process>>,
    version: PrometheusVersion,
    flags: Vec<String>,
    http: reqwest::Client,
    port: Port,
    dir: BedDir,
}

impl Prometheus {
    /// Starts it and waits until it is ready to answer.
    pub async fn start(options: PrometheusOptions) -> anyhow::Result<Self> {
        crate::install_tls_provider();
        let dir = BedDir::create(options.name.as_deref())?;
        for (number, rules) in options.rules.iter().enumerate() {
            dir.write(&format!("rules-{number}.yaml"), rules)?;
        }
        dir.write("prometheus.yaml", options.render(options.rules.len()))?;
        if let Some(samples) = &options.samples {
            back_fill(options.version, &dir, samples)?;
        }
        let prometheus = Self {
            process: Mutex::new(None),
            version: options.version,
            flags: options.flags,
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?,
            port: Port::reserve()?,
            dir,
        };
        prometheus.start_again().await?;
        Ok(prometheus)
    }

    /// A Prometheus that scrapes nothing and holds `samples`, OpenMetrics text with timestamps.
    pub async fn with_samples(version: PrometheusVersion, samples: impl Into<String>) -> anyhow::Result<Self> {
        Self::start(PrometheusOptions { samples: Some(samples.into()), ..PrometheusOptions::version(version) }).await
    }

    pub fn url(&self) -> String {
        self.port.http()
    }

    pub fn dir(&self) -> &BedDir {
        &self.dir
    }

    /// Its configuration file: to change it, write it and [`Prometheus::reload`].
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("prometheus.yaml")
    }

    /// Stops it as an outage does: at once, connections refused. Its data stays.
    pub fn stop(&self) -> anyhow::Result<()> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        process.map_or(Ok(()), |process| process.kill())
    }

    /// Starts it after [`Prometheus::stop`], on the same port and data, and waits until it is ready.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        let mut command = Command::new(self.version.tool("prometheus")?);
        command
            .arg(format!("--config.file={}", self.config_path().display()))
            .arg(format!("--storage.tsdb.path={}", self.dir.data().display()))
            // Back-filled samples may be as old as a test likes.
            .arg("--storage.tsdb.retention.time=100y")
            .arg(format!("--web.listen-address={}", self.port.address()))
            .arg("--web.enable-lifecycle")
            .args(&self.flags)
            .current_dir(self.dir.path());
        let process = Process::spawn("prometheus", command, &self.dir.logs())?;
        let ready = format!("{}/-/ready", self.url());
        process
            .until_ready("readiness", READY_WITHIN, || async {
                let response = self.http.get(&ready).send().await.map_err(|error| error.to_string())?;
                if response.status().is_success() { Ok(()) } else { Err(response.status().to_string()) }
            })
            .await?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }

    /// SIGSTOP: it accepts connections and answers nothing, until [`Prometheus::thaw`].
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.with_process(Process::stop)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.with_process(Process::cont)
    }

    /// Makes it read its configuration and rules again.
    pub async fn reload(&self) -> anyhow::Result<()> {
        let response = self.http.post(format!("{}/-/reload", self.url())).send().await?;
        if !response.status().is_success() {
            bail!("Prometheus refused its new configuration: {}", response.text().await.unwrap_or_default());
        }
        Ok(())
    }

    /// The `result` of an instant query, now.
    pub async fn query(&self, expr: &str) -> anyhow::Result<Value> {
        self.ask("query", &[("query", expr)]).await
    }

    /// The `result` of an instant query at `time`, in seconds since the epoch.
    pub async fn query_at(&self, expr: &str, time: f64) -> anyhow::Result<Value> {
        self.ask("query", &[("query", expr), ("time", &time.to_string())]).await
    }

    /// The `result` of a range query; times and step in seconds.
    pub async fn query_range(&self, expr: &str, start: f64, end: f64, step: f64) -> anyhow::Result<Value> {
        let [start, end, step] = [start, end, step].map(|seconds| seconds.to_string());
        self.ask("query_range", &[("query", expr), ("start", &start), ("end", &end), ("step", &step)]).await
    }

    /// The number that `expr` is now: a scalar's, or the only series' of a vector. `None` where there is no series.
    pub async fn number(&self, expr: &str) -> anyhow::Result<Option<f64>> {
        let result = self.query(expr).await?;
        let value = match result.as_array().map(Vec::as_slice) {
            Some([]) => return Ok(None),
            Some([one]) if one.is_object() => one.pointer("/value/1"),
            Some([_, scalar]) if scalar.is_string() => Some(scalar),
            _ => bail!("{expr} is not one number but {result}"),
        };
        let text = value.and_then(Value::as_str).with_context(|| format!("{expr} has no value: {result}"))?;
        Ok(Some(text.parse()?))
    }

    async fn ask(&self, endpoint: &str, form: &[(&str, &str)]) -> anyhow::Result<Value> {
        let url = format!("{}/api/v1/{endpoint}", self.url());
        let answer: Value = self.http.post(url).form(form).send().await?.json().await?;
        if answer["status"] != "success" {
            bail!("Prometheus answered {form:?} with {answer}");
        }
        Ok(answer["data"]["result"].clone())
    }

    fn with_process(&self, act: impl FnOnce(&Process) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        act(process.as_ref().context("this Prometheus is stopped")?)
    }
}

/// Writes `samples` as blocks into the data folder of a Prometheus that does not run yet.
fn back_fill(version: PrometheusVersion, dir: &BedDir, samples: &str) -> anyhow::Result<()> {
    let file = dir.write("samples.om", samples)?;
    let output = Command::new(version.tool("promtool")?)
        .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
        .arg(file)
        .arg(dir.data())
        .output()
        .context("cannot run promtool")?;
    if !output.status.success() {
        bail!("promtool refused the samples: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
