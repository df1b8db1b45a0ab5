//! What the learning loop would do all day, and how a fault changes it.
//!
//! [`Traffic`] is a plain value: `tick` and `request` take flags and faults and move counters. It has no clock and
//! sleeps for nothing (a latency fault is reported, not lived), so the same seed and the same calls give the same
//! exposition. Only [`run`] knows time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::chance::{Noise, Spread};
use crate::faults::{Fault, Faults};
use crate::flags::Flags;
use crate::metrics::{
    ByFeedback, ByFlag, ByOperation, ByPattern, ByVersion, Confidence, Feedback, Metrics, Operation, Pattern, Version,
};

/// Short enough for a scrape every second to see an even flow.
const TICK: Duration = Duration::from_millis(100);

// A healthy day, against the targets of the monitoring document.
const LEARNING_SECONDS: f64 = 0.12;
const BASELINE_SECONDS: f64 = 0.08;
const BASELINE_ACCURACY: f64 = 0.70;
/// Learning is right this much more often than the baseline (target: 15 % and more).
const ACCURACY_IMPROVEMENT: f64 = 0.18;
/// Of 1,000 learning requests one fails by itself, and of 100 operations one: healthy is not spotless. The baseline
/// never fails by itself.
const LEARNING_ERRORS: f64 = 0.001;
const OPERATION_FAILURES: f64 = 0.01;
const PATTERN_SUCCESS: f64 = 0.85;
const PATTERN_DISCOVERY: f64 = 0.02;
const VOICE_FEEDBACK: f64 = 0.3;
const REQUESTS_PER_SESSION: u64 = 10;
const SESSION_COMPLETION: f64 = 0.95;
const MEMORY_BYTES: f64 = 200e6;
/// Garbage that comes and goes: what a rule on growth must not mistake for a leak.
const GARBAGE_BYTES: f64 = 8e6;

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) version: Version,
    pub(crate) failed: bool,
    pub(crate) seconds: f64,
}

/// Every share that is spread evenly needs a memory of its own.
#[derive(Debug, Default)]
struct Spreads {
    requests: Spread,
    asks_learning: Spread,
    weight: Spread,
    learning_errors: Spread,
    baseline_errors: Spread,
    operation_failures: Spread,
    learning_correct: Spread,
    baseline_correct: Spread,
    pattern_success: Spread,
    pattern_discovery: Spread,
    voice_feedback: Spread,
    session_completion: Spread,
}

/// One replica: its exposition and the little state that is its own.
struct Replica {
    metrics: Metrics,
    leaked: f64,
    session_requests: u64,
}

/// The state of the whole pretended service.
pub(crate) struct Traffic {
    replicas: Vec<Replica>,
    faults: Faults,
    learning_share: f64,
    spreads: Spreads,
    noise: Noise,
    turn: usize,
}

impl Traffic {
    pub(crate) fn new(replicas: usize, faults: Faults, learning_share: f64, seed: u64) -> Self {
        let replicas =
            (0..replicas).map(|_| Replica { metrics: Metrics::new(), leaked: 0.0, session_requests: 0 }).collect();
        let mut traffic =
            Self { replicas, faults, learning_share, spreads: Spreads::default(), noise: Noise::new(seed), turn: 0 };
        // A gauge that begins at 0 would be an outage of its own (no database connection) until the first tick.
        traffic.settle(Flags::default(), 0.0);
        traffic
    }

    /// Whether a replica answers its health check and its scrape. The `down` fault is the learning path's doing: with
    /// learning off everything is up.
    pub(crate) fn is_up(&self, replica: usize, flags: Flags) -> bool {
        let down = if flags.learning { self.faults.level(Fault::Down) } else { 0.0 };
        ((self.replicas.len().saturating_sub(replica)) as f64) > down
    }

    pub(crate) fn expose(&self, replica: usize) -> Option<Result<String, std::fmt::Error>> {
        self.replicas.get(replica).map(|replica| replica.metrics.expose())
    }

