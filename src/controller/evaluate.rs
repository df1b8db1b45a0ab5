//! Asking a rollout's triggers at their instants, and carrying out what their standings ask for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::{BoxFuture, join_all};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use super::{
    claims,
    context::{Context, Setback},
};
use crate::{
    api::{
        REBASELINE,
        rollback::{DesiredState, LearningRollback, Phase},
        rollout::{
            LearningRollout, LearningRolloutSpec, PrometheusSource, Trigger, TriggerState, TriggerStatus,
            default_timeout,
        },
    },
    decide::{
        baseline, record_id,
        rollout::{Facts, counts_from, decide},
        schedule::{Grid, allowed_hole, between, expand},
        timer::{Memory, Standing},
        trigger::{Answers, Judgement, Reading, Unknown, judge},
    },
    prometheus::{Answer, QueryBackend, QueryError, RangeAnswer},
};

/// Most points of a range that are asked for to fill a hole.
const MAX_POINTS: u32 = 1_000;

/// One rollout's triggers between two passes.
#[derive(Default)]
pub(super) struct Evaluator {
    spec: Option<LearningRolloutSpec>,
    grid: Option<Grid>,
    next_poll: Option<Timestamp>,
    memories: BTreeMap<String, Memory>,
    standings: BTreeMap<String, Standing>,
    asking: Option<BoxFuture<'static, Asked>>,
    answered: Option<Asked>,
    /// Standings that have not been acted on: a set-back pass decides on them again.
    undecided: Option<Instant>,
}

/// What came of a pass.
pub(super) struct Outcome {
    /// When to evaluate next.
    pub(super) wake: Timestamp,
    /// The rollout as it was written.
    pub(super) rollout: Option<LearningRollout>,
    /// An execution has been claimed.
    pub(super) claimed: bool,
}

/// The answers for one moment.
struct Asked {
    at: Timestamp,
    triggers: Vec<AskedTrigger>,
    answered_at: Instant,
}

struct AskedTrigger {
    name: String,
    answers: Answers,
    /// What the metrics were while nobody watched, oldest first.
    history: Vec<(Timestamp, Answers)>,
    /// The window of a captured baseline that is to be taken.
    window: Option<Result<Vec<Vec<f64>>, Unknown>>,
}

/// What is to be asked for one trigger.
struct Question {
    trigger: Trigger,
    since: Option<Timestamp>,
    window: Option<Duration>,
}

impl Evaluator {
    /// Resolves when answers have come; never while none are awaited.
    pub(super) async fn asked(&mut self) {
        match &mut self.asking {
            Some(asking) => {
                let asked = asking.await;
                self.asking = None;
                self.answered = Some(asked);
            }
            None => std::future::pending().await,
        }
    }

    /// Timers begin anew: a rollback has ended.
    pub(super) fn begin_anew(&mut self) {
        self.memories.clear();
        self.standings.clear();
        self.answered = None;
        self.asking = None;
        self.undecided = None;
    }

    pub(super) async fn evaluate(
        &mut self,
        context: &Context,
        rollout: &LearningRollout,
        records: &[LearningRollback],
        orphan: Option<String>,
    ) -> Result<Outcome, Setback> {
        self.configure(context, rollout);
        let mut rollout = rollout.clone();
        if let Some(asked) = self.answered.take() {
            self.take_in(context, &mut rollout, asked);
        }
        let mut outcome = Outcome { wake: Timestamp::MAX, rollout: None, claimed: false };
        if let Some(since) = self.undecided {
            self.act(context, &rollout, records, orphan, since, &mut outcome).await?;
            self.undecided = None;
        }
        let current = outcome.rollout.as_ref().unwrap_or(&rollout);
        outcome.wake = self.ask(context, current);
        Ok(outcome)
    }

    /// Follows the spec: a trigger whose query or comparison changed is judged anew; one whose `for` changed keeps its run.
    fn configure(&mut self, context: &Context, rollout: &LearningRollout) {
        if self.spec.as_ref() == Some(&rollout.spec) {
            return;
        }
        let now = context.clock.now();
        let spec = &rollout.spec;
        let same = |name: &str| {
            let before = self.spec.as_ref().and_then(|spec| spec.triggers.iter().find(|trigger| trigger.name == name));
            let after = spec.triggers.iter().find(|trigger| trigger.name == name);
            let judged =
                |trigger: &Trigger| Trigger { hold: Default::default(), rollback: String::new(), ..trigger.clone() };
            before.map(judged) == after.map(judged)
        };
        let keep: Vec<String> = self.memories.keys().filter(|name| same(name)).cloned().collect();
        self.memories.retain(|name, _| keep.contains(name));
        self.standings.retain(|name, _| keep.contains(name));
        let (namespace, name) = (rollout.namespace().unwrap_or_default(), rollout.name_any());
        let mut asked: Vec<String> =
            vec![spec.prometheus.as_ref().map_or_else(String::new, |source| source.url.clone())];
        asked.extend(spec.triggers.iter().map(|trigger| expand(&trigger.query, &namespace, &name, &context.cluster)));
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        let grid = Grid::new(spec.interval.get(), &asked);
        self.next_poll = Some(grid.first(now));
        self.grid = Some(grid);
        self.spec = Some(spec.clone());
    }

