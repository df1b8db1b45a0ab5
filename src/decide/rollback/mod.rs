//! One execution: what to look at, what to journal, what to write.
//!
//! [`decide`] is called again and again with everything that was seen so far. It answers with a status to journal and
//! with writes, each of which refers to an intent in that status: the shell journals first, then writes. Calling it
//! twice with equal inputs gives equal answers, so that a crash anywhere costs nothing but a repeated look.

mod apply;
mod draft;
mod restore;
mod settle;
mod summary;

use std::time::Duration;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::{SignedDuration, Timestamp},
};

use crate::api::{
    rollback::{
        DesiredState, FieldPrior, FrozenPlan, LearningRollback, LearningRollbackStatus, Phase, StepState, StepStatus,
        VerifyState, VerifyStatus, WritePurpose,
    },
    rollout::Evidence,
    step::Step,
};

pub use draft::{MAX_STATUS_BYTES, token, unknown_kind};
pub use restore::to_restore;

/// Everything a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The record as it is stored.
    pub record: &'a LearningRollback,
    /// May it begin? Only asked while it is Pending.
    pub admission: &'a Admission,
    /// The record it takes over from, as stored.
    pub predecessor: Option<&'a LearningRollback>,
    /// What was seen in this pass, one entry for each step of the drafted status.
    pub sights: &'a [StepSight],
    /// The checks, where their queries have just been answered.
    pub verified: Option<&'a [VerifyStatus]>,
    /// When the targets were last looked at, in this or an earlier pass of this process.
    pub looked_at: Option<Timestamp>,
    /// The moment of the decision.
    pub now: Timestamp,
}

/// May a Pending record begin?
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// The rollout's status.active names it: this plan is frozen.
    Granted(Box<Grant>),
    /// Not yet.
    Wait,
    /// Never.
    Refused {
        /// One CamelCase word.
        reason: &'static str,
        /// For people.
        message: String,
    },
}

/// What an admitted record begins with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    /// The plan, as the rollout has it now.
    pub plan: FrozenPlan,
    /// The samples that convicted.
    pub evidence: Option<Evidence>,
}

/// What was seen of one step in this pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepSight {
    /// Its target.
    pub target: Option<TargetSight>,
    /// Traffic that the step moved is seen to have moved.
    pub holds: Option<Result<(), String>>,
    /// What was put back is available, or has rolled out.
    pub ready: Option<Result<(), String>>,
}

/// What was seen of a target.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetSight {
    /// There is no such object.
    Missing,
    /// It could not be read, or refuses the edit.
    Unusable(Failure),
    /// It is there.
    Present(Present),
}

/// An object that is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Present {
    /// Its uid.
    pub uid: String,
    /// The fence annotation.
    pub fence: Option<String>,
    /// The fields of the step, as they are now.
    pub fields: Vec<FieldPrior>,
    /// Another record in force whose token stands there.
    pub claimed_by: Option<String>,
    /// The manager that last wrote one of the fields, other than this operator.
    pub manager: Option<String>,
    /// Why the rehearsed edit was refused.
    pub refused: Option<Failure>,
}

/// Why something could not be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// One CamelCase word.
    pub reason: String,
    /// For people: what, found what, do what.
    pub message: String,
    /// Trying again on an unchanged object will not help.
    pub permanent: bool,
}

/// Something to look at before deciding further. Indexes are those of `status.steps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Look {
    /// Read a step's target by quorum; `rehearse` also dry-runs its edit on the server.
    Target {
        /// Index of the step.
        step: usize,
        /// Dry-run the edit too.
        rehearse: bool,
    },
    /// Has the traffic that a step moved really moved?
    Holds(usize),
    /// Is what a step put back available, or rolled out?
    Ready(usize),
}

/// A write to a target. The intent is in the status that was journalled before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Index of the step.
    pub step: usize,
    /// What it is for. `None`: take our annotations off, keep the values.
    pub purpose: Option<WritePurpose>,
}

