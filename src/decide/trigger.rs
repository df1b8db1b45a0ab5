//! Judging one moment: what Prometheus answered becomes Ok, Breach or Unknown.
//!
//! Stricter than an alerting rule where that matters: a value that says nothing (NaN, an empty answer, an error, a gate
//! that is not met) is Unknown by name and never Ok, because a broken Prometheus must neither start nor clear anything.

use std::collections::BTreeMap;

use super::{
    matching,
    words::{self, clip},
};
use crate::api::rollout::{Baseline, Compare, Comparison, Gate, Trigger};

/// Labels of a series.
pub type Labels = BTreeMap<String, String>;

/// An answer with more series than this is refused: each of them would need a timer.
pub const MAX_SERIES: usize = 100;

/// One series of an instant query's answer. A scalar is a series without labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub value: f64,
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The class of the error in one CamelCase word, such as `Timeout`.
    pub reason: String,
    /// The same for people.
    pub message: String,
}

/// What a query answered.
pub type Answer = Result<Vec<Series>, Failure>;

/// All that was asked for one trigger at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings {
    /// The trigger's query.
    pub value: Answer,
    /// The gate's query, where the trigger has a gate.
    pub gate: Option<Answer>,
    /// The baseline's query, where the trigger has a baseline by query.
    pub baseline: Option<Answer>,
}

/// Why a sample says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// One CamelCase word: `NoData`, `NaN`, `GateNotMet`, `BaselineNotReady`, the class of a query's error…
    pub reason: String,
    /// The same for people.
    pub message: String,
}

impl Cause {
    /// A cause by its reason and message.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

impl From<&Failure> for Cause {
    fn from(failure: &Failure) -> Self {
        Self { reason: words::reason(&failure.reason), message: clip(&failure.message, words::TEXT) }
    }
}

/// What one sample says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    Ok,
    Breach,
    Unknown(Cause),
}

/// One series, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub labels: Labels,
    /// The value that was compared: a ratio or difference where there is a baseline.
    pub value: f64,
    /// The baseline it was compared with, the floor applied.
    pub baseline: Option<f64>,
    pub finding: Finding,
}

/// One moment of a trigger, judged.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// Every series on its own, in the order of their labels; at least one.
    Series(Vec<Judged>),
    /// Nothing is present where `present: true` looks for something.
    Absent,
    /// Nothing can be said of any series.
    Unknown(Cause),
}

/// A comparison that says exactly one thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparator {
    Above(f64),
    Below(f64),
    AtLeast(f64),
    AtMost(f64),
    Present,
}

impl Comparator {
    /// None unless exactly one field is set, and to something that values can be compared with.
    pub fn read(comparison: &Comparison) -> Option<Self> {
        let mut set = [
            comparison.above.map(Self::Above),
            comparison.below.map(Self::Below),
            comparison.at_least.map(Self::AtLeast),
            comparison.at_most.map(Self::AtMost),
            comparison.present.map(|_| Self::Present),
        ]
        .into_iter()
        .flatten();
        match (set.next(), set.next()) {
            (Some(Self::Present), None) if comparison.present != Some(true) => None,
            (Some(only), None) if !only.limit().is_some_and(f64::is_nan) => Some(only),
            _ => None,
        }
    }

    /// The number that values are compared with.
    pub const fn limit(self) -> Option<f64> {
        match self {
            Self::Above(limit) | Self::Below(limit) | Self::AtLeast(limit) | Self::AtMost(limit) => Some(limit),
            Self::Present => None,
        }
    }

    /// Does the comparison hold? NaN says nothing, except that it is present; infinities compare as IEEE 754 says.
    fn holds(self, value: f64) -> Option<bool> {
        let compared = match self {
            Self::Present => return Some(true),
            Self::Above(limit) => value > limit,
            Self::Below(limit) => value < limit,
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        };
        (!value.is_nan()).then_some(compared)
    }
}

