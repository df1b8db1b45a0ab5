//! After a restart: what happened to a pending trigger while nobody watched?
//!
//! The status says that a trigger was pending and since when; Prometheus says what there was to see in the meantime.
//! The answers to range queries go through the same judge and the same timer as if they had been witnessed, so down-time
//! by itself proves nothing: where Prometheus has no points there is a hole, and where it has an Ok the run is over.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::jiff::Timestamp;

use super::{
    instant,
    timer::{Pace, Standing, Timer},
    trigger::{self, Labels, MAX_SERIES, Readings, Series},
};
use crate::api::rollout::Trigger;

/// Points of one series that are asked for at most; Prometheus refuses more than 11,000.
const MAX_POINTS: u32 = 10_000;

/// One series of a range query's answer. A scalar is a series without labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeSeries {
    pub labels: Labels,
    /// In any order.
    pub points: Vec<(Timestamp, f64)>,
}

/// A stretch of time to ask about: `start`, `start + step`, … up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: Timestamp,
    pub end: Timestamp,
    pub step: Duration,
}

/// The answers to the range queries of one trigger, which must all have succeeded: after a failure the timer keeps what
/// it carries, and the range is asked again with the next evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeReadings {
    pub value: Vec<RangeSeries>,
    pub gate: Option<Vec<RangeSeries>>,
    pub baseline: Option<Vec<RangeSeries>>,
}

impl Range {
    /// The stretch from `since` to `now`. The step is the interval, wider only where that would be too many points, and
    /// never wider than the hole that breaks a run; what then is still too much is left out at the beginning.
    pub fn to_fill(since: Timestamp, now: Timestamp, pace: &Pace) -> Self {
        let end = instant::whole_millis(now);
        let start = instant::whole_millis(since).min(end);
        let step = whole_millis_up(instant::elapsed(start, end) / MAX_POINTS)
            .clamp(pace.interval.min(pace.hole()), pace.hole())
            .max(Duration::from_millis(1));
        let start = start.max(instant::before(end, step.saturating_mul(MAX_POINTS)));
        Self { start, end, step }
    }

    /// The moments of the range.
    pub fn moments(&self) -> impl Iterator<Item = Timestamp> {
        let (start, step) = (self.start.as_nanosecond(), instant::nanos(self.step).max(1_000_000));
        let count = (self.end.as_nanosecond() - start).div_euclid(step).clamp(-1, i128::from(MAX_POINTS));
        (0..=count).map(move |position| instant::from_nanos(start + position * step))
    }

    /// What an instant query would have answered at each moment of the range.
    pub fn readings(&self, readings: RangeReadings) -> Vec<(Timestamp, Readings)> {
        let mut value = by_moment(readings.value);
        let mut gate = readings.gate.map(by_moment);
        let mut baseline = readings.baseline.map(by_moment);
        let mut at = |moment| Readings {
            value: Ok(value.remove(&moment).unwrap_or_default()),
            gate: gate.as_mut().map(|gate| Ok(gate.remove(&moment).unwrap_or_default())),
            baseline: baseline.as_mut().map(|baseline| Ok(baseline.remove(&moment).unwrap_or_default())),
        };
        self.moments().map(|moment| (moment, at(moment))).collect()
    }
}

/// Fills in what the timer did not witness. The standing is for the status only: a conviction needs a live sample.
pub fn resume(
    timer: &mut Timer,
    trigger: &Trigger,
    query: &str,
    captured: Option<f64>,
    range: &Range,
    readings: RangeReadings,
    pace: &Pace,
) -> Standing {
    timer.reset();
    let mut standing = Standing::default();
    for (at, readings) in range.readings(readings) {
        let judgement = trigger::judge(trigger, &readings, captured);
        standing = timer.observe(trigger, query, &judgement, at, pace);
    }
    Standing { conviction: None, ..standing }
}

/// The series of each moment. One more than may be judged is kept, so that the judge can say so.
fn by_moment(series: Vec<RangeSeries>) -> BTreeMap<Timestamp, Vec<Series>> {
    let mut moments: BTreeMap<Timestamp, Vec<Series>> = BTreeMap::new();
    for RangeSeries { labels, points } in series {
        for (at, value) in points {
            let present = moments.entry(instant::whole_millis(at)).or_default();
            if present.len() <= MAX_SERIES {
                present.push(Series { labels: labels.clone(), value });
            }
        }
    }
    moments
}

fn whole_millis_up(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}
