//! One moment: what an answer means.

use learning_rollout::decide::trigger::{Answer, Finding, Judgement, MAX_SERIES, Readings, check, judge};

use super::{failure, labels, scalar, trigger, value, vector};

fn word(finding: &Finding) -> String {
    match finding {
        Finding::Ok => "Ok".into(),
        Finding::Breach => "Breach".into(),
        Finding::Unknown(cause) => format!("Unknown({})", cause.reason),
    }
}

/// `Breach`, `Unknown(NaN)`, or with several series `Ok Breach` in the order of their labels; `whole …` without series.
fn words(judgement: &Judgement) -> String {
    match judgement {
        Judgement::Series(series) => series.iter().map(|one| word(&one.finding)).collect::<Vec<_>>().join(" "),
        Judgement::Absent => "whole Ok".into(),
        Judgement::Unknown(cause) => format!("whole Unknown({})", cause.reason),
    }
}

fn message(judgement: &Judgement) -> String {
    match judgement {
        Judgement::Unknown(cause) => cause.message.clone(),
        Judgement::Series(series) => match &series[0].finding {
            Finding::Unknown(cause) => cause.message.clone(),
            other => panic!("{other:?}"),
        },
        Judgement::Absent => panic!("absent"),
    }
}

fn expect(yaml: &str, readings: &Readings, captured: Option<f64>, expected: &str) {
    let judgement = judge(&trigger(yaml), readings, captured);
    assert_eq!(words(&judgement), expected, "{yaml} of {readings:?}: {judgement:?}");
}

#[test]
fn values_compare_as_ieee_says_and_nan_says_nothing() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    for (yaml, verdicts) in [
        ("{above: 1}", [(1.0, "Ok"), (1.0000001, "Breach"), (inf, "Breach"), (-inf, "Ok"), (nan, "Unknown(NaN)")]),
        ("{below: 1}", [(1.0, "Ok"), (0.999, "Breach"), (inf, "Ok"), (-inf, "Breach"), (nan, "Unknown(NaN)")]),
        ("{atLeast: 1}", [(1.0, "Breach"), (0.999, "Ok"), (inf, "Breach"), (-inf, "Ok"), (nan, "Unknown(NaN)")]),
        ("{atMost: 1}", [(1.0, "Breach"), (1.001, "Ok"), (inf, "Ok"), (-inf, "Breach"), (nan, "Unknown(NaN)")]),
        ("{present: true}", [(1.0, "Breach"), (0.0, "Breach"), (inf, "Breach"), (-inf, "Breach"), (nan, "Breach")]),
    ] {
        for (number, expected) in verdicts {
            expect(yaml, &value(scalar(number)), None, expected);
        }
    }
}

#[test]
fn an_empty_answer_is_no_data_unless_presence_is_the_breach() {
    expect("{above: 1}", &value(vector(&[])), None, "whole Unknown(NoData)");
    expect("{present: true}", &value(vector(&[])), None, "whole Ok");
    expect("{present: true}", &value(vector(&[("pod=a", 0.0), ("pod=b", 1.0)])), None, "Breach Breach");
}

#[test]
fn a_failure_is_named_and_never_ok() {
    for reason in ["Timeout", "BadStatus", "PartialResult", "HTML body"] {
        let named: String = reason.split(' ').collect();
        expect("{above: 1}", &value(failure(reason)), None, &format!("whole Unknown({named})"));
        expect("{present: true}", &value(failure(reason)), None, &format!("whole Unknown({named})"));
    }
}

#[test]
fn series_are_judged_each_in_any_order() {
    let (one, other) = (vector(&[("pod=a", 0.0), ("pod=b", 2.0)]), vector(&[("pod=b", 2.0), ("pod=a", 0.0)]));
    expect("{above: 1}", &value(one.clone()), None, "Ok Breach");
    assert_eq!(judge(&trigger("{above: 1}"), &value(one), None), judge(&trigger("{above: 1}"), &value(other), None));
    expect("{above: 1}", &value(vector(&[("pod=a", 0.0), ("pod=a", 2.0)])), None, "whole Unknown(DuplicateSeries)");
}

#[test]
fn series_are_bounded() {
    let many = |count: usize| -> Answer {
        Ok((0..count)
            .map(|n| learning_rollout::decide::trigger::Series { labels: labels(&format!("pod={n}")), value: 2.0 })
            .collect())
    };
    let breaches = vec!["Breach"; MAX_SERIES].join(" ");
    expect("{above: 1}", &value(many(MAX_SERIES)), None, &breaches);
    expect("{above: 1}", &value(many(MAX_SERIES + 1)), None, "whole Unknown(TooManySeries)");
}

