//! `rollback`: a record made by a person.

use std::fmt;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, Client, ResourceExt, api::PostParams};

use super::{
    args::Rollback,
    error::{Error, Result},
    locate,
};
use crate::api::{
    duration::GoDuration,
    rollback::{LearningRollback, LearningRollbackSpec, RolloutRef},
    rollout::LearningRollout,
};

/// A rollback that has been asked for.
#[derive(Clone, Debug)]
pub struct Created {
    pub record: LearningRollback,
    /// Another rollback of the same rollout, in force when this one was asked for.
    pub beside: Option<String>,
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.record.spec.dry_run { "dry run" } else { "rollback" };
        write!(f, "{} created: {what} of {}", locate::title(&self.record), self.record.spec.rollout_ref.name)?;
        write!(f, " by its plan {}", self.record.spec.rollback)?;
        if let Some(beside) = &self.beside {
            write!(f, "\n{beside} is in force: a stronger plan takes over from it, any other waits or is skipped")?;
        }
        Ok(())
    }
}

/// Asks for a rollback, by creating its record.
///
/// # Errors
/// When the rollout or its plan is not there, or the server refuses.
pub async fn rollback(client: &Client, namespace: &str, request: &Rollback, now: Timestamp) -> Result<Created> {
    let rollout = locate::rollout(client, namespace, &request.name).await?;
    check_plan(&rollout, namespace, &request.plan)?;
    let beside = rollout.status.as_ref().and_then(|status| status.active.as_ref()).map(|active| active.name.clone());
    let record = LearningRollback {
        // The server completes it to a name nobody has.
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-manual-", request.name)),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        spec: LearningRollbackSpec {
            rollout_ref: RolloutRef { name: request.name.clone(), uid: rollout.uid() },
            rollback: request.plan.clone(),
            reason: request.reason.clone(),
            dry_run: request.dry_run,
            expires_at: Some(MicroTime(after(now, request.expires_in)?)),
            ..LearningRollbackSpec::default()
        },
        status: None,
    };
    let record = Api::<LearningRollback>::namespaced(client.clone(), namespace)
        .create(&PostParams::default(), &record)
        .await
        .map_err(Error::asking(format!("cannot create a LearningRollback of {namespace}/{}", request.name)))?;
    Ok(Created { record, beside })
}

fn check_plan(rollout: &LearningRollout, namespace: &str, plan: &str) -> Result<()> {
    if rollout.spec.rollbacks.iter().any(|known| known.name == plan) {
        return Ok(());
    }
    let plans: Vec<String> =
        rollout.spec.rollbacks.iter().map(|known| format!("{} ({:?})", known.name, known.plan_type)).collect();
    Error::refused(format!(
        "LearningRollout {namespace}/{} has no plan {plan:?} in spec.rollbacks: choose --plan from {}",
        rollout.name_any(),
        plans.join(", ")
    ))
}

/// A moment to come.
pub(super) fn after(now: Timestamp, length: GoDuration) -> Result<Timestamp> {
    SignedDuration::try_from(length.get())
        .ok()
        .filter(|length| !length.is_zero())
        .and_then(|length| now.checked_add(length).ok())
        .ok_or_else(|| Error::Refused(format!("{length} is not a time to come: choose a duration from 1ms on")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_to_come() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(after(now, GoDuration::from_secs(60)).unwrap(), "2026-01-01T00:01:00Z".parse().unwrap());
        assert!(after(now, GoDuration::from_secs(0)).is_err());
        assert!(after(Timestamp::MAX, GoDuration::from_secs(1)).is_err());
    }
}
