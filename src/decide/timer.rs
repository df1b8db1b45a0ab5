//! The memory of a trigger: for how long has each series been breaching?
//!
//! A trigger fires when breaches cover `[now - for, now]`: witnessed at both ends, no Ok in between, and no hole between
//! two witnessed breaches wider than [`Pace::hole`]. Time that nobody witnessed is never evidence: an Unknown sample
//! that is held takes the stretch around it out of the count, and a wider hole begins the run anew. A clock that goes
//! back can only lengthen a wait.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

use super::{
    instant,
    schedule::Fingerprint,
    trigger::{Cause, Finding, Judged, Judgement, Labels, MAX_SERIES},
    words::{self, clip},
};
use crate::api::rollout::{Evidence, EvidenceSample, NoDataPolicy, SeriesPolicy, Trigger, TriggerState, TriggerStatus};

/// Runs that are remembered at most: those of one answer, and those of series that have just vanished.
const MAX_RUNS: usize = 4 * MAX_SERIES;
/// Samples that are kept of each end of a run.
const KEPT: usize = 8;

/// How a trigger is asked, and from when on its breaches count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// `spec.interval`.
    pub interval: Duration,
    /// How long one query may take.
    pub timeout: Duration,
    /// Breaches before this moment convict nobody: a rollback has ended and cools down. See
    /// [`rollout::evidence_from`](super::rollout::evidence_from).
    pub evidence_from: Option<Timestamp>,
}

impl Pace {
    /// The widest stretch between two witnessed breaches that still counts as one run: one poll may fail.
    pub fn hole(&self) -> Duration {
        self.interval.saturating_mul(2).saturating_add(self.timeout)
    }
}

/// Where a trigger stands after a moment was judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// For the status. A pending trigger stays Pending through Unknown samples that are held; `cause` then says why.
    pub state: TriggerState,
    /// Begin of the earliest run, moved on by what did not count.
    pub since: Option<Timestamp>,
    /// When the next window would be complete if breaches went on. Evaluate at this very moment.
    pub due: Option<Timestamp>,
    /// Why the last sample, or a part of it, could not be judged.
    pub cause: Option<Cause>,
    /// The value of the series that decides.
    pub value: Option<String>,
    /// The case for a rollback. Only when the moment itself is a witnessed breach that completes a window.
    pub conviction: Option<Evidence>,
}

/// The runs of breaches of one trigger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timer {
    /// What was asked: runs of another question are no evidence.
    question: Option<u64>,
    /// By series; under `series: All` a single one, without labels.
    runs: BTreeMap<Labels, Run>,
    /// Moments without any series that count as breaches (`noData: Breach`). A series that appears afterwards has been
    /// breaching as long.
    blind: Option<Run>,
    /// What the status said when this operator started, until Prometheus has told the rest.
    carried: Option<Carried>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Carried {
    state: TriggerState,
    since: Timestamp,
}

/// An unbroken run of breaches.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    since: Timestamp,
    /// The last witnessed breach.
    last: Timestamp,
    /// A sample after `last` was Unknown: what lies between `last` and the next breach does not count.
    held: bool,
    reading: Reading,
    first: Vec<EvidenceSample>,
    latest: VecDeque<EvidenceSample>,
}

/// A breach as evidence tells it.
#[derive(Clone, Debug, PartialEq)]
struct Reading {
    value: String,
    baseline: Option<f64>,
}

/// What a sample does to a run, `noData` considered.
enum Effect {
    Advance(Reading),
    Hold,
    Reset,
}

impl Timer {
    /// A timer that carries what the status says of a pending trigger over a restart. It shows that until
    /// [`resume`](super::resume::resume) has filled in the part that was not witnessed: nothing is believed unseen.
    pub fn carry(status: &TriggerStatus) -> Self {
        let since = status.since.as_ref().map(|since| instant::whole_millis(since.0));
        let carried = match status.state {
            TriggerState::Pending | TriggerState::Firing => since.map(|since| Carried { state: status.state, since }),
            TriggerState::Ok | TriggerState::Unknown => None,
        };
        Self { carried, ..Self::default() }
    }

