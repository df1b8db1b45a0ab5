//! `--wait`: until the operator has done what was asked, or it is clear that it will not.

use std::{fmt, ops::ControlFlow};

use futures::TryStreamExt;
use kube::{
    Api, Client, ResourceExt,
    runtime::watcher::{self, watch_object},
};

use super::{
    error::{Error, Result},
    locate,
};
use crate::api::{
    condition,
    duration::GoDuration,
    rollback::{LearningRollback, Phase, StepState},
};

/// A record that has arrived where it was waited for.
#[derive(Clone, Debug)]
pub struct Ended {
    pub record: LearningRollback,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", locate::title(&self.record), standing(&self.record))
    }
}

/// Waits until the steps have landed, or a dry run is complete.
///
/// # Errors
/// When it ends otherwise, a person is needed, or the time is over.
pub async fn rolled_back(client: &Client, record: &LearningRollback, timeout: GoDuration) -> Result<Ended> {
    until(client, record, timeout, |record| {
        let conditions = record.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        match locate::phase(record) {
            Phase::DryRunComplete => ControlFlow::Break(true),
            _ if condition::is_true(conditions, condition::rollback::ROLLED_BACK) => ControlFlow::Break(true),
            phase if phase.is_terminal() || phase == Phase::Restoring => ControlFlow::Break(false),
            _ if condition::is_true(conditions, condition::rollback::STALLED) => ControlFlow::Break(false),
            _ => ControlFlow::Continue(()),
        }
    })
    .await
}

/// Waits until everything has been put back.
///
/// # Errors
/// As [`rolled_back`].
pub async fn restored(client: &Client, record: &LearningRollback, timeout: GoDuration) -> Result<Ended> {
    until(client, record, timeout, |record| {
        let status = record.status.as_ref();
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        match locate::phase(record) {
            Phase::Restored => ControlFlow::Break(true),
            phase if phase.is_terminal() => ControlFlow::Break(false),
            // Only what stalls the restore counts: what stalled the rollback may be why it is restored.
            Phase::Restoring if condition::is_true(conditions, condition::rollback::STALLED) => {
                ControlFlow::Break(false)
            }
            _ => ControlFlow::Continue(()),
        }
    })
    .await
}

async fn until(
    client: &Client,
    record: &LearningRollback,
    timeout: GoDuration,
    judge: impl Fn(&LearningRollback) -> ControlFlow<bool>,
) -> Result<Ended> {
    let namespace = record.namespace().unwrap_or_default();
    let api: Api<LearningRollback> = Api::namespaced(client.clone(), &namespace);
    let mut last = record.clone();
    let watching = async {
        let mut seen = std::pin::pin!(watch_object(api, &record.name_any()));
        loop {
            match seen.try_next().await {
                Ok(Some(Some(now))) if now.uid() == record.uid() => {
                    last = now;
                    if let ControlFlow::Break(reached) = judge(&last) {
                        return Ok(reached);
                    }
                }
                Ok(_) => {
                    let why = "was deleted while it was waited for, which releases what it had changed";
                    return Err(Error::NotReached(format!("{} {why}", locate::title(record))));
                }
                // A broken watch is taken up again by the next look; what cannot get better is told at once.
                Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) if matches!(&error, kube::Error::Api(status) if status.is_forbidden()) =>
                {
                    return Err(Error::asking(format!("cannot watch {}", locate::title(record)))(error));
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_secs(1)).await,
            }
        }
    };
    match tokio::time::timeout(timeout.get(), watching).await {
        Ok(Ok(true)) => Ok(Ended { record: last }),
        Ok(Ok(false)) => Err(Error::NotReached(format!("{}: {}", locate::title(&last), standing(&last)))),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::NotReached(format!(
            "{} is not done after {timeout} and goes on: {}; is the operator running?",
            locate::title(&last),
            standing(&last)
        ))),
    }
}

/// Where a record stands, and what is in its way.
fn standing(record: &LearningRollback) -> String {
    let Some(status) = &record.status else { return "nothing has been done yet".to_owned() };
    let mut text = format!("{:?}", status.phase);
    if let Some(progress) = &status.progress {
        text = format!("{text}, {progress} steps");
    }
    let stalled =
        condition::get(&status.conditions, condition::rollback::STALLED).filter(|stalled| stalled.status == "True");
    if let Some(stalled) = stalled {
        text = format!("{text}; Stalled: {}", stalled.message);
    } else if let Some(message) = &status.message {
        text = format!("{text}; {message}");
    }
    let stuck = status.steps.iter().filter(|step| matches!(step.state, StepState::Blocked | StepState::Failed));
    for step in stuck {
        text = format!(
            "{text}; step {} is {:?}: {}",
            step.name,
            step.state,
            step.message.as_deref().unwrap_or("no message")
        );
    }
    text
}
