//! What a step touches, and what it wants there.
//!
//! Every step kind comes down to a few named fields of one object, each with a text for its value. That one shape
//! carries the prior, the patch, the contest, the undo note and the restore of all kinds.

use crate::api::{
    RESTARTED_BY,
    rollback::{FieldPrior, StepStatus, Target},
    step::{RouteKind, Step, StepKind},
};

/// The field of a scale step.
pub const REPLICAS: &str = "/spec/replicas";

/// One field and the value a step wants in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// JSON pointer, or `weight <destination>` for a route.
    pub field: String,
    /// The value as text.
    pub value: String,
}

/// One segment of a JSON pointer.
pub fn escape(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

/// The pod-template annotation of a restart step.
pub fn restart_field() -> String {
    format!("/spec/template/metadata/annotations/{}", escape(RESTARTED_BY))
}

/// The field that holds a destination's weight.
pub fn weight_field(destination: &str) -> String {
    format!("weight {destination}")
}

/// The object a step edits. `None` for a kind this operator does not know.
pub fn target(step: &Step) -> Option<Target> {
    let target = |api_version: &str, kind: &str, name: &str| {
        Some(Target { api_version: api_version.to_owned(), kind: kind.to_owned(), name: name.to_owned(), uid: None })
    };
    match step.kind() {
        StepKind::SetConfig(step) => target("v1", "ConfigMap", &step.config_map_ref.name),
        StepKind::SwitchService(step) => target("v1", "Service", &step.service_ref.name),
        StepKind::Scale(step) => target(&step.target_ref.api_version, &step.target_ref.kind, &step.target_ref.name),
        StepKind::Restart(step) => target(&step.target_ref.api_version, &step.target_ref.kind, &step.target_ref.name),
        StepKind::ShiftTraffic(step) => match step.route_ref.kind {
            RouteKind::VirtualService => target("networking.istio.io/v1", "VirtualService", &step.route_ref.name),
            RouteKind::HTTPRoute => target("gateway.networking.k8s.io/v1", "HTTPRoute", &step.route_ref.name),
        },
        StepKind::Unknown => None,
    }
}

/// The fields a step touches, in a stable order.
pub fn touched(step: &Step) -> Vec<String> {
    match step.kind() {
        StepKind::SetConfig(step) => step.data.keys().map(|key| format!("/data/{}", escape(key))).collect(),
        StepKind::SwitchService(step) => {
            step.selector.keys().map(|key| format!("/spec/selector/{}", escape(key))).collect()
        }
        StepKind::Scale(_) => vec![REPLICAS.to_owned()],
        StepKind::Restart(_) => vec![restart_field()],
        StepKind::ShiftTraffic(step) => vec![weight_field(&step.from), weight_field(&step.to)],
        StepKind::Unknown => Vec::new(),
    }
}

/// How many moves a step makes.
pub fn positions(step: &Step) -> i32 {
    match step.kind() {
        StepKind::ShiftTraffic(shift) => i32::try_from(shift.weights.len()).unwrap_or(i32::MAX),
        _ => 1,
    }
}

/// What a step wants at one of its moves. `mark` is the value a restart writes; `prior` is needed for weights, which
/// keep the sum they had.
pub fn wanted(step: &Step, position: i32, prior: &[FieldPrior], mark: &str) -> Vec<Wanted> {
    let value = |field: String, value: String| Wanted { field, value };
    match step.kind() {
        StepKind::SetConfig(step) => {
            step.data.iter().map(|(key, text)| value(format!("/data/{}", escape(key)), text.clone())).collect()
        }
        StepKind::SwitchService(step) => step
            .selector
            .iter()
            .map(|(key, text)| value(format!("/spec/selector/{}", escape(key)), text.clone()))
            .collect(),
        StepKind::Scale(step) => vec![value(REPLICAS.to_owned(), step.replicas.to_string())],
        StepKind::Restart(_) => vec![value(restart_field(), mark.to_owned())],
        StepKind::ShiftTraffic(shift) => {
            let (from, to) = (weight_field(&shift.from), weight_field(&shift.to));
            let sum = weight(prior, &from) + weight(prior, &to);
            let share = usize::try_from(position).ok().and_then(|at| shift.weights.get(at)).copied().unwrap_or(0);
            // A rollback never raises the share, even where the feature had less than the first weight.
            let left = (sum * i64::from(share.clamp(0, 100)) / 100).min(weight(prior, &from));
            vec![value(from, left.to_string()), value(to, (sum - left).to_string())]
        }
        StepKind::Unknown => Vec::new(),
    }
}

fn weight(prior: &[FieldPrior], field: &str) -> i64 {
    text_of(prior, field).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What a list of fields says of one of them.
pub fn text_of<'a>(fields: &'a [FieldPrior], field: &str) -> Option<&'a str> {
    fields.iter().find(|present| present.field == field).and_then(|present| present.value.as_deref())
}

/// What a step, as far as it got, has put into its fields. Only fields whose prior it holds: those of a step that was
/// taken over in part belong to another.
pub fn ours(definition: &Step, status: &StepStatus, record_uid: &str) -> Vec<Wanted> {
    let mark = restart_mark(status, record_uid);
    wanted(definition, status.position.unwrap_or(0), &status.prior, &mark)
        .into_iter()
        .filter(|wanted| status.prior.iter().any(|prior| prior.field == wanted.field))
        .collect()
}

/// The value a restart step writes: the same for every replay, another for every execution. An imported step keeps the
/// mark of the execution that made it.
pub fn restart_mark(status: &StepStatus, record_uid: &str) -> String {
    match &status.imported {
        Some(imported) => format!("{}-{}", imported.from.uid, imported.definition.name),
        None => format!("{record_uid}-{}", status.name),
    }
}

/// The value a restore writes over a restart's mark, so that the pods restart once more.
pub fn restart_again_mark(status: &StepStatus, record_uid: &str) -> String {
    format!("{}-restored", restart_mark(status, record_uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::step::{RouteRef, ShiftTraffic};

    fn shift() -> Step {
        Step {
            name: "traffic".into(),
            shift_traffic: Some(ShiftTraffic {
                route_ref: RouteRef::default(),
                from: "learning".into(),
                to: "baseline".into(),
                weights: vec![75, 50, 25, 0],
                ..ShiftTraffic::default()
            }),
            ..Step::default()
        }
    }

    fn prior(from: &str, to: &str) -> Vec<FieldPrior> {
        vec![
            FieldPrior { field: "weight learning".into(), value: Some(from.into()) },
            FieldPrior { field: "weight baseline".into(), value: Some(to.into()) },
        ]
    }

    #[test]
    fn weights_keep_their_sum() {
        for (from, to) in [(100, 0), (90, 10), (1, 2), (0, 100), (7, 0)] {
            for position in 0..4 {
                let wanted = wanted(&shift(), position, &prior(&from.to_string(), &to.to_string()), "");
                let sum: i64 = wanted.iter().map(|wanted| wanted.value.parse::<i64>().unwrap()).sum();
                assert_eq!(sum, from + to);
            }
            assert_eq!(wanted(&shift(), 3, &prior(&from.to_string(), &to.to_string()), "")[0].value, "0");
        }
    }

    #[test]
    fn pointers_are_escaped() {
        assert_eq!(restart_field(), "/spec/template/metadata/annotations/learningloop.io~1restarted-by");
    }
}
