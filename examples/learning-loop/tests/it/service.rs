//! The running service, asked over HTTP as Prometheus and the demo ask it: what it exposes is what the sample rules
//! read, each fault moves its metric, the flags stop the faults, and it ends when told.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Instant;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::manifests::{recorded, selectors};
use crate::process::{PATIENCE, PAUSE, Passed, Service};

/// What the rules read that is not the service's: Prometheus' own, and kube-state-metrics'.
const FOREIGN: [&str; 3] = ["up", "kube_deployment_spec_replicas", "kube_deployment_status_replicas_available"];

const LEARNING: &str = "version=\"learning\"";
const BASELINE: &str = "version=\"baseline\"";

#[tokio::test]
async fn every_series_that_a_rule_reads_is_exposed() {
    let service = Service::start("series", 1, &["--rate", "0"]);
    let scrape = service.scrape(0).await;
    for rules in ["rules.yaml", "demo/rules.yaml"] {
        let mut known = BTreeSet::new();
        for (record, expr) in recorded(rules) {
            for selector in selectors(&expr) {
                let metric = selector.metric.as_str();
                let exposed = scrape.0.keys().any(|series| {
                    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                    let mut wanted = selector.labels.iter();
                    name == metric && wanted.all(|(label, value)| labels.contains(&format!("{label}=\"{value}\"")))
                });
                assert!(
                    exposed || known.contains(metric) || FOREIGN.contains(&metric),
                    "{rules}: {record} reads {selector:?}, which is neither exposed nor recorded above it"
                );
            }
            known.insert(record);
        }
    }
}

#[tokio::test]
async fn the_exposition_is_openmetrics_without_users_and_sessions() {
    let service = Service::start("openmetrics", 1, &["--rate", "1000"]);
    let _ = service.passing(100.0).await;
    let url = format!("http://{}/api/metrics/learning", service.addresses[0]);
    let response = service.client.get(url).send().await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let scrape = service.scrape(0).await;
    assert!(scrape.0.len() < 200, "{} series of one instance", scrape.0.len());
    for label in ["user_id", "session_id", "user=", "session="] {
        assert!(!scrape.0.keys().any(|series| series.contains(label)));
    }
}

#[tokio::test]
async fn each_fault_moves_its_metric_and_clearing_it_ends_it() {
    let service = Service::start("faults", 1, &["--rate", "2000"]);
    let healthy = service.passing(500.0).await;
    let typical = healthy.ratio("learning_response_time_seconds_sum", "learning_response_time_seconds_count", LEARNING);
    let (_, faults) = service.get(0, "/faults").await;
    let faults: BTreeMap<String, Value> = serde_json::from_str(&faults).unwrap();
    // What each is set to, and whether it shows; a fault without a line here fails the test.
    type Shows = fn(&Passed, f64) -> bool;
    let cases: BTreeMap<&str, (&str, Shows)> = BTreeMap::from([
        (
            "errors",
            (
                "0.4",
                (|passed, _| {
                    (passed.ratio("learning_errors_total", "learning_requests_total", LEARNING) - 0.4).abs() < 0.02
                }) as Shows,
            ),
        ),
        (
            "latency",
            ("3", |passed, typical| {
                passed.ratio("learning_response_time_seconds_sum", "learning_response_time_seconds_count", LEARNING)
                    > 2.5 * typical
            }),
        ),
        ("memory-leak", ("{\"level\": 1e9}", |passed, _| passed.more("learning_memory_usage_bytes", "") > 5e7)),
        (
            "accuracy",
            ("0.3", |passed, _| {
                let label = [LEARNING, BASELINE].map(|version| {
                    passed.ratio("learning_accuracy_correct_total", "learning_accuracy_samples_total", version)
                });
                (label[0] / label[1] - 0.7).abs() < 0.05
            }),
        ),
        (
            "operation-failures",
            ("0.4", |passed, _| {
                (passed.ratio("learning_operation_failures_total", "learning_operations_total", "") - 0.4).abs() < 0.02
            }),
        ),
        (
            "baseline-errors",
            ("0.4", |passed, _| passed.ratio("learning_errors_total", "learning_requests_total", BASELINE) > 0.3),
        ),
    ]);
    for name in faults.keys().filter(|name| *name != "down") {
        let (level, shows) = cases.get(name.as_str()).unwrap_or_else(|| panic!("no case for fault {name}"));
        assert!(!shows(&healthy, typical), "{name} shows before it is set");
        service.set_fault(name, level).await;
        let broken = service.passing(500.0).await;
        assert!(shows(&broken, typical), "{name} at {level} does not show");
        service.clear_fault(name).await;
        let mended = service.passing(500.0).await;
        assert!(!shows(&mended, typical), "{name} shows after it is cleared");
    }
}

