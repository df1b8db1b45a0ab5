//! The exposition of one replica: every family, its labels and its buckets.
//!
//! Names are those of the monitoring document, with Prometheus' own suffixes (`_total` is added to counters by the
//! encoder, the unit by its registration). Every label has a fixed set of values and every series exists from the
//! start at 0: a counter that first appears with its first error has no rate over that error. No user and no session
//! is ever a label.

use std::fmt::{self, Write};
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What a scraper is told the body is.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// In seconds. Dense between 0.1 and 0.75, where every target and threshold lies: with the document's own buckets
/// (0.1, 0.2, 0.5, 1, 2, 5) a 95th percentile of 0.25 and one of 0.5 interpolate out of the same bucket.
const BUCKETS: [f64; 17] =
    [0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0];

type FloatGauge = Gauge<f64, AtomicU64>;
type HistogramOf<L> = Family<L, Histogram, fn() -> Histogram>;

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// A label's fixed set of values: the enum, `ALL` of it, and each value as it stands in the exposition.
macro_rules! label_values {
    ($(#[$doc:meta])* $name:ident { $($value:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
        pub(crate) enum $name { $($value),+ }

        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$value),+];

            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text),+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(self.as_str())
            }
        }
    };
}

label_values! {
    /// Which path served a request.
    Version { Learning = "learning", Baseline = "baseline" }
}
label_values! {
    /// What the learning path does besides answering.
    Operation {
        RealTimeLearning = "real_time_learning",
        SessionUpdate = "session_update",
        VoiceFeedback = "voice_feedback",
    }
}
label_values! {
    Pattern { Terminology = "terminology", Structure = "structure", Preference = "preference" }
}
label_values! {
    Confidence { High = "high", Medium = "medium", Low = "low" }
}
label_values! {
    Feedback {
        Confirmation = "confirmation",
        Correction = "correction",
        Suggestion = "suggestion",
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ByVersion {
    pub(crate) version: Version,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ByOperation {
    pub(crate) operation_type: Operation,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ByPattern {
    pub(crate) pattern_type: Pattern,
    pub(crate) confidence_level: Confidence,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ByFeedback {
    pub(crate) feedback_type: Feedback,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ByFlag {
    pub(crate) flag: &'static str,
}

/// One replica's families. Clones of a family share their series, so the registry and the traffic see the same.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<ByVersion, Counter>,
    pub(crate) errors: Family<ByVersion, Counter>,
    pub(crate) response_time: HistogramOf<ByVersion>,
    pub(crate) operations: Family<ByOperation, Counter>,
    pub(crate) operation_failures: Family<ByOperation, Counter>,
    pub(crate) operation_duration: HistogramOf<ByOperation>,
    pub(crate) accuracy_samples: Family<ByVersion, Counter>,
    pub(crate) accuracy_correct: Family<ByVersion, Counter>,
    pub(crate) pattern_applications: Family<ByPattern, Counter>,
    pub(crate) pattern_successes: Family<ByPattern, Counter>,
    pub(crate) patterns_discovered: Counter,
    pub(crate) pattern_quality: FloatGauge,
    pub(crate) voice_feedback: Family<ByFeedback, Counter>,
    pub(crate) voice_feedback_quality: Family<ByFeedback, FloatGauge>,
    pub(crate) sessions_started: Counter,
    pub(crate) sessions_completed: Counter,
    pub(crate) sessions_active: Gauge,
    pub(crate) feature_usage: Counter,
    pub(crate) velocity: FloatGauge,
    pub(crate) satisfaction: FloatGauge,
    pub(crate) memory: FloatGauge,
    pub(crate) database_connections: Gauge,
    pub(crate) feature_enabled: Family<ByFlag, Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            errors: Family::default(),
            response_time: Family::new_with_constructor(histogram),
            operations: Family::default(),
            operation_failures: Family::default(),
            operation_duration: Family::new_with_constructor(histogram),
            accuracy_samples: Family::default(),
            accuracy_correct: Family::default(),
            pattern_applications: Family::default(),
            pattern_successes: Family::default(),
            patterns_discovered: Counter::default(),
            pattern_quality: Gauge::default(),
            voice_feedback: Family::default(),
            voice_feedback_quality: Family::default(),
            sessions_started: Counter::default(),
            sessions_completed: Counter::default(),
            sessions_active: Gauge::default(),
            feature_usage: Counter::default(),
            velocity: Gauge::default(),
            satisfaction: Gauge::default(),
            memory: Gauge::default(),
            database_connections: Gauge::default(),
            feature_enabled: Family::default(),
        };
        metrics.start_at_zero();
        metrics.register_requests();
        metrics.register_learning();
        metrics.register_engagement();
        metrics.register_resources();
        metrics
    }

    /// The exposition as it stands now.
    pub(crate) fn expose(&self) -> Result<String, fmt::Error> {
        let mut body = String::new();
        encode(&mut body, &self.registry)?;
        Ok(body)
    }

    fn start_at_zero(&self) {
        for &version in Version::ALL {
            let by = ByVersion { version };
            drop(self.requests.get_or_create(&by));
            drop(self.errors.get_or_create(&by));
            drop(self.response_time.get_or_create(&by));
            drop(self.accuracy_samples.get_or_create(&by));
            drop(self.accuracy_correct.get_or_create(&by));
        }
        for &operation_type in Operation::ALL {
            let by = ByOperation { operation_type };
            drop(self.operations.get_or_create(&by));
            drop(self.operation_failures.get_or_create(&by));
            drop(self.operation_duration.get_or_create(&by));
        }
        for &pattern_type in Pattern::ALL {
            for &confidence_level in Confidence::ALL {
                let by = ByPattern { pattern_type, confidence_level };
                drop(self.pattern_applications.get_or_create(&by));
                drop(self.pattern_successes.get_or_create(&by));
            }
        }
        for &feedback_type in Feedback::ALL {
            drop(self.voice_feedback.get_or_create(&ByFeedback { feedback_type }));
        }
    }

    fn register_requests(&mut self) {
        let registry = &mut self.registry;
        registry.register("learning_requests", "Requests served, by the path that served them", self.requests.clone());
        registry.register(
            "learning_errors",
            "Requests that failed; a failed learning operation is not one",
            self.errors.clone(),
        );
        registry.register_with_unit(
            "learning_response_time",
            "Time to answer a request",
            Unit::Seconds,
            self.response_time.clone(),
        );
    }

    fn register_learning(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "learning_operations",
            "Learning operations done beside a request, failed ones included",
            self.operations.clone(),
        );
        registry.register(
            "learning_operation_failures",
            "Learning operations that failed; the request they belong to is answered all the same",
            self.operation_failures.clone(),
        );
        registry.register_with_unit(
            "learning_operation_duration",
            "Duration of a learning operation",
            Unit::Seconds,
            self.operation_duration.clone(),
        );
        registry.register(
            "learning_accuracy_samples",
            "Judged analyses; the baseline is run in the shadow of learning, so both are judged on the same profiles",
            self.accuracy_samples.clone(),
        );
        registry.register(
            "learning_accuracy_correct",
            "Judged analyses that were right",
            self.accuracy_correct.clone(),
        );
        registry.register(
            "pattern_applications",
            "Patterns applied, successfully or not",
            self.pattern_applications.clone(),
        );
        registry.register(
            "pattern_application_success",
            "Patterns applied successfully",
            self.pattern_successes.clone(),
        );
        registry.register("patterns_discovered", "Patterns discovered", self.patterns_discovered.clone());
        registry.register(
            "pattern_quality_score",
            "Quality of the known patterns, 0 to 1",
            self.pattern_quality.clone(),
        );
        registry.register("learning_velocity_score", "Improvement per analysed profile", self.velocity.clone());
    }

    fn register_engagement(&mut self) {
        let registry = &mut self.registry;
        registry.register("voice_feedback", "Voice feedback received", self.voice_feedback.clone());
        registry.register(
            "voice_feedback_quality_score",
            "Quality of the latest voice feedback, 0 to 1",
            self.voice_feedback_quality.clone(),
        );
        registry.register("learning_sessions_started", "Learning sessions begun", self.sessions_started.clone());
        registry.register(
            "learning_sessions_completed",
            "Learning sessions that came to their end",
            self.sessions_completed.clone(),
        );
        registry.register("learning_sessions_active", "Learning sessions open now", self.sessions_active.clone());
        registry.register(
            "learning_feature_usage",
            "Requests that used a learning feature",
            self.feature_usage.clone(),
        );
        registry.register(
            "user_satisfaction_score",
            "Satisfaction of the users asked lately, 1 to 5",
            self.satisfaction.clone(),
        );
    }

    fn register_resources(&mut self) {
        let registry = &mut self.registry;
        registry.register_with_unit(
            "learning_memory_usage",
            "Memory held by the learning loop",
            Unit::Bytes,
            self.memory.clone(),
        );
        registry.register(
            "learning_database_connections_active",
            "Open database connections",
            self.database_connections.clone(),
        );
        registry.register(
            "learning_feature_enabled",
            "Feature flags as this replica reads them: 1 on, 0 off",
            self.feature_enabled.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_exists_before_anything_happened() {
        let body = Metrics::new().expose().unwrap();
        for series in [
            "learning_requests_total{version=\"learning\"} 0",
            "learning_errors_total{version=\"baseline\"} 0",
            "learning_operation_failures_total{operation_type=\"voice_feedback\"} 0",
            "learning_accuracy_correct_total{version=\"baseline\"} 0",
            "pattern_application_success_total{pattern_type=\"structure\",confidence_level=\"low\"} 0",
            "learning_response_time_seconds_bucket{le=\"0.25\",version=\"learning\"} 0",
        ] {
            assert!(body.contains(series), "{series} is missing from\n{body}");
        }
    }

    #[test]
    fn names_carry_each_suffix_once() {
        let body = Metrics::new().expose().unwrap();
        for twice in ["_total_total", "_seconds_seconds", "_bytes_bytes"] {
            assert!(!body.contains(twice), "{twice} in\n{body}");
        }
        assert!(body.ends_with("# EOF\n"));
    }
}