    /// Lets `seconds` pass with `rate` requests a second, handed to the replicas that are up in turn.
    pub(crate) fn tick(&mut self, flags: Flags, rate: f64, seconds: f64) {
        self.settle(flags, seconds);
        for _ in 0..self.spreads.requests.due(rate * seconds) {
            let asks_learning = self.spreads.asks_learning.hit(self.learning_share);
            let up: Vec<usize> = (0..self.replicas.len()).filter(|replica| self.is_up(*replica, flags)).collect();
            self.turn = self.turn.wrapping_add(1);
            if let Some(replica) = up.get(self.turn.checked_rem(up.len()).unwrap_or_default()) {
                self.request(*replica, flags, asks_learning);
            }
        }
    }

    /// Serves one request on `replica`.
    pub(crate) fn request(&mut self, replica: usize, flags: Flags, asks_learning: bool) -> Outcome {
        let learning =
            asks_learning && flags.learning && self.spreads.weight.hit(f64::from(flags.learning_weight) / 100.0);
        let (version, typical, failed) = if learning {
            let share = self.faults.level(Fault::Errors).max(LEARNING_ERRORS);
            let typical = LEARNING_SECONDS * self.faults.level(Fault::Latency);
            (Version::Learning, typical, self.spreads.learning_errors.hit(share))
        } else {
            let share = self.faults.level(Fault::BaselineErrors);
            (Version::Baseline, BASELINE_SECONDS, self.spreads.baseline_errors.hit(share))
        };
        let seconds = self.noise.duration(typical);
        if let Some(on) = self.replicas.get_mut(replica) {
            let by = ByVersion { version };
            on.metrics.requests.get_or_create(&by).inc();
            on.metrics.response_time.get_or_create(&by).observe(seconds);
            if failed {
                on.metrics.errors.get_or_create(&by).inc();
            }
            if learning {
                let mut beside =
                    Beside { faults: &self.faults, flags, spreads: &mut self.spreads, noise: &mut self.noise };
                beside.learn(on);
            }
        }
        Outcome { version, failed, seconds }
    }

    /// What moves by itself: gauges, and the leak while the learning path that leaks is in use.
    fn settle(&mut self, flags: Flags, seconds: f64) {
        let leak = if flags.learning { self.faults.level(Fault::MemoryLeak) } else { 0.0 };
        let leaking = self.faults.show(Fault::MemoryLeak).active;
        for replica in &mut self.replicas {
            // Clearing the fault stands for the restart that a leak ends with.
            replica.leaked = if leaking { replica.leaked + leak * seconds } else { 0.0 };
            let garbage = GARBAGE_BYTES * self.noise.unit();
            replica.metrics.memory.set((MEMORY_BYTES + garbage + replica.leaked).floor());
            replica.metrics.database_connections.set(5);
            replica.metrics.pattern_quality.set(self.noise.around(0.82, 0.03));
            replica.metrics.velocity.set(self.noise.around(0.06, 0.01));
            replica.metrics.satisfaction.set(self.noise.around(4.3, 0.1));
            for (flag, on) in flags.switches() {
                replica.metrics.feature_enabled.get_or_create(&ByFlag { flag }).set(i64::from(on));
            }
            if !flags.learning {
                replica.session_requests = 0;
                replica.metrics.sessions_active.set(0);
            }
        }
    }
}

/// What the learning path does beside answering a request.
struct Beside<'a> {
    faults: &'a Faults,
    flags: Flags,
    spreads: &'a mut Spreads,
    noise: &'a mut Noise,
}