#[tokio::test]
async fn replicas_go_down_from_the_last_one_and_come_back() {
    let service = Service::start("down", 3, &[]);
    service.set_fault("down", "2").await;
    for path in ["/healthz", "/api/metrics/learning", "/api/analyze"] {
        let mut statuses = Vec::new();
        for replica in 0..3 {
            statuses.push(service.get(replica, path).await.0);
        }
        let up = StatusCode::OK;
        let down = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(statuses, [up, down, down], "{path}");
    }
    let (status, _) = service.send(Method::DELETE, 2, "/faults/down", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(service.get(2, "/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn switching_learning_off_stops_the_faults_and_the_baseline_serves() {
    let service = Service::start("flags", 2, &["--rate", "2000"]);
    for (fault, level) in [("errors", "1"), ("operation-failures", "1"), ("memory-leak", "1e8"), ("down", "1")] {
        service.set_fault(fault, level).await;
    }
    let broken = service.passing(500.0).await;
    assert!(broken.more("learning_errors_total", LEARNING) > 300.0);

    // As kubelet writes it, without a newline.
    service.configure("ENABLE_LEARNING", "false");
    let start = Instant::now();
    while service.scrape(0).await.sum("learning_feature_enabled", "ENABLE_LEARNING") > 0.0 {
        assert!(start.elapsed() < PATIENCE, "the flag is never read");
        tokio::time::sleep(PAUSE).await;
    }
    let off = service.passing(500.0).await;
    assert_eq!(off.more("learning_requests_total", LEARNING), 0.0);
    assert_eq!(off.more("learning_operations_total", ""), 0.0);
    assert_eq!(off.more("learning_errors_total", ""), 0.0);
    assert!(off.more("learning_requests_total", BASELINE) >= 500.0);
    assert!(off.more("learning_memory_usage_bytes", "").abs() < 2e7);
    assert_eq!(service.get(1, "/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_level_or_name_is_refused_with_what_would_be_right() {
    let service = Service::start("refusals", 1, &["--rate", "0"]);
    for (name, body, status, says) in [
        ("errors", "1.5", StatusCode::UNPROCESSABLE_ENTITY, "0 to 1"),
        ("errors", "\"much\"", StatusCode::BAD_REQUEST, "NUMBER"),
        ("errors", "", StatusCode::BAD_REQUEST, "NUMBER"),
        ("down", "0.5", StatusCode::UNPROCESSABLE_ENTITY, "whole"),
        ("eror", "0.5", StatusCode::NOT_FOUND, "errors"),
    ] {
        let path = format!("/faults/{name}");
        let (got, text) = service.send(Method::PUT, 0, &path, Some(body)).await;
        assert_eq!(got, status, "{name} {body}: {text}");
        assert!(text.contains(says), "{name} {body}: {text}");
    }
    let (_, faults) = service.get(0, "/faults").await;
    let faults: BTreeMap<String, Value> = serde_json::from_str(&faults).unwrap();
    assert!(faults.values().all(|fault| fault["active"] == false));
}

#[tokio::test]
async fn it_ends_with_success_when_told() {
    let mut service = Service::start("stop", 2, &[]);
    assert_eq!(service.get(1, "/healthz").await.0, StatusCode::OK);
    let sent = Command::new("kill").args(["-TERM", &service.child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let start = Instant::now();
    loop {
        if let Some(status) = service.child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return;
        }
        assert!(start.elapsed() < PATIENCE, "it does not end");
        tokio::time::sleep(PAUSE).await;
    }
}
