//! How long a breach has lasted, as strips of moments ten seconds apart.

use learning_rollout::{
    api::rollout::{Trigger, TriggerState},
    decide::{
        timer::{Pace, Standing, Timer},
        trigger::{Judgement, judge},
    },
};

use super::{at, failure, labels, pace, scalar, trigger, value, vector};

fn symbol(standing: &Standing) -> char {
    match (standing.state, &standing.conviction) {
        (TriggerState::Ok, None) => '-',
        (TriggerState::Pending, None) => 'p',
        (TriggerState::Firing, None) => 'f',
        (TriggerState::Firing, Some(_)) => 'F',
        (TriggerState::Unknown, None) => '?',
        odd => panic!("{odd:?}"),
    }
}

/// Judges a moment by its letter. `b` and `o`: breach and ok; `u`: the query failed; `e`: empty answer; `n`: NaN.
/// Upper-case letters are answers of two series, `X`: first breaches, `Y`: second breaches, `Z`: both breach, `W`: none does,
/// `V`: only the first is there and breaches, `K`: only the second is there and is ok.
fn moment(trigger: &Trigger, letter: char) -> Judgement {
    let two = |a: f64, b: f64| vector(&[("pod=a", a), ("pod=b", b)]);
    let answer = match letter {
        'b' => scalar(2.0),
        'o' => scalar(0.0),
        'n' => scalar(f64::NAN),
        'e' => vector(&[]),
        'u' => failure("Timeout"),
        'X' => two(2.0, 0.0),
        'Y' => two(0.0, 2.0),
        'Z' => two(2.0, 2.0),
        'W' => two(0.0, 0.0),
        'N' => two(f64::NAN, 0.0),
        'M' => two(f64::NAN, 2.0),
        'V' => vector(&[("pod=a", 2.0)]),
        'K' => vector(&[("pod=b", 0.0)]),
        other => panic!("{other}"),
    };
    judge(trigger, &value(answer), None)
}

fn strip_of(timer: &mut Timer, trigger: &Trigger, letters: &str, pace: &Pace) -> String {
    let mut observe = |(position, letter)| match letter {
        '.' => '.',
        letter => symbol(&timer.observe(trigger, "q", &moment(trigger, letter), at(10.0 * position as f64), pace)),
    };
    letters.chars().enumerate().map(&mut observe).collect()
}

fn strip(yaml: &str, letters: &str) -> String {
    strip_of(&mut Timer::default(), &trigger(yaml), letters, &pace())
}

