//! Is the baseline healthy once the steps have landed? Each check of a plan must hold without a break for its `for`, within
//! its `timeout` of the last step. Never a silent success: a check that cannot be judged has not passed.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

use super::{
    rollback::{later, shorten},
    trigger::{Answer, check},
    words,
};
use crate::api::{
    rollback::{VerifyState, VerifyStatus},
    rollout::VerifyCheck,
};

/// Has every check been decided?
pub fn is_decided(checks: &[VerifyCheck], statuses: &[VerifyStatus]) -> bool {
    checks
        .iter()
        .all(|check| statuses.iter().any(|status| status.name == check.name && status.state != VerifyState::Pending))
}

/// Takes in what was answered at `at`, one answer for each check, in order.
pub fn advance(
    checks: &[VerifyCheck],
    before: &[VerifyStatus],
    landed: Timestamp,
    answers: &[Answer],
    at: Timestamp,
) -> Vec<VerifyStatus> {
    checks
        .iter()
        .zip(answers)
        .map(|(of, answer)| {
            let known = before.iter().find(|status| status.name == of.name).cloned();
            let known = known.unwrap_or_else(|| VerifyStatus { name: of.name.clone(), ..VerifyStatus::default() });
            if known.state == VerifyState::Pending { judge(of, known, landed, answer, at) } else { known }
        })
        .collect()
}

fn judge(
    of: &VerifyCheck,
    mut status: VerifyStatus,
    landed: Timestamp,
    answer: &Answer,
    at: Timestamp,
) -> VerifyStatus {
    let condition = words::comparison(&of.comparison);
    let (holds, message) = match check(&of.comparison, answer) {
        Ok(true) => (true, format!("holds: {condition}")),
        Ok(false) => (false, format!("does not hold: {condition}")),
        Err(cause) => (false, format!("cannot be judged: {}: {}", cause.reason, cause.message)),
    };
    let since = match (&status.since, holds) {
        (Some(since), true) => Some(since.clone()),
        (None, true) => Some(MicroTime(at)),
        (_, false) => None,
    };
    if since.as_ref().is_some_and(|since| at >= later(since.0, of.hold.get())) {
        status.state = VerifyState::Passed;
    } else if at >= later(landed, of.timeout.get()) {
        status.state = VerifyState::Failed;
    }
    // While it is undecided only a change is worth a write.
    if status.state != VerifyState::Pending || status.since.is_some() != since.is_some() || status.message.is_none() {
        status.message = Some(shorten(&message));
    }
    status.since = since;
    status
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        api::{duration::GoDuration, rollout::Comparison},
        decide::trigger::{Failure, Series},
    };

    fn checks() -> Vec<VerifyCheck> {
        vec![VerifyCheck {
            name: "errors".into(),
            query: "e".into(),
            comparison: Comparison { below: Some(0.01), ..Comparison::default() },
            hold: GoDuration::from_secs(10),
            timeout: GoDuration::from_secs(60),
        }]
    }

    fn run(values: &[(u64, Option<f64>)]) -> VerifyState {
        let landed: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let statuses = values.iter().fold(Vec::new(), |statuses, (second, value)| {
            let answer = match value {
                Some(value) => Ok(vec![Series { labels: Default::default(), value: *value }]),
                None => Err(Failure { reason: "Timeout".into(), message: String::new() }),
            };
            advance(&checks(), &statuses, landed, &[answer], later(landed, Duration::from_secs(*second)))
        });
        assert_eq!(is_decided(&checks(), &statuses), statuses[0].state != VerifyState::Pending);
        statuses[0].state
    }

    #[test]
    fn it_must_hold_without_a_break_within_its_time() {
        assert_eq!(run(&[(0, Some(0.0)), (5, Some(0.0))]), VerifyState::Pending);
        assert_eq!(run(&[(0, Some(0.0)), (10, Some(0.0))]), VerifyState::Passed);
        assert_eq!(run(&[(0, Some(0.0)), (5, Some(0.5)), (10, Some(0.0))]), VerifyState::Pending);
        assert_eq!(run(&[(0, Some(0.0)), (5, None), (10, Some(0.0))]), VerifyState::Pending);
        assert_eq!(run(&[(0, Some(0.5)), (60, Some(0.5))]), VerifyState::Failed);
        assert_eq!(run(&[(55, Some(0.0)), (60, Some(0.0)), (70, Some(0.0))]), VerifyState::Failed);
        assert_eq!(run(&[(0, None), (60, None)]), VerifyState::Failed);
    }
}
