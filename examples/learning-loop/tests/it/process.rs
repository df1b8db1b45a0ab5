//! The service as a child process, and what is read off its exposition.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};

/// How long anything may take to show: far more than it does, for a machine with other work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The service on free ports, with a configuration directory of its own; ended and removed on drop.
pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) addresses: Vec<String>,
    pub(crate) config: PathBuf,
    pub(crate) client: Client,
}

impl Service {
    pub(crate) fn start(test: &str, replicas: usize, args: &[&str]) -> Self {
        // Another test of this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = std::env::temp_dir().join(format!("learning-loop-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_learning-loop"))
            .args(["--listen", &vec!["127.0.0.1:0"; replicas].join(",")])
            .arg("--config-dir")
            .arg(&config)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let addresses = stdout
            .lines()
            .take(replicas)
            .map(|line| {
                let line = line.unwrap();
                let address = line.strip_prefix("listening on ");
                address.unwrap_or_else(|| panic!("{line}")).to_owned()
            })
            .collect::<Vec<_>>();
        assert_eq!(addresses.len(), replicas, "the service ended at its start");
        Self { child, addresses, config, client: Client::builder().timeout(PATIENCE).build().unwrap() }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        replica: usize,
        path: &str,
        body: Option<&str>,
    ) -> (StatusCode, String) {
        let url = format!("http://{}{path}", self.addresses[replica]);
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.body(body.to_owned());
        }
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    pub(crate) async fn get(&self, replica: usize, path: &str) -> (StatusCode, String) {
        self.send(Method::GET, replica, path, None).await
    }

    pub(crate) async fn set_fault(&self, name: &str, level: &str) {
        let path = format!("/faults/{name}");
        let (status, body) = self.send(Method::PUT, 0, &path, Some(level)).await;
        assert_eq!(status, StatusCode::OK, "{name}: {body}");
    }

    pub(crate) async fn clear_fault(&self, name: &str) {
        let path = format!("/faults/{name}");
        let (status, body) = self.send(Method::DELETE, 0, &path, None).await;
        assert_eq!(status, StatusCode::OK, "{name}: {body}");
    }

    pub(crate) fn configure(&self, key: &str, value: &str) {
        std::fs::write(self.config.join(key), value).unwrap();
    }

    pub(crate) async fn scrape(&self, replica: usize) -> Scrape {
        let (status, body) = self.get(replica, "/api/metrics/learning").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        Scrape::parse(&body)
    }

    /// Two scrapes of the first replica with at least `requests` between them.
    pub(crate) async fn passing(&self, requests: f64) -> Passed {
        let before = self.scrape(0).await;
        let start = Instant::now();
        loop {
            let passed = Passed { before: before.clone(), after: self.scrape(0).await };
            if passed.more("learning_requests_total", "") >= requests {
                return passed;
            }
            assert!(start.elapsed() < PATIENCE, "no traffic passes");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.config);
    }
}

/// Every series of an exposition: `name{labels}` and its value.
#[derive(Clone, Debug)]
pub(crate) struct Scrape(pub(crate) BTreeMap<String, f64>);

impl Scrape {
    pub(crate) fn parse(body: &str) -> Self {
        assert!(body.ends_with("# EOF\n"), "cut short: {body}");
        let series = body.lines().filter(|line| !line.starts_with('#'));
        Self(
            series
                .map(|line| {
                    let (name, value) = line.rsplit_once(' ').unwrap();
                    (name.to_owned(), value.parse().unwrap())
                })
                .collect(),
        )
    }

    /// Sum of the series of `metric` whose labels contain `label`.
    pub(crate) fn sum(&self, metric: &str, label: &str) -> f64 {
        self.0
            .iter()
            .filter(|(series, _)| {
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                name == metric && labels.contains(label)
            })
            .map(|(_, value)| value)
            .sum()
    }
}

/// What happened between two scrapes.
pub(crate) struct Passed {
    before: Scrape,
    after: Scrape,
}

impl Passed {
    pub(crate) fn more(&self, metric: &str, label: &str) -> f64 {
        self.after.sum(metric, label) - self.before.sum(metric, label)
    }

    pub(crate) fn ratio(&self, some: &str, all: &str, label: &str) -> f64 {
        self.more(some, label) / self.more(all, label)
    }
}
