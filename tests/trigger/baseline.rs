//! Captured baselines: when they are taken, from what, and that they stay.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use learning_rollout::{
    api::{
        REBASELINE,
        rollout::{
            ActiveRollback, BaselineStatus, LastRollback, LearningRolloutStatus, Trigger, TriggerState, TriggerStatus,
        },
    },
    decide::{
        baseline::{capture, in_force, to_capture},
        resume::{Range, RangeSeries},
        trigger::Failure,
    },
};

use super::{at, labels, trigger};

const INTERVAL: Duration = Duration::from_secs(60);
const NOW: f64 = 100_000.0;

fn latency() -> Trigger {
    trigger("{name: latency, above: 2, baseline: {captured: {window: 1h}, compare: Ratio}}")
}

fn status(baseline: Option<BaselineStatus>) -> LearningRolloutStatus {
    let known = TriggerStatus { name: "latency".into(), baseline, ..TriggerStatus::default() };
    LearningRolloutStatus { triggers: vec![known], ..LearningRolloutStatus::default() }
}

fn taken(seconds: f64) -> BaselineStatus {
    BaselineStatus {
        value: 0.2,
        captured_at: Some(MicroTime(at(seconds))),
        query: "q".into(),
        window: Some("1h".parse().unwrap()),
    }
}

fn wanted(
    trigger: &Trigger,
    query: &str,
    annotations: &[(&str, &str)],
    status: &LearningRolloutStatus,
) -> Option<Range> {
    let annotations: BTreeMap<String, String> = annotations.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    to_capture(trigger, query, &annotations, status, INTERVAL, at(NOW))
}

#[test]
fn it_is_taken_once_and_again_only_for_a_reason() {
    let whole = Range { start: at(NOW - 3_600.0), end: at(NOW), step: INTERVAL };
    let trigger = latency();
    assert_eq!(wanted(&trigger, "q", &[], &LearningRolloutStatus::default()), Some(whole), "nothing is known yet");
    assert_eq!(wanted(&trigger, "q", &[], &status(None)), Some(whole));
    let present = status(Some(taken(10.0)));
    assert_eq!(wanted(&trigger, "q", &[], &present), None);
    assert_eq!(wanted(&trigger, "another", &[], &present), Some(whole), "another query");
    let mut wider = latency();
    wider.baseline.as_mut().unwrap().captured.as_mut().unwrap().window = "2h".parse().unwrap();
    assert!(wanted(&wider, "q", &[], &present).is_some(), "another window");
    assert_eq!(wanted(&super::trigger("{above: 1}"), "q", &[], &status(None)), None, "none is asked for");
}

#[test]
fn a_person_may_ask_for_another() {
    let (trigger, present) = (latency(), status(Some(taken(50_000.0))));
    for (seconds, expected) in [(49_999.0, false), (50_000.0, false), (50_001.0, true), (NOW, true), (NOW + 1.0, false)]
    {
        let asked = at(seconds).to_string();
        assert_eq!(wanted(&trigger, "q", &[(REBASELINE, &asked)], &present).is_some(), expected, "{asked}");
    }
    assert_eq!(wanted(&trigger, "q", &[(REBASELINE, "now")], &present), None);
    assert_eq!(in_force(&trigger, "q", present.triggers.first()), Some(0.2), "the old one serves until then");
}

#[test]
fn a_regression_does_not_become_its_own_baseline() {
    let trigger = latency();
    for state in [TriggerState::Pending, TriggerState::Firing] {
        let mut breaching = status(None);
        breaching.triggers.push(TriggerStatus { name: "errors".into(), state, ..TriggerStatus::default() });
        assert_eq!(wanted(&trigger, "q", &[], &breaching), None, "{state:?}");
    }
    let active = LearningRolloutStatus { active: Some(ActiveRollback::default()), ..status(None) };
    assert_eq!(wanted(&trigger, "q", &[], &active), None);
    let ended = |seconds: f64| LearningRolloutStatus {
        last_rollback: Some(LastRollback { finished_at: Some(MicroTime(at(seconds))), ..LastRollback::default() }),
        ..status(None)
    };
    assert_eq!(wanted(&trigger, "q", &[], &ended(NOW - 600.0)).unwrap().start, at(NOW - 600.0));
    assert_eq!(wanted(&trigger, "q", &[], &ended(NOW - 6_000.0)).unwrap().start, at(NOW - 3_600.0));
}

