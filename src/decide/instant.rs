//! Arithmetic on moments that saturates instead of failing.
//!
//! Moments are kept in whole milliseconds, which is what Prometheus tells apart: a moment that is asked about, journalled
//! and asked about again is the same moment.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The moment without what Prometheus could not tell apart.
pub fn whole_millis(moment: Timestamp) -> Timestamp {
    let nanos = moment.as_nanosecond();
    from_nanos(nanos - nanos.rem_euclid(1_000_000))
}

/// `moment + duration`, rounded up to a millisecond: never earlier than the exact sum.
pub fn after(moment: Timestamp, duration: Duration) -> Timestamp {
    let exact = moment.as_nanosecond().saturating_add(nanos(duration));
    from_nanos(exact + (-exact).rem_euclid(1_000_000))
}

/// `moment - duration`.
pub fn before(moment: Timestamp, duration: Duration) -> Timestamp {
    from_nanos(moment.as_nanosecond().saturating_sub(nanos(duration)))
}

/// How long after `from` the moment `to` is; zero when it is not after it.
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).max(SignedDuration::ZERO).unsigned_abs()
}

/// A moment by its distance from 1970, held within what a timestamp can express.
pub fn from_nanos(nanos: i128) -> Timestamp {
    Timestamp::from_nanosecond(nanos).unwrap_or(if nanos < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// A duration in nanoseconds, held within what arithmetic on timestamps can bear.
pub fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::from(u64::MAX)).min(i128::from(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturates_at_the_ends_of_time() {
        assert_eq!(after(Timestamp::MAX, Duration::MAX), Timestamp::MAX);
        assert_eq!(before(Timestamp::MIN, Duration::MAX), Timestamp::MIN);
        assert_eq!(elapsed(Timestamp::MAX, Timestamp::MIN), Duration::ZERO);
        assert!(elapsed(Timestamp::MIN, Timestamp::MAX) > Duration::from_secs(1 << 35));
        assert_eq!(whole_millis(Timestamp::MAX).subsec_nanosecond() % 1_000_000, 0);
    }

    #[test]
    fn a_sum_is_never_early() {
        let moment: Timestamp = "2026-01-01T00:00:00.001Z".parse().unwrap();
        assert_eq!(after(moment, Duration::from_nanos(1)), "2026-01-01T00:00:00.002Z".parse().unwrap());
        assert_eq!(after(moment, Duration::from_millis(1)), "2026-01-01T00:00:00.002Z".parse().unwrap());
        assert_eq!(
            whole_millis("1969-12-31T23:59:59.9995Z".parse().unwrap()),
            "1969-12-31T23:59:59.999Z".parse().unwrap()
        );
    }
}
