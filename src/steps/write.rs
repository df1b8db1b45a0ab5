//! From a journalled intent to the patch that carries it out. The same intent on the same object gives the same patch.

use serde_json::Value;

use super::{
    Located,
    edit::{self, Edit},
    locate, note,
};
use crate::{
    api::{
        rollback::{Fence, LearningRollback, LearningRollbackStatus, StepStatus, WritePurpose},
        step::Step,
    },
    decide::{
        fields,
        rollback::{Failure, definition, to_restore, token},
    },
};

/// The patch of one step. `purpose` `None` takes our annotations off and leaves the values.
///
/// # Errors
/// When the fields cannot be found in the object as it is now.
pub fn patch(
    record: &LearningRollback,
    status: &LearningRollbackStatus,
    index: usize,
    purpose: Option<WritePurpose>,
    object: &Value,
) -> Result<Value, Failure> {
    let lost =
        || Failure { reason: "NotJournalled".to_owned(), message: "there is no intent".to_owned(), permanent: true };
    let step = status.steps.get(index).ok_or_else(lost)?;
    let definition = definition(status.plan.as_ref(), step).ok_or_else(lost)?;
    let uid = record.metadata.uid.as_deref().unwrap_or_default();
    let target_uid = step.target.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default();
    let Some(purpose) = purpose else {
        let fence = edit::fence_of(object);
        let edit = Edit {
            object,
            uid: target_uid,
            fence_seen: fence.as_deref(),
            fence_new: None,
            note: None,
            changes: Vec::new(),
            pin_version: versioned(step),
        };
        return Ok(edit.operations());
    };
    let fence = step.fence.as_ref().ok_or_else(lost)?;
    let (changes, note) = match purpose {
        WritePurpose::Apply => {
            let wanted =
                fields::ours(definition, step, uid).into_iter().map(|wanted| (wanted.field, Some(wanted.value)));
            (pair(locate(definition, object)?, wanted), note::for_target(record, status, index, false))
        }
        WritePurpose::Move => (Vec::new(), note::for_target(record, status, index, !step.committed)),
        WritePurpose::Restore => {
            let now = super::read(definition, object)?;
            let back = if step.committed { to_restore(definition, step, uid, &now) } else { Vec::new() };
            let back = back.into_iter().map(|prior| (prior.field, prior.value));
            (pair(locate(definition, object)?, back), note::for_target(record, status, index, true))
        }
    };
    // A restore that leaves nothing of ours behind takes the fence along.
    let leaves = purpose == WritePurpose::Restore && note.is_none();
    let edit = Edit {
        object,
        uid: target_uid,
        fence_seen: fence.seen.as_deref(),
        fence_new: (!leaves).then_some(fence.new.as_str()),
        note,
        changes,
        pin_version: versioned(step),
    };
    Ok(edit.operations())
}

/// The patch that a step's first attempt would send, to be rehearsed before anything is journalled.
///
/// # Errors
/// When the fields cannot be found in the object.
pub fn rehearsal(
    record: &LearningRollback,
    status: &LearningRollbackStatus,
    index: usize,
    object: &Value,
) -> Result<Value, Failure> {
    let mut draft = status.clone();
    if let Some(step) = draft.steps.get_mut(index) {
        let definition: Option<Step> = definition(status.plan.as_ref(), step).cloned();
        step.prior = definition.map(|definition| super::read(&definition, object)).transpose()?.unwrap_or_default();
        if let Some(target) = &mut step.target {
            target.uid = object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        }
        step.fence = Some(Fence {
            seen: edit::fence_of(object),
            new: token(record.metadata.uid.as_deref().unwrap_or_default(), &step.name, 1),
            attempt: 1,
            ..Fence::default()
        });
    }
    patch(record, &draft, index, Some(WritePurpose::Apply), object)
}

/// `kubectl rollout undo` brings back an older template with an older fence: the version is pinned there too.
fn versioned(step: &StepStatus) -> bool {
    step.target.as_ref().is_some_and(|target| matches!(target.kind.as_str(), "Deployment" | "StatefulSet"))
}

fn pair(
    located: Vec<Located>,
    values: impl Iterator<Item = (String, Option<String>)>,
) -> Vec<(Located, Option<String>)> {
    values
        .filter_map(|(field, value)| Some((located.iter().find(|located| located.field == field)?.clone(), value)))
        .collect()
}
