//! Captured baselines: the median over a window, taken once while nothing breaches. A regression must not become its own
//! baseline, so only a person's word replaces one.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

use super::trigger::Unknown;
use crate::api::rollout::{BaselineStatus, Trigger};

/// How many points a window is asked for, at most and at least.
const POINTS: (u32, u32) = (60, 3);

/// The step at which a window is asked.
pub fn step(window: Duration) -> Duration {
    (window / POINTS.0).max(Duration::from_secs(1))
}

/// Is the baseline in status still good for this trigger?
pub fn is_current(
    trigger: &Trigger,
    query: &str,
    status: Option<&BaselineStatus>,
    asked_anew: Option<Timestamp>,
) -> bool {
    let Some(status) = status.filter(|status| status.query == query) else { return false };
    let captured_at = status.captured_at.as_ref().map(|at| at.0);
    trigger.baseline.as_ref().is_some_and(|baseline| baseline.captured.is_some())
        && asked_anew.is_none_or(|asked| captured_at.is_some_and(|at| at >= asked))
}

/// The median of a window's points, once at least half of them are there.
///
/// # Errors
/// When there are too few points, or several series.
pub fn capture(query: &str, window: Duration, series: &[Vec<f64>], now: Timestamp) -> Result<BaselineStatus, Unknown> {
    let points = match series {
        [] => &[][..],
        [points] => points.as_slice(),
        several => {
            let message =
                format!("a captured baseline needs one series, the query returned {}: aggregate it", several.len());
            return Err(Unknown::new("BaselineAmbiguous", message));
        }
    };
    let mut finite: Vec<f64> = points.iter().copied().filter(|value| value.is_finite()).collect();
    let expected = u32::try_from(window.as_millis() / step(window).as_millis().max(1)).unwrap_or(POINTS.0) + 1;
    let needed = usize::try_from((expected / 2).max(POINTS.1)).unwrap_or(usize::MAX);
    if finite.len() < needed {
        let message = format!("{} of at least {needed} points of the window are there", finite.len());
        return Err(Unknown::new("BaselineNotReady", message));
    }
    finite.sort_by(f64::total_cmp);
    let middle = finite.len() / 2;
    let at = |index: usize| finite.get(index).copied().unwrap_or_default();
    let median = if finite.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle - 1), at(middle)) };
    Ok(BaselineStatus { value: median, captured_at: Some(MicroTime(now)), query: query.to_owned() })
}