/// Judges what was read for a trigger at one moment. `captured` is the captured baseline that is in force.
pub fn judge(trigger: &Trigger, readings: &Readings, captured: Option<f64>) -> Judgement {
    weigh(trigger, readings, captured).unwrap_or_else(Judgement::Unknown)
}

/// Does a comparison hold for every series of an answer? For gates and for checks that are no triggers.
///
/// # Errors
/// When the answer does not say: it failed, is empty or holds NaN.
pub fn check(comparison: &Comparison, answer: &Answer) -> Result<bool, Cause> {
    let comparator = Comparator::read(comparison).ok_or_else(invalid_comparison)?;
    let series = readable(answer)?;
    if series.is_empty() {
        return if comparator == Comparator::Present { Ok(false) } else { Err(no_data("the query")) };
    }
    series.iter().try_fold(true, |holds, one| Ok(holds & comparator.holds(one.value).ok_or_else(|| nan("the query"))?))
}

fn weigh(trigger: &Trigger, readings: &Readings, captured: Option<f64>) -> Result<Judgement, Cause> {
    let comparator = Comparator::read(&trigger.comparison).ok_or_else(invalid_comparison)?;
    if comparator == Comparator::Present && trigger.baseline.is_some() {
        return Err(Cause::new(
            "InvalidTrigger",
            "present compares nothing: a trigger with a baseline needs above, below, atLeast or atMost",
        ));
    }
    let series = readable(&readings.value)?;
    if let Some(gate) = &trigger.gate {
        pass(gate, readings.gate.as_ref())?;
    }
    if series.is_empty() {
        return match comparator {
            Comparator::Present => Ok(Judgement::Absent),
            _ => Err(no_data("the query")),
        };
    }
    let mut judged = match &trigger.baseline {
        None => series.iter().map(|one| judged(comparator, one, one.value, None)).collect(),
        Some(baseline) => {
            against(baseline, comparator, trigger.critical, &series, readings.baseline.as_ref(), captured)?
        }
    };
    judged.sort_by(|one, other| one.labels.cmp(&other.labels));
    match judged.windows(2).find_map(|pair| match pair {
        [one, other] if one.labels == other.labels => Some(words::labels(&one.labels)),
        _ => None,
    }) {
        Some(labels) => {
            Err(Cause::new("DuplicateSeries", clip(&format!("the answer holds {labels} twice"), words::TEXT)))
        }
        None => Ok(Judgement::Series(judged)),
    }
}

/// The series of an answer, if there are any that can be told apart at a bounded cost.
fn readable(answer: &Answer) -> Result<Vec<&Series>, Cause> {
    let series = answer.as_ref().map_err(Cause::from)?;
    if series.len() > MAX_SERIES {
        let message = format!(
            "the answer holds {} series, more than {MAX_SERIES}: aggregate them in the query, for example with sum or max",
            series.len()
        );
        return Err(Cause::new("TooManySeries", message));
    }
    Ok(series.iter().collect())
}

/// Is the gate met?
fn pass(gate: &Gate, answer: Option<&Answer>) -> Result<(), Cause> {
    let failed = |message: String| Cause::new("GateFailed", clip(&message, words::TEXT));
    let comparator =
        Comparator::read(&gate.comparison).ok_or_else(|| failed(format!("gate: {}", invalid_comparison().message)))?;
    let answer = answer.ok_or_else(|| failed("the gate was not asked".to_owned()))?;
    let series = answer.as_ref().map_err(|failure| {
        let cause = Cause::from(failure);
        failed(format!("gate: {}: {}", cause.reason, cause.message))
    })?;
    let not_met = |found: &str| {
        Cause::new("GateNotMet", format!("the gate needs {} and found {found}", words::comparison(&gate.comparison)))
    };
    match series.as_slice() {
        [] => Err(not_met("no series")),
        // Presence is all that is asked: any number of series shows it.
        _ if comparator == Comparator::Present => Ok(()),
        [one] => match comparator.holds(one.value) {
            Some(true) => Ok(()),
            Some(false) => Err(not_met(&words::number(one.value))),
            None => Err(Cause::new("GateNaN", "the gate's value is NaN")),
        },
        several => Err(failed(format!(
            "the gate returned {} series and must return one: aggregate them, for example with sum",
            several.len()
        ))),
    }
}