    /// From when on Prometheus must be asked what happened, if a restart left something to fill in.
    pub fn to_fill(&self) -> Option<Timestamp> {
        self.carried.map(|carried| carried.since)
    }

    /// Forgets everything: timers begin anew.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes in what was judged for the moment `at`.
    pub fn observe(
        &mut self,
        trigger: &Trigger,
        query: &str,
        judgement: &Judgement,
        at: Timestamp,
        pace: &Pace,
    ) -> Standing {
        let at = instant::whole_millis(at);
        self.ask(trigger, query);
        let cause = match judgement {
            Judgement::Unknown(cause) => {
                self.all_unknown(trigger.no_data, cause, at, pace);
                Some(cause.clone())
            }
            Judgement::Absent => {
                (self.runs, self.blind, self.carried) = Default::default();
                None
            }
            Judgement::Series(series) => {
                let silent = series.iter().all(|judged| matches!(judged.finding, Finding::Unknown(_)));
                if !silent || trigger.no_data != NoDataPolicy::Hold {
                    self.carried = None;
                }
                match trigger.series {
                    SeriesPolicy::Any => self.each(trigger, series, at, pace),
                    SeriesPolicy::All => self.each(trigger, &[together(series)], at, pace),
                }
            }
        };
        self.standing(trigger, query, judgement, cause, at, pace)
    }

    /// The series whose window is complete at `at`, witnessed at that very moment.
    pub fn firing(&self, trigger: &Trigger, at: Timestamp, pace: &Pace) -> impl Iterator<Item = &Labels> {
        let at = instant::whole_millis(at);
        self.runs
            .iter()
            .filter(move |(_, run)| run.complete(trigger, pace) && run.witnessed(at))
            .map(|(labels, _)| labels)
    }

    /// Another question begins anew. What is asked of the answers (`for`, `noData`, `critical`) may change in between:
    /// runs are judged by what it says now.
    fn ask(&mut self, trigger: &Trigger, query: &str) {
        let question = Fingerprint::question(trigger, query);
        if self.question.is_some_and(|before| before != question) {
            self.reset();
        }
        self.question = Some(question);
    }

    fn all_unknown(&mut self, policy: NoDataPolicy, cause: &Cause, at: Timestamp, pace: &Pace) {
        match policy {
            NoDataPolicy::Hold => self.runs.values_mut().for_each(|run| run.held = true),
            NoDataPolicy::Reset => (self.runs, self.blind, self.carried) = Default::default(),
            NoDataPolicy::Breach => {
                self.carried = None;
                let reading = Reading { value: cause.reason.clone(), baseline: None };
                for run in self.runs.values_mut() {
                    run.advance(at, reading.clone(), pace);
                }
                match &mut self.blind {
                    Some(run) => run.advance(at, reading, pace),
                    None => self.blind = Some(Run::begin(at, reading)),
                }
            }
        }
    }

    /// Each series moves its own run. Returns why a part could not be judged.
    fn each(&mut self, trigger: &Trigger, series: &[Judged], at: Timestamp, pace: &Pace) -> Option<Cause> {
        let blind = self.blind.take();
        let mut unknown = Vec::new();
        for judged in series {
            if let Finding::Unknown(cause) = &judged.finding {
                unknown.push((&judged.labels, cause));
            }
            match effect(&judged.finding, judged, trigger.no_data) {
                Effect::Reset => drop(self.runs.remove(&judged.labels)),
                Effect::Hold => {
                    if let Some(run) = self.runs.get_mut(&judged.labels) {
                        run.held = true;
                    }
                }
                Effect::Advance(reading) => match self.runs.get_mut(&judged.labels) {
                    Some(run) => run.advance(at, reading, pace),
                    None => {
                        let mut run = blind.clone().unwrap_or_else(|| Run::begin(at, reading.clone()));
                        run.advance(at, reading, pace);
                        self.runs.insert(judged.labels.clone(), run);
                    }
                },
            }
        }
        let judged_any = unknown.len() < series.len();
        let vanished = self.vanish(trigger, series, judged_any, at, pace);
        match unknown.first() {
            Some((_, cause)) if series.len() == 1 => Some((*cause).clone()),
            Some((labels, cause)) => {
                let message = format!(
                    "{} of {} series cannot be judged; {}: {}",
                    unknown.len(),
                    series.len(),
                    words::labels(labels),
                    cause.message
                );
                Some(Cause::new(cause.reason.clone(), clip(&message, words::TEXT)))
            }
            None => vanished,
        }
    }

