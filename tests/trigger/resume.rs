//! E12: a restart keeps progress, and down-time is not evidence.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use learning_rollout::{
    api::rollout::{Trigger, TriggerState, TriggerStatus},
    decide::{
        resume::{Range, RangeReadings, RangeSeries, resume},
        timer::{Pace, Timer},
        trigger::{Answer, Judgement, judge},
    },
};

use super::{at, failure, labels, pace, scalar, trigger, value};

fn pending(since: f64) -> TriggerStatus {
    let since = Some(MicroTime(at(since)));
    TriggerStatus { name: "errors".into(), state: TriggerState::Pending, since, ..TriggerStatus::default() }
}

fn live(trigger: &Trigger, answer: Answer) -> Judgement {
    judge(trigger, &value(answer), None)
}

/// A series with one point every 10 s from 0 s on; `_` is none.
fn series(text: &str, letters: &str) -> RangeSeries {
    let point = |(n, letter)| match letter {
        'b' => Some((at(10.0 * n as f64), 2.0)),
        'o' => Some((at(10.0 * n as f64), 0.0)),
        'n' => Some((at(10.0 * n as f64), f64::NAN)),
        _ => None,
    };
    RangeSeries { labels: labels(text), points: letters.chars().enumerate().filter_map(point).collect() }
}

/// The state and since after Prometheus told what happened between 0 s and 60 s, and whether a live breach at 60 s fires
/// a trigger of 60 s.
fn filled(value: Vec<RangeSeries>, gate: Option<Vec<RangeSeries>>) -> (TriggerState, Option<f64>, bool) {
    let gated = if gate.is_some() { ", gate: {query: traffic, atLeast: 1}" } else { "" };
    let trigger = trigger(&format!("{{above: 1, for: 60s{gated}}}"));
    let mut timer = Timer::carry(&pending(0.0));
    let since = timer.to_fill().unwrap();
    let range = Range::to_fill(since, at(59.0), &pace());
    assert_eq!((range.start, range.end, range.step), (at(0.0), at(59.0), Duration::from_secs(10)));
    let standing =
        resume(&mut timer, &trigger, "q", None, &range, RangeReadings { value, gate, baseline: None }, &pace());
    assert_eq!(standing.conviction, None);
    assert_eq!(timer.to_fill(), None);
    let mut readings = super::value(super::vector(&[("pod=a", 2.0)]));
    readings.gate = Some(scalar(1.0));
    let fires = timer.observe(&trigger, "q", &judge(&trigger, &readings, None), at(60.0), &pace()).conviction.is_some();
    let since = standing.since.map(|since| since.duration_since(at(0.0)).as_secs_f64());
    (standing.state, since, fires)
}

#[test]
fn only_what_prometheus_saw_counts() {
    use TriggerState::{Ok, Pending, Unknown};
    for (letters, state, since, fires) in [
        ("bbbbbb", Pending, Some(0.0), true),
        ("bbbobb", Pending, Some(40.0), false),
        ("bbbbbo", Ok, None, false),
        // A hole of 20 s may stand; it is Unknown though, and does not count.
        ("bb_bbb", Pending, Some(20.0), false),
        ("b___bb", Pending, Some(40.0), false),
        ("bnnbbb", Pending, Some(30.0), false),
        ("______", Unknown, None, false),
        ("_bbbbb", Pending, Some(10.0), false),
    ] {
        assert_eq!(filled(vec![series("pod=a", letters)], None), (state, since, fires), "{letters}");
    }
    assert_eq!(filled(vec![], None), (Unknown, None, false));
    // Each series has its own past.
    let others = vec![series("pod=a", "___bbb"), series("pod=b", "bbbbbb")];
    assert_eq!(filled(others, None), (Pending, Some(0.0), false));
    // The gate's past counts too.
    let gate =
        RangeSeries { labels: labels(""), points: (0..6).map(|n| (at(f64::from(n) * 10.0), f64::from(n))).collect() };
    assert_eq!(filled(vec![series("pod=a", "bbbbbb")], Some(vec![gate])), (Pending, Some(10.0), false));
}

#[test]
fn the_past_convicts_nobody() {
    let trigger = trigger("{above: 1, for: 30s}");
    let mut timer = Timer::carry(&pending(0.0));
    let range = Range::to_fill(at(0.0), at(59.0), &pace());
    let value = vec![series("pod=a", "bbbbbb")];
    let readings = RangeReadings { value, ..RangeReadings::default() };
    let standing = resume(&mut timer, &trigger, "q", None, &range, readings, &pace());
    assert_eq!((standing.state, standing.conviction), (TriggerState::Firing, None));
}

#[test]
fn the_status_is_shown_and_kept_while_prometheus_is_silent() {
    let trigger = trigger("{above: 1, for: 60s}");
    let mut timer = Timer::carry(&pending(0.0));
    for seconds in [100.0, 110.0, 1_000.0] {
        let standing = timer.observe(&trigger, "q", &live(&trigger, failure("Timeout")), at(seconds), &pace());
        assert_eq!((standing.state, standing.since), (TriggerState::Pending, Some(at(0.0))));
        assert_eq!(standing.cause.unwrap().reason, "Timeout");
        assert_eq!((standing.conviction, timer.to_fill()), (None, Some(at(0.0))));
    }
    let standing = timer.observe(&trigger, "q", &live(&trigger, scalar(2.0)), at(1_010.0), &pace());
    assert_eq!(
        (standing.state, standing.since),
        (TriggerState::Pending, Some(at(1_010.0))),
        "unfilled, it counts for nothing"
    );
    assert_eq!(timer.to_fill(), None);
}

#[test]
fn what_is_not_pending_carries_nothing() {
    for state in [TriggerState::Ok, TriggerState::Unknown] {
        assert_eq!(Timer::carry(&TriggerStatus { state, ..pending(0.0) }), Timer::default());
    }
    assert_eq!(Timer::carry(&TriggerStatus { since: None, ..pending(0.0) }), Timer::default());
}

#[test]
fn ranges_are_bounded_and_never_coarser_than_a_hole() {
    let pace = Pace { interval: Duration::from_secs(1), timeout: Duration::from_millis(100), evidence_from: None };
    let day = Range::to_fill(at(0.0), at(86_400.0), &pace);
    assert_eq!(day.step, Duration::from_millis(2_100));
    assert_eq!(day.end.duration_since(day.start).as_secs(), 21_000);
    assert_eq!(day.moments().count(), 10_001);
    let hour = Range::to_fill(at(0.0), at(3_600.0), &pace);
    assert_eq!((hour.step, hour.moments().count()), (Duration::from_secs(1), 3_601));
    assert_eq!(Range::to_fill(at(10.0), at(0.0), &pace).moments().collect::<Vec<_>>(), [at(0.0)], "since after now");
}
