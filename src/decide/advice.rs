//! Warnings of policies that are valid and yet cannot do what they seem to promise. Shown with the condition Armed.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::{rollout, trigger::Comparator};
use crate::api::{
    PAUSED_UNTIL, REBASELINE,
    rollout::{Comparison, LearningRolloutSpec, SeriesPolicy, Trigger},
};

/// How much a piece of advice weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Worth knowing; may well be meant so.
    Information,
    /// Very likely not what was meant.
    Warning,
}

/// A remark on a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    pub weight: Weight,
    /// One CamelCase word.
    pub reason: &'static str,
    /// What was found, and what to do.
    pub message: String,
}

/// All there is to say about a policy.
pub fn advise(spec: &LearningRolloutSpec, annotations: &BTreeMap<String, String>) -> Vec<Advice> {
    shadowed(spec).into_iter().chain(unnamed(spec)).chain(floorless(spec)).chain(unreadable(annotations)).collect()
}

/// Triggers that can never be the one that acts, because another one always comes first.
fn shadowed(spec: &LearningRolloutSpec) -> Vec<Advice> {
    spec.triggers
        .iter()
        .enumerate()
        .filter_map(|(position, weak)| {
            let (_, strong) = spec.triggers.iter().enumerate().find(|(other, strong)| {
                *other != position
                    && shadows(spec, strong, weak)
                    // Of two that shadow each other the first one acts.
                    && (*other < position || !shadows(spec, weak, strong))
            })?;
            Some(Advice {
                weight: Weight::Warning,
                reason: "TriggerShadowed",
                message: format!(
                    "trigger {} never decides: {} asks the same query, fires whenever it does and no later, and its rollback {} is no weaker than {}; watch something else or remove one",
                    weak.name, strong.name, strong.rollback, weak.rollback
                ),
            })
        })
        .collect()
}

/// Does `strong` fire whenever `weak` does, no later, and with no weaker a plan?
fn shadows(spec: &LearningRolloutSpec, strong: &Trigger, weak: &Trigger) -> bool {
    let strength = |trigger| rollout::plan(spec, trigger).map(|plan| plan.plan_type);
    strong.query.trim() == weak.query.trim()
        && strong.gate == weak.gate
        && strong.baseline == weak.baseline
        && strong.no_data == weak.no_data
        && strong.hold <= weak.hold
        && (strong.critical || !weak.critical)
        && (strong.series == weak.series || strong.series == SeriesPolicy::Any)
        && strength(strong).is_some_and(|strong| strength(weak).is_some_and(|weak| strong >= weak))
        && covers(&strong.comparison, &weak.comparison)
}

/// Does the wide comparison hold wherever the narrow one does?
fn covers(wide: &Comparison, narrow: &Comparison) -> bool {
    use Comparator::{Above, AtLeast, AtMost, Below, Present};
    let (Some(wide), Some(narrow)) = (Comparator::read(wide), Comparator::read(narrow)) else { return false };
    match (wide, narrow) {
        (Present, _) => true,
        (Above(wide), Above(narrow)) | (AtLeast(wide), AtLeast(narrow) | Above(narrow)) => wide <= narrow,
        (Above(wide), AtLeast(narrow)) => wide < narrow,
        (Below(wide), Below(narrow)) | (AtMost(wide), AtMost(narrow) | Below(narrow)) => wide >= narrow,
        (Below(wide), AtMost(narrow)) => wide > narrow,
        _ => false,
    }
}

/// Plans that no trigger names.
fn unnamed(spec: &LearningRolloutSpec) -> impl Iterator<Item = Advice> {
    let unnamed =
        spec.rollbacks.iter().filter(|plan| spec.triggers.iter().all(|trigger| trigger.rollback != plan.name));
    unnamed.map(|plan| Advice {
        weight: Weight::Information,
        reason: "OnlyByHand",
        message: format!("rollback {} is named by no trigger: it runs only when a person starts it", plan.name),
    })
}

/// Critical triggers whose baseline could hold them back all the same.
fn floorless(spec: &LearningRolloutSpec) -> impl Iterator<Item = Advice> {
    let floorless = spec.triggers.iter().filter(|trigger| {
        let baseline = trigger.baseline.as_ref();
        trigger.critical && baseline.is_some_and(|baseline| baseline.captured.is_some() && baseline.floor.is_none())
    });
    floorless.map(|trigger| Advice {
        weight: Weight::Warning,
        reason: "CriticalWithoutFloor",
        message: format!(
            "trigger {} is critical but cannot be judged before its baseline is captured: set baseline.floor, which then serves instead",
            trigger.name
        ),
    })
}

/// Annotations that look like a person's word and are none.
fn unreadable(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = Advice> {
    [(PAUSED_UNTIL, "nothing is paused"), (REBASELINE, "no baseline is taken anew")].into_iter().filter_map(
        |(name, so)| {
            let text = annotations.get(name)?;
            text.trim().parse::<Timestamp>().is_err().then(|| Advice {
                weight: Weight::Warning,
                reason: "UnreadableAnnotation",
                message: format!(
                    "annotation {name} is {:?}, which is no time, so {so}: write one such as 2026-01-31T12:00:00Z",
                    super::words::clip(text, 64)
                ),
            })
        },
    )
}
