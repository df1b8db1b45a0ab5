//! The firing instants of a trigger equal those of a Prometheus alerting rule with the same expression and `for`,
//! except for a listed set of intended differences, each of which is tested here.
//!
//! Thousands of generated series go through `decide`; what it says becomes the expectation of `promtool test rules`,
//! which evaluates the rules with Prometheus' own engine and passes only if every instant of every series agrees.
//!
//! | intended difference | why | tested by |
//! |---|---|---|
//! | an Unknown sample is held, where a rule resets | a broken Prometheus must clear nothing | `unknown_is_held_where_a_rule_resets` |
//! | evaluations that were missed leave holes, and wide holes restart | the operator may have been down; a rule knows no holes | `only_what_was_missed_makes_a_difference` |
//! | a window is judged the instant it is complete, not at the next tick | seconds matter | `windows_complete_between_ticks` |
//! | a ratio to a baseline of 0 is Unknown, where a rule sees +Inf | it says nothing about the feature | `a_baseline_of_zero_is_unknown` |
//! | an answer of more than 100 series is Unknown | a bounded number of timers | `too_many_series_are_unknown` |
//!
//! With `noData: Reset` the first one goes away; the inclusive boundary is none: rules have it too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod generate;
mod promtool;

use std::{collections::BTreeSet, time::Duration};

use generate::{Case, Line, Point, Random, TICKS, cases, start};
use learning_rollout::{
    api::rollout::NoDataPolicy,
    decide::{
        timer::{Pace, Timer},
        trigger::{Finding, Judgement, Labels, MAX_SERIES, judge},
    },
};

/// Which series fire at each tick.
type Firings = Vec<BTreeSet<Labels>>;

