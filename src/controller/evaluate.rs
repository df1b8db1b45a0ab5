//! Asking a rollout's triggers at their instants, and carrying out what their standings ask for.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use super::{
    background::Background,
    claims,
    context::{Context, Setback},
};
use crate::{
    api::{
        condition::{self, Verdict, rollout as conditions},
        rollback::LearningRollback,
        rollout::{
            LearningRollout, LearningRolloutSpec, LearningRolloutStatus, Trigger, TriggerStatus, default_timeout,
        },
    },
    decide::{
        baseline, record_id,
        resume::{Range, RangeReadings, RangeSeries, resume},
        rollback::will,
        rollout::{self, Action, ActiveRecord, Evaluated, Facts, View, decide},
        schedule::{self, Fingerprint, Names},
        timer::{Pace, Timer},
        trigger::{Answer, Failure, Judgement, Readings, Series, judge},
    },
    prometheus::{self, QueryBackend, QueryError, RangeAnswer},
};

/// One rollout's triggers between two passes.
#[derive(Default)]
pub(super) struct Evaluator {
    spec: Option<LearningRolloutSpec>,
    print: Fingerprint,
    /// When all triggers are asked next.
    poll: Option<Timestamp>,
    /// When a trigger's window would be complete: it is asked at that very instant.
    due: BTreeMap<String, Timestamp>,
    timers: BTreeMap<String, Timer>,
    asking: Background<Asked>,
    /// What has been evaluated and not acted on: a set-back pass decides on it again.
    undecided: Option<(Vec<Evaluated>, Instant)>,
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
    query: String,
    readings: Readings,
    /// What the metrics were while nobody watched.
    history: Option<(Range, RangeReadings)>,
    /// The window of a captured baseline that is to be taken.
    window: Option<(Range, Result<Vec<RangeSeries>, Failure>)>,
}

/// What is to be asked for one trigger.
struct Question {
    trigger: Trigger,
    query: String,
    gate: Option<String>,
    baseline: Option<String>,
    history: Option<Range>,
    window: Option<Range>,
}

impl Evaluator {
    /// Resolves when answers have come; never while none are awaited.
    pub(super) async fn asked(&mut self) {
        self.asking.done().await;
    }

    /// Timers begin anew: a rollback has ended.
    pub(super) fn begin_anew(&mut self) {
        self.timers.values_mut().for_each(Timer::reset);
        self.due.clear();
        self.asking.reset();
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
        if let Some(asked) = self.asking.take() {
            self.take_in(context, rollout, asked);
        }
        let mut outcome = Outcome { wake: Timestamp::MAX, rollout: None, claimed: false };
        if let Some((evaluated, since)) = &self.undecided {
            act(context, rollout, records, orphan, evaluated, *since, &mut outcome).await?;
            self.undecided = None;
        }
        let current = outcome.rollout.as_ref().unwrap_or(rollout);
        outcome.wake = self.ask(context, current);
        Ok(outcome)
    }

    /// Follows the spec. Timers judge by themselves whether they still remember the same question.
    fn configure(&mut self, context: &Context, rollout: &LearningRollout) {
        if self.spec.as_ref() == Some(&rollout.spec) {
            return;
        }
        let spec = &rollout.spec;
        self.timers.retain(|name, _| spec.triggers.iter().any(|trigger| trigger.name == *name));
        self.due.clear();
        let queries: Vec<String> =
            spec.triggers.iter().map(|trigger| expand(context, rollout, &trigger.query)).collect();
        let source = spec.prometheus.as_ref().map_or("", |source| source.url.as_str());
        self.print = Fingerprint::queries(queries.iter().map(String::as_str).chain([source]));
        self.poll = Some(schedule::first(context.clock.now(), spec.interval.get(), self.print));
        self.spec = Some(spec.clone());
    }

    /// Judges what was answered.
    fn take_in(&mut self, context: &Context, rollout: &LearningRollout, asked: Asked) {
        let mut status = rollout.status.clone().unwrap_or_default();
        let mut evaluated = Vec::new();
        for asked_trigger in asked.triggers {
            let Some(trigger) = rollout.spec.triggers.iter().find(|trigger| trigger.name == asked_trigger.name) else {
                continue;
            };
            let (query, pace) = (&asked_trigger.query, pace(&rollout.spec, &status, trigger));
            let known =
                |status: &LearningRolloutStatus| status.triggers.iter().find(|of| of.name == trigger.name).cloned();
            let taken =
                asked_trigger.window.as_ref().map(|(range, answer)| baseline::capture(trigger, query, range, answer));
            let captured_now = taken.as_ref().and_then(|taken| taken.as_ref().ok()).cloned();
            if let Some(captured) = &captured_now {
                remember_baseline(&mut status, trigger, captured.clone());
            }
            let captured = baseline::in_force(trigger, query, known(&status).as_ref());
            let timer = self.timers.entry(trigger.name.clone()).or_default();
            if let Some((range, readings)) = asked_trigger.history {
                resume(timer, trigger, query, captured, &range, readings, &pace);
            }
            let mut judgement = judge(trigger, &asked_trigger.readings, captured);
            if let (Judgement::Unknown(cause), Some(Err(why))) = (&judgement, taken)
                && cause.reason == "BaselineNotReady"
            {
                judgement = Judgement::Unknown(why);
            }
            context.metrics.evaluated(match &judgement {
                Judgement::Unknown(cause) => &cause.reason,
                _ => "ok",
            });
            let standing = timer.observe(trigger, query, &judgement, asked.at, &pace);
            match standing.due {
                Some(due) => self.due.insert(trigger.name.clone(), due),
                None => self.due.remove(&trigger.name),
            };
            evaluated.push(Evaluated { trigger: trigger.name.clone(), standing, baseline: captured_now });
        }
        self.undecided = Some((evaluated, asked.answered_at));
    }