    /// Judges what was answered.
    fn take_in(&mut self, context: &Context, rollout: &mut LearningRollout, asked: Asked) {
        let timeout = rollout.spec.prometheus.as_ref().map_or_else(default_timeout, |source| source.timeout);
        let hole = allowed_hole(rollout.spec.interval.get(), timeout.get());
        let counts_from = counts_from(rollout);
        for answered in asked.triggers {
            let Some(trigger) = rollout.spec.triggers.iter().find(|trigger| trigger.name == answered.name).cloned()
            else {
                continue;
            };
            if let Some(window) = answered.window {
                self.capture(context, rollout, &trigger, window, asked.at);
            }
            let captured =
                trigger_status(rollout, &trigger.name).and_then(|status| status.baseline.as_ref()).map(|of| of.value);
            let memory = self.memories.entry(trigger.name.clone()).or_default();
            for (at, answers) in &answered.history {
                memory.advance(&trigger, &judge(&trigger, captured, answers), *at, hole);
            }
            if !trigger.critical && counts_from.is_some_and(|from| asked.at < from) {
                memory.reset();
            }
            let judgement = judge(&trigger, captured, &answered.answers);
            context.metrics.evaluated(match &judgement {
                Judgement::Unknown(unknown) => &unknown.reason,
                _ => "ok",
            });
            let mut standing = memory.advance(&trigger, &judgement, asked.at, hole);
            if let Some(evidence) = &mut standing.evidence {
                let (namespace, name) = (rollout.namespace().unwrap_or_default(), rollout.name_any());
                evidence.query = expand(&evidence.query, &namespace, &name, &context.cluster);
            }
            self.standings.insert(trigger.name.clone(), standing);
        }
        self.undecided = Some(asked.answered_at);
    }

    fn capture(
        &self,
        context: &Context,
        rollout: &mut LearningRollout,
        trigger: &Trigger,
        window: Result<Vec<Vec<f64>>, Unknown>,
        at: Timestamp,
    ) {
        let Some(length) =
            trigger.baseline.as_ref().and_then(|baseline| baseline.captured.as_ref()).map(|of| of.window)
        else {
            return;
        };
        let breaching = |standing: &Standing| matches!(standing.state, TriggerState::Pending | TriggerState::Firing);
        if self.standings.values().any(breaching) {
            return;
        }
        let query = expanded(context, rollout, &trigger.query);
        let Ok(taken) = window.and_then(|series| baseline::capture(&query, length.get(), &series, at)) else { return };
        let status = rollout.status.get_or_insert_default();
        match status.triggers.iter_mut().find(|status| status.name == trigger.name) {
            Some(status) => status.baseline = Some(taken),
            None => status.triggers.push(TriggerStatus {
                name: trigger.name.clone(),
                baseline: Some(taken),
                ..TriggerStatus::default()
            }),
        }
    }

    /// Writes what changed, or claims an execution.
    async fn act(
        &mut self,
        context: &Context,
        rollout: &LearningRollout,
        records: &[LearningRollback],
        orphan: Option<String>,
        since: Instant,
        outcome: &mut Outcome,
    ) -> Result<(), Setback> {
        let facts = Facts { orphan, leaving: is_leaving(rollout, records) };
        let standings: Vec<(String, Standing)> =
            self.standings.iter().map(|(name, standing)| (name.clone(), standing.clone())).collect();
        let decision = decide(rollout, &standings, &facts, context.clock.now());
        let mut decided = rollout.clone();
        let written = match &decision.start {
            Some(start) => {
                decided.status = Some(decision.status.clone());
                let claim = claims::claim(&decided, &start.rollback, start.reason.clone(), start.evidence.clone());
                match claim {
                    Some(claim) => {
                        let plan_type = claim.plan_type;
                        let written = context.take_claim(&decided, claim).await?;
                        outcome.claimed = true;
                        context.metrics.started(plan_type);
                        context.metrics.reacted(since.elapsed());
                        written
                    }
                    None => context.write_rollout(rollout, decision.status).await?,
                }
            }
            None => context.write_rollout(rollout, decision.status).await?,
        };
        for event in &decision.events {
            context.publish(&written, event);
        }
        outcome.rollout = Some(written);
        // Evidence convicts once; a trigger that still fires brings new evidence.
        self.standings.values_mut().for_each(|standing| standing.evidence = None);
        Ok(())
    }