    /// A breaching series that is missing from an answer with others in it has no data. Once its run could not go on
    /// any more it is forgotten: pods come and go.
    fn vanish(
        &mut self,
        trigger: &Trigger,
        series: &[Judged],
        judged_any: bool,
        at: Timestamp,
        pace: &Pace,
    ) -> Option<Cause> {
        let gone: Vec<Labels> = self
            .runs
            .keys()
            .filter(|labels| series.binary_search_by(|judged| judged.labels.cmp(labels)).is_err())
            .cloned()
            .collect();
        let present = trigger.comparison.present == Some(true);
        let mut cause = None;
        for labels in gone {
            let Some(run) = self.runs.get_mut(&labels) else { continue };
            let forgotten = judged_any && instant::elapsed(run.last, at) > pace.hole();
            match trigger.no_data {
                // Absence is an Ok where presence is the breach.
                _ if present => drop(self.runs.remove(&labels)),
                NoDataPolicy::Reset => drop(self.runs.remove(&labels)),
                NoDataPolicy::Hold if forgotten => drop(self.runs.remove(&labels)),
                NoDataPolicy::Hold => {
                    run.held = true;
                    cause.get_or_insert_with(|| gone_missing(&labels));
                }
                NoDataPolicy::Breach => {
                    run.advance(at, Reading { value: "NoData".to_owned(), baseline: None }, pace);
                    cause.get_or_insert_with(|| gone_missing(&labels));
                }
            }
        }
        while self.runs.len() > MAX_RUNS {
            let latest = self.runs.iter().max_by_key(|(_, run)| run.since).map(|(labels, _)| labels.clone());
            latest.map(|labels| self.runs.remove(&labels));
        }
        cause
    }

    fn standing(
        &self,
        trigger: &Trigger,
        query: &str,
        judgement: &Judgement,
        cause: Option<Cause>,
        at: Timestamp,
        pace: &Pace,
    ) -> Standing {
        let runs = || {
            self.runs.iter().map(|(labels, run)| (Some(labels), run)).chain(self.blind.iter().map(|run| (None, run)))
        };
        let complete = runs().filter(|(_, run)| run.complete(trigger, pace)).min_by_key(|(_, run)| run.since);
        let leading = complete.or_else(|| runs().min_by_key(|(_, run)| run.since));
        let (state, since) = match (&complete, &leading, self.carried, &cause) {
            (Some(_), ..) => (TriggerState::Firing, runs().map(|(_, run)| run.since).min()),
            (None, Some((_, run)), ..) => (TriggerState::Pending, Some(run.since)),
            (None, None, Some(carried), _) => (carried.state, Some(carried.since)),
            (None, None, None, Some(_)) => (TriggerState::Unknown, None),
            (None, None, None, None) => (TriggerState::Ok, None),
        };
        let value = leading.map(|(_, run)| run.reading.value.clone()).or_else(|| match judgement {
            Judgement::Series(series) if state == TriggerState::Ok => {
                series.first().map(|one| words::number(one.value))
            }
            _ => None,
        });
        let convicting = runs()
            .filter(|(_, run)| run.complete(trigger, pace) && run.witnessed(at))
            .min_by_key(|(labels, run)| (run.since, *labels));
        Standing {
            state,
            since,
            due: runs().filter_map(|(_, run)| run.due(trigger, at, pace)).min(),
            cause,
            value,
            conviction: convicting.map(|(labels, run)| {
                let series = match (trigger.series, labels, judgement) {
                    (SeriesPolicy::All, _, Judgement::Series(all)) if all.len() > 1 => {
                        Some(format!("all {}", all.len()))
                    }
                    (_, Some(labels), _) if !labels.is_empty() => Some(words::labels(labels)),
                    _ => None,
                };
                run.evidence(trigger, query, series, at)
            }),
        }
    }
}