impl Beside<'_> {
    fn learn(&mut self, replica: &mut Replica) {
        replica.metrics.feature_usage.inc();
        self.session(replica);
        self.judge(&replica.metrics);
        self.apply_pattern(&replica.metrics);
        if self.flags.real_time_learning {
            self.operate(&replica.metrics, Operation::RealTimeLearning, 0.11);
            self.operate(&replica.metrics, Operation::SessionUpdate, 0.05);
            if self.spreads.pattern_discovery.hit(PATTERN_DISCOVERY) {
                replica.metrics.patterns_discovered.inc();
            }
        }
        if self.flags.voice_feedback && self.spreads.voice_feedback.hit(VOICE_FEEDBACK) {
            self.operate(&replica.metrics, Operation::VoiceFeedback, 0.3);
            if let Some(feedback_type) = pick(Feedback::ALL, self.noise.unit()) {
                let by = ByFeedback { feedback_type };
                replica.metrics.voice_feedback.get_or_create(&by).inc();
                replica.metrics.voice_feedback_quality.get_or_create(&by).set(self.noise.around(0.88, 0.05));
            }
        }
    }

    /// A session is a run of requests on one replica.
    fn session(&mut self, replica: &mut Replica) {
        if replica.session_requests == 0 {
            replica.metrics.sessions_started.inc();
            replica.metrics.sessions_active.set(1);
        }
        replica.session_requests += 1;
        if replica.session_requests == REQUESTS_PER_SESSION {
            replica.session_requests = 0;
            replica.metrics.sessions_active.set(0);
            if self.spreads.session_completion.hit(SESSION_COMPLETION) {
                replica.metrics.sessions_completed.inc();
            }
        }
    }

    /// Both models on the same profile, as the document's sessions compare them.
    fn judge(&mut self, metrics: &Metrics) {
        let shown = self.faults.show(Fault::Accuracy);
        let improvement = if shown.active { -shown.level } else { ACCURACY_IMPROVEMENT };
        let learning = self.spreads.learning_correct.hit(BASELINE_ACCURACY * (1.0 + improvement));
        let baseline = self.spreads.baseline_correct.hit(BASELINE_ACCURACY);
        for (version, correct) in [(Version::Learning, learning), (Version::Baseline, baseline)] {
            let by = ByVersion { version };
            metrics.accuracy_samples.get_or_create(&by).inc();
            if correct {
                metrics.accuracy_correct.get_or_create(&by).inc();
            }
        }
    }

    fn apply_pattern(&mut self, metrics: &Metrics) {
        let pattern = pick(Pattern::ALL, self.noise.unit());
        let confidence = pick(Confidence::ALL, self.noise.unit());
        if let (Some(pattern_type), Some(confidence_level)) = (pattern, confidence) {
            let by = ByPattern { pattern_type, confidence_level };
            metrics.pattern_applications.get_or_create(&by).inc();
            if self.spreads.pattern_success.hit(PATTERN_SUCCESS) {
                metrics.pattern_successes.get_or_create(&by).inc();
            }
        }
    }

    fn operate(&mut self, metrics: &Metrics, operation_type: Operation, typical: f64) {
        let by = ByOperation { operation_type };
        let seconds = self.noise.duration(typical * self.faults.level(Fault::Latency));
        let share = self.faults.level(Fault::OperationFailures).max(OPERATION_FAILURES);
        metrics.operations.get_or_create(&by).inc();
        metrics.operation_duration.get_or_create(&by).observe(seconds);
        if self.spreads.operation_failures.hit(share) {
            metrics.operation_failures.get_or_create(&by).inc();
        }
    }
}

/// The element at `unit` (0 to 1) of the way through.
fn pick<T: Copy>(from: &[T], unit: f64) -> Option<T> {
    from.get((unit * from.len() as f64) as usize).copied()
}

/// Drives the traffic in real time until dropped. A tick that comes late is not made up for: after a suspended
/// machine wakes there is no burst.
pub(crate) async fn run(
    traffic: Arc<Mutex<Traffic>>,
    flags: watch::Receiver<Flags>,
    rate: u32,
) -> std::convert::Infallible {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        let now = *flags.borrow();
        traffic.lock().unwrap_or_else(PoisonError::into_inner).tick(now, f64::from(rate), TICK.as_secs_f64());
    }
}

#[cfg(test)]
#[path = "traffic_tests.rs"]
mod tests;
