//! The sources in use, one per configuration, and the counters over all of them.
//!
//! Bounded in number: a tenant who changes a header with every apply makes the operator forget old sources, not grow.
//! Forgetting is harmless: whoever still holds a source goes on using it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{AddressRules, QueryError, SharedSource, Source, SourceConfig};

/// How much the sources may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Questions in flight to one source; further ones wait their turn.
    pub in_flight: usize,
    /// For how long an answer serves those who ask the same at the same time.
    pub remember_for: Duration,
    /// How many samples one source remembers at most (an answer counts for one more than it has).
    pub remember_samples: usize,
    /// How many sources are kept.
    pub sources: usize,
    /// A source that nobody used for this long is dropped, with its connections.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 32,
            remember_for: Duration::from_secs(2),
            remember_samples: 4_096,
            sources: 256,
            // Above twice the common intervals; a trigger's longest interval is an hour, and may reconnect.
            idle: Duration::from_secs(600),
        }
    }
}

/// All sources of this process.
#[derive(Debug)]
pub struct Sources {
    rules: Arc<AddressRules>,
    limits: Limits,
    counters: Arc<Counters>,
    kept: Mutex<HashMap<SourceConfig, Kept>>,
}

#[derive(Debug)]
struct Kept {
    source: Arc<SharedSource>,
    last_used: Instant,
}

impl Sources {
    pub fn new(rules: AddressRules, limits: Limits) -> Self {
        Self {
            rules: Arc::new(rules),
            limits,
            counters: Arc::new(Counters::default()),
            kept: Mutex::new(HashMap::new()),
        }
    }

    /// The source of this configuration. Everyone with an equal configuration gets the same one.
    pub fn get(&self, config: &SourceConfig) -> Result<Arc<SharedSource>, QueryError> {
        if let Some(kept) = self.kept().get_mut(config) {
            kept.last_used = Instant::now();
            return Ok(Arc::clone(&kept.source));
        }
        // Not under the lock: reading the machine's root certificates takes milliseconds. Of two that
        // are made at once, the first to be kept wins.
        let source = Source::new(config, &self.rules).inspect_err(|error| self.counters.count_error(error))?;
        let source = SharedSource::new(source, &self.limits, Arc::clone(&self.counters));
        let mut kept = self.kept();
        let now = Instant::now();
        let source = Arc::clone(
            &kept.entry(config.clone()).or_insert_with(|| Kept { source: Arc::new(source), last_used: now }).source,
        );
        self.drop_unused(&mut kept, now);
        Ok(source)
    }

    /// Drops the sources that nobody used for a while. Also done when a source is added; to be called now
    /// and then, so that connections end even if no source is ever added again.
    pub fn sweep(&self) {
        self.drop_unused(&mut self.kept(), Instant::now());
    }

    /// How many sources are kept.
    pub fn len(&self) -> usize {
        self.kept().len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was asked, shared and failed, over all sources since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn drop_unused(&self, kept: &mut HashMap<SourceConfig, Kept>, now: Instant) {
        kept.retain(|_, kept| {
            Arc::strong_count(&kept.source) > 1 || now.saturating_duration_since(kept.last_used) < self.limits.idle
        });
        while kept.len() > self.limits.sources.max(1) {
            let oldest = kept
                .iter()
                .min_by_key(|(_, kept)| (Arc::strong_count(&kept.source) > 1, kept.last_used))
                .map(|(config, _)| config.clone());
            match oldest {
                Some(config) => kept.remove(&config),
                None => return,
            };
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<SourceConfig, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was asked of all sources. Labels are a fixed set: reasons, never URLs.
#[derive(Debug)]
pub struct Counters {
    sent: AtomicU64,
    shared: AtomicU64,
    errors: Vec<(&'static str, AtomicU64)>,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// Queries sent to a Prometheus.
    pub sent: u64,
    /// Queries answered by another's asking, in flight or a moment ago.
    pub shared: u64,
    /// Failures by reason, every reason present; one that was shared counts once.
    pub errors: Vec<(&'static str, u64)>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            sent: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            errors: QueryError::REASONS.iter().map(|reason| (*reason, AtomicU64::new(0))).collect(),
        }
    }
}

impl Counters {
    pub fn snapshot(&self) -> CountersSnapshot {
        CountersSnapshot {
            sent: self.sent.load(Ordering::Relaxed),
            shared: self.shared.load(Ordering::Relaxed),
            errors: self.errors.iter().map(|(reason, count)| (*reason, count.load(Ordering::Relaxed))).collect(),
        }
    }

    pub(super) fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_shared(&self) {
        self.shared.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_error(&self, error: &QueryError) {
        let reason = error.reason();
        if let Some((_, count)) = self.errors.iter().find(|(known, _)| *known == reason) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl CountersSnapshot {
    /// The failures of one reason.
    pub fn errors_of(&self, reason: &str) -> u64 {
        self.errors.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Auth, Secret, Trust};
    use super::*;

    fn sources(limits: Limits) -> Sources {
        Sources::new(AddressRules::default(), limits)
    }

    fn config(host: usize) -> SourceConfig {
        SourceConfig::new(format!("http://203.0.113.{host}:9090"), Trust::FromObject)
    }

    #[tokio::test]
    async fn equal_configurations_share_a_source_and_others_do_not() {
        let sources = sources(Limits::default());
        let one = sources.get(&config(1)).unwrap();
        assert!(Arc::ptr_eq(&one, &sources.get(&config(1)).unwrap()));

        let mut other_token = config(1);
        other_token.auth = Auth::Bearer(Secret::new("a"));
        let mut other_tenant = config(1);
        other_tenant.headers = vec![("X-Scope-OrgID".to_owned(), Secret::new("b"))];
        for other in [config(2), other_token, other_tenant] {
            assert!(!Arc::ptr_eq(&one, &sources.get(&other).unwrap()));
        }
        assert_eq!(sources.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn sources_are_bounded_and_the_unused_are_dropped() {
        let sources = sources(Limits { sources: 3, ..Limits::default() });
        let held = sources.get(&config(0)).unwrap();
        for host in 1..50 {
            tokio::time::advance(Duration::from_millis(1)).await;
            sources.get(&config(host)).unwrap();
            assert!(sources.len() <= 3);
        }
        // Although the oldest, the one in use is kept.
        assert!(Arc::ptr_eq(&held, &sources.get(&config(0)).unwrap()));

        tokio::time::advance(Duration::from_secs(601)).await;
        sources.sweep();
        assert_eq!(sources.len(), 1);
        drop(held);
        tokio::time::advance(Duration::from_secs(601)).await;
        sources.sweep();
        assert!(sources.is_empty());
    }

    #[test]
    fn a_refused_configuration_is_counted_and_not_kept() {
        let sources = sources(Limits::default());
        let loopback = SourceConfig::new("http://127.0.0.1:1", Trust::FromObject);
        let error = sources.get(&loopback).unwrap_err();
        assert_eq!(error.reason(), "AddressRefused");
        assert!(sources.is_empty());
        let counters = sources.counters().snapshot();
        assert_eq!(counters.errors_of("AddressRefused"), 1);
        assert_eq!(counters.errors.len(), QueryError::REASONS.len());
    }
}
