//! What the operator counts about itself. Labels are fixed sets: an unbounded label has cost others gigabytes.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// A class of outcome: `ok`, or the reason of an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Class {
    class: String,
}

/// A type of plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    r#type: String,
}

/// The operator's metrics.
pub struct Metrics {
    registry: Registry,
    synced: AtomicBool,
    evaluations: Family<Class, Counter>,
    rollbacks: Family<Kind, Counter>,
    reaction: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("learning_rollout_operator");
        let (evaluations, rollbacks) = (Family::default(), Family::default());
        let reaction = Histogram::new(exponential_buckets(0.001, 2.0, 14));
        registry.register(
            "trigger_evaluations",
            "Evaluations of a trigger, by class: ok, or why the sample is Unknown",
            evaluations.clone(),
        );
        registry.register("rollbacks_started", "Rollbacks started by a trigger, by type of plan", rollbacks.clone());
        registry.register(
            "reaction_seconds",
            "Time from the answer that completed a trigger's window to the end of the pass that acted on it",
            reaction.clone(),
        );
        Self { registry, synced: AtomicBool::new(false), evaluations, rollbacks, reaction }
    }
}

impl Metrics {
    /// The first lists are complete.
    pub fn set_synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }

    /// Are the first lists complete?
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// Counts one evaluation.
    pub fn evaluated(&self, class: &str) {
        self.evaluations.get_or_create(&Class { class: class.to_owned() }).inc();
    }

    /// Counts one rollback that a trigger started.
    pub fn started(&self, plan_type: crate::api::step::PlanType) {
        self.rollbacks.get_or_create(&Kind { r#type: format!("{plan_type:?}") }).inc();
    }

    /// Records how long a start took.
    pub fn reacted(&self, after: Duration) {
        self.reaction.observe(after.as_secs_f64());
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: writing to a String does not fail.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
