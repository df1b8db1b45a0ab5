//! Annotations of a rollout that a person in a hurry sets and Git does not revert: pause, unpause, rebaseline.

use std::fmt;

use k8s_openapi::jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    args::Pause,
    error::{Error, Result},
    locate,
    rollback::after,
};
use crate::api::{PAUSED_REASON, PAUSED_UNTIL, REBASELINE, rollout::LearningRollout};

/// What was done to a rollout.
#[derive(Clone, Debug)]
pub struct Marked {
    pub rollout: LearningRollout,
    pub what: String,
}

impl fmt::Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = (self.rollout.namespace().unwrap_or_default(), self.rollout.name_any());
        write!(f, "LearningRollout {namespace}/{name}: {}", self.what)?;
        match self.rollout.status.as_ref().and_then(|status| status.active.as_ref()) {
            Some(active) => write!(f, "; {}, which is in force, goes on", active.name),
            None => Ok(()),
        }
    }
}

/// Starts nothing new until a moment.
///
/// # Errors
/// When the rollout is not there, the moment has passed, or the server refuses.
pub async fn pause(client: &Client, namespace: &str, request: &Pause, now: Timestamp) -> Result<Marked> {
    let until = match (request.length, request.until) {
        (Some(length), _) => after(now, length)?,
        (None, Some(until)) if until > now => until,
        (None, Some(until)) => return Error::refused(format!("--until {until} has passed: it is {now:.0}")),
        (None, None) => return Error::refused("say how long: --for DURATION or --until TIME"),
    };
    // Whole seconds are easier to read; upwards, so that no pause is empty.
    let whole = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil);
    let until = until.round(whole).unwrap_or(until);
    let values = json!({PAUSED_UNTIL: format!("{until:.0}"), PAUSED_REASON: request.reason});
    let rollout = annotate(client, namespace, &request.name, &values).await?;
    Ok(Marked { rollout, what: format!("paused, nothing new starts before {until:.0}") })
}

/// Ends a pause.
///
/// # Errors
/// When the rollout is not there, or the server refuses.
pub async fn unpause(client: &Client, namespace: &str, name: &str) -> Result<Marked> {
    let before = locate::rollout(client, namespace, name).await?;
    if !before.annotations().contains_key(PAUSED_UNTIL) {
        let suspended =
            if before.spec.suspend { "; it is suspended by spec.suspend, which is for Git to change" } else { "" };
        return Ok(Marked { what: format!("was not paused{suspended}"), rollout: before });
    }
    let rollout = annotate(client, namespace, name, &json!({PAUSED_UNTIL: null, PAUSED_REASON: null})).await?;
    Ok(Marked { rollout, what: "no longer paused".to_owned() })
}

/// Has captured baselines taken anew.
///
/// # Errors
/// When the rollout is not there or captures no baseline, or the server refuses.
pub async fn rebaseline(client: &Client, namespace: &str, name: &str, now: Timestamp) -> Result<Marked> {
    let before = locate::rollout(client, namespace, name).await?;
    let captured: Vec<&str> = before
        .spec
        .triggers
        .iter()
        .filter(|trigger| trigger.baseline.as_ref().is_some_and(|baseline| baseline.captured.is_some()))
        .map(|trigger| trigger.name.as_str())
        .collect();
    if captured.is_empty() {
        return Error::refused(format!(
            "LearningRollout {namespace}/{name} has no trigger with baseline.captured in spec.triggers: there is nothing to \
             take anew"
        ));
    }
    let rollout = annotate(client, namespace, name, &json!({REBASELINE: format!("{now:.0}")})).await?;
    let what = format!("baselines of {} are taken anew once nothing breaches", captured.join(", "));
    Ok(Marked { rollout, what })
}

/// Sets annotations, and removes those whose value is null. They are ours alone, so no version is pinned.
async fn annotate(client: &Client, namespace: &str, name: &str, values: &Value) -> Result<LearningRollout> {
    // A patch of what is not there would say only that.
    locate::rollout(client, namespace, name).await?;
    Api::<LearningRollout>::namespaced(client.clone(), namespace)
        .patch(name, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"annotations": values}})))
        .await
        .map_err(Error::asking(format!("cannot annotate LearningRollout {namespace}/{name}")))
}