    /// Asks what is due, unless answers are still awaited. Answers when the next question is due.
    fn ask(&mut self, context: &Context, rollout: &LearningRollout) -> Timestamp {
        let Some(poll) = self.poll.filter(|_| self.asking.is_idle()) else {
            return Timestamp::MAX;
        };
        let (now, interval) = (context.clock.now(), rollout.spec.interval.get());
        let first_due = self.due.values().min().copied().filter(|due| *due < poll);
        let at = first_due.unwrap_or(poll);
        if at > now {
            return at;
        }
        // A moment long past is not asked about: what counts is now.
        let at = if now.duration_since(at).unsigned_abs() > interval { now } else { at };
        let asked =
            |trigger: &&Trigger| first_due.is_none() || self.due.get(&trigger.name).is_some_and(|due| *due <= at);
        let triggers: Vec<Trigger> = rollout.spec.triggers.iter().filter(asked).cloned().collect();
        let questions: Vec<Question> =
            triggers.into_iter().map(|trigger| self.question(context, rollout, trigger, at)).collect();
        for question in &questions {
            self.due.remove(&question.trigger.name);
        }
        if first_due.is_none() {
            self.poll = Some(schedule::tick(at.max(now), interval, schedule::offset(self.print, interval)));
        }
        self.asking.start(ask_all(context.clone(), rollout.clone(), questions, at));
        Timestamp::MAX
    }

    fn question(&mut self, context: &Context, rollout: &LearningRollout, trigger: Trigger, at: Timestamp) -> Question {
        let status = rollout.status.clone().unwrap_or_default();
        let known = status.triggers.iter().find(|of| of.name == trigger.name);
        let timer =
            self.timers.entry(trigger.name.clone()).or_insert_with(|| known.map(Timer::carry).unwrap_or_default());
        let query = expand(context, rollout, &trigger.query);
        let pace = pace(&rollout.spec, &status, &trigger);
        // Up to the moment before this one: the moment itself is asked about live.
        let just_before = at.checked_sub(k8s_openapi::jiff::SignedDuration::from_millis(1)).unwrap_or(at);
        let history =
            timer.to_fill().filter(|since| *since < at).map(|since| Range::to_fill(since, just_before, &pace));
        let interval = rollout.spec.interval.get();
        let window = baseline::to_capture(&trigger, &query, rollout.annotations(), &status, interval, at);
        Question {
            gate: trigger.gate.as_ref().map(|gate| expand(context, rollout, &gate.query)),
            baseline: trigger.baseline.as_ref().and_then(|of| of.query.as_ref()).map(|of| expand(context, rollout, of)),
            query,
            history,
            window,
            trigger,
        }
    }
}

/// Writes what changed, or claims an execution.
async fn act(
    context: &Context,
    rollout: &LearningRollout,
    records: &[LearningRollback],
    orphan: Option<String>,
    evaluated: &[Evaluated],
    since: Instant,
    outcome: &mut Outcome,
) -> Result<(), Setback> {
    let facts = Facts { active: active_record(rollout, records), orphan };
    let (status, now) = (rollout.status.clone().unwrap_or_default(), context.clock.now());
    let generation = rollout.metadata.generation;
    let view =
        View { spec: &rollout.spec, generation, annotations: rollout.annotations(), status: &status, facts: &facts };
    let rollout::Outcome { status: mut decided, actions, .. } = decide(&view, evaluated, now);
    decided.observed_generation = generation;
    let ready = Verdict::yes("Evaluating", "the triggers are evaluated");
    condition::set(&mut decided.conditions, conditions::READY, ready, generation, now);
    let start = actions.iter().find_map(|action| match action {
        Action::Start(conviction) | Action::Escalate(conviction) => Some(conviction),
        Action::WouldStart(_) | Action::Event(_) => None,
    });
    let mut next = rollout.clone();
    next.status = Some(decided.clone());
    let claim = start.and_then(|conviction| claims::claim(&next, conviction));
    let written = match claim {
        Some(claim) => {
            let plan_type = claim.plan_type;
            let written = context.take_claim(&next, claim).await?;
            outcome.claimed = true;
            context.metrics.started(plan_type);
            context.metrics.reacted(since.elapsed());
            written
        }
        None => context.write_rollout(rollout, decided).await?,
    };
    for action in actions {
        if let Action::Event(event) = action {
            context.publish(&written, &event.into());
        }
    }
    outcome.rollout = Some(written);
    Ok(())
}

