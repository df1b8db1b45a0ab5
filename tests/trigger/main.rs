//! The meaning of a trigger: tables for what a reader would ask, properties and an exhaustive search for the rest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod baseline;
mod exhaustive;
mod judge;
mod properties;
mod resume;
mod rollout;
mod timer;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use learning_rollout::{
    api::rollout::Trigger,
    decide::{
        timer::Pace,
        trigger::{Answer, Failure, Labels, Readings, Series},
    },
};

/// A trigger from YAML; name, query, rollback and `for` have defaults.
pub fn trigger(yaml: &str) -> Trigger {
    let mut fields: serde_json::Map<String, serde_json::Value> =
        serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    for (field, default) in [("name", "errors"), ("query", "error_rate"), ("rollback", "immediate"), ("for", "60s")] {
        fields.entry(field).or_insert_with(|| default.into());
    }
    serde_json::from_value(fields.into()).unwrap_or_else(|error| panic!("{yaml}: {error}"))
}

/// Seconds after the tests' begin of time.
pub fn at(seconds: f64) -> Timestamp {
    let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    begin.checked_add(SignedDuration::from_millis((seconds * 1000.0).round() as i64)).unwrap()
}

/// Every 10 s, with a time-out of 5 s: the widest hole is 25 s.
pub fn pace() -> Pace {
    Pace { interval: Duration::from_secs(10), timeout: Duration::from_secs(5), evidence_from: None }
}

pub fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap()).map(|(name, value)| (name.into(), value.into())).collect()
}

pub fn vector(series: &[(&str, f64)]) -> Answer {
    Ok(series.iter().map(|(text, value)| Series { labels: labels(text), value: *value }).collect())
}

pub fn scalar(value: f64) -> Answer {
    vector(&[("", value)])
}

pub fn failure(reason: &str) -> Answer {
    Err(Failure { reason: reason.into(), message: "it failed".into() })
}

pub fn value(value: Answer) -> Readings {
    Readings { value, gate: None, baseline: None }
}