/// Something people should see as a Kubernetes Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Type Warning rather than Normal.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl From<crate::decide::rollout::Event> for Event {
    fn from(event: crate::decide::rollout::Event) -> Self {
        let warning = event.kind == crate::decide::rollout::EventType::Warning;
        Self { warning, reason: event.reason, message: event.message }
    }
}

impl Event {
    fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: false, reason, message: message.into() }
    }

    fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into() }
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The status: to be journalled if it differs and no look is asked for.
    pub status: LearningRollbackStatus,
    /// Look at these and decide again, before anything is journalled or written.
    pub looks: Vec<Look>,
    /// Write these once the status is journalled.
    pub writes: Vec<Write>,
    /// Decide again then, if nothing happens before.
    pub wake: Option<Timestamp>,
    /// Tell people, once the status is journalled.
    pub events: Vec<Event>,
    /// The finalizer may go.
    pub finished: bool,
}

/// Decides what to do for a record.
pub fn decide(input: &Input<'_>) -> Decision {
    let status = input.record.status.clone().unwrap_or_default();
    if status.phase.is_terminal() {
        return Decision { status, finished: true, ..Decision::default() };
    }
    let mut pass = Pass::new(input, status);
    match pass.status.phase {
        Phase::Pending => pass.begin(),
        Phase::Executing | Phase::RolledBack | Phase::Restoring => pass.carry_on(),
        // Written by another version: in force, and not ours to touch.
        _ => {}
    }
    pass.finish()
}

/// The will that counts: deleting a record means release.
pub fn will(record: &LearningRollback) -> DesiredState {
    if record.metadata.deletion_timestamp.is_some() && record.spec.desired_state != DesiredState::Restored {
        DesiredState::Released
    } else {
        record.spec.desired_state
    }
}

/// The definition of a step: its own, or the one it was taken over with.
pub fn definition<'a>(plan: Option<&'a FrozenPlan>, step: &'a StepStatus) -> Option<&'a Step> {
    match &step.imported {
        Some(imported) => Some(&imported.definition),
        None => plan?.steps.iter().find(|definition| definition.name == step.name),
    }
}

/// A decision in the making.
struct Pass<'a> {
    input: &'a Input<'a>,
    uid: String,
    status: LearningRollbackStatus,
    looks: Vec<Look>,
    writes: Vec<Write>,
    wake: Option<Timestamp>,
    events: Vec<Event>,
}

impl<'a> Pass<'a> {
    fn new(input: &'a Input<'a>, status: LearningRollbackStatus) -> Self {
        let uid = input.record.metadata.uid.clone().unwrap_or_default();
        Self { input, uid, status, looks: Vec::new(), writes: Vec::new(), wake: None, events: Vec::new() }
    }

    fn carry_on(&mut self) {
        let will = will(self.input.record);
        self.status.acknowledged.pace = self.input.record.spec.pace;
        if will != self.status.acknowledged.desired_state && !self.acknowledge(will) {
            return;
        }
        match self.status.acknowledged.desired_state {
            DesiredState::RolledBack | DesiredState::Held => self.apply(),
            DesiredState::Restored => self.restore(),
            DesiredState::Released => self.release(),
        }
    }

    /// Makes room between two steps of a decision: the step as it is, and what was seen of it.
    fn step(&self, index: usize) -> Option<(&StepStatus, &Step)> {
        let step = self.status.steps.get(index)?;
        Some((step, definition(self.status.plan.as_ref(), step)?))
    }