fn expand(context: &Context, rollout: &LearningRollout, query: &str) -> String {
    let (namespace, name) = (rollout.namespace().unwrap_or_default(), rollout.name_any());
    Names { namespace: &namespace, name: &name, cluster: &context.cluster }.expand(query)
}

fn pace(spec: &LearningRolloutSpec, status: &LearningRolloutStatus, trigger: &Trigger) -> Pace {
    Pace {
        interval: spec.interval.get(),
        timeout: spec.prometheus.as_ref().map_or_else(default_timeout, |source| source.timeout).get(),
        evidence_from: rollout::evidence_from(spec, status, trigger),
    }
}

fn remember_baseline(
    status: &mut LearningRolloutStatus,
    trigger: &Trigger,
    captured: crate::api::rollout::BaselineStatus,
) {
    match status.triggers.iter_mut().find(|of| of.name == trigger.name) {
        Some(known) => known.baseline = Some(captured),
        None => status.triggers.push(TriggerStatus {
            name: trigger.name.clone(),
            baseline: Some(captured),
            ..TriggerStatus::default()
        }),
    }
}

/// Where the execution in force stands, and what a person wants of it.
fn active_record(rollout: &LearningRollout, records: &[LearningRollback]) -> Option<ActiveRecord> {
    let active = rollout.status.as_ref()?.active.as_ref()?;
    let record = records.iter().find(|record| record_id(record) == active.id)?;
    let phase = record.status.as_ref().map_or_else(Default::default, |status| status.phase);
    Some(ActiveRecord { phase, desired_state: will(record) })
}

/// Asks all questions at once.
async fn ask_all(context: Context, rollout: LearningRollout, questions: Vec<Question>, at: Timestamp) -> Asked {
    let namespace = rollout.namespace().unwrap_or_default();
    let source = context.sources.find(&namespace, rollout.spec.prometheus.as_ref()).await;
    let triggers = join_all(questions.into_iter().map(|question| {
        let source = &source;
        async move {
            match source {
                Ok(source) => ask_one(source, question, at).await,
                Err(error) => AskedTrigger {
                    readings: Readings { value: Err(failure(error)), gate: None, baseline: None },
                    name: question.trigger.name,
                    query: question.query,
                    history: None,
                    window: None,
                },
            }
        }
    }))
    .await;
    Asked { at, triggers, answered_at: Instant::now() }
}

async fn ask_one(source: &Arc<dyn QueryBackend>, question: Question, at: Timestamp) -> AskedTrigger {
    let Question { trigger, query, gate, baseline, history, window } = question;
    let optional = |query: Option<String>| async move {
        match query {
            Some(query) => Some(instant(source, &query, at).await),
            None => None,
        }
    };
    let (value, gate_now, baseline_now) =
        futures::join!(instant(source, &query, at), optional(gate.clone()), optional(baseline.clone()));
    let readings = Readings { value, gate: gate_now, baseline: baseline_now };
    let history = match history {
        // Where it cannot be found out the timer keeps what it carries, and it is asked again.
        Some(range) => {
            fill(source, range, &query, gate.as_deref(), baseline.as_deref()).await.ok().map(|of| (range, of))
        }
        None => None,
    };
    let window = match window {
        Some(range) => Some((range, ask_range(source, &query, range).await.map_err(|error| failure(&error)))),
        None => None,
    };
    AskedTrigger { name: trigger.name, query, readings, history, window }
}

/// One instant query, as `decide` reads it.
pub(super) async fn instant(source: &Arc<dyn QueryBackend>, query: &str, at: Timestamp) -> Answer {
    source.query(query, at).await.map(|answer| series(&answer)).map_err(|error| failure(&error))
}

/// What the metrics were over a range.
async fn fill(
    source: &Arc<dyn QueryBackend>,
    range: Range,
    query: &str,
    gate: Option<&str>,
    baseline: Option<&str>,
) -> Result<RangeReadings, QueryError> {
    let optional = |query: Option<&str>| {
        let query = query.map(str::to_owned);
        async move {
            match query {
                Some(query) => ask_range(source, &query, range).await.map(Some),
                None => Ok(None),
            }
        }
    };
    let (value, gate, baseline) =
        futures::try_join!(ask_range(source, query, range), optional(gate), optional(baseline))?;
    Ok(RangeReadings { value, gate, baseline })
}

async fn ask_range(source: &Arc<dyn QueryBackend>, query: &str, range: Range) -> Result<Vec<RangeSeries>, QueryError> {
    let answer: Arc<RangeAnswer> = source.query_range(query, range.start, range.end, range.step).await?;
    let series =
        answer.iter().map(|series| RangeSeries { labels: series.labels.clone(), points: series.points.clone() });
    Ok(series.collect())
}

fn series(answer: &prometheus::Answer) -> Vec<Series> {
    answer.iter().map(|sample| Series { labels: sample.labels.clone(), value: sample.value }).collect()
}

pub(super) fn failure(error: &QueryError) -> Failure {
    Failure { reason: error.reason().to_owned(), message: error.to_string() }
}