/// Sets every series against its baseline.
fn against(
    baseline: &Baseline,
    comparator: Comparator,
    critical: bool,
    series: &[&Series],
    answer: Option<&Answer>,
    captured: Option<f64>,
) -> Result<Vec<Judged>, Cause> {
    let bases: Vec<Result<f64, Cause>> = match (&baseline.captured, &baseline.query) {
        (Some(_), None) => {
            let finite = captured.filter(|value| value.is_finite());
            // A critical trigger would rather compare with the floor than not at all.
            let base = finite.or(baseline.floor.filter(|_| critical)).ok_or_else(|| {
                Cause::new("BaselineNotReady", "the baseline has not been captured yet: it needs half of its window of finite values while no trigger breaches")
            })?;
            vec![Ok(base); series.len()]
        }
        (None, Some(_)) => {
            let failed = |why: String| Cause::new("BaselineFailed", clip(&format!("baseline: {why}"), words::TEXT));
            let answer = answer.ok_or_else(|| failed("it was not asked".to_owned()))?;
            let bases = readable(answer).map_err(|cause| failed(format!("{}: {}", cause.reason, cause.message)))?;
            if bases.is_empty() {
                return Err(Cause::new("BaselineNoData", no_data("the baseline").message));
            }
            matching::pair(series, &bases)
        }
        _ => {
            return Err(Cause::new(
                "InvalidTrigger",
                "exactly one of baseline.captured and baseline.query must be set",
            ));
        }
    };
    Ok(series.iter().zip(bases).map(|(one, base)| compare(baseline, comparator, one, base)).collect())
}

/// Sets one series against its baseline.
fn compare(baseline: &Baseline, comparator: Comparator, one: &Series, base: Result<f64, Cause>) -> Judged {
    let unknown = |cause, base| Judged {
        labels: one.labels.clone(),
        value: one.value,
        baseline: base,
        finding: Finding::Unknown(cause),
    };
    let base = match base {
        Ok(base) if base.is_nan() => return unknown(Cause::new("BaselineNaN", "the baseline is NaN"), Some(base)),
        Ok(base) => baseline.floor.map_or(base, |floor| base.max(floor)),
        Err(cause) => return unknown(cause, None),
    };
    match baseline.compare {
        Compare::Ratio if base == 0.0 => unknown(
            Cause::new("BaselineZero", "a ratio to a baseline of 0 says nothing: give the baseline a floor"),
            Some(base),
        ),
        Compare::Ratio => judged(comparator, one, one.value / base, Some(base)),
        Compare::Difference => judged(comparator, one, one.value - base, Some(base)),
    }
}

fn judged(comparator: Comparator, one: &Series, value: f64, baseline: Option<f64>) -> Judged {
    let finding = match comparator.holds(value) {
        Some(true) => Finding::Breach,
        Some(false) => Finding::Ok,
        None => Finding::Unknown(nan("the value")),
    };
    Judged { labels: one.labels.clone(), value, baseline, finding }
}

fn nan(subject: &str) -> Cause {
    Cause::new("NaN", format!("{subject} is NaN, such as 0 divided by 0: a gate can ask for enough traffic"))
}

fn no_data(subject: &str) -> Cause {
    Cause::new("NoData", format!("{subject} returned no series: does the metric exist, and do its labels match?"))
}

fn invalid_comparison() -> Cause {
    Cause::new("InvalidTrigger", "exactly one of above, below, atLeast, atMost and present must be set")
}