#[test]
fn a_gate_decides_whether_there_is_anything_to_judge() {
    let gated = "{above: 1, gate: {query: traffic, atLeast: 10}}";
    for (gate, expected) in [
        (Some(scalar(10.0)), "Breach"),
        (Some(scalar(9.0)), "whole Unknown(GateNotMet)"),
        (Some(vector(&[])), "whole Unknown(GateNotMet)"),
        (Some(scalar(f64::NAN)), "whole Unknown(GateNaN)"),
        (Some(failure("Timeout")), "whole Unknown(GateFailed)"),
        (Some(vector(&[("a=1", 20.0), ("a=2", 20.0)])), "whole Unknown(GateFailed)"),
        (None, "whole Unknown(GateFailed)"),
    ] {
        expect(gated, &Readings { gate, ..value(scalar(2.0)) }, None, expected);
    }
    // An empty answer behind a closed gate is the gate's doing; a failed query is not.
    let closed = Some(scalar(0.0));
    expect(gated, &Readings { gate: closed.clone(), ..value(vector(&[])) }, None, "whole Unknown(GateNotMet)");
    expect(gated, &Readings { gate: closed.clone(), ..value(failure("Timeout")) }, None, "whole Unknown(Timeout)");
    let absent = "{present: true, gate: {query: traffic, atLeast: 10}}";
    expect(absent, &Readings { gate: closed, ..value(vector(&[])) }, None, "whole Unknown(GateNotMet)");
    let presence = "{above: 1, gate: {query: traffic, present: true}}";
    let several = Some(vector(&[("a=1", 0.0), ("a=2", f64::NAN)]));
    expect(presence, &Readings { gate: several, ..value(scalar(2.0)) }, None, "Breach");
}