    /// Asks what is due, unless answers are still awaited. Answers when the next question is due.
    fn ask(&mut self, context: &Context, rollout: &LearningRollout) -> Timestamp {
        let (Some(grid), Some(poll)) = (self.grid, self.next_poll) else { return Timestamp::MAX };
        if self.asking.is_some() || self.answered.is_some() {
            return Timestamp::MAX;
        }
        let now = context.clock.now();
        let due = |standing: &Standing| standing.due.filter(|due| *due < poll);
        let next_due = self.standings.values().filter_map(due).min();
        let at = next_due.unwrap_or(poll);
        if at > now {
            return at;
        }
        let polls = next_due.is_none();
        // A moment long past is not asked about: what counts is now.
        let late = between(at, now) > rollout.spec.interval.get();
        let at = if late { now } else { at };
        let triggers =
            rollout.spec.triggers.iter().filter(|trigger| {
                polls || self.standings.get(&trigger.name).and_then(due).is_some_and(|due| due <= at)
            });
        let questions: Vec<Question> = triggers.map(|trigger| self.question(context, rollout, trigger)).collect();
        if polls {
            self.next_poll = Some(grid.next(now));
        }
        for question in &questions {
            if let Some(standing) = self.standings.get_mut(&question.trigger.name) {
                standing.due = None;
            }
        }
        self.asking = Some(Box::pin(ask_all(context.clone(), rollout.clone(), questions, at)));
        Timestamp::MAX
    }

    fn question(&self, context: &Context, rollout: &LearningRollout, trigger: &Trigger) -> Question {
        let status = trigger_status(rollout, &trigger.name);
        let fresh = !self.memories.contains_key(&trigger.name);
        let pending = status.filter(|status| matches!(status.state, TriggerState::Pending | TriggerState::Firing));
        let since = pending.filter(|_| fresh).and_then(|status| status.since.as_ref()).map(|since| since.0);
        let query = expanded(context, rollout, &trigger.query);
        let asked_anew = rollout.annotations().get(REBASELINE).and_then(|text| text.parse().ok());
        let captured = trigger.baseline.as_ref().and_then(|baseline| baseline.captured.as_ref());
        let taken = status.and_then(|status| status.baseline.as_ref());
        let window =
            captured.filter(|_| !baseline::is_current(trigger, &query, taken, asked_anew)).map(|of| of.window.get());
        Question { trigger: trigger.clone(), since, window }
    }
}

fn expanded(context: &Context, rollout: &LearningRollout, query: &str) -> String {
    expand(query, &rollout.namespace().unwrap_or_default(), &rollout.name_any(), &context.cluster)
}

fn trigger_status<'a>(rollout: &'a LearningRollout, name: &str) -> Option<&'a TriggerStatus> {
    rollout.status.as_ref()?.triggers.iter().find(|status| status.name == name)
}

/// Is the active record being put back, or given up?
fn is_leaving(rollout: &LearningRollout, records: &[LearningRollback]) -> bool {
    let active = rollout.status.as_ref().and_then(|status| status.active.as_ref());
    let record = active.and_then(|active| records.iter().find(|record| record_id(record) == active.id));
    record.is_some_and(|record| {
        let will = crate::decide::rollback::will(record);
        let phase = record.status.as_ref().map(|status| status.phase);
        matches!(will, DesiredState::Restored | DesiredState::Released) || phase == Some(Phase::Restoring)
    })
}

/// Asks all questions at once.
async fn ask_all(context: Context, rollout: LearningRollout, questions: Vec<Question>, at: Timestamp) -> Asked {
    let namespace = rollout.namespace().unwrap_or_default();
    let spec: Option<&PrometheusSource> = rollout.spec.prometheus.as_ref();
    let source = context.sources.find(&namespace, spec).await;
    let triggers = join_all(questions.into_iter().map(|question| {
        let (context, rollout, source) = (&context, &rollout, &source);
        async move {
            match source {
                Ok(source) => ask_one(context, rollout, source, question, at).await,
                Err(error) => AskedTrigger {
                    name: question.trigger.name,
                    answers: Answers { value: Err(unknown(error)), gate: None, baseline: None },
                    history: Vec::new(),
                    window: None,
                },
            }
        }
    }))
    .await;
    Asked { at, triggers, answered_at: Instant::now() }
}