#[test]
fn strips() {
    for (yaml, given, expected) in [
        // E10: the boundary is inclusive.
        ("{above: 1, for: 30s}", "obbbbbo", "-pppFF-"),
        ("{above: 1, for: 30.001s}", "obbbbbo", "-ppppF-"),
        ("{above: 1, for: 0s}", "obob", "-F-F"),
        // E11: one Ok starts over.
        ("{above: 1, for: 30s}", "bbbobbbb", "ppp-pppF"),
        // E8: a hole of 20 s is none, one of 30 s is. Nobody looked: not Unknown.
        ("{above: 1, for: 30s}", "b.b.b", "p.p.F"),
        ("{above: 1, for: 30s}", "bb..bbbb", "pp..pppF"),
        ("{above: 1, for: 30s}", "bbb...bb", "ppp...pp"),
        // E9: Unknown under Hold neither advances nor resets; the stretch around it does not count.
        ("{above: 1, for: 30s}", "bbubbb", "pppppF"),
        ("{above: 1, for: 30s}", "bbnbbb", "pppppF"),
        ("{above: 1, for: 30s}", "bbebbb", "pppppF"),
        ("{above: 1, for: 30s}", "bbuubbbb", "pppppppF"),
        ("{above: 1, for: 30s}", "bbbbubb", "pppFfFF"),
        ("{above: 1, for: 30s}", "bbbbbubb", "pppFFfFF"),
        ("{above: 1, for: 30s}", "bbbbuuuub", "pppFffffp"),
        ("{above: 1, for: 30s}", "bbbuo", "pppp-"),
        ("{above: 1, for: 30s}", "uuoun", "??-??"),
        // Reset and Breach.
        ("{above: 1, for: 30s, noData: Reset}", "bbbubbbb", "ppp?pppF"),
        ("{above: 1, for: 30s, noData: Breach}", "buuub", "pppFF"),
        ("{above: 1, for: 30s, noData: Breach}", "uuuuo", "pppF-"),
        ("{above: 1, for: 30s, noData: Breach}", "ouneb", "-pppF"),
        // Presence.
        ("{present: true, for: 30s}", "ebbbbe", "-pppF-"),
        ("{present: true, for: 30s}", "bbubbb", "pppppF"),
        ("{present: true, for: 30s, noData: Breach}", "bbeubb", "pp-ppp"),
        // E4: timers are kept per series: one after the other is no run.
        ("{above: 1, for: 30s}", "XXYYXX", "pppppp"),
        ("{above: 1, for: 30s}", "XXZYYY", "pppppF"),
        ("{above: 1, for: 30s}", "XXXXWW", "pppF--"),
        ("{above: 1, for: 30s, series: All}", "XXXXX", "-----"),
        ("{above: 1, for: 30s, series: All}", "ZZZZX", "pppF-"),
        ("{above: 1, for: 30s, series: All}", "ZZVZ", "pppF"),
        // All with a part unknown: no Ok among them, so nothing is known.
        ("{above: 1, for: 30s, series: All}", "ZZMZZZ", "pppppF"),
        ("{above: 1, for: 30s, series: All}", "ZZNZZZ", "pp-ppp"),
        // Some series cannot be judged, the others are fine.
        ("{above: 1, for: 30s}", "WNW", "-?-"),
        // A breaching series that vanishes has no data; it is forgotten once its run could not go on.
        ("{above: 1, for: 30s}", "VVKVVV", "pppppF"),
        ("{above: 1, for: 30s}", "VVKKKK", "pppp--"),
        ("{above: 1, for: 30s, noData: Reset}", "VVKVVV", "pp-ppp"),
        ("{above: 1, for: 30s, noData: Breach}", "VVKKV", "pppFF"),
        ("{present: true, for: 30s}", "VVeVVV", "pp-ppp"),
        // A blind stretch that counts as a breach counts for every series that appears after it.
        ("{above: 1, for: 30s, noData: Breach}", "WuuuX", "-pppF"),
        ("{above: 1, for: 30s, noData: Breach}", "WuuuW", "-ppp-"),
    ] {
        assert_eq!(strip(yaml, given), expected, "{yaml} of {given}");
    }
}

#[test]
fn a_series_that_vanishes_where_presence_breaches_is_over() {
    let trigger = trigger("{present: true, for: 20s}");
    let mut timer = Timer::default();
    assert_eq!(strip_of(&mut timer, &trigger, "VVKKK", &pace()), "ppppF");
    let firing: Vec<_> = timer.firing(&trigger, at(40.0), &pace()).cloned().collect();
    assert_eq!(firing, [labels("pod=b")]);
}

#[test]
fn the_window_is_due_at_the_instant_it_is_complete() {
    let trigger = trigger("{above: 1, for: 25s}");
    let mut timer = Timer::default();
    let mut observe =
        |seconds: f64, letter| timer.observe(&trigger, "q", &moment(&trigger, letter), at(seconds), &pace());
    assert_eq!(observe(0.0, 'o').due, None);
    assert_eq!(observe(10.0, 'b').due, Some(at(35.0)));
    assert_eq!(observe(20.0, 'b').due, Some(at(35.0)));
    assert_eq!(observe(30.0, 'u').due, None, "nobody knows while the run is held");
    assert_eq!(observe(40.0, 'b').due, Some(at(55.0)), "20 s around the Unknown do not count");
    let fired = observe(55.0, 'b');
    assert_eq!(fired.due, None);
    let evidence = fired.conviction.unwrap();
    assert_eq!(evidence.since.unwrap().0, at(30.0));
    assert_eq!(evidence.fired_at.unwrap().0, at(55.0));
}

