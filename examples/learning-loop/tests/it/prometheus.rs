//! The demo's files put together as the demo does it: the service, a real Prometheus with the demo's configuration and
//! rules, and the rollout's triggers asked of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};

use crate::manifests::{list, sample, string, tool, yaml};
use crate::process::{PATIENCE, Service};

/// What the demo captures its latency baseline at, taken here once the service is seen healthy.
type Baselines = BTreeMap<String, f64>;

/// A Prometheus in a directory of its own, ended and removed on drop.
struct Prometheus {
    child: Child,
    dir: PathBuf,
    url: String,
    client: Client,
}

impl Prometheus {
    fn start(targets: &[String]) -> Self {
        let dir = std::env::temp_dir().join(format!("learning-loop-prometheus-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for file in ["prometheus.yml", "rules.yaml"] {
            std::fs::copy(sample("demo").join(file), dir.join(file)).unwrap();
        }
        let targets = json!([{ "targets": targets }]).to_string();
        std::fs::write(dir.join("targets.json"), targets).unwrap();
        let mut child = Command::new(tool("prometheus"))
            .current_dir(&dir)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let address = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                said.push_str(&line);
                said.push('\n');
                let (_, address) = line.split_once("Listening on")?.1.split_once("address=")?;
                Some(address.split_whitespace().next()?.to_owned())
            })
            .unwrap_or_else(|| panic!("Prometheus ended at its start:\n{said}"));
        // A full pipe would stop it.
        std::thread::spawn(move || log.for_each(drop));
        Self {
            child,
            dir,
            url: format!("http://{address}/api/v1/query"),
            client: Client::builder().timeout(PATIENCE).build().unwrap(),
        }
    }

    /// The one value of `query`, if it has one that is a number.
    async fn value(&self, query: &str) -> Option<f64> {
        // A PromQL query needs escaping in a URL; a form does it.
        let request = self.client.post(&self.url).form(&[("query", query)]);
        let response = request.send().await.unwrap();
        // Not ready yet: it serves before it has read its storage.
        if response.status() == 503 {
            return None;
        }
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let result = answer["data"]["result"].as_array().unwrap();
        assert!(result.len() <= 1, "{query} has several series: {answer}");
        let value: f64 = result.first()?["value"][1].as_str()?.parse().unwrap();
        Some(value).filter(|value| !value.is_nan())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn holds(comparison: &Value, value: f64) -> bool {
    let number = |key: &str| comparison[key].as_f64();
    number("above").is_some_and(|limit| value > limit)
        || number("below").is_some_and(|limit| value < limit)
        || number("atLeast").is_some_and(|limit| value >= limit)
}

/// Each trigger of the demo's rollout: Some(breaching), or None where there is nothing to judge.
async fn judge(prometheus: &Prometheus, baselines: &Baselines) -> BTreeMap<String, Option<bool>> {
    let mut judged = BTreeMap::new();
    for trigger in list(&yaml("demo/learning-rollout.yaml")["spec"], "triggers") {
        let name = string(&trigger, "name");
        let trigger: Value = serde_json::to_value(trigger).unwrap();
        let query = |part: &Value| part["query"].as_str().map(str::to_owned);
        let enough = match query(&trigger["gate"]) {
            Some(gate) => prometheus.value(&gate).await.is_some_and(|value| holds(&trigger["gate"], value)),
            None => true,
        };
        let value = prometheus.value(&query(&trigger).unwrap()).await;
        let value = match (&trigger["baseline"], baselines.get(&name)) {
            (Value::Null, _) => value,
            (baseline, Some(captured)) => value.map(|value| value / captured.max(baseline["floor"].as_f64().unwrap())),
            (_, None) => None,
        };
        let breaches = value.map(|value| holds(&trigger, value)).filter(|_| enough);
        judged.insert(name, breaches);
    }
    judged
}

/// Asks until every trigger is judged as `wanted`.
async fn until(prometheus: &Prometheus, baselines: &Baselines, wanted: Option<bool>, what: &str) {
    let start = Instant::now();
    loop {
        let judged = judge(prometheus, baselines).await;
        if judged.values().all(|breaches| *breaches == wanted || (wanted == Some(false) && breaches.is_none())) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: {judged:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn every_trigger_of_the_demo_tells_broken_from_healthy() {
    let service = Service::start("demo", 3, &[]);
    let prometheus = Prometheus::start(&service.addresses);

    // The growth of memory is the last that can be judged: it needs a past.
    let start = Instant::now();
    let mut baselines = Baselines::new();
    loop {
        if let Some(captured) = prometheus.value("learning:response_time_95th").await {
            baselines.insert("response-time-regression".to_owned(), captured);
        }
        let judged = judge(&prometheus, &baselines).await;
        assert!(!judged.values().any(|breaches| *breaches == Some(true)), "a healthy service breaches: {judged:?}");
        if judged.values().all(Option::is_some) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "not to be judged: {judged:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    for (fault, level) in [
        ("errors", "0.3"),
        ("latency", "3"),
        ("memory-leak", "1e8"),
        ("accuracy", "0.2"),
        ("operation-failures", "0.5"),
        ("down", "1"),
    ] {
        service.set_fault(fault, level).await;
    }
    until(&prometheus, &baselines, Some(true), "broken").await;

    service.configure("ENABLE_LEARNING", "false");
    until(&prometheus, &baselines, Some(false), "switched off").await;
    assert_eq!(prometheus.value("baseline:error_rate").await, Some(0.0));
}
