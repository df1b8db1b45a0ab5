//! Both versions of Prometheus start, answer, scrape, judge rules, hold back-filled samples and survive an outage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use serde_json::json;
use testbed::{Prometheus, PrometheusOptions, PrometheusVersion, wait};

const LIMIT: Duration = Duration::from_secs(60);

async fn answers(version: PrometheusVersion, build: &str) -> anyhow::Result<()> {
    let prometheus = Prometheus::start(PrometheusOptions::version(version)).await?;
    assert_eq!(prometheus.number("1 + 1").await?, Some(2.0));
    assert_eq!(prometheus.number("vector(7)").await?, Some(7.0));
    assert_eq!(prometheus.number("no_such_series").await?, None);
    assert!(prometheus.query("1 +").await.is_err(), "a parse error is an error");
    let info: serde_json::Value =
        reqwest::get(format!("{}/api/v1/status/buildinfo", prometheus.url())).await?.json().await?;
    let found = info["data"]["version"].as_str().unwrap_or_default();
    assert!(found.starts_with(build), "{found} is not {build}");
    Ok(())
}

#[tokio::test]
async fn prometheus_3_answers() -> anyhow::Result<()> {
    answers(PrometheusVersion::V3, "3.").await
}

#[tokio::test]
async fn prometheus_2_42_answers() -> anyhow::Result<()> {
    answers(PrometheusVersion::V2_42, "2.42.").await
}

#[tokio::test]
async fn holds_back_filled_samples() -> anyhow::Result<()> {
    for version in [PrometheusVersion::V3, PrometheusVersion::V2_42] {
        let samples = "# TYPE errors gauge\n\
                       errors{app=\"a\"} 1 1700000000\nerrors{app=\"a\"} 2 1700000010\nerrors{app=\"a\"} 3 1700000020\n\
                       # EOF\n";
        let prometheus = Prometheus::with_samples(version, samples).await?;
        let result = prometheus.query_at("errors", 1_700_000_010.0).await?;
        assert_eq!(result[0]["value"], json!([1_700_000_010, "2"]), "{version:?}");
        let range = prometheus.query_range("errors", 1_700_000_000.0, 1_700_000_020.0, 10.0).await?;
        assert_eq!(range[0]["values"].as_array().map(Vec::len), Some(3), "{version:?}");
    }
    Ok(())
}

#[tokio::test]
async fn scrapes_judges_rules_and_keeps_its_samples_over_an_outage() -> anyhow::Result<()> {
    // Its own metrics are the nearest target: a first server, scraped by a second.
    let target = Prometheus::start(PrometheusOptions::default()).await?;
    let rules = "groups: [{name: g, rules: [{record: twice, expr: 2 * up}]}]";
    let options = PrometheusOptions { rules: vec![rules.to_owned()], ..PrometheusOptions::default() };
    let prometheus = Prometheus::start(options.target("target", target.url().trim_start_matches("http://"))).await?;
    wait::until("the rule's series", LIMIT, || async { prometheus.number("twice").await.ok().flatten() }).await?;
    assert_eq!(prometheus.number(r#"twice{job="target"}"#).await?, Some(2.0));

    prometheus.stop()?;
    assert!(prometheus.query("up").await.is_err(), "nobody answers while it is down");
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    prometheus.start_again().await?;
    let kept = prometheus.query_at("up", before).await?;
    assert_eq!(kept.as_array().map(Vec::len), Some(1), "the samples from before the outage: {kept}");

    target.stop()?;
    wait::until("the target to be seen down", LIMIT, || async {
        let up = prometheus.number("up").await?;
        anyhow::ensure!(up == Some(0.0), "up is {up:?}");
        Ok(())
    })
    .await?;
    Ok(())
}
