//! When triggers are asked: spread over the interval, at instants that identical policies share.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::rollback::later;

/// A stable hash (FNV-1a): the same on every machine and in every version.
fn hash(parts: &[&str]) -> u64 {
    parts
        .iter()
        .flat_map(|part| part.bytes().chain([0]))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The instants at which one rollout asks its triggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    interval: Duration,
    offset: Duration,
}

impl Grid {
    /// A grid whose offset follows from what is asked: rollouts that ask the same share it, so that each query is sent
    /// once; others are spread.
    pub fn new(interval: Duration, asked: &[&str]) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { interval, offset: Duration::from_millis(hash(asked) % millis) }
    }

    /// The first instant after `now`.
    pub fn next(&self, now: Timestamp) -> Timestamp {
        let interval = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let offset = i64::try_from(self.offset.as_millis()).unwrap_or(0);
        let past = now.as_millisecond().saturating_sub(offset).div_euclid(interval);
        let next = past.saturating_add(1).saturating_mul(interval).saturating_add(offset);
        Timestamp::from_millisecond(next).unwrap_or(Timestamp::MAX)
    }

    /// The very first instant after a start: soon, but not all at once.
    pub fn first(&self, now: Timestamp) -> Timestamp {
        let spread = self.interval.min(Duration::from_secs(1));
        let millis = u128::from(spread.as_millis() > 0) * (self.offset.as_millis() % spread.as_millis().max(1));
        later(now, Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
    }
}

/// The widest gap between two breaches that still counts as unbroken.
pub fn allowed_hole(interval: Duration, timeout: Duration) -> Duration {
    interval.saturating_mul(2).saturating_add(timeout)
}

/// What `$(namespace)`, `$(name)` and `$(cluster)` stand for in a query.
pub fn expand(query: &str, namespace: &str, name: &str, cluster: &str) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\'', "\\'").replace('\n', "\\n");
    query
        .replace("$(namespace)", &quoted(namespace))
        .replace("$(name)", &quoted(name))
        .replace("$(cluster)", &quoted(cluster))
}

/// How long from one moment to another; zero backwards.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from).max(SignedDuration::ZERO)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_an_interval_apart_and_after_now() {
        let grid = Grid::new(Duration::from_secs(15), &["up"]);
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let first = grid.next(now);
        assert!(first > now && between(now, first) <= Duration::from_secs(15));
        assert_eq!(between(first, grid.next(first)), Duration::from_secs(15));
        assert!(between(now, grid.first(now)) < Duration::from_secs(1));
    }

    #[test]
    fn what_is_asked_decides_the_offset() {
        let offsets: std::collections::BTreeSet<_> =
            (0..1000).map(|n| Grid::new(Duration::from_secs(15), &[&format!("up{n}")]).offset).collect();
        assert!(offsets.len() > 900);
        assert_eq!(Grid::new(Duration::from_secs(15), &["a", "b"]), Grid::new(Duration::from_secs(15), &["a", "b"]));
    }
}
