//! What a step of a record put where: for people who look at a record.

use crate::api::{
    rollback::{LearningRollback, StepStatus},
    step::{Step, StepKind},
};

/// One field of one step: what it held, and what the step puts there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    pub field: String,
    /// `None`: the field was absent, or nothing is known of it yet.
    pub before: Option<String>,
    /// `None`: not known to this version.
    pub after: Option<String>,
}

/// The changes of a step, in the order of its prior values; those it has not recorded yet come last.
pub fn changes(record: &LearningRollback, step: &StepStatus) -> Vec<FieldChange> {
    let wanted = definition(record, step).map(|definition| wanted(record, definition, step)).unwrap_or_default();
    let after = |field: &str| wanted.iter().find(|(known, _)| known == field).map(|(_, value)| value.clone());
    let mut changes: Vec<FieldChange> = step
        .prior
        .iter()
        .map(|prior| FieldChange {
            field: prior.field.clone(),
            before: prior.value.clone(),
            after: after(&prior.field),
        })
        .collect();
    for (field, value) in wanted {
        if changes.iter().all(|known| known.field != field) {
            changes.push(FieldChange { field, before: None, after: Some(value) });
        }
    }
    changes
}

fn definition<'a>(record: &'a LearningRollback, step: &'a StepStatus) -> Option<&'a Step> {
    match &step.imported {
        Some(imported) => Some(&imported.definition),
        None => record.status.as_ref()?.plan.as_ref()?.steps.iter().find(|known| known.name == step.name),
    }
}

fn wanted(record: &LearningRollback, definition: &Step, step: &StepStatus) -> Vec<(String, String)> {
    let pointer = |parent: &str, key: &str| format!("{parent}/{}", escape(key));
    match definition.kind() {
        StepKind::SetConfig(it) => it.data.iter().map(|(key, value)| (pointer("/data", key), value.clone())).collect(),
        StepKind::Scale(it) => vec![("/spec/replicas".to_owned(), it.replicas.to_string())],
        StepKind::SwitchService(it) => {
            it.selector.iter().map(|(key, value)| (pointer("/spec/selector", key), value.clone())).collect()
        }
        StepKind::Restart(_) => {
            let mark = format!("{}-{}", record.metadata.uid.as_deref().unwrap_or_default(), step.name);
            vec![(pointer("/spec/template/metadata/annotations", crate::api::RESTARTED_BY), mark)]
        }
        // Weights are written one after the other: the last move says what stands there now.
        StepKind::ShiftTraffic(it) => {
            let position = step.position.and_then(|position| usize::try_from(position).ok());
            let left = position.and_then(|position| it.weights.get(position.saturating_sub(1)));
            let Some(left) = left else { return Vec::new() };
            vec![
                (format!("weight {}", it.from), left.to_string()),
                (format!("weight {}", it.to), (100 - left).to_string()),
            ]
        }
        StepKind::Unknown => Vec::new(),
    }
}

/// A key as a part of a JSON pointer.
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The last part of a JSON pointer as it is written in the object: what people call the field.
pub fn short(field: &str) -> String {
    match field.rsplit_once('/') {
        Some((_, key)) if field.starts_with('/') => key.replace("~1", "/").replace("~0", "~"),
        _ => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> LearningRollback {
        serde_json::from_value(json!({
            "apiVersion": "learningloop.io/v1alpha1", "kind": "LearningRollback",
            "metadata": {"name": "r", "uid": "u"},
            "spec": {"rolloutRef": {"name": "x"}, "rollback": "p"},
            "status": {
                "plan": {"formatVersion": 1, "type": "Immediate", "interval": "15s", "steps": [
                    {"name": "flag", "setConfig": {"configMapRef": {"name": "c"}, "data": {"A": "1", "b/c": "2"}}},
                    {"name": "restart", "restart": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}},
                ]},
                "steps": [
                    {"name": "flag", "kind": "setConfig", "prior": [{"field": "/data/A", "value": "0"}]},
                    {"name": "restart", "kind": "restart"},
                    {"name": "old/scale", "kind": "scale", "prior": [{"field": "/spec/replicas", "value": "3"}],
                     "imported": {"from": {"name": "q", "id": "i", "uid": "i"}, "definition":
                        {"name": "scale", "scale": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "replicas": 0}}}},
                ],
            },
        }))
        .unwrap()
    }

    #[test]
    fn before_and_after_of_each_step() {
        let record = record();
        type Change = (String, Option<String>, Option<String>);
        let found: Vec<Vec<Change>> = record
            .status
            .as_ref()
            .unwrap()
            .steps
            .iter()
            .map(|step| changes(&record, step).into_iter().map(|c| (short(&c.field), c.before, c.after)).collect())
            .collect();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                vec![("A".to_owned(), text("0"), text("1")), ("b/c".to_owned(), None, text("2"))],
                vec![("learningloop.io/restarted-by".to_owned(), None, text("u-restart"))],
                vec![("replicas".to_owned(), text("3"), text("0"))],
            ]
        );
    }
}
