//! The memory of a trigger: how long breaches have lasted without a break.
//!
//! A run fires when breaches cover `[now - for, now]`: witnessed at both ends, no Ok in between, no hole wider than
//! allowed. The boundary is inclusive.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::{SignedDuration, Timestamp},
};

use super::{
    rollback::later,
    trigger::{Judged, Judgement, Labels, Unknown, Verdict, describe, render},
};
use crate::api::rollout::{Evidence, EvidenceSample, NoDataPolicy, SeriesPolicy, Trigger, TriggerState};

/// How many samples of each end of a run are kept as evidence.
const KEPT: usize = 8;

/// An unbroken run of breaches.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    since: Timestamp,
    last: Timestamp,
    /// Something Unknown was seen since the last breach: the stretch up to the next one does not count.
    held: bool,
    value: f64,
    baseline: Option<f64>,
    first_samples: Vec<(Timestamp, f64)>,
    last_samples: Vec<(Timestamp, f64)>,
}

impl Run {
    fn begin(at: Timestamp, value: f64, baseline: Option<f64>) -> Self {
        let mut run = Self {
            since: at,
            last: at,
            held: false,
            value,
            baseline,
            first_samples: Vec::new(),
            last_samples: Vec::new(),
        };
        run.witness(at, value);
        run
    }

    fn witness(&mut self, at: Timestamp, value: f64) {
        self.value = value;
        if self.first_samples.len() < KEPT {
            self.first_samples.push((at, value));
            return;
        }
        if self.last_samples.len() == KEPT {
            self.last_samples.remove(0);
        }
        self.last_samples.push((at, value));
    }

    /// One more breach. A hole wider than allowed begins a new run; a shorter one counts, unless something Unknown was
    /// seen in it.
    fn extend(&mut self, at: Timestamp, value: f64, baseline: Option<f64>, hole: Duration) {
        if at <= self.last {
            return;
        }
        let gap = at.duration_since(self.last);
        if gap > SignedDuration::try_from(hole).unwrap_or(SignedDuration::MAX) {
            *self = Self::begin(at, value, baseline);
            return;
        }
        if self.held {
            self.since = self.since.checked_add(gap).unwrap_or(at);
        }
        self.held = false;
        self.last = at;
        self.baseline = baseline;
        self.witness(at, value);
    }

    fn covers(&self, hold: Duration) -> bool {
        self.last >= later(self.since, hold)
    }
}

/// What is remembered of one trigger between two moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    runs: BTreeMap<Labels, Run>,
    last: Option<Timestamp>,
}

/// Where a trigger stands after a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Ok, Pending, Firing or Unknown.
    pub state: TriggerState,
    /// Begin of the longest run.
    pub since: Option<Timestamp>,
    /// When the first window would be complete.
    pub due: Option<Timestamp>,
    /// Why the moment could not be judged.
    pub unknown: Option<Unknown>,
    /// The value that was compared.
    pub value: Option<f64>,
    /// What convicts, when it fires.
    pub evidence: Option<Evidence>,
}

impl Memory {
    /// Takes in one moment. `hole` is the widest gap between two breaches that still counts as unbroken.
    pub fn advance(&mut self, trigger: &Trigger, judgement: &Judgement, at: Timestamp, hole: Duration) -> Standing {
        if self.last.is_none_or(|last| at > last) {
            self.take(trigger, judgement, at, hole);
            self.last = Some(at);
        }
        self.standing(trigger, judgement, at)
    }