async fn ask_one(
    context: &Context,
    rollout: &LearningRollout,
    source: &Arc<dyn QueryBackend>,
    question: Question,
    at: Timestamp,
) -> AskedTrigger {
    let trigger = &question.trigger;
    let value = expanded(context, rollout, &trigger.query);
    let gate = trigger.gate.as_ref().map(|gate| expanded(context, rollout, &gate.query));
    let baseline = trigger.baseline.as_ref().and_then(|baseline| baseline.query.as_ref());
    let baseline = baseline.map(|query| expanded(context, rollout, query));
    let instant = |query: Option<String>| async move {
        match query {
            Some(query) => {
                Some(source.query(&query, at).await.map(|answer| readings(&answer)).map_err(|error| unknown(&error)))
            }
            None => None,
        }
    };
    let (value_now, gate_now, baseline_now) =
        futures::join!(instant(Some(value.clone())), instant(gate.clone()), instant(baseline.clone()));
    let answers =
        Answers { value: value_now.unwrap_or_else(|| Ok(Vec::new())), gate: gate_now, baseline: baseline_now };
    let history = match question.since.filter(|since| *since < at) {
        Some(since) => {
            fill(source, rollout.spec.interval.get(), since, at, [Some(&value), gate.as_ref(), baseline.as_ref()]).await
        }
        None => Vec::new(),
    };
    let window = match question.window {
        Some(window) => Some(ask_window(source, &value, window, at).await),
        None => None,
    };
    AskedTrigger { name: question.trigger.name, answers, history, window }
}

/// What the metrics were from `since` until just before `at`. Empty where it cannot be found out: the timer begins anew.
async fn fill(
    source: &Arc<dyn QueryBackend>,
    interval: Duration,
    since: Timestamp,
    at: Timestamp,
    queries: [Option<&String>; 3],
) -> Vec<(Timestamp, Answers)> {
    let step = interval.max(between(since, at) / MAX_POINTS).max(Duration::from_millis(1));
    let range = |query: Option<&String>| {
        let query = query.cloned();
        async move {
            match query {
                Some(query) => source.query_range(&query, since, at, step).await.map(Some),
                None => Ok(None),
            }
        }
    };
    let [value, gate, baseline] = queries;
    let Ok((value, gate, baseline)) = futures::try_join!(range(value), range(gate), range(baseline)) else {
        return Vec::new();
    };
    let mut moments = Vec::new();
    let mut moment = since;
    while moment < at && moments.len() <= MAX_POINTS as usize {
        let point = |answer: &Option<Arc<RangeAnswer>>| answer.as_ref().map(|answer| Ok(readings_at(answer, moment)));
        let answers = Answers {
            value: point(&value).unwrap_or_else(|| Ok(Vec::new())),
            gate: point(&gate),
            baseline: point(&baseline),
        };
        moments.push((moment, answers));
        moment = crate::decide::rollback::later(moment, step);
    }
    moments
}

async fn ask_window(
    source: &Arc<dyn QueryBackend>,
    query: &str,
    window: Duration,
    at: Timestamp,
) -> Result<Vec<Vec<f64>>, Unknown> {
    let start = k8s_openapi::jiff::SignedDuration::try_from(window).ok().and_then(|window| at.checked_sub(window).ok());
    let start = start.unwrap_or(Timestamp::MIN);
    let answer = source.query_range(query, start, at, baseline::step(window)).await.map_err(|error| unknown(&error))?;
    Ok(answer.iter().map(|series| series.points.iter().map(|(_, value)| *value).collect()).collect())
}

fn readings(answer: &Answer) -> Vec<Reading> {
    answer.iter().map(|sample| Reading { labels: sample.labels.clone(), value: sample.value }).collect()
}

/// The points of a range at one of its steps.
fn readings_at(answer: &RangeAnswer, moment: Timestamp) -> Vec<Reading> {
    let near = |at: Timestamp| at.duration_since(moment).abs() <= k8s_openapi::jiff::SignedDuration::from_millis(2);
    answer
        .iter()
        .filter_map(|series| {
            let (_, value) = series.points.iter().find(|(at, _)| near(*at))?;
            Some(Reading { labels: series.labels.clone(), value: *value })
        })
        .collect()
}

fn unknown(error: &QueryError) -> Unknown {
    Unknown::new(error.reason(), error.to_string())
}
