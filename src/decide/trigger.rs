//! One moment of one trigger: what the answers to its queries say.
//!
//! Prometheus's semantics where they are right, stricter where they are dangerous: whatever cannot be judged is Unknown
//! and never a breach.

use std::{cmp::Ordering, collections::BTreeMap};

use crate::api::rollout::{Compare, Comparison, Trigger};

/// Most series a trigger may have; more is a query that forgot to aggregate.
pub const MAX_SERIES: usize = 100;

/// Labels of a series, without its name.
pub type Labels = BTreeMap<String, String>;

/// One series at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Its labels; none for a scalar.
    pub labels: Labels,
    /// Its value; may be NaN or infinite.
    pub value: f64,
}

/// Why something cannot be judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// One CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Unknown {
    /// A reason and a message.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// The answer to one query.
pub type Answer = Result<Vec<Reading>, Unknown>;

/// The answers to all queries of a trigger, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    /// Of `query`.
    pub value: Answer,
    /// Of `gate.query`, where there is a gate.
    pub gate: Option<Answer>,
    /// Of `baseline.query`, where there is one.
    pub baseline: Option<Answer>,
}

/// What one series says.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Its labels.
    pub labels: Labels,
    /// What was compared: the value, or what the baseline made of it.
    pub compared: f64,
    /// The baseline it was set against.
    pub baseline: Option<f64>,
    /// Ok, Breach or Unknown.
    pub verdict: Verdict,
}

/// What a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The comparison does not hold.
    Ok,
    /// It holds.
    Breach,
    /// It cannot be judged: NaN.
    Unknown,
}

/// What a moment says.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// Each series by itself. A series that is missing says nothing.
    Series(Vec<Judged>),
    /// All is well, and nothing that was pending counts any more: `present` with an empty answer.
    Clear,
    /// Nothing can be said.
    Unknown(Unknown),
}

/// A condition in words, such as `> 0.05` or `ratio to baseline >= 2`.
pub fn describe(trigger: &Trigger) -> String {
    let what = match &trigger.baseline {
        Some(baseline) if baseline.compare == Compare::Ratio => "ratio to baseline ",
        Some(_) => "difference to baseline ",
        None => "",
    };
    format!("{what}{}", in_words(&trigger.comparison))
}

/// A comparison in words.
pub fn in_words(comparison: &Comparison) -> String {
    let Comparison { above, below, at_least, at_most, present } = comparison;
    match (above, below, at_least, at_most, present) {
        (Some(limit), ..) => format!("> {limit}"),
        (_, Some(limit), ..) => format!("< {limit}"),
        (_, _, Some(limit), ..) => format!(">= {limit}"),
        (_, _, _, Some(limit), _) => format!("<= {limit}"),
        _ => "is present".to_owned(),
    }
}

/// Does a value hold against a comparison? `None` for NaN, or where not exactly one comparator is set.
pub fn compare(comparison: &Comparison, value: f64) -> Option<bool> {
    let Comparison { above, below, at_least, at_most, present } = comparison;
    let set = [above.is_some(), below.is_some(), at_least.is_some(), at_most.is_some(), present.is_some()];
    if set.into_iter().filter(|set| *set).count() != 1 || value.is_nan() {
        return None;
    }
    if present.is_some() {
        return Some(true);
    }
    let against = |limit: &Option<f64>, wanted: &[Ordering]| {
        limit.map(|limit| value.partial_cmp(&limit).is_some_and(|order| wanted.contains(&order)))
    };
    against(above, &[Ordering::Greater])
        .or_else(|| against(below, &[Ordering::Less]))
        .or_else(|| against(at_least, &[Ordering::Greater, Ordering::Equal]))
        .or_else(|| against(at_most, &[Ordering::Less, Ordering::Equal]))
}

/// Judges one moment. `captured` is the captured baseline, where the trigger has one and it has been taken.
pub fn judge(trigger: &Trigger, captured: Option<f64>, answers: &Answers) -> Judgement {
    if let Some(unknown) = gate(trigger, answers) {
        return Judgement::Unknown(unknown);
    }
    let readings = match &answers.value {
        Ok(readings) => readings,
        Err(unknown) => return Judgement::Unknown(unknown.clone()),
    };
    if trigger.comparison.present == Some(true) {
        return match readings.is_empty() {
            true => Judgement::Clear,
            false => bounded(readings, |reading| {
                Ok(Judged {
                    labels: reading.labels.clone(),
                    compared: reading.value,
                    baseline: None,
                    verdict: Verdict::Breach,
                })
            }),
        };
    }
    if readings.is_empty() {
        return Judgement::Unknown(Unknown::new("NoData", "the query returned no series"));
    }
    bounded(readings, |reading| {
        let baseline = baseline_for(trigger, captured, answers, reading, readings.len())?;
        let compared = match (&trigger.baseline, baseline) {
            (Some(spec), Some(baseline)) => match spec.compare {
                Compare::Ratio => reading.value / baseline,
                Compare::Difference => reading.value - baseline,
            },
            _ => reading.value,
        };
        let verdict = match compare(&trigger.comparison, compared) {
            Some(true) => Verdict::Breach,
            Some(false) => Verdict::Ok,
            None => Verdict::Unknown,
        };
        Ok(Judged { labels: reading.labels.clone(), compared, baseline, verdict })
    })
}