#[test]
fn a_baseline_by_query_matches_on_shared_labels() {
    let ratio = "{above: 2, baseline: {query: base, compare: Ratio}}";
    let against = |values: &[(&str, f64)], bases: &[(&str, f64)]| Readings {
        baseline: Some(vector(bases)),
        ..value(vector(values))
    };
    for (values, bases, expected) in [
        // One to one, the metric's name set aside.
        (vec![("__name__=m,pod=a", 5.0)], vec![("__name__=n,pod=a", 2.0)], "Breach"),
        (vec![("pod=a", 5.0), ("pod=b", 5.0)], vec![("pod=b", 3.0), ("pod=a", 2.0)], "Breach Ok"),
        // One to all.
        (vec![("pod=a", 5.0), ("pod=b", 1.0)], vec![("", 2.0)], "Breach Ok"),
        (vec![("pod=a,zone=x", 5.0), ("pod=b,zone=x", 1.0)], vec![("zone=x", 2.0)], "Breach Ok"),
        // A baseline that belongs to nothing is no harm; a value without one cannot be judged.
        (vec![("pod=a", 5.0)], vec![("pod=a", 2.0), ("pod=z", 1.0)], "Breach"),
        (vec![("pod=a", 5.0), ("pod=b", 5.0)], vec![("pod=a", 2.0)], "Breach Unknown(BaselineMismatch)"),
        (vec![("version=new", 5.0)], vec![("version=old", 2.0)], "Unknown(BaselineMismatch)"),
        // Several for one, and one for several but not for all.
        (vec![("pod=a", 5.0)], vec![("pod=a,le=1", 2.0), ("pod=a,le=2", 2.0)], "Unknown(BaselineMismatch)"),
        (
            vec![("pod=a,code=1", 5.0), ("pod=a,code=2", 5.0), ("pod=b,code=1", 5.0)],
            vec![("pod=a", 2.0), ("pod=b", 2.0)],
            "Unknown(BaselineMismatch) Breach Unknown(BaselineMismatch)",
        ),
        (vec![("pod=a", 5.0)], vec![("pod=a", f64::NAN)], "Unknown(BaselineNaN)"),
        (vec![("pod=a", 5.0)], vec![], "whole Unknown(BaselineNoData)"),
    ] {
        expect(ratio, &against(&values, &bases), None, expected);
    }
    let told = message(&judge(&trigger(ratio), &against(&[("version=new", 5.0)], &[("version=old", 2.0)]), None));
    assert!(told.contains(r#"{version="new"}"#) && told.contains("max without(version)"), "{told}");
    expect(
        ratio,
        &Readings { baseline: Some(failure("Timeout")), ..value(scalar(5.0)) },
        None,
        "whole Unknown(BaselineFailed)",
    );
    expect(ratio, &value(scalar(5.0)), None, "whole Unknown(BaselineFailed)");
}

#[test]
fn ratio_and_difference_heed_the_floor() {
    let by = |compare: &str, floor: &str, value: f64, base: f64| {
        let yaml = format!("{{above: 2, baseline: {{query: base, compare: {compare}{floor}}}}}");
        let readings = Readings { baseline: Some(scalar(base)), ..super::value(scalar(value)) };
        words(&judge(&trigger(&yaml), &readings, None))
    };
    let inf = f64::INFINITY;
    for (compare, floor, value, base, expected) in [
        ("Ratio", "", 4.0, 2.0, "Ok"),
        ("Ratio", "", 4.1, 2.0, "Breach"),
        ("Ratio", "", 4.1, 0.0, "Unknown(BaselineZero)"),
        ("Ratio", "", 4.1, -0.0, "Unknown(BaselineZero)"),
        ("Ratio", ", floor: 0", 4.1, 0.0, "Unknown(BaselineZero)"),
        ("Ratio", ", floor: 3", 4.1, 0.0, "Ok"),
        ("Ratio", ", floor: 3", 6.1, 0.0, "Breach"),
        ("Ratio", ", floor: 3", 6.1, 4.0, "Ok"),
        ("Ratio", "", inf, inf, "Unknown(NaN)"),
        ("Ratio", "", inf, 1.0, "Breach"),
        ("Difference", "", 4.1, 2.0, "Breach"),
        ("Difference", "", 4.1, 0.0, "Breach"),
        ("Difference", ", floor: 3", 4.1, 0.0, "Ok"),
        ("Difference", "", inf, inf, "Unknown(NaN)"),
    ] {
        assert_eq!(by(compare, floor, value, base), expected, "{compare}{floor} of {value} and {base}");
    }
}

#[test]
fn a_captured_baseline_must_be_ready_unless_critical_with_a_floor() {
    let yaml = |extra: &str, floor: &str| {
        format!("{{above: 2, {extra} baseline: {{captured: {{window: 1h}}, compare: Ratio{floor}}}}}")
    };
    for (extra, floor, captured, expected) in [
        ("", "", Some(2.0), "Breach"),
        ("", "", None, "whole Unknown(BaselineNotReady)"),
        ("", ", floor: 1", None, "whole Unknown(BaselineNotReady)"),
        ("critical: true,", "", None, "whole Unknown(BaselineNotReady)"),
        ("critical: true,", ", floor: 1", None, "Breach"),
        ("critical: true,", ", floor: 4", None, "Ok"),
        ("critical: true,", ", floor: 1", Some(4.0), "Ok"),
        ("", "", Some(f64::NAN), "whole Unknown(BaselineNotReady)"),
    ] {
        expect(&yaml(extra, floor), &value(vector(&[("pod=a", 5.0)])), captured, expected);
    }
}

#[test]
fn what_the_schema_refuses_is_unknown() {
    for yaml in [
        "{}",
        "{above: 1, below: 2}",
        "{present: false}",
        "{above: 1, present: true}",
        "{above: 1, baseline: {compare: Ratio}}",
        "{above: 1, baseline: {query: q, captured: {window: 1h}, compare: Ratio}}",
        "{present: true, baseline: {query: q, compare: Ratio}}",
    ] {
        let readings = Readings { baseline: Some(scalar(1.0)), ..value(scalar(2.0)) };
        expect(yaml, &readings, Some(1.0), "whole Unknown(InvalidTrigger)");
    }
    let mut odd = trigger("{above: 1}");
    odd.comparison.above = Some(f64::NAN);
    assert_eq!(words(&judge(&odd, &value(scalar(2.0)), None)), "whole Unknown(InvalidTrigger)");
}

#[test]
fn a_check_holds_for_every_series_or_says_why_it_cannot_tell() {
    let below = trigger("{below: 1}").comparison;
    let present = trigger("{present: true}").comparison;
    let reason = |answer: Answer| check(&below, &answer).map_err(|cause| cause.reason);
    assert_eq!(reason(scalar(0.5)), Ok(true));
    assert_eq!(reason(vector(&[("a=1", 0.5), ("a=2", 1.5)])), Ok(false));
    assert_eq!(reason(vector(&[("a=1", 1.5), ("a=2", f64::NAN)])), Err("NaN".into()));
    assert_eq!(reason(vector(&[])), Err("NoData".into()));
    assert_eq!(reason(failure("Timeout")), Err("Timeout".into()));
    assert_eq!(check(&present, &vector(&[])), Ok(false));
    assert_eq!(check(&present, &vector(&[("a=1", 0.5)])), Ok(true));
}