    fn sight(&self, index: usize) -> Option<&'a StepSight> {
        self.input.sights.get(index)
    }

    fn target_sight(&self, index: usize) -> Option<&'a TargetSight> {
        self.sight(index)?.target.as_ref()
    }

    /// Asks for a look at a target. True when it has been seen already.
    fn seen(&mut self, index: usize, rehearse: bool) -> bool {
        let seen = self.target_sight(index).is_some();
        if !seen {
            self.looks.push(Look::Target { step: index, rehearse });
        }
        seen
    }

    fn write(&mut self, step: usize, purpose: Option<WritePurpose>) {
        self.writes.push(Write { step, purpose });
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn wake_in(&mut self, wait: Duration) {
        self.wake_at(later(self.input.now, wait));
    }

    /// Marks a step as failed, to be tried again after a while.
    fn fail(&mut self, index: usize, failure: &Failure) {
        let now = self.input.now;
        let Some(step) = self.status.steps.get_mut(index) else { return };
        if step.reason.as_deref() != Some(failure.reason.as_str()) {
            let message = format!("step {}: {}", step.name, failure.message);
            self.events.push(Event { warning: true, reason: "StepFailed", message });
        }
        step.state = StepState::Failed;
        step.failures = step.failures.saturating_add(1).min(1_000_000);
        step.reason = Some(failure.reason.clone());
        step.message = Some(shorten(&failure.message));
        let again = later(now, backoff(step.failures, failure.permanent));
        step.not_before = Some(MicroTime(again));
    }

    fn finish(mut self) -> Decision {
        if self.looks.is_empty() {
            self.take_in_checks();
            self.one_write_for_each_target();
            for step in &self.status.steps {
                let waits = !matches!(step.state, StepState::Restored | StepState::Kept);
                if let Some(at) = step.not_before.as_ref().filter(|at| waits && at.0 > self.input.now) {
                    self.wake = Some(self.wake.map_or(at.0, |wake| wake.min(at.0)));
                }
            }
            self.summarise();
        } else {
            self.writes.clear();
            self.events.clear();
        }
        let finished = self.status.phase.is_terminal();
        Decision {
            status: self.status,
            looks: self.looks,
            writes: self.writes,
            wake: self.wake,
            events: self.events,
            finished,
        }
    }

    /// What the checks say, once.
    fn take_in_checks(&mut self) {
        let Some(verified) = self.input.verified.filter(|_| self.status.phase == Phase::RolledBack) else { return };
        for check in verified {
            let before = self.status.verify.iter().find(|before| before.name == check.name).map(|before| before.state);
            let message = format!("check {}: {}", check.name, check.message.clone().unwrap_or_default());
            match check.state {
                state if before == Some(state) => {}
                VerifyState::Passed => self.events.push(Event::normal("Verified", message)),
                VerifyState::Failed => self.events.push(Event::warning("VerificationFailed", message)),
                VerifyState::Pending => {}
            }
        }
        self.status.verify = verified.to_vec();
    }

    /// Two writes to one object in one round would race each other for the fence.
    fn one_write_for_each_target(&mut self) {
        let mut written = Vec::new();
        let steps = &self.status.steps;
        self.writes.retain(|write| {
            let target = steps.get(write.step).and_then(|step| step.target.as_ref());
            let key = target.map(|target| (target.kind.clone(), target.name.clone()));
            let first = !written.contains(&key);
            written.push(key);
            first
        });
    }
}

/// How long to wait before the next try. A permanent refusal is asked again rarely: the object may have changed.
pub fn backoff(failures: i32, permanent: bool) -> Duration {
    if permanent {
        return Duration::from_secs(60);
    }
    let exponent = u32::try_from(failures.saturating_sub(1)).unwrap_or(0).min(7);
    (Duration::from_millis(250) * 2u32.pow(exponent)).min(Duration::from_secs(30))
}

/// `at` plus a wait, at the end of time at the latest.
pub fn later(at: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| at.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

/// At most what the schema admits for a text.
pub fn shorten(text: &str) -> String {
    const LIMIT: usize = 1000;
    if text.chars().count() <= LIMIT { text.to_owned() } else { text.chars().take(LIMIT).chain(['…']).collect() }
}