impl Run {
    fn begin(at: Timestamp, reading: Reading) -> Self {
        let sample = EvidenceSample { at: Some(MicroTime(at)), value: clip(&reading.value, words::WORD) };
        Self { since: at, last: at, held: false, reading, first: vec![sample], latest: VecDeque::new() }
    }

    /// A breach was witnessed at `at`.
    fn advance(&mut self, at: Timestamp, reading: Reading, pace: &Pace) {
        let gap = instant::elapsed(self.last, at);
        let cooled = pace.evidence_from.is_some_and(|from| self.since < from && at >= from);
        if at < self.since || gap > pace.hole() || cooled {
            *self = Self::begin(at, reading);
            return;
        }
        if self.held {
            self.since = instant::after(self.since, gap);
        }
        if at != self.last {
            let sample = EvidenceSample { at: Some(MicroTime(at)), value: clip(&reading.value, words::WORD) };
            if self.first.len() < KEPT {
                self.first.push(sample);
            } else {
                self.latest.push_back(sample);
                if self.latest.len() > KEPT {
                    self.latest.pop_front();
                }
            }
        }
        (self.last, self.held, self.reading) = (at, false, reading);
    }

    /// Do the breaches that count cover the whole of `for`? The boundary is inclusive.
    fn complete(&self, trigger: &Trigger, pace: &Pace) -> bool {
        pace.evidence_from.is_none_or(|from| self.since >= from)
            && self.last >= self.since
            && instant::elapsed(self.since, self.last) >= trigger.hold.get()
    }

    /// Is `at` itself a breach of this run?
    fn witnessed(&self, at: Timestamp) -> bool {
        self.last == at && !self.held
    }

    /// When this run's window is complete if breaches go on; or when the cooldown ends, so that the new run begins at
    /// that very moment. Nobody knows while the run is held.
    fn due(&self, trigger: &Trigger, at: Timestamp, pace: &Pace) -> Option<Timestamp> {
        let cooled = pace.evidence_from.filter(|from| self.since < *from);
        let due = cooled.unwrap_or_else(|| instant::after(self.since, trigger.hold.get()));
        (due > at && !self.held).then_some(due)
    }

    fn evidence(&self, trigger: &Trigger, query: &str, series: Option<String>, at: Timestamp) -> Evidence {
        Evidence {
            trigger: trigger.name.clone(),
            query: clip(query, words::QUERY),
            condition: clip(&words::condition(trigger), words::WORD),
            value: clip(&self.reading.value, words::WORD),
            baseline: self.reading.baseline.map(words::number),
            series: series.map(|series| clip(&series, words::TEXT)),
            since: Some(MicroTime(self.since)),
            fired_at: Some(MicroTime(at)),
            samples: self.first.iter().chain(&self.latest).cloned().collect(),
        }
    }
}

fn effect(finding: &Finding, judged: &Judged, policy: NoDataPolicy) -> Effect {
    match (finding, policy) {
        (Finding::Ok, _) | (Finding::Unknown(_), NoDataPolicy::Reset) => Effect::Reset,
        (Finding::Breach, _) => {
            Effect::Advance(Reading { value: words::number(judged.value), baseline: judged.baseline })
        }
        (Finding::Unknown(_), NoDataPolicy::Hold) => Effect::Hold,
        (Finding::Unknown(cause), NoDataPolicy::Breach) => {
            Effect::Advance(Reading { value: cause.reason.clone(), baseline: judged.baseline })
        }
    }
}

/// All series as one: Ok as soon as one is, Breach when all are, Unknown otherwise.
fn together(series: &[Judged]) -> Judged {
    let decisive = series
        .iter()
        .find(|judged| judged.finding == Finding::Ok)
        .or_else(|| series.iter().find(|judged| matches!(judged.finding, Finding::Unknown(_))))
        .or_else(|| series.first());
    match decisive {
        Some(judged) => Judged { labels: Labels::new(), ..judged.clone() },
        None => Judged { labels: Labels::new(), value: f64::NAN, baseline: None, finding: Finding::Ok },
    }
}

fn gone_missing(labels: &Labels) -> Cause {
    let message = format!("the breaching series {} is gone from the answer", words::labels(labels));
    Cause::new("NoData", clip(&message, words::TEXT))
}