    /// Forgets everything: timers begin anew.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn take(&mut self, trigger: &Trigger, judgement: &Judgement, at: Timestamp, hole: Duration) {
        match judgement {
            Judgement::Clear => self.runs.clear(),
            Judgement::Unknown(_) => self.nothing_known(trigger.no_data, at, hole, |_| true),
            Judgement::Series(series) => match trigger.series {
                SeriesPolicy::Any => self.each(trigger, series, at, hole),
                SeriesPolicy::All => self.all(trigger, series, at, hole),
            },
        }
    }

    fn each(&mut self, trigger: &Trigger, series: &[Judged], at: Timestamp, hole: Duration) {
        for judged in series {
            match judged.verdict {
                Verdict::Ok => {
                    self.runs.remove(&judged.labels);
                }
                Verdict::Breach => self.breach(judged.labels.clone(), judged, at, hole),
                Verdict::Unknown if trigger.no_data == NoDataPolicy::Breach => {
                    self.breach(judged.labels.clone(), judged, at, hole);
                }
                Verdict::Unknown => {}
            }
        }
        let known = |labels: &Labels| {
            series.iter().any(|judged| judged.labels == *labels && judged.verdict != Verdict::Unknown)
        };
        self.nothing_known(trigger.no_data, at, hole, |labels| !known(labels));
    }

    fn all(&mut self, trigger: &Trigger, series: &[Judged], at: Timestamp, hole: Duration) {
        let worst = series.iter().find(|judged| judged.verdict == Verdict::Breach);
        let any = |verdict| series.iter().any(|judged| judged.verdict == verdict);
        match (any(Verdict::Ok), any(Verdict::Unknown), worst) {
            (true, ..) => self.runs.clear(),
            (false, false, Some(judged)) => self.breach(Labels::new(), judged, at, hole),
            _ => self.nothing_known(trigger.no_data, at, hole, |_| true),
        }
    }

    fn breach(&mut self, labels: Labels, judged: &Judged, at: Timestamp, hole: Duration) {
        self.runs
            .entry(labels)
            .and_modify(|run| run.extend(at, judged.compared, judged.baseline, hole))
            .or_insert_with(|| Run::begin(at, judged.compared, judged.baseline));
    }

    /// What a moment without a verdict does to the runs it concerns.
    fn nothing_known(
        &mut self,
        policy: NoDataPolicy,
        at: Timestamp,
        hole: Duration,
        concerns: impl Fn(&Labels) -> bool,
    ) {
        match policy {
            NoDataPolicy::Hold => {
                self.runs.iter_mut().filter(|(labels, _)| concerns(labels)).for_each(|(_, run)| run.held = true);
            }
            NoDataPolicy::Reset => self.runs.retain(|labels, _| !concerns(labels)),
            NoDataPolicy::Breach => {
                if self.runs.is_empty() && concerns(&Labels::new()) {
                    self.runs.insert(Labels::new(), Run::begin(at, f64::NAN, None));
                }
                for (_, run) in self.runs.iter_mut().filter(|(labels, _)| concerns(labels)) {
                    let (value, baseline) = (run.value, run.baseline);
                    run.extend(at, value, baseline, hole);
                }
            }
        }
    }

    fn standing(&self, trigger: &Trigger, judgement: &Judgement, at: Timestamp) -> Standing {
        let hold = trigger.hold.get();
        let unknown = match judgement {
            Judgement::Unknown(unknown) => Some(unknown.clone()),
            Judgement::Series(series) if series.iter().all(|judged| judged.verdict == Verdict::Unknown) => {
                Some(Unknown::new("NaN", "the value is NaN"))
            }
            _ => None,
        };
        let fired = self.runs.iter().find(|(_, run)| run.last == at && run.covers(hold));
        let oldest = fired.or_else(|| self.runs.iter().min_by_key(|(_, run)| run.since));
        let value = oldest.map(|(_, run)| run.value).or_else(|| match judgement {
            Judgement::Series(series) => series.first().map(|judged| judged.compared),
            _ => None,
        });
        let state = match (fired, oldest, &unknown) {
            (Some(_), ..) => TriggerState::Firing,
            (None, Some(_), _) => TriggerState::Pending,
            (None, None, Some(_)) => TriggerState::Unknown,
            (None, None, None) => TriggerState::Ok,
        };
        let due =
            self.runs.values().filter(|run| !run.held).map(|run| later(run.since, hold)).filter(|due| *due > at).min();
        Standing {
            state,
            since: oldest.map(|(_, run)| run.since),
            due,
            unknown,
            value,
            evidence: fired.map(|(labels, run)| evidence(trigger, labels, run, at)),
        }
    }
}

fn evidence(trigger: &Trigger, labels: &Labels, run: &Run, at: Timestamp) -> Evidence {
    let samples = run.first_samples.iter().chain(&run.last_samples);
    Evidence {
        trigger: trigger.name.clone(),
        query: trigger.query.clone(),
        condition: describe(trigger),
        value: run.value.to_string(),
        baseline: run.baseline.map(|baseline| baseline.to_string()),
        series: (!labels.is_empty()).then(|| render(labels).chars().take(1000).collect()),
        since: Some(MicroTime(run.since)),
        fired_at: Some(MicroTime(at)),
        samples: samples
            .map(|(at, value)| EvidenceSample { at: Some(MicroTime(*at)), value: value.to_string() })
            .collect(),
    }
}
