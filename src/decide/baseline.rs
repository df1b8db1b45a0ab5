//! Captured baselines: the median of a trigger's own query, taken once while nothing breaches.
//!
//! A regression must not become its own baseline: what was captured stays until the query or window in the spec changes
//! or a person asks for another (`kubectl learning-rollout rebaseline`).

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

use super::{
    instant,
    resume::{Range, RangeSeries},
    trigger::{Cause, Failure},
    words::{self, clip},
};
use crate::api::{
    REBASELINE,
    duration::GoDuration,
    rollout::{BaselineStatus, LearningRolloutStatus, Trigger, TriggerState, TriggerStatus},
};

/// Points a capture asks for at most.
const MAX_POINTS: u32 = 1_000;
/// Points a capture needs at least.
const MIN_POINTS: usize = 3;

/// The captured baseline that values are compared with now. One of another query is none; one of another window, or
/// one that a person wants replaced, serves until its successor has been taken.
pub fn in_force(trigger: &Trigger, query: &str, status: Option<&TriggerStatus>) -> Option<f64> {
    window(trigger)?;
    let captured = status?.baseline.as_ref()?;
    (captured.query == clip(query, QUERY)).then_some(captured.value).filter(|value| value.is_finite())
}

/// The stretch to ask about when a baseline must be taken now; None while there is nothing to take.
///
/// Nothing is taken while a trigger of the rollout breaches or a rollback is in force, and nothing from before the end of
/// the last rollback: that is not how the feature behaves when it is well.
pub fn to_capture(
    trigger: &Trigger,
    query: &str,
    annotations: &BTreeMap<String, String>,
    status: &LearningRolloutStatus,
    interval: Duration,
    now: Timestamp,
) -> Option<Range> {
    let window = window(trigger)?;
    let own = status.triggers.iter().find(|known| known.name == trigger.name);
    if own
        .and_then(|own| own.baseline.as_ref())
        .is_some_and(|captured| is_current(captured, query, window, annotations, now))
        || !is_calm(status)
    {
        return None;
    }
    let end = instant::whole_millis(now);
    let ended = status.last_rollback.as_ref().and_then(|last| last.finished_at.as_ref()).map(|ended| ended.0);
    let start =
        ended.map_or_else(|| instant::before(end, window.get()), |ended| ended.max(instant::before(end, window.get())));
    Some(Range { start: instant::whole_millis(start).min(end), end, step: step(window, interval) })
}

/// Takes the baseline from the answer to a range query of the trigger's query.
///
/// # Errors
/// With the reason why there is none yet: the query failed, has several series, or too few finite values.
pub fn capture(
    trigger: &Trigger,
    query: &str,
    range: &Range,
    answer: &Result<Vec<RangeSeries>, Failure>,
) -> Result<BaselineStatus, Cause> {
    let window = window(trigger).ok_or_else(|| Cause::new("InvalidTrigger", "the trigger has no captured baseline"))?;
    let series = answer.as_ref().map_err(Cause::from)?;
    if let [one, other, ..] = series.as_slice() {
        let message = format!(
            "the query has several series, {} and {} among them, and one baseline: aggregate them, for example with max",
            words::labels(&one.labels),
            words::labels(&other.labels)
        );
        return Err(Cause::new("BaselineAmbiguous", clip(&message, words::TEXT)));
    }
    let mut values: Vec<f64> = series
        .iter()
        .flat_map(|series| &series.points)
        .filter(|(at, value)| (range.start..=range.end).contains(at) && value.is_finite())
        .map(|(_, value)| *value)
        .collect();
    let expected = usize::try_from(window.get().as_nanos() / range.step.as_nanos().max(1)).unwrap_or(usize::MAX);
    let needed = expected.div_ceil(2).max(MIN_POINTS);
    match median(&mut values) {
        Some(value) if values.len() >= needed => {
            let captured_at = Some(MicroTime(range.end));
            Ok(BaselineStatus { value, captured_at, query: clip(query, QUERY), window: Some(window) })
        }
        _ => Err(Cause::new(
            "BaselineNotReady",
            format!("{} of the {needed} finite values that a baseline over {window} needs are there", values.len()),
        )),
    }
}

/// Longest query the schema of a baseline admits.
const QUERY: usize = 4096;

fn window(trigger: &Trigger) -> Option<GoDuration> {
    trigger.baseline.as_ref()?.captured.as_ref().map(|captured| captured.window)
}

/// Is a captured baseline the one that the spec and the people ask for?
fn is_current(
    captured: &BaselineStatus,
    query: &str,
    window: GoDuration,
    annotations: &BTreeMap<String, String>,
    now: Timestamp,
) -> bool {
    // A request from the future would be renewed by every evaluation until then.
    let requested = annotations.get(REBASELINE).and_then(|at| at.parse::<Timestamp>().ok()).filter(|at| *at <= now);
    let superseded = match (&captured.captured_at, requested) {
        (Some(taken), Some(requested)) => requested > taken.0,
        (None, Some(_)) => true,
        (_, None) => false,
    };
    captured.value.is_finite()
        && captured.query == clip(query, QUERY)
        && captured.window.is_none_or(|taken| taken == window)
        && !superseded
}

fn is_calm(status: &LearningRolloutStatus) -> bool {
    let breaching = |known: &TriggerStatus| matches!(known.state, TriggerState::Pending | TriggerState::Firing);
    status.active.is_none() && !status.triggers.iter().any(breaching)
}

fn step(window: GoDuration, interval: Duration) -> Duration {
    // A short window still gets the points it needs.
    (window.get() / MAX_POINTS).max(interval.min(window.get() / 4)).max(Duration::from_millis(100))
}

/// The middle of finite values, or the mean of the two in the middle.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    values.get(middle.checked_sub(1)?).map(|lower| lower / 2.0 + upper / 2.0)
}
