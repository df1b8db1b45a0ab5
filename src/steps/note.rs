//! The undo note: what stood on a target before, on the target itself, so that a lost record or an uninstalled operator
//! leave an object that says how to put it right.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    api::{
        rollback::{LearningRollback, LearningRollbackStatus, StepState, StepStatus},
        step::Step,
    },
    decide::{fields, rollback::definition},
};

/// The annotation `learningloop.io/undo`, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoNote {
    /// Version of this format: 1.
    pub version: u32,
    /// `namespace/name` of the record.
    pub record: String,
    /// uid of the record.
    pub uid: String,
    /// What each step changed, by its name.
    pub steps: BTreeMap<String, UndoStep>,
}

/// What one step changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoStep {
    /// Kind of the step.
    pub kind: String,
    /// The fields it touched.
    pub fields: Vec<UndoField>,
}

/// One field: what it held, and what we put there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoField {
    /// JSON pointer, or `weight <destination>`.
    pub field: String,
    /// Absent: the field was absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What the step put there.
    pub after: String,
}

/// Does a step still have something on its target that a restore would take away?
fn holds(step: &StepStatus) -> bool {
    step.fence.is_some() && !matches!(step.state, StepState::Restored | StepState::Kept)
}

/// The note a target carries once the write of step `writing` has landed. `leaving`: that step leaves the target with
/// this write. `None`: nothing of the record is left there.
pub fn for_target(
    record: &LearningRollback,
    status: &LearningRollbackStatus,
    writing: usize,
    leaving: bool,
) -> Option<String> {
    let uid = record.metadata.uid.as_deref().unwrap_or_default();
    let target = status.steps.get(writing)?.target.as_ref()?;
    let same = |step: &StepStatus| {
        step.target.as_ref().is_some_and(|other| other.kind == target.kind && other.name == target.name)
    };
    let steps: BTreeMap<String, UndoStep> = status
        .steps
        .iter()
        .enumerate()
        .filter(|(index, step)| same(step) && holds(step) && !(leaving && *index == writing))
        .filter(|(index, step)| step.committed || *index == writing)
        .filter_map(|(_, step)| {
            Some((step.name.clone(), undo_step(definition(status.plan.as_ref(), step)?, step, uid)))
        })
        .collect();
    if steps.is_empty() {
        return None;
    }
    let namespace = record.metadata.namespace.as_deref().unwrap_or_default();
    let name = record.metadata.name.as_deref().unwrap_or_default();
    let note = UndoNote { version: 1, record: format!("{namespace}/{name}"), uid: uid.to_owned(), steps };
    serde_json::to_string(&note).ok()
}

fn undo_step(definition: &Step, step: &StepStatus, uid: &str) -> UndoStep {
    let fields = fields::ours(definition, step, uid)
        .into_iter()
        .map(|wanted| UndoField {
            before: fields::text_of(&step.prior, &wanted.field).map(str::to_owned),
            field: wanted.field,
            after: wanted.value,
        })
        .collect();
    UndoStep { kind: step.kind.clone(), fields }
}
