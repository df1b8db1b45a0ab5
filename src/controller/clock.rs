//! The operator's one clock: a seam, so that tests can shift and script time.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Where the time comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's clocks; the wall clock is shifted by this much.
    System {
        /// Added to the wall clock. For fault tests; zero otherwise.
        shift: SignedDuration,
    },
    /// tokio's clock, which tests can pause: this moment was its start.
    Scripted {
        /// Wall-clock time at `from`.
        start: Timestamp,
        /// When the script began.
        from: tokio::time::Instant,
    },
}

impl Clock {
    /// The wall clock as it is.
    pub const fn system() -> Self {
        Self::System { shift: SignedDuration::ZERO }
    }

    /// Starts now, at a given wall-clock time, and follows tokio's clock.
    pub fn scripted(start: Timestamp) -> Self {
        Self::Scripted { start, from: tokio::time::Instant::now() }
    }

    /// Wall-clock time, to the microsecond: what the API server stores comes back equal.
    pub fn now(&self) -> Timestamp {
        let now = match self {
            Self::System { shift } => Timestamp::now().checked_add(*shift).unwrap_or(Timestamp::MAX),
            Self::Scripted { start, from } => SignedDuration::try_from(from.elapsed())
                .ok()
                .and_then(|past| start.checked_add(past).ok())
                .unwrap_or(*start),
        };
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// Time that never jumps and that runs while the machine is suspended: leases are judged by it.
    pub fn elapsed(&self) -> Duration {
        match self {
            Self::System { .. } => {
                let now = clock_gettime(ClockId::Boottime);
                Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
            }
            Self::Scripted { from, .. } => from.elapsed(),
        }
    }

    /// Waits until a wall-clock time.
    pub async fn sleep_until(&self, at: Timestamp) {
        let wait = at.duration_since(self.now());
        if let Ok(wait) = Duration::try_from(wait) {
            tokio::time::sleep(wait).await;
        }
    }
}