#[test]
fn evidence_tells_the_first_and_the_last_samples() {
    let trigger = trigger("{above: 1, for: 200s, query: 'rate(errors[1m])'}");
    let mut timer = Timer::default();
    let mut last = None;
    for tick in 0..=40 {
        let answer = vector(&[("pod=a", 100.0 + f64::from(tick)), ("pod=b", 0.0)]);
        let judgement = judge(&trigger, &value(answer), None);
        last = timer.observe(&trigger, "rate(errors[1m])", &judgement, at(10.0 * f64::from(tick)), &pace()).conviction;
    }
    let evidence = last.unwrap();
    let values: Vec<&str> = evidence.samples.iter().map(|sample| sample.value.as_str()).collect();
    assert_eq!(values[..8], ["100", "101", "102", "103", "104", "105", "106", "107"]);
    assert_eq!(values[8..], ["133", "134", "135", "136", "137", "138", "139", "140"]);
    assert_eq!(
        (evidence.trigger.as_str(), evidence.query.as_str(), evidence.condition.as_str(), evidence.value.as_str()),
        ("errors", "rate(errors[1m])", "> 1", "140")
    );
    assert_eq!(evidence.series.as_deref(), Some(r#"{pod="a"}"#));
    assert_eq!((evidence.since.unwrap().0, evidence.fired_at.unwrap().0), (at(0.0), at(400.0)));
}

#[test]
fn a_window_that_is_raised_or_lowered_is_judged_anew_on_what_is_kept() {
    let (short, long) = (trigger("{above: 1, for: 30s}"), trigger("{above: 1, for: 60s}"));
    let mut timer = Timer::default();
    assert_eq!(strip_of(&mut timer, &short, "bbb", &pace()), "ppp");
    let mut observe = |seconds: f64, trigger: &Trigger| {
        symbol(&timer.observe(trigger, "q", &moment(trigger, 'b'), at(seconds), &pace()))
    };
    assert_eq!(observe(30.0, &long), 'p', "raised");
    assert_eq!(observe(40.0, &short), 'F', "lowered");
    assert_eq!(observe(50.0, &long), 'p', "raised again, while firing");
    assert_eq!(observe(60.0, &long), 'F');
}

#[test]
fn another_question_begins_anew() {
    for yaml in [
        "{above: 1.5, for: 30s}",
        "{atLeast: 1, for: 30s}",
        "{above: 1, for: 30s, series: All}",
        "{above: 1, for: 30s, gate: {query: t, present: true}}",
        "{above: 1, for: 30s, baseline: {query: t, compare: Difference}}",
    ] {
        let mut timer = Timer::default();
        let before = trigger("{above: 1, for: 30s}");
        assert_eq!(strip_of(&mut timer, &before, "bbb", &pace()), "ppp");
        let after = trigger(yaml);
        let breach = moment(&before, 'b');
        assert_eq!(symbol(&timer.observe(&after, "q", &breach, at(30.0), &pace())), 'p', "{yaml}");
    }
    let mut timer = Timer::default();
    let trigger = trigger("{above: 1, for: 30s}");
    assert_eq!(strip_of(&mut timer, &trigger, "bbb", &pace()), "ppp");
    assert_eq!(symbol(&timer.observe(&trigger, "another", &moment(&trigger, 'b'), at(30.0), &pace())), 'p');
}

#[test]
fn a_clock_that_goes_back_lengthens_the_wait() {
    let trigger = trigger("{above: 1, for: 30s}");
    let mut timer = Timer::default();
    let mut observe =
        |seconds: f64, letter| symbol(&timer.observe(&trigger, "q", &moment(&trigger, letter), at(seconds), &pace()));
    assert_eq!((observe(100.0, 'b'), observe(120.0, 'b'), observe(120.0, 'b')), ('p', 'p', 'p'));
    assert_eq!(observe(110.0, 'b'), 'p', "back, but not before the run");
    assert_eq!((observe(129.0, 'b'), observe(130.0, 'b')), ('p', 'F'));
    assert_eq!(observe(50.0, 'b'), 'p', "back before the run: it begins anew");
    assert_eq!((observe(70.0, 'b'), observe(80.0, 'b')), ('p', 'F'));
    assert_eq!(observe(3_600.0, 'b'), 'p', "forward by more than the hole: anew");
    assert_eq!(observe(90.0, 'o'), '-', "an Ok of an earlier time is an Ok");
}

#[test]
fn the_widest_hole_still_counts() {
    let trigger = trigger("{above: 1, for: 30s}");
    for (gap, expected) in [(25.0, 'F'), (25.001, 'p')] {
        let mut timer = Timer::default();
        let mut observe =
            |seconds: f64| symbol(&timer.observe(&trigger, "q", &moment(&trigger, 'b'), at(seconds), &pace()));
        assert_eq!((observe(0.0), observe(10.0), observe(10.0 + gap)), ('p', 'p', expected), "{gap}");
    }
}

#[test]
fn an_unknown_of_the_same_moment_takes_the_conviction_away() {
    let trigger = trigger("{above: 1, for: 0s}");
    let mut timer = Timer::default();
    let mut observe = |letter| symbol(&timer.observe(&trigger, "q", &moment(&trigger, letter), at(10.0), &pace()));
    assert_eq!((observe('b'), observe('u'), observe('b')), ('F', 'f', 'F'));
    assert_eq!(timer.firing(&trigger, at(10.0), &pace()).count(), 1);
    assert_eq!(timer.firing(&trigger, at(11.0), &pace()).count(), 0, "nobody witnessed that moment");
}

#[test]
fn evidence_begins_after_the_cooldown() {
    let trigger = trigger("{above: 1, for: 20s}");
    let pace = Pace { evidence_from: Some(at(35.0)), ..pace() };
    let mut timer = Timer::default();
    let mut observe = |seconds: f64| timer.observe(&trigger, "q", &moment(&trigger, 'b'), at(seconds), &pace);
    for seconds in [0.0, 10.0, 20.0] {
        let standing = observe(seconds);
        assert_eq!((symbol(&standing), standing.since), ('p', Some(at(0.0))));
        assert_eq!(standing.due, Some(at(35.0)), "the new run begins the moment it may");
    }
    let standing = observe(35.0);
    assert_eq!((symbol(&standing), standing.since, standing.due), ('p', Some(at(35.0)), Some(at(55.0))));
    assert_eq!((symbol(&observe(45.0)), symbol(&observe(55.0))), ('p', 'F'));
}

#[test]
fn the_cause_is_named_while_pending() {
    let trigger = trigger("{above: 1, for: 30s}");
    let mut timer = Timer::default();
    let mut observe =
        |seconds: f64, letter| timer.observe(&trigger, "q", &moment(&trigger, letter), at(seconds), &pace());
    observe(0.0, 'Z');
    let standing = observe(10.0, 'u');
    assert_eq!((standing.state, standing.since), (TriggerState::Pending, Some(at(0.0))));
    assert_eq!(standing.cause.unwrap().reason, "Timeout");
    let standing = observe(20.0, 'N');
    assert_eq!(standing.state, TriggerState::Pending);
    let cause = standing.cause.unwrap();
    assert_eq!(cause.reason, "NaN");
    assert!(cause.message.starts_with(r#"1 of 2 series cannot be judged; {pod="a"}: "#), "{}", cause.message);
    assert_eq!(observe(25.0, 'K').cause.unwrap().message, r#"the breaching series {pod="a"} is gone from the answer"#);
}
