//! A person's will about a record: restore, release, hold, resume, faster.

use std::fmt;

use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    error::{Error, Result},
    locate,
};
use crate::api::rollback::{DesiredState, LearningRollback, Pace};

/// The operator writes the record's status meanwhile, and each write is a new version.
const ATTEMPTS: usize = 8;

/// What a person can want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Will {
    Restore,
    Release,
    Hold,
    Resume,
    Faster,
}

impl Will {
    const fn desired(self) -> Option<DesiredState> {
        match self {
            Self::Restore => Some(DesiredState::Restored),
            Self::Release => Some(DesiredState::Released),
            Self::Hold => Some(DesiredState::Held),
            Self::Resume => Some(DesiredState::RolledBack),
            Self::Faster => None,
        }
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Release => "release",
            Self::Hold => "hold",
            Self::Resume => "resume",
            Self::Faster => "faster",
        }
    }
}

/// What the record has been told.
#[derive(Clone, Debug)]
pub struct Told {
    pub record: LearningRollback,
    pub will: Will,
    /// It had been told before: nothing was written.
    pub already: bool,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = match self.will {
            Will::Restore => "the operator puts everything back",
            Will::Release => "the present state stays and is no longer enforced",
            Will::Hold => "no further move is made",
            Will::Resume => "the rollback goes on",
            Will::Faster => "traffic goes straight to the last weight",
        };
        let already = if self.already { "was already told so, " } else { "" };
        write!(f, "{}: {already}{next}", locate::title(&self.record))
    }
}

/// Tells the record that `name` means.
///
/// # Errors
/// When no record is meant, when it has ended or was told a final word, or the server refuses.
pub async fn decide(client: &Client, namespace: &str, name: &str, will: Will, reason: Option<&str>) -> Result<Told> {
    let records: Api<LearningRollback> = Api::namespaced(client.clone(), namespace);
    let mut record = locate::record(client, namespace, name).await?;
    let name = record.name_any();
    for _ in 0..ATTEMPTS {
        let Some(spec) = change(&record, will)? else { return Ok(Told { record, will, already: true }) };
        let patch = json!({
            // The API server refuses the patch if the record has changed since it was judged.
            "metadata": {"resourceVersion": record.resource_version(), "uid": record.uid()},
            "spec": {"desiredState": spec.0, "pace": spec.1, "decisionReason": reason},
        });
        match records.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(record) => return Ok(Told { record, will, already: false }),
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                record = locate::record(client, namespace, &format!("lrb/{name}")).await?;
            }
            Err(error) => {
                return Err(Error::asking(format!("cannot {} {}", will.verb(), locate::title(&record)))(error));
            }
        }
    }
    Error::refused(format!(
        "{} changes faster than it could be told to {}: try again",
        locate::title(&record),
        will.verb()
    ))
}

/// What the spec would say. `None`: it says so already.
fn change(record: &LearningRollback, will: Will) -> Result<Option<(DesiredState, Pace)>> {
    let (now, pace) = (record.spec.desired_state, record.spec.pace);
    let (desired, wanted_pace) = (will.desired().unwrap_or(now), if will == Will::Faster { Pace::Fast } else { pace });
    let phase = locate::phase(record);
    if phase.is_terminal() {
        return Error::refused(format!(
            "{} has ended as {phase:?}{}: there is nothing left to {}; kubectl learning-rollout rollback {} --plan {} \
             starts another",
            locate::title(record),
            record
                .status
                .as_ref()
                .and_then(|status| status.finished_at.as_ref())
                .map_or_else(String::new, |at| format!(" at {:.0}", at.0)),
            will.verb(),
            record.spec.rollout_ref.name,
            record.spec.rollback,
        ));
    }
    let is_final = matches!(now, DesiredState::Restored | DesiredState::Released);
    if is_final && (now != desired || will == Will::Faster) {
        return Error::refused(format!(
            "{} was told spec.desiredState {now:?}{}, which is final: it cannot be told to {}",
            locate::title(record),
            record.spec.decision_reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})")),
            will.verb(),
        ));
    }
    if record.spec.dry_run {
        return Error::refused(format!(
            "{} is a dry run (spec.dryRun): it changes nothing, so there is nothing to {}",
            locate::title(record),
            will.verb()
        ));
    }
    Ok(((now, pace) != (desired, wanted_pace)).then_some((desired, wanted_pace)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::rollback::{LearningRollbackSpec, LearningRollbackStatus, Phase};

    fn record(phase: Phase, desired_state: DesiredState) -> LearningRollback {
        let mut record =
            LearningRollback::new("r", LearningRollbackSpec { desired_state, ..LearningRollbackSpec::default() });
        record.metadata.namespace = Some("n".to_owned());
        record.status = Some(LearningRollbackStatus { phase, ..LearningRollbackStatus::default() });
        record
    }

    #[test]
    fn every_will_in_every_state() {
        use DesiredState::{Held, Released, Restored, RolledBack};
        use Will::{Faster, Hold, Release, Restore, Resume};
        for (now, will, expected) in [
            (RolledBack, Restore, Some(Some((Restored, Pace::Normal)))),
            (RolledBack, Release, Some(Some((Released, Pace::Normal)))),
            (RolledBack, Hold, Some(Some((Held, Pace::Normal)))),
            (RolledBack, Resume, Some(None)),
            (RolledBack, Faster, Some(Some((RolledBack, Pace::Fast)))),
            (Held, Restore, Some(Some((Restored, Pace::Normal)))),
            (Held, Release, Some(Some((Released, Pace::Normal)))),
            (Held, Hold, Some(None)),
            (Held, Resume, Some(Some((RolledBack, Pace::Normal)))),
            (Held, Faster, Some(Some((Held, Pace::Fast)))),
            (Restored, Restore, Some(None)),
            (Restored, Release, None),
            (Restored, Hold, None),
            (Restored, Resume, None),
            (Restored, Faster, None),
            (Released, Restore, None),
            (Released, Release, Some(None)),
            (Released, Hold, None),
            (Released, Resume, None),
            (Released, Faster, None),
        ] {
            for phase in [Phase::Pending, Phase::Executing, Phase::RolledBack, Phase::Restoring, Phase::Unknown] {
                assert_eq!(change(&record(phase, now), will).ok(), expected, "{now:?} {will:?} {phase:?}");
            }
            for phase in [Phase::Restored, Phase::Released, Phase::Superseded, Phase::Skipped, Phase::DryRunComplete] {
                let error = change(&record(phase, now), will).unwrap_err();
                assert!(error.to_string().contains(&format!("has ended as {phase:?}")), "{error}");
            }
        }
    }

    #[test]
    fn a_dry_run_is_told_nothing() {
        let mut record = record(Phase::Executing, DesiredState::RolledBack);
        record.spec.dry_run = true;
        assert!(change(&record, Will::Restore).unwrap_err().to_string().contains("spec.dryRun"));
    }
}