/// Labels as an alert has them.
fn nameless(labels: &Labels) -> Labels {
    labels.iter().filter(|(name, _)| *name != "__name__").map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn pace(case: &Case) -> Pace {
    Pace { interval: case.interval, timeout: Duration::from_secs(5), evidence_from: None }
}

/// Replays a case. `asked` says whether the operator asked at a tick; `due` whether it also asks at due instants.
fn replay(case: &Case, policy: NoDataPolicy, asked: impl Fn(usize) -> bool, due: bool) -> Firings {
    let mut trigger = case.trigger();
    trigger.no_data = policy;
    let (pace, mut timer) = (pace(case), Timer::default());
    let mut observe = |since_start: Duration| {
        let at = start().checked_add(since_start).unwrap();
        let judgement = judge(&trigger, &case.readings(since_start), None);
        let standing = timer.observe(&trigger, &trigger.query, &judgement, at, &pace);
        let firing: BTreeSet<Labels> = timer.firing(&trigger, at, &pace).map(nameless).collect();
        assert_eq!(standing.conviction.is_some(), !firing.is_empty(), "one conviction for all that fire");
        let due = standing.due.map(|due| Duration::try_from(due.duration_since(start())).unwrap());
        (firing, due)
    };
    let mut tick = |tick: usize| {
        if !asked(tick) {
            return BTreeSet::new();
        }
        let (firing, mut next) = observe(case.moment(tick));
        while let Some(moment) = next.filter(|moment| due && *moment < case.moment(tick + 1)) {
            (_, next) = observe(moment);
        }
        firing
    };
    (0..TICKS).map(&mut tick).collect()
}

/// What one series says at a tick; one that is missing says nothing, unless presence is the breach.
fn finding(case: &Case, series: &Labels, tick: usize) -> Finding {
    let trigger = case.trigger();
    let silent = || Finding::Unknown(learning_rollout::decide::trigger::Cause::new("NoData", ""));
    let missing = || if trigger.comparison.present.is_some() { Finding::Ok } else { silent() };
    match judge(&trigger, &case.readings(case.moment(tick)), None) {
        Judgement::Series(all) => {
            all.into_iter().find(|one| nameless(&one.labels) == *series).map_or_else(missing, |one| one.finding)
        }
        Judgement::Absent => Finding::Ok,
        Judgement::Unknown(_) => silent(),
    }
}

/// The ticks from `tick` back to the last one before a series was Ok.
fn since_ok(case: &Case, series: &Labels, tick: usize) -> impl Iterator<Item = usize> {
    let mut ticks = Vec::new();
    for tick in (0..=tick).rev() {
        if finding(case, series, tick) == Finding::Ok {
            break;
        }
        ticks.push(tick);
    }
    ticks.into_iter()
}

fn always(_: usize) -> bool {
    true
}

#[test]
fn firing_instants_equal_those_of_alerting_rules() {
    let cases = cases(1, 240);
    let expectations: Vec<Firings> =
        cases.iter().map(|case| replay(case, NoDataPolicy::Reset, always, false)).collect();
    let series: usize = cases.iter().map(|case| case.lines.len()).sum();
    let firing: usize = expectations.iter().flatten().map(BTreeSet::len).sum();
    let quiet = expectations.iter().flatten().filter(|firing| firing.is_empty()).count();
    println!(
        "{} rules, {series} series, {} instants each: {firing} firings, {quiet} quiet instants",
        cases.len(),
        TICKS
    );
    assert!(series >= 2_000 && firing >= 5_000 && quiet >= 1_000);
    promtool::verify("equal", &cases, &expectations).unwrap_or_else(|told| panic!("{told}"));
}

#[test]
fn promtool_refuses_what_is_not_so() {
    let cases = cases(2, 1);
    let truth = replay(&cases[0], NoDataPolicy::Reset, always, false);
    let series = nameless(&cases[0].lines[0].labels);
    for tick in [0, TICKS / 2, TICKS - 1] {
        let mut wrong = truth.clone();
        if !wrong[tick].remove(&series) {
            wrong[tick].insert(series.clone());
        }
        let told = promtool::verify("wrong", &cases, &[wrong]).unwrap_err();
        assert!(told.contains("FAILED"), "{told}");
    }
    promtool::verify("right", &cases, &[truth]).unwrap();
}

#[test]
fn unknown_is_held_where_a_rule_resets() {
    let mut differences = 0;
    for case in cases(3, 120) {
        let rule = replay(&case, NoDataPolicy::Reset, always, false);
        let held = replay(&case, NoDataPolicy::Hold, always, false);
        for (tick, (rule, held)) in rule.iter().zip(&held).enumerate() {
            assert!(rule.is_subset(held), "holding never loses what a rule sees: {case:?}");
            for series in held.difference(rule) {
                differences += 1;
                let silent = |tick| matches!(finding(&case, series, tick), Finding::Unknown(_));
                assert!(since_ok(&case, series, tick).any(silent), "{series:?} at {tick} of {case:?}");
            }
        }
    }
    println!("{differences} firings of held windows that a rule would have reset");
    assert!(differences > 100);
}

#[test]
fn only_what_was_missed_makes_a_difference() {
    let (mut differences, mut random) = (0, Random::new(4));
    for case in cases(5, 120) {
        let asked: Vec<bool> = (0..TICKS).map(|_| !random.one_in(3)).collect();
        let rule = replay(&case, NoDataPolicy::Reset, always, false);
        let holed = replay(&case, NoDataPolicy::Reset, |tick| asked[tick], false);
        for tick in (0..TICKS).filter(|tick| asked[*tick]) {
            for series in holed[tick].symmetric_difference(&rule[tick]) {
                differences += 1;
                // Back to where the rule saw the run begin: somewhere there, nobody asked.
                let witnessed_breach = |tick: &usize| !asked[*tick] || finding(&case, series, *tick) == Finding::Breach;
                let run = (0..=tick).rev().take_while(witnessed_breach);
                assert!(run.into_iter().any(|tick| !asked[tick]), "{series:?} at {tick} of {case:?}");
            }
            for series in &holed[tick] {
                // Whatever fires was witnessed over the whole window, with no hole wider than allowed.
                let from = case.moment(tick).saturating_sub(case.hold);
                let mut last = case.moment(tick);
                for witnessed in (0..tick).rev().filter(|tick| asked[*tick]).map(|tick| case.moment(tick)) {
                    if last <= from {
                        break;
                    }
                    assert!(last - witnessed <= pace(&case).hole(), "{series:?} at {tick} of {case:?}");
                    last = witnessed;
                }
                assert!(last <= from, "{series:?} at {tick} of {case:?}");
            }
        }
    }
    println!("{differences} differences by evaluations that were missed");
    assert!(differences > 100);
}

#[test]
fn windows_complete_between_ticks() {
    let mut earlier = 0;
    for case in cases(6, 120) {
        let (plain, due) =
            (replay(&case, NoDataPolicy::Reset, always, false), replay(&case, NoDataPolicy::Reset, always, true));
        assert_eq!(plain, due, "asking in between takes nothing away at the ticks: {case:?}");
        earlier += usize::from(case.hold.as_millis() % case.interval.as_millis() != 0);
    }
    assert!(earlier > 10);
    // 40 s at an interval of 15 s: the rule fires at 45 s, the trigger at 40 s.
    let case = Case::plain(
        "m > 1",
        Duration::from_secs(15),
        Duration::from_secs(40),
        vec![[2.0; 4].map(Point::Value).to_vec()],
    );
    let fires = |at: u64| {
        let mut timer = Timer::default();
        let trigger = case.trigger();
        let moments = [0, 15, 30, at].map(Duration::from_secs);
        let convicted = moments.map(|moment| {
            let judgement = judge(&trigger, &case.readings(moment), None);
            timer
                .observe(&trigger, "m", &judgement, start().checked_add(moment).unwrap(), &pace(&case))
                .conviction
                .is_some()
        });
        convicted[3]
    };
    assert_eq!((fires(39), fires(40)), (false, true));
    let labels = BTreeSet::from([nameless(&case.lines[0].labels)]);
    let rule: Firings =
        (0..TICKS).map(|tick| if (3..23).contains(&tick) { labels.clone() } else { BTreeSet::new() }).collect();
    promtool::verify("due", std::slice::from_ref(&case), &[rule]).unwrap();
}

#[test]
fn a_baseline_of_zero_is_unknown() {
    let line = |value: f64| vec![Point::Value(value); TICKS];
    let mut case = Case::plain("m / on(s) b > 2", Duration::from_secs(15), Duration::from_secs(30), vec![line(4.0)]);
    case.baseline = Some((vec![Line::new("b", 0, line(0.0))], "compare: Ratio"));
    assert!(replay(&case, NoDataPolicy::Reset, always, false).iter().all(BTreeSet::is_empty));
    let labels = BTreeSet::from([nameless(&case.lines[0].labels)]);
    let rule: Firings = (0..TICKS).map(|tick| if tick >= 2 { labels.clone() } else { BTreeSet::new() }).collect();
    promtool::verify("zero", std::slice::from_ref(&case), &[rule]).unwrap();
}

#[test]
fn too_many_series_are_unknown() {
    let lines = |count: usize| vec![vec![Point::Value(2.0); TICKS]; count];
    let case = |count: usize| Case::plain("m > 1", Duration::from_secs(15), Duration::from_secs(30), lines(count));
    let all = |case: &Case| -> BTreeSet<Labels> { case.lines.iter().map(|line| nameless(&line.labels)).collect() };
    assert_eq!(replay(&case(MAX_SERIES), NoDataPolicy::Reset, always, false)[2], all(&case(MAX_SERIES)));
    let many = case(MAX_SERIES + 1);
    assert!(replay(&many, NoDataPolicy::Reset, always, false).iter().all(BTreeSet::is_empty));
    let rule: Firings = (0..TICKS).map(|tick| if tick >= 2 { all(&many) } else { BTreeSet::new() }).collect();
    promtool::verify("many", std::slice::from_ref(&many), &[rule]).unwrap();
}
