//! Properties of the evaluation; the numbers are those of the fault matrix.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use learning_rollout::{
    api::{
        condition,
        rollback::{DesiredState, Phase},
        rollout::{ActiveRollback, LastRollback, LearningRolloutSpec, LearningRolloutStatus, Trigger, TriggerState},
        step::PlanType,
    },
    decide::{
        advice, baseline,
        resume::{Range, RangeReadings, RangeSeries, resume},
        rollout::{Action, ActiveRecord, Evaluated, evidence_from},
        schedule,
        timer::{Pace, Standing, Timer},
        trigger::{Answer, Failure, Labels, Readings, Series, judge},
    },
};
use proptest::{collection::vec, prelude::*};

use super::{at, failure, pace, rollout::World, trigger, value, vector};

const CASES: u32 = 512;

fn config() -> ProptestConfig {
    // Without a file of regressions: every seed is printed on failure, and nothing is written into the tree.
    ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() }
}

/// Any number, the odd ones often.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-3..4_i32).prop_map(f64::from),
        1 => Just(f64::NAN),
        1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0), Just(f64::MIN_POSITIVE)],
        1 => any::<f64>(),
    ]
}

fn any_labels() -> impl Strategy<Value = Labels> {
    prop_oneof![
        6 => (0..4_u8).prop_map(|pod| Labels::from([("pod".into(), pod.to_string())])),
        1 => Just(Labels::new()),
        1 => proptest::collection::btree_map(".{0,4}", ".{0,8}", 0..3),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let series = (any_labels(), number()).prop_map(|(labels, value)| Series { labels, value });
    prop_oneof![
        6 => vec(series, 0..5).prop_map(Ok),
        1 => (".{0,20}", ".{0,20}").prop_map(|(reason, message)| Err(Failure { reason, message })),
    ]
}

/// Triggers of all shapes, the invalid ones among them.
fn any_trigger() -> impl Strategy<Value = Trigger> {
    let comparison = prop_oneof![
        Just("above: 1"),
        Just("below: 1"),
        Just("atLeast: 1"),
        Just("atMost: -1"),
        Just("present: true"),
        Just("above: 1, below: 2"),
        Just(""),
    ];
    let gate = prop_oneof![3 => Just(""), 1 => Just("gate: {query: g, atLeast: 1}"), 1 => Just("gate: {query: g, present: true}")];
    let baseline = prop_oneof![
        3 => Just(""),
        1 => Just("baseline: {query: b, compare: Ratio}"),
        1 => Just("baseline: {query: b, compare: Difference, floor: 1}"),
        1 => Just("baseline: {captured: {window: 1h}, compare: Ratio, floor: 1}"),
        1 => Just("baseline: {compare: Ratio}"),
    ];
    let hold = prop_oneof![Just("0s"), Just("10s"), Just("30s"), Just("24h"), Just("999999h")];
    let policy = prop_oneof![Just("Hold"), Just("Reset"), Just("Breach")];
    (comparison, gate, baseline, hold, policy, any::<(bool, bool)>()).prop_map(
        |(comparison, gate, baseline, hold, policy, (all, critical))| {
            let series = if all { "All" } else { "Any" };
            let parts = [comparison, gate, baseline]
                .into_iter()
                .filter(|part| !part.is_empty())
                .map(|part| format!("{part}, "));
            let parts: String = parts.collect();
            trigger(&format!("{{{parts}for: {hold}, noData: {policy}, series: {series}, critical: {critical}}}"))
        },
    )
}

fn readings() -> impl Strategy<Value = Readings> {
    (answer(), proptest::option::of(answer()), proptest::option::of(answer()))
        .prop_map(|(value, gate, baseline)| Readings { value, gate, baseline })
}

/// Moments in order, usually a poll apart.
fn instants(count: usize) -> impl Strategy<Value = Vec<f64>> {
    let gap = prop_oneof![6 => Just(10.0), 1 => Just(20.0), 1 => Just(25.0), 1 => Just(25.001), 1 => Just(60.0), 1 => 0.001..30.0];
    vec(gap, count).prop_map(|gaps| {
        let mut moment = 0.0;
        gaps.into_iter()
            .map(|gap: f64| {
                moment += (gap * 1000.0).round() / 1000.0;
                moment
            })
            .collect()
    })
}

fn any_status() -> impl Strategy<Value = LearningRolloutStatus> {
    let plan_type = prop_oneof![Just(PlanType::FeatureDisable), Just(PlanType::Gradual), Just(PlanType::Immediate)];
    let phase = prop_oneof![Just("Restored"), Just("Released"), Just("Superseded"), Just("Skipped"), Just("odd")];
    (proptest::option::of(plan_type), proptest::option::of((phase, -300.0..100.0))).prop_map(|(active, last)| {
        LearningRolloutStatus {
            active: active.map(|plan_type| ActiveRollback {
                name: "loop-1".into(),
                plan_type,
                ..ActiveRollback::default()
            }),
            last_rollback: last.map(|(phase, ended): (&str, f64)| LastRollback {
                name: "loop-0".into(),
                phase: phase.into(),
                finished_at: Some(MicroTime(at(ended))),
            }),
            ..LearningRolloutStatus::default()
        }
    })
}

fn any_record() -> impl Strategy<Value = Option<ActiveRecord>> {
    use {DesiredState as D, Phase as P};
    let phase = prop_oneof![
        Just(P::Pending),
        Just(P::Executing),
        Just(P::RolledBack),
        Just(P::Restoring),
        Just(P::Restored),
        Just(P::Unknown)
    ];
    let desired =
        prop_oneof![3 => Just(D::RolledBack), 1 => Just(D::Held), 1 => Just(D::Restored), 1 => Just(D::Released)];
    proptest::option::of((phase, desired).prop_map(|(phase, desired_state)| ActiveRecord { phase, desired_state }))
}

/// One trigger of a world, evaluated through judge, timer and decision as the controller does it.
fn run(world: &mut World, trigger: &Trigger, history: &[(f64, Readings)]) -> Vec<(Timestamp, Action)> {
    world.spec.triggers = vec![Trigger { rollback: "immediate".into(), ..trigger.clone() }];
    let mut timer = Timer::default();
    let mut acted = Vec::new();
    for (seconds, readings) in history {
        let pace = Pace { evidence_from: evidence_from(&world.spec, &world.status, trigger), ..pace() };
        let standing = timer.observe(trigger, "q", &judge(trigger, readings, None), at(*seconds), &pace);
        let evaluated = Evaluated { trigger: trigger.name.clone(), standing, baseline: None };
        let outcome = world.decide(&[evaluated], at(*seconds));
        world.status = outcome.status;
        acted.extend(outcome.actions.into_iter().map(|action| (at(*seconds), action)));
    }
    acted
}

fn starts(
    acted: &[(Timestamp, Action)],
) -> impl Iterator<Item = (Timestamp, &learning_rollout::decide::rollout::Conviction)> {
    acted.iter().filter_map(|(moment, action)| match action {
        Action::Start(conviction) | Action::Escalate(conviction) => Some((*moment, conviction)),
        _ => None,
    })
}

fn zip(instants: Vec<f64>, readings: Vec<Readings>) -> Vec<(f64, Readings)> {
    instants.into_iter().zip(readings).collect()
}

proptest! {
    #![proptest_config(config())]

    /// 1 and 16: equal inputs, equal outputs, whatever else was decided in between.
    #[test]
    fn p1_p16_decisions_depend_on_their_inputs_only(
        trigger in any_trigger(), instants in instants(8), readings in vec(readings(), 8), status in any_status(), record in any_record(),
        other in any_trigger(),
    ) {
        let history = zip(instants, readings);
        let begin = || { let mut world = World::new(); world.status = status.clone(); world.facts.active = record; world };
        let (mut one, mut two, mut between) = (begin(), begin(), World::new());
        let first = run(&mut one, &trigger, &history);
        run(&mut between, &other, &history);
        let second = run(&mut two, &trigger, &history);
        prop_assert_eq!(first, second);
        // Not by `==` alone: the statuses hold texts, and NaN is never equal to itself.
        prop_assert_eq!(format!("{:?}", one.status), format!("{:?}", two.status));
    }

    /// 9: a rollback starts only on the evidence of DESIGN §2: a breach now, and breaches over the whole window before.
    #[test]
    fn p9_a_start_has_its_evidence(
        trigger in any_trigger(), instants in instants(12), readings in vec(readings(), 12), status in any_status(), record in any_record(),
    ) {
        let mut world = World::new();
        (world.status, world.facts.active) = (status, record);
        let history = zip(instants, readings);
        let acted = run(&mut world, &trigger, &history);
        for (now, conviction) in starts(&acted) {
            let since = conviction.evidence.since.as_ref().unwrap().0;
            prop_assert_eq!(conviction.evidence.fired_at.as_ref().unwrap().0, now);
            prop_assert!(now.duration_since(since).unsigned_abs() >= trigger.hold.get());
            let read: Vec<_> = history.iter().filter(|(seconds, _)| at(*seconds) <= now).collect();
            // Something said Breach now; under noData: Breach that may be silence, by the user's word.
            let (_, last) = read.last().unwrap();
            let silence_breaches = trigger.no_data == learning_rollout::api::rollout::NoDataPolicy::Breach;
            let judgement = format!("{:?}", judge(&trigger, last, None));
            prop_assert!(judgement.contains("Breach") || silence_breaches, "{}", judgement);
            // No hole since then: a held one is taken out of the count, so the run may only be longer than `since` says.
            let mut moments: Vec<_> = read.iter().map(|(seconds, _)| at(*seconds)).filter(|moment| *moment >= since).collect();
            moments.dedup();
            prop_assert!(moments.windows(2).all(|pair| pair[1].duration_since(pair[0]).unsigned_abs() <= pace().hole()));
        }
    }

    /// 10: a history of Unknown alone starts nothing and clears nothing.
    #[test]
    fn p10_unknown_alone_starts_and_clears_nothing(
        breaches in 0..6_usize, unknown in vec(prop_oneof![Just("fail"), Just("nan"), Just("empty")], 1..10), far in any::<bool>(),
        restart in any::<bool>(),
    ) {
        let trigger = trigger("{above: 1, for: 30s}");
        let breach = |n: usize| (10.0 * n as f64, value(vector(&[("pod=0", 2.0)])));
        let mut world = World::new();
        world.spec.triggers = vec![Trigger { rollback: "immediate".into(), ..trigger.clone() }];
        let mut timer = Timer::default();
        let evaluate = |world: &mut World, timer: &mut Timer, seconds: f64, readings: &Readings| {
            let standing = timer.observe(&trigger, "q", &judge(&trigger, readings, None), at(seconds), &pace());
            let evaluated = Evaluated { trigger: trigger.name.clone(), standing, baseline: None };
            let outcome = world.decide(&[evaluated], at(seconds));
            world.status = outcome.status;
            outcome.actions.into_iter().filter(|action| !matches!(action, Action::Event(_))).count()
        };
        for n in 0..breaches {
            let (seconds, readings) = breach(n);
            evaluate(&mut world, &mut timer, seconds, &readings);
        }
        let before = world.status.triggers.first().map(|known| (known.state, known.since.clone()));
        if restart {
            timer = world.status.triggers.first().map(Timer::carry).unwrap_or_default();
        }
        for (n, kind) in unknown.iter().enumerate() {
            let readings = value(match *kind { "fail" => failure("Timeout"), "nan" => vector(&[("pod=0", f64::NAN)]), _ => vector(&[]) });
            let seconds = 10.0 * (breaches + n) as f64 + if far { 3_600.0 } else { 0.0 };
            prop_assert_eq!(evaluate(&mut world, &mut timer, seconds, &readings), 0);
            let expected = before.clone().unwrap_or((TriggerState::Unknown, None));
            let now = world.status.triggers.first().map(|known| (known.state, known.since.clone()));
            prop_assert_eq!(now, Some(expected));
        }
    }

    /// 11: permuting series changes nothing.
    #[test]
    fn p11_the_order_of_series_is_nothing(
        trigger in any_trigger(), instants in instants(6), readings in vec(readings(), 6), seed in any::<u64>(),
    ) {
        let shuffled: Vec<Readings> = readings.iter().cloned().map(|readings| {
            let turn = |answer: Answer| answer.map(|mut series| {
                series.reverse();
                let by = if series.is_empty() { 0 } else { seed as usize % series.len() };
                series.rotate_left(by);
                series
            });
            Readings { value: turn(readings.value), gate: readings.gate.map(turn), baseline: readings.baseline.map(turn) }
        }).collect();
        let (mut one, mut two) = (Timer::default(), Timer::default());
        for ((seconds, readings), shuffled) in instants.iter().zip(&readings).zip(&shuffled) {
            let (first, second) = (judge(&trigger, readings, None), judge(&trigger, shuffled, None));
            let first = one.observe(&trigger, "q", &first, at(*seconds), &pace());
            let second = two.observe(&trigger, "q", &second, at(*seconds), &pace());
            // Which of several faults is named may depend on the order; what follows from them may not.
            prop_assert_eq!((first.state, first.since, first.due, first.value), (second.state, second.since, second.due, second.value));
            prop_assert_eq!(first.conviction, second.conviction);
            prop_assert_eq!(first.cause.is_some(), second.cause.is_some());
        }
    }

    /// 12: no new start while one is in force, and none until it has been restored and has cooled down.
    #[test]
    fn p12_no_start_until_restored_and_cooled_down(
        trigger in any_trigger(), instants in instants(12), readings in vec(readings(), 12), status in any_status(), record in any_record(),
    ) {
        let mut world = World::new();
        (world.status, world.facts.active) = (status.clone(), record);
        let acted = run(&mut world, &trigger, &zip(instants, readings));
        for (_, conviction) in starts(&acted) {
            let since = conviction.evidence.since.as_ref().unwrap().0;
            if let Some(last) = status.last_rollback.as_ref().filter(|last| ["Restored", "Released"].contains(&last.phase.as_str())) {
                let ended = last.finished_at.as_ref().unwrap().0;
                let cooldown = if trigger.critical { Duration::ZERO } else { world.spec.cooldown.get() };
                prop_assert!(since.duration_since(ended).as_secs_f64() >= cooldown.as_secs_f64());
            }
        }
        let started = acted.iter().any(|(_, action)| matches!(action, Action::Start(_)));
        prop_assert!(!(started && status.active.is_some()));
        let escalated = acted.iter().any(|(_, action)| matches!(action, Action::Escalate(_)));
        let going = record.is_none_or(|record| {
            matches!(record.phase, Phase::Pending | Phase::Executing | Phase::RolledBack)
                && matches!(record.desired_state, DesiredState::RolledBack | DesiredState::Held)
        });
        let weaker = status.active.as_ref().is_some_and(|active| active.plan_type < PlanType::Immediate);
        prop_assert!(!escalated || (going && weaker));
    }

    /// 17: any input gives a value, never a panic: odd numbers, odd labels, and moments at the ends of time.
    #[test]
    fn p17_nothing_panics(
        trigger in any_trigger(), readings in vec(readings(), 4), captured in proptest::option::of(number()),
        moments in vec(prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>()], 4), interval in any::<u64>(), timeout in any::<u64>(),
        bytes in vec(any::<u8>(), 0..200), annotation in ".{0,40}",
    ) {
        let moment = |seconds: i64| Timestamp::from_second(seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second())).unwrap();
        let pace = Pace {
            interval: Duration::from_millis(interval), timeout: Duration::from_millis(timeout),
            evidence_from: Some(moment(moments[0])),
        };
        let mut timer = Timer::default();
        let mut world = World::new();
        world.annotations.insert(learning_rollout::api::PAUSED_UNTIL.into(), annotation.clone());
        world.annotations.insert(learning_rollout::api::REBASELINE.into(), annotation);
        for (seconds, readings) in moments.iter().zip(&readings) {
            let now = moment(*seconds);
            let standing = timer.observe(&trigger, "q", &judge(&trigger, readings, captured), now, &pace);
            let offset = schedule::offset(schedule::Fingerprint::default().number(interval), pace.interval);
            schedule::next(now, moment(moments[1]), pace.interval, offset, standing.due);
            let evaluated = Evaluated { trigger: "errors".into(), standing, baseline: None };
            world.status = world.decide(&[evaluated], now).status;
            baseline::to_capture(&trigger, "q", &world.annotations, &world.status, pace.interval, now);
            let range = Range::to_fill(moment(moments[2]), now, &pace);
            let points = moments.iter().map(|seconds| (moment(*seconds), 1.0)).collect();
            let value = vec![RangeSeries { labels: Labels::new(), points }];
            let answer = Ok(value.clone());
            let _ = baseline::capture(&trigger, "q", &range, &answer);
            let count = range.moments().take(20_000).count();
            prop_assert!(count <= 10_001);
            if count < 100 {
                resume(&mut timer, &trigger, "q", captured, &range, RangeReadings { value, gate: None, baseline: None }, &pace);
            }
        }
        advice::advise(&world.spec, &world.annotations);
        let _ = serde_json::from_slice::<LearningRolloutSpec>(&bytes);
        let _ = serde_json::from_slice::<LearningRolloutStatus>(&bytes);
        let names = schedule::Names { namespace: "n", name: "m", cluster: "c" };
        names.expand(&String::from_utf8_lossy(&bytes));
    }

    /// 19: a clock that goes back, once or often, never shortens a wait.
    #[test]
    fn p19_a_clock_that_goes_back_never_shortens_a_wait(
        steps in vec((prop_oneof![Just(10.0), 0.0..26.0], prop_oneof![4 => Just(0.0), 1 => 0.0..400.0_f64], prop_oneof![8 => Just('b'), 1 => Just('o'), 1 => Just('u')]), 1..40),
    ) {
        let trigger = trigger("{above: 1, for: 60s}");
        let mut timer = Timer::default();
        // What truly happened: the true moment of the first breach that nothing has interrupted since.
        let (mut truly, mut behind, mut unbroken): (f64, f64, Option<f64>) = (10_000.0, 0.0, None);
        for (gap, back, letter) in steps {
            truly += gap;
            behind += back;
            let answer = match letter { 'b' => vector(&[("", 2.0)]), 'o' => vector(&[("", 0.0)]), _ => failure("Timeout") };
            unbroken = if letter == 'o' { None } else { unbroken.or((letter == 'b').then_some(truly)) };
            let standing = timer.observe(&trigger, "q", &judge(&trigger, &value(answer), None), at(truly - behind), &pace());
            if standing.conviction.is_some() {
                prop_assert!(truly - unbroken.unwrap() >= 59.99, "fired {} s after the first breach", truly - unbroken.unwrap());
            }
        }
    }

    /// 21, of the timer: a breach that nobody looked at changes nothing while the hole stays within what is allowed.
    #[test]
    fn p21_dropping_breaches_within_the_hole_changes_nothing(count in 2..30_usize, dropped in any::<u32>(), hold in 0..25_u64) {
        let mut trigger = trigger("{above: 1}");
        trigger.hold = learning_rollout::api::duration::GoDuration::from_secs(hold * 10);
        let (mut whole, mut holed) = (Timer::default(), Timer::default());
        let mut seen = 0;
        for n in 0..count {
            let judgement = judge(&trigger, &value(vector(&[("", 2.0)])), None);
            let expected = whole.observe(&trigger, "q", &judgement, at(10.0 * n as f64), &pace());
            // At most every second one is dropped, never the first: holes of 20 s.
            let drop = n > 0 && n - seen == 1 && dropped >> (n % 32) & 1 == 1;
            if !drop {
                seen = n;
                let found = holed.observe(&trigger, "q", &judgement, at(10.0 * n as f64), &pace());
                prop_assert_eq!((found.state, found.since, found.due), (expected.state, expected.since, expected.due));
                prop_assert_eq!(found.conviction.is_some(), expected.conviction.is_some());
            }
        }
    }

    /// 21, of the decision: dropping any observation but the last leaves the same status behind, times of transition apart.
    #[test]
    fn p21_only_the_last_standing_counts(
        standings in vec((prop_oneof![Just(TriggerState::Ok), Just(TriggerState::Pending), Just(TriggerState::Firing), Just(TriggerState::Unknown)], 0..100_i32), 2..6),
        dropped in any::<prop::sample::Index>(), status in any_status(),
    ) {
        let evaluated = |(state, since): &(TriggerState, i32)| {
            let since = matches!(state, TriggerState::Pending | TriggerState::Firing).then(|| at(f64::from(*since)));
            let cause = (*state == TriggerState::Unknown).then(|| learning_rollout::decide::trigger::Cause::new("Timeout", "late"));
            Evaluated { trigger: "errors".into(), standing: Standing { state: *state, since, cause, ..Standing::default() }, baseline: None }
        };
        let end = |standings: &[(TriggerState, i32)]| {
            let mut world = World::new();
            world.status = status.clone();
            for standing in standings {
                world.status = world.decide(&[evaluated(standing)], at(1_000.0)).status;
            }
            let conditions: Vec<_> = [condition::rollout::BREACHING, condition::rollout::METRICS_AVAILABLE, condition::rollout::ROLLBACK_IN_FORCE]
                .iter().map(|kind| condition::get(&world.status.conditions, kind).map(|found| (found.status.clone(), found.reason.clone(), found.message.clone()))).collect();
            (world.status.triggers, conditions)
        };
        let mut fewer = standings.clone();
        fewer.remove(dropped.index(standings.len() - 1));
        prop_assert_eq!(end(&standings), end(&fewer));
    }

    /// The boundary is inclusive to the millisecond, and the due instant is exact.
    #[test]
    fn the_due_instant_fires_and_the_one_before_does_not(hold_millis in 1..120_000_u64, start in 0..100_000_u32) {
        let mut trigger = trigger("{above: 1}");
        trigger.hold = learning_rollout::api::duration::GoDuration::from_millis(hold_millis);
        let breach = judge(&trigger, &value(vector(&[("", 2.0)])), None);
        let mut timer = Timer::default();
        let start = at(f64::from(start) / 1000.0);
        let first = timer.observe(&trigger, "q", &breach, start, &pace());
        let due = first.due.unwrap();
        let mut tick = schedule::tick(start, pace().interval, Duration::ZERO);
        while tick < due {
            let before = tick;
            prop_assert!(timer.observe(&trigger, "q", &breach, tick, &pace()).conviction.is_none());
            tick = schedule::tick(tick, pace().interval, Duration::ZERO);
            prop_assert!(tick > before);
        }
        let early = due.checked_sub(Duration::from_millis(1)).unwrap();
        if early > start {
            prop_assert!(timer.clone().observe(&trigger, "q", &breach, early, &pace()).conviction.is_none());
        }
        prop_assert!(timer.observe(&trigger, "q", &breach, due, &pace()).conviction.is_some());
    }

    /// A square wave whose breaches are shorter than the window never fires, however long it lasts (F1).
    #[test]
    fn a_square_wave_below_the_window_never_fires(high in 1..7_usize, low in 1..5_usize, count in 1..120_usize) {
        let trigger = trigger("{above: 1, for: 60s}");
        let mut timer = Timer::default();
        for n in 0..count {
            let level = if n % (high + low) < high { 2.0 } else { 0.0 };
            let judgement = judge(&trigger, &value(vector(&[("", level)])), None);
            let standing = timer.observe(&trigger, "q", &judgement, at(10.0 * n as f64), &pace());
            prop_assert!(standing.conviction.is_none());
        }
    }
}
