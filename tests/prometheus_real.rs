//! The Prometheus client against real servers: the present one, and the 2.42 that Debian 12 carries. What the
//! scripted server of `prometheus_client` claims about Prometheus' texts is held to the truth here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use learning_rollout::prometheus::{
    AddressRules, Limits, QueryBackend, QueryError, SharedSource, Source, SourceConfig, Sources, Timestamp, Trust,
};
use testbed::{Prometheus, PrometheusOptions, PrometheusVersion};

const START: i64 = 1_700_000_000;

/// Two gauges, ten minutes of them, a sample every 15 s: `load` rises by one each, on two paths.
async fn with_history(version: PrometheusVersion) -> Prometheus {
    let mut text = "# TYPE load gauge\n".to_owned();
    for path in [r#"/a\"\\é"#, "/b"] {
        for n in 0..=40 {
            text.push_str(&format!("load{{path=\"{path}\"}} {n} {}\n", START + n * 15));
        }
    }
    text.push_str("# TYPE other gauge\n");
    for n in 0..=40 {
        text.push_str(&format!("other{{path=\"/b\"}} 7 {}\n", START + n * 15));
    }
    text.push_str("# EOF\n");
    Prometheus::with_samples(version, text).await.unwrap()
}

fn source(prometheus: &Prometheus) -> Source {
    let config = SourceConfig::new(prometheus.url(), Trust::Trusted);
    Source::new(&config, &Arc::new(AddressRules::default())).unwrap()
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(START * 1_000 + milliseconds).unwrap()
}