#[test]
fn it_serves_only_its_own_query() {
    let (trigger, present) = (latency(), status(Some(taken(10.0))));
    assert_eq!(in_force(&trigger, "q", present.triggers.first()), Some(0.2));
    assert_eq!(in_force(&trigger, "another", present.triggers.first()), None);
    assert_eq!(in_force(&super::trigger("{above: 1}"), "q", present.triggers.first()), None);
    assert_eq!(in_force(&trigger, "q", None), None);
    let odd = status(Some(BaselineStatus { value: f64::NAN, ..taken(10.0) }));
    assert_eq!(in_force(&trigger, "q", odd.triggers.first()), None);
    assert!(wanted(&trigger, "q", &[], &odd).is_some(), "and is taken anew");
}

fn points(values: impl IntoIterator<Item = f64>) -> Vec<(Timestamp, f64)> {
    values.into_iter().enumerate().map(|(n, value)| (at(NOW - 60.0 * n as f64), value)).collect()
}

#[test]
fn it_is_the_median_of_enough_finite_values() {
    let trigger = latency();
    let range = Range { start: at(NOW - 3_600.0), end: at(NOW), step: INTERVAL };
    let of = |points| capture(&trigger, "q", &range, &Ok(vec![RangeSeries { labels: labels("pod=a"), points }]));
    let reason = |points| of(points).unwrap_err().reason;
    assert_eq!(of(points((0..31).map(f64::from))).unwrap(), BaselineStatus { value: 15.0, ..taken(NOW) });
    assert_eq!(of(points((0..30).map(f64::from))).unwrap().value, 14.5);
    assert_eq!(reason(points((0..29).map(f64::from))), "BaselineNotReady");
    let spoilt = points((0..60).map(|n| if n % 2 == 0 { f64::INFINITY } else { 7.0 }));
    assert_eq!(of(spoilt).unwrap().value, 7.0, "only finite values count");
    let spoilt = points((0..60).map(|n| if n % 3 != 0 { f64::NAN } else { 7.0 }));
    assert_eq!(reason(spoilt), "BaselineNotReady");
    let old: Vec<_> = (0..60).map(|n| (at(NOW - 3_601.0 - f64::from(n)), 7.0)).collect();
    assert_eq!(reason(old), "BaselineNotReady", "points from outside the window");
    assert_eq!(reason(vec![]), "BaselineNotReady");
    let huge = points((0..40).map(|n| if n % 2 == 0 { f64::MAX } else { f64::MAX / 2.0 }));
    assert!(of(huge).unwrap().value.is_finite(), "the mean of two large values is no infinity");
}

#[test]
fn a_failure_and_several_series_are_named() {
    let trigger = latency();
    let range = Range { start: at(NOW - 3_600.0), end: at(NOW), step: INTERVAL };
    let failed = Err(Failure { reason: "Timeout".into(), message: "it took too long".into() });
    assert_eq!(capture(&trigger, "q", &range, &failed).unwrap_err().reason, "Timeout");
    let series = |text| RangeSeries { labels: labels(text), points: points((0..60).map(f64::from)) };
    let cause = capture(&trigger, "q", &range, &Ok(vec![series("pod=a"), series("pod=b")])).unwrap_err();
    assert_eq!(cause.reason, "BaselineAmbiguous");
    assert!(cause.message.contains(r#"{pod="a"}"#) && cause.message.contains(r#"{pod="b"}"#), "{}", cause.message);
}

#[test]
fn short_windows_and_long_ones_ask_for_a_sensible_number_of_points() {
    for (window, step) in [("1s", 250), ("10s", 2_500), ("1h", 60_000), ("168h", 604_800)] {
        let mut trigger = latency();
        trigger.baseline.as_mut().unwrap().captured.as_mut().unwrap().window = window.parse().unwrap();
        let range = wanted(&trigger, "q", &[], &status(None)).unwrap();
        assert_eq!(range.step, Duration::from_millis(step), "{window}");
    }
}