fn bounded(readings: &[Reading], judge: impl Fn(&Reading) -> Result<Judged, Unknown>) -> Judgement {
    if readings.len() > MAX_SERIES {
        let message =
            format!("the query returned {} series; at most {MAX_SERIES} are judged: aggregate it", readings.len());
        return Judgement::Unknown(Unknown::new("TooManySeries", message));
    }
    match readings.iter().map(judge).collect::<Result<Vec<_>, _>>() {
        Ok(series) => Judgement::Series(series),
        Err(unknown) => Judgement::Unknown(unknown),
    }
}

/// Why the gate keeps the value from being judged.
fn gate(trigger: &Trigger, answers: &Answers) -> Option<Unknown> {
    let gate = trigger.gate.as_ref()?;
    let readings = match &answers.gate {
        Some(Ok(readings)) => readings,
        Some(Err(unknown)) => {
            return Some(Unknown::new(
                "GateFailed",
                format!("the gate's query failed: {}: {}", unknown.reason, unknown.message),
            ));
        }
        None => return Some(Unknown::new("GateFailed", "the gate was not asked")),
    };
    if gate.comparison.present == Some(true) {
        return readings.is_empty().then(|| Unknown::new("GateNotMet", "the gate's query returned no series"));
    }
    match readings.as_slice() {
        [] => Some(Unknown::new("GateNotMet", "the gate's query returned no series")),
        [reading] => match compare(&gate.comparison, reading.value) {
            Some(true) => None,
            _ => {
                let message =
                    format!("the gate is at {}, and judges only {}", reading.value, in_words(&gate.comparison));
                Some(Unknown::new("GateNotMet", message))
            }
        },
        several => {
            let message = format!("the gate's query returned {} series: aggregate it to one", several.len());
            Some(Unknown::new("GateFailed", message))
        }
    }
}

/// The baseline of one series, no smaller than the floor.
fn baseline_for(
    trigger: &Trigger,
    captured: Option<f64>,
    answers: &Answers,
    reading: &Reading,
    series: usize,
) -> Result<Option<f64>, Unknown> {
    let Some(spec) = &trigger.baseline else { return Ok(None) };
    let value = if spec.captured.is_some() {
        match (captured, trigger.critical, spec.floor) {
            (Some(_), ..) if series > 1 => {
                let message =
                    format!("a captured baseline needs one series, the query returned {series}: aggregate it");
                return Err(Unknown::new("BaselineAmbiguous", message));
            }
            (Some(captured), ..) => captured,
            // Critical is not held back by an unready baseline, where there is a floor to judge by.
            (None, true, Some(floor)) => floor,
            (None, ..) => return Err(Unknown::new("BaselineNotReady", "the baseline has not been captured yet")),
        }
    } else {
        queried_baseline(answers, reading)?
    };
    let value = spec.floor.map_or(value, |floor| value.max(floor));
    if value.is_nan() || (value == 0.0 && spec.compare == Compare::Ratio) {
        return Err(Unknown::new("BaselineUnusable", format!("the baseline is {value}: set a floor")));
    }
    Ok(Some(value))
}

/// Matched on the labels both sides share, one to one or one to all.
fn queried_baseline(answers: &Answers, reading: &Reading) -> Result<f64, Unknown> {
    let baselines = match &answers.baseline {
        Some(Ok(baselines)) => baselines,
        Some(Err(unknown)) => {
            let message = format!("the baseline's query failed: {}: {}", unknown.reason, unknown.message);
            return Err(Unknown::new("BaselineFailed", message));
        }
        None => return Err(Unknown::new("BaselineFailed", "the baseline was not asked")),
    };
    let agrees = |baseline: &&Reading| {
        baseline.labels.iter().all(|(name, value)| reading.labels.get(name).is_none_or(|other| other == value))
    };
    let matching: Vec<&Reading> = baselines.iter().filter(agrees).collect();
    match matching.as_slice() {
        [baseline] => Ok(baseline.value),
        [] => Err(Unknown::new(
            "BaselineNoMatch",
            format!("no series of the baseline matches {}", render(&reading.labels)),
        )),
        several => {
            let labels: Vec<String> = several.iter().take(3).map(|baseline| render(&baseline.labels)).collect();
            let message = format!(
                "{} series of the baseline match {}: {}",
                several.len(),
                render(&reading.labels),
                labels.join(", ")
            );
            Err(Unknown::new("BaselineAmbiguous", message))
        }
    }
}

/// Labels as PromQL writes them.
pub fn render(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(","))
}