async fn answers(version: PrometheusVersion) {
    let prometheus = with_history(version).await;
    let source = source(&prometheus);
    let query = async |expr: &str, milliseconds| source.query(expr, at(milliseconds)).await;

    let mut samples = query("load", 300_500).await.unwrap();
    samples.sort_by(|a, b| a.labels.cmp(&b.labels));
    let paths: Vec<&str> = samples.iter().map(|s| s.labels["path"].as_str()).collect();
    assert_eq!(paths, ["/a\"\\é", "/b"]);
    for sample in &samples {
        assert_eq!((sample.value, sample.time), (20.0, at(300_500)));
        assert_eq!(sample.labels.len(), 1, "no name: {:?}", sample.labels);
    }

    // The time asked for decides to the millisecond.
    assert_eq!(query("load", 299_999).await.unwrap()[0].value, 19.0);
    assert_eq!(query("load", 300_000).await.unwrap()[0].value, 20.0);
    let seconds = START as f64 + 300.007;
    assert_eq!(query("time()", 300_007).await.unwrap()[0].value, seconds);

    // Scalars have no labels; nothing there is no error.
    let scalar = query("scalar(other) * 2", 300_000).await.unwrap();
    assert_eq!((scalar[0].value, scalar[0].labels.len()), (14.0, 0));
    assert_eq!(query("absent_metric", 300_000).await, Ok(vec![]));
    assert_eq!(query("load > 1e9", 300_000).await, Ok(vec![]));
    // Beyond the look-back of five minutes there is nothing either.
    assert_eq!(query("load", 600_000 + 300_001).await, Ok(vec![]));

    assert!(query("vector(0) / 0", 0).await.unwrap()[0].value.is_nan());
    assert_eq!(query("vector(1) / 0", 0).await.unwrap()[0].value, f64::INFINITY);
    assert_eq!(query("-1 / 0", 0).await.unwrap()[0].value, f64::NEG_INFINITY);
    assert_eq!(query("vector(1e-300)", 0).await.unwrap()[0].value, 1e-300);
    assert_eq!(query("vector(1.7e308)", 0).await.unwrap()[0].value, 1.7e308);
    assert_eq!(query("1 / 3", 0).await.unwrap()[0].value, 1.0 / 3.0);

    for (expr, reason) in [
        (r#""text""#, "ResultTypeString"),
        ("load[1m]", "ResultTypeMatrix"),
        (r#"{__name__=~"load|other", path="/b"}"#, "DuplicateSeries"),
        // Two series on each side of `on()`.
        ("load / on() load", "ExecutionFailed"),
        ("load{", "BadQuery"),
        ("", "BadQuery"),
        ("no_such_function(load)", "BadQuery"),
        ("rate(load)", "BadQuery"),
    ] {
        let error = query(expr, 300_000).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{expr}: {error}");
    }
    let QueryError::BadQuery { message } = query("sum(load", 0).await.unwrap_err() else {
        panic!("no BadQuery");
    };
    assert!(message.contains("parse error: unclosed left parenthesis"), "{message}");
    assert!(message.starts_with("1:"), "the position comes first: {message}");
    let long = format!("sum({}{{", "very_long_name_".repeat(1_000));
    let error = query(&long, 0).await.unwrap_err().to_string();
    assert!(error.chars().count() < 300, "{error}");

    // More series than a trigger can keep.
    let many = r#"load{path="/b"}"#.to_owned();
    let many =
        (1..=1_001).fold(many, |all, n| format!("{all} or label_replace(vector({n}), \"n\", \"{n}\", \"\", \"\")"));
    let error = query(&many, 300_000).await.unwrap_err();
    assert!(matches!(error, QueryError::TooManySeries { found: 1_002, limit: 1_000 }), "{error:?}");
}

async fn ranges(version: PrometheusVersion) {
    let prometheus = with_history(version).await;
    let source = source(&prometheus);
    let step = Duration::from_secs(15);
    let series = source.query_range(r#"load{path="/b"}"#, at(0), at(60_000), step).await.unwrap();
    let expected: Vec<_> = (0..=4).map(|n| (at(n * 15_000), n as f64)).collect();
    assert_eq!(series.len(), 1);
    assert_eq!(series[0].points, expected, "both ends are there");

    let query =
        async |expr: &str, end, step| source.query_range(expr, at(0), at(end), Duration::from_millis(step)).await;
    assert_eq!(query("absent_metric", 60_000, 15_000).await, Ok(vec![]));
    // A scalar over a range is a matrix too, and steps may be fractions of a second.
    let points = &query("1 / 0", 1_000, 250).await.unwrap()[0].points;
    assert_eq!(points.len(), 5);
    assert_eq!(points[3], (at(750), f64::INFINITY));
    for (expr, end, reason) in [
        ("load{", 60_000, "BadQuery"),
        (r#"{__name__=~"load|other", path="/b"}"#, 60_000, "DuplicateSeries"),
        // More than Prometheus' own limit of 11,000 points: not the query's fault.
        ("load", 20_000_000, "RequestRefused"),
        (r#""text""#, 60_000, "RequestRefused"),
    ] {
        let error = query(expr, end, 1_000).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{expr}: {error}");
    }
}

/// Stopped, started again and frozen: each time the reason is right, and the same client recovers by itself.
async fn outages(version: PrometheusVersion) {
    let prometheus = with_history(version).await;
    let sources = Sources::new(AddressRules::default(), Limits::default());
    let mut config = SourceConfig::new(prometheus.url(), Trust::Trusted);
    config.timeout = Duration::from_secs(2);
    let source: Arc<SharedSource> = sources.get(&config).unwrap();
    let asked = Cell::new(0);
    let query = async || {
        // A time of its own each time, so that nothing is answered from memory.
        asked.set(asked.get() + 1);
        let samples = source.query("load", at(300_000 + asked.get())).await?;
        Ok::<_, QueryError>(samples.len())
    };

    assert_eq!(query().await, Ok(2));
    prometheus.stop().unwrap();
    assert_eq!(query().await.unwrap_err().reason(), "Unreachable");
    prometheus.start_again().await.unwrap();
    assert_eq!(query().await, Ok(2));

    prometheus.freeze().unwrap();
    // A thread of it may answer one or two more before the signal has reached all of them.
    let mut last = query().await;
    for _ in 0..1_000 {
        if last != Ok(2) {
            break;
        }
        last = query().await;
    }
    assert_eq!(last.unwrap_err().reason(), "Timeout");
    prometheus.thaw().unwrap();
    assert_eq!(query().await, Ok(2));

    let counters = sources.counters().snapshot();
    assert_eq!((counters.sent, counters.shared), (asked.get() as u64, 0));
    assert_eq!(counters.errors_of("Unreachable"), 1);
    assert_eq!(counters.errors_of("Timeout"), 1);
}

#[tokio::test]
async fn prometheus_3_answers() {
    answers(PrometheusVersion::V3).await;
}

#[tokio::test]
async fn prometheus_2_42_answers() {
    answers(PrometheusVersion::V2_42).await;
}

#[tokio::test]
async fn prometheus_3_ranges() {
    ranges(PrometheusVersion::V3).await;
}

#[tokio::test]
async fn prometheus_2_42_ranges() {
    ranges(PrometheusVersion::V2_42).await;
}

#[tokio::test]
async fn prometheus_3_outages() {
    outages(PrometheusVersion::V3).await;
}

#[tokio::test]
async fn prometheus_2_42_outages() {
    outages(PrometheusVersion::V2_42).await;
}

/// Only newer servers annotate: a hint that a query may be wrong is let pass, a warning that samples were left
/// out is not.
#[tokio::test]
async fn prometheus_3_hints_and_warnings() {
    let prometheus = with_history(PrometheusVersion::V3).await;
    let source = source(&prometheus);
    let query = async |expr: &str| source.query(expr, at(300_000)).await;

    // "PromQL info: metric might not be a counter"
    let raw = raw_answer(&prometheus, "rate(load[1m])").await;
    assert!(raw["infos"][0].is_string(), "{raw}");
    assert_eq!(query("rate(load[1m])").await.unwrap().len(), 2);

    // "PromQL warning: quantile value should be between 0 and 1"
    let raw = raw_answer(&prometheus, "quantile(2, load)").await;
    assert!(raw["warnings"][0].is_string(), "{raw}");
    assert_eq!(query("quantile(2, load)").await, Err(QueryError::PartialResult { warnings: 1, promql: true }));
}

/// What Prometheus says itself, to show that a test provoked what it meant to.
async fn raw_answer(prometheus: &Prometheus, expr: &str) -> serde_json::Value {
    let url = format!("{}/api/v1/query", prometheus.url());
    let time = (START + 300).to_string();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let form = [("query", expr), ("time", time.as_str())];
    let response = client.post(url).form(&form).send().await.unwrap();
    response.json().await.unwrap()
}

/// A native histogram, scraped from Prometheus itself, is a typed error until a function makes it a number.
#[tokio::test]
async fn prometheus_3_native_histograms() {
    let prometheus = Prometheus::start(PrometheusOptions {
        flags: vec!["--enable-feature=native-histograms".to_owned()],
        ..PrometheusOptions::default()
    })
    .await
    .unwrap();
    let address = prometheus.url().replace("http://", "");
    let config = format!(
        "global: {{scrape_interval: 250ms, scrape_timeout: 250ms, scrape_native_histograms: true}}\n\
         scrape_configs:\n- job_name: itself\n  static_configs:\n  - targets: [{address:?}]\n"
    );
    std::fs::write(prometheus.config_path(), config).unwrap();
    prometheus.reload().await.unwrap();
    let source = source(&prometheus);

    let histogram = r#"prometheus_http_request_duration_seconds{handler="/metrics"}"#;
    let count = format!("histogram_count({histogram})");
    let scraped = async {
        // Prometheus' own clock decides what is there: awaited, not guessed.
        loop {
            match source.query(&count, Timestamp::now()).await.unwrap().first() {
                Some(sample) if sample.value > 0.0 => return,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), scraped)
        .await
        .expect("Prometheus has no native histogram of its own requests");

    let now = Timestamp::now();
    let error = source.query(histogram, now).await.unwrap_err();
    assert_eq!(error, QueryError::NativeHistogram);
    let start = now - Duration::from_secs(1);
    let step = Duration::from_millis(500);
    let error = source.query_range(histogram, start, now, step).await;
    assert_eq!(error, Err(QueryError::NativeHistogram));
}
