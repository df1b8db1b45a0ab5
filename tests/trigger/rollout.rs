//! From standings to actions: who may start, who is held back, what people are told, and that nothing else is written.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use learning_rollout::{
    api::{
        PAUSED_UNTIL, condition,
        rollback::{DesiredState, Phase},
        rollout::{
            ActiveRollback, Evidence, LastRollback, LearningRolloutSpec, LearningRolloutStatus, Mode, TriggerState,
        },
        step::PlanType,
    },
    decide::{
        advice::{Weight, advise},
        rollout::{Action, ActiveRecord, Evaluated, Facts, Outcome, View, decide, evidence_from},
        timer::Standing,
        trigger::Cause,
    },
};

use super::at;

pub const NOW: f64 = 10_000.0;

pub fn spec() -> LearningRolloutSpec {
    serde_yaml::from_str(
        "
triggers:
- {name: operations, query: ops, above: 0.2, for: 10m, rollback: off}
- {name: latency, query: p95, above: 2, for: 10m, rollback: gradual}
- {name: errors, query: errors, above: 0.05, for: 3m, rollback: immediate}
- {name: downtime, query: down, above: 0.01, for: 5m, rollback: immediate, critical: true}
rollbacks:
- {name: off, type: FeatureDisable, steps: []}
- {name: gradual, type: Gradual, steps: []}
- {name: immediate, type: Immediate, steps: []}
",
    )
    .unwrap()
}

fn unknown(trigger: &str, state: TriggerState, since: Option<f64>, reason: &str) -> Evaluated {
    let cause = Some(Cause::new(reason, "it could not be judged"));
    Evaluated { standing: Standing { state, since: since.map(at), cause, ..Standing::default() }, ..ok(trigger) }
}

fn ok(trigger: &str) -> Evaluated {
    let standing = Standing { state: TriggerState::Ok, value: Some("0".into()), ..Standing::default() };
    Evaluated { trigger: trigger.into(), standing, baseline: None }
}

fn pending(trigger: &str, since: f64) -> Evaluated {
    let standing = Standing {
        state: TriggerState::Pending,
        since: Some(at(since)),
        due: Some(at(since + 600.0)),
        value: Some("3".into()),
        ..Standing::default()
    };
    Evaluated { standing, ..ok(trigger) }
}

pub fn firing(trigger: &str, since: f64) -> Evaluated {
    let evidence = Evidence { trigger: trigger.into(), since: Some(MicroTime(at(since))), ..Evidence::default() };
    let standing = Standing {
        state: TriggerState::Firing,
        due: None,
        conviction: Some(evidence),
        ..pending(trigger, since).standing
    };
    Evaluated { standing, ..ok(trigger) }
}

/// A rollout that can be decided on again and again.
#[derive(Clone)]
pub struct World {
    pub spec: LearningRolloutSpec,
    pub annotations: BTreeMap<String, String>,
    pub status: LearningRolloutStatus,
    pub facts: Facts,
}

impl World {
    pub fn new() -> Self {
        Self {
            spec: spec(),
            annotations: BTreeMap::new(),
            status: LearningRolloutStatus::default(),
            facts: Facts::default(),
        }
    }

    pub fn decide(&self, evaluated: &[Evaluated], now: Timestamp) -> Outcome {
        let Self { spec, annotations, status, facts } = self;
        decide(&View { spec, generation: Some(1), annotations, status, facts }, evaluated, now)
    }

    /// Decides, takes over the status, and tells actions and events in short.
    fn step(&mut self, evaluated: &[Evaluated], seconds: f64) -> Vec<String> {
        let outcome = self.decide(evaluated, at(seconds));
        let again = Self { status: outcome.status.clone(), ..self.clone() }.decide(evaluated, at(seconds));
        assert_eq!(again.status, outcome.status, "deciding twice on the same is deciding once");
        assert!(!again.actions.iter().any(|action| matches!(action, Action::Event(_))), "{:?}", again.actions);
        self.status = outcome.status;
        outcome.actions.iter().map(short).collect()
    }

    fn active(&mut self, plan_type: PlanType, phase: Phase, desired_state: DesiredState) {
        let name = "loop-1-abc".to_owned();
        self.status.active =
            Some(ActiveRollback { name, plan_type, rollback: "x".into(), ..ActiveRollback::default() });
        self.facts.active = Some(ActiveRecord { phase, desired_state });
    }

    fn breaching(&self) -> (&str, &str) {
        let breaching = condition::get(&self.status.conditions, condition::rollout::BREACHING).unwrap();
        (&breaching.status, &breaching.reason)
    }
}

fn short(action: &Action) -> String {
    match action {
        Action::Start(conviction) => format!("start {} by {}", conviction.rollback, conviction.trigger),
        Action::Escalate(conviction) => format!("escalate {} by {}", conviction.rollback, conviction.trigger),
        Action::WouldStart(conviction) => format!("would start {} by {}", conviction.rollback, conviction.trigger),
        Action::Event(event) => format!("{:?} {}", event.kind, event.reason),
    }
}

#[test]
fn a_quiet_rollout_is_written_once() {
    let mut world = World::new();
    let all = [ok("operations"), ok("latency"), ok("errors"), ok("downtime")];
    assert!(world.step(&all, NOW).is_empty());
    assert_eq!(world.breaching(), ("False", "NothingBreaching"));
    let settled = world.status.clone();
    for (tick, value) in [(1.0, "0.001"), (2.0, "0.002")] {
        let mut all = all.clone();
        all[2].standing.value = Some(value.into());
        assert!(world.step(&all[..3], NOW + 15.0 * tick).is_empty());
        assert!(world.step(&[], NOW + 15.0 * tick).is_empty());
        assert_eq!(world.status, settled, "another value of the same state is no news");
    }
}

#[test]
fn transitions_are_told_once() {
    let mut world = World::new();
    assert!(world.step(&[ok("errors")], NOW).is_empty());
    assert_eq!(world.step(&[pending("errors", NOW)], NOW), ["Normal TriggerPending"]);
    assert_eq!(world.breaching(), ("True", "TriggerPending"));
    assert!(world.step(&[pending("errors", NOW)], NOW + 15.0).is_empty());
    let held = unknown("errors", TriggerState::Pending, Some(NOW), "Timeout");
    assert_eq!(world.step(std::slice::from_ref(&held), NOW + 30.0), ["Warning TriggerUnknown"]);
    assert!(world.step(&[held], NOW + 45.0).is_empty());
    let metrics = condition::get(&world.status.conditions, condition::rollout::METRICS_AVAILABLE).unwrap();
    assert_eq!((metrics.status.as_str(), metrics.reason.as_str()), ("False", "Timeout"));
    assert!(metrics.message.contains("errors (Timeout)"), "{}", metrics.message);
    assert!(world.step(&[pending("errors", NOW)], NOW + 60.0).is_empty(), "pending as before");
    assert_eq!(
        world.step(&[firing("errors", NOW)], NOW + 180.0),
        ["start immediate by errors", "Warning TriggerFiring"]
    );
    assert_eq!(world.breaching(), ("True", "TriggerFiring"));
    assert_eq!(
        world.step(&[firing("errors", NOW)], NOW + 195.0),
        ["start immediate by errors"],
        "until the claim is taken"
    );
    assert_eq!(world.step(&[ok("errors")], NOW + 210.0), ["Normal TriggerRecovered"]);
    assert_eq!(world.breaching(), ("False", "NothingBreaching"));
}

#[test]
fn the_strongest_starts_and_ties_go_by_order() {
    let mut world = World::new();
    let since = NOW - 600.0;
    let starts = |world: &mut World, evaluated: &[Evaluated]| world.step(evaluated, NOW)[0].clone();
    assert_eq!(
        starts(&mut world, &[firing("operations", since), firing("latency", since)]),
        "start gradual by latency"
    );
    let all = [firing("downtime", since), firing("errors", since), firing("latency", since)];
    assert_eq!(starts(&mut world, &all), "start immediate by errors");
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(starts(&mut world, &reversed), "start immediate by errors");
}

#[test]
fn in_force_only_the_strictly_stronger_takes_over() {
    for (active, trigger, expected) in [
        (PlanType::FeatureDisable, "operations", "held AlreadyInForce"),
        (PlanType::FeatureDisable, "latency", "escalate gradual by latency"),
        (PlanType::FeatureDisable, "errors", "escalate immediate by errors"),
        (PlanType::Gradual, "latency", "held AlreadyInForce"),
        (PlanType::Gradual, "errors", "escalate immediate by errors"),
        (PlanType::Immediate, "errors", "held AlreadyInForce"),
        (PlanType::Immediate, "operations", "held AlreadyInForce"),
    ] {
        for phase in [None, Some(Phase::Pending), Some(Phase::Executing), Some(Phase::RolledBack)] {
            let mut world = World::new();
            world.active(active, phase.unwrap_or_default(), DesiredState::Held);
            world.facts.active = world.facts.active.filter(|_| phase.is_some());
            assert_eq!(verdict(&world, firing(trigger, NOW - 600.0)), expected, "{active:?} {phase:?}");
        }
    }
}

/// The one action, or why there is none.
fn verdict(world: &World, evaluated: Evaluated) -> String {
    let outcome = world.decide(&[evaluated], at(NOW));
    let action = outcome.actions.iter().find(|action| !matches!(action, Action::Event(_))).map(short);
    match (action, outcome.held.as_slice()) {
        (Some(action), []) => action,
        (None, [(_, why)]) => format!("held {}", why.reason),
        odd => panic!("{odd:?}"),
    }
}

#[test]
fn nothing_undoes_a_persons_restore_or_release() {
    use DesiredState::{Released, Restored, RolledBack};
    for (phase, desired, expected) in [
        (Phase::Restoring, RolledBack, "held Restoring"),
        (Phase::Restoring, Restored, "held Restoring"),
        (Phase::RolledBack, Restored, "held Restoring"),
        (Phase::Executing, Released, "held Releasing"),
        (Phase::Unknown, RolledBack, "held UnknownPhase"),
        (Phase::Restored, RolledBack, "held Ending"),
        (Phase::Skipped, RolledBack, "held Ending"),
    ] {
        let mut world = World::new();
        world.active(PlanType::FeatureDisable, phase, desired);
        for trigger in ["errors", "downtime"] {
            assert_eq!(verdict(&world, firing(trigger, NOW - 600.0)), expected, "{phase:?} {desired:?} {trigger}");
        }
    }
}

#[test]
fn people_and_orphans_hold_rollbacks_back() {
    let fire = || firing("downtime", NOW - 600.0);
    let mut world = World::new();
    world.spec.suspend = true;
    assert_eq!(verdict(&world, fire()), "held Suspended");
    world.active(PlanType::Gradual, Phase::Executing, DesiredState::RolledBack);
    assert_eq!(verdict(&world, fire()), "held Suspended", "no escalation either");

    let mut world = World::new();
    for (until, expected) in [
        (at(NOW + 1.0).to_string(), "held Paused"),
        (at(NOW).to_string(), "start immediate by downtime"),
        ("tomorrow".to_owned(), "start immediate by downtime"),
    ] {
        world.annotations.insert(PAUSED_UNTIL.into(), until.clone());
        assert_eq!(verdict(&world, fire()), expected, "{until}");
    }

    let mut world = World::new();
    world.facts.orphan = Some("loop-7-abc".into());
    assert_eq!(verdict(&world, fire()), "held OrphanInForce");
    let outcome = world.decide(&[], at(NOW));
    assert!(condition::is_true(&outcome.status.conditions, condition::rollout::ROLLBACK_IN_FORCE));
}

#[test]
fn being_held_back_is_told_once_and_ends_by_itself() {
    let mut world = World::new();
    world.annotations.insert(PAUSED_UNTIL.into(), at(NOW + 60.0).to_string());
    let fire = [firing("errors", NOW - 180.0)];
    assert_eq!(world.step(&fire, NOW), ["Warning TriggerFiring", "Warning RollbackHeldBack"]);
    assert_eq!(world.breaching(), ("True", "Paused"));
    assert!(world.step(&fire, NOW + 15.0).is_empty());
    assert!(world.step(&[ok("latency")], NOW + 20.0).is_empty(), "another trigger's evaluation changes nothing");
    assert_eq!(world.breaching(), ("True", "Paused"));
    assert_eq!(world.step(&fire, NOW + 60.0), ["start immediate by errors"]);
}

#[test]
fn a_rollback_that_ended_cools_down() {
    let mut world = World::new();
    let ended = |phase: &str| {
        let finished_at = Some(MicroTime(at(NOW - 200.0)));
        Some(LastRollback { name: "loop-1-abc".into(), phase: phase.into(), finished_at })
    };
    for (phase, trigger, since, expected) in [
        ("Restored", "errors", NOW - 180.0, "held CoolingDown"),
        ("Released", "errors", NOW - 140.1, "held CoolingDown"),
        ("Restored", "errors", NOW - 140.0, "start immediate by errors"),
        ("Restored", "downtime", NOW - 199.0, "start immediate by downtime"),
        ("Restored", "downtime", NOW - 201.0, "held CoolingDown"),
        ("Skipped", "errors", NOW - 300.0, "start immediate by errors"),
        ("Superseded", "errors", NOW - 300.0, "start immediate by errors"),
    ] {
        world.status.last_rollback = ended(phase);
        assert_eq!(verdict(&world, firing(trigger, since)), expected, "{phase} {trigger} {since}");
    }
    world.status.last_rollback = ended("Restored");
    let cooled = |trigger: usize| evidence_from(&world.spec, &world.status, &world.spec.triggers[trigger]);
    assert_eq!((cooled(2), cooled(3)), (Some(at(NOW - 140.0)), Some(at(NOW - 200.0))));
    let early = world.decide(&[pending("errors", NOW - 190.0)], at(NOW - 170.0)).status;
    let breaching = condition::get(&early.conditions, condition::rollout::BREACHING).unwrap();
    assert_eq!(breaching.reason, "CoolingDown");
    world.step(&[pending("errors", NOW - 140.0)], NOW - 100.0);
    assert_eq!(world.breaching(), ("True", "TriggerPending"));
}

#[test]
fn a_stronger_trigger_that_is_held_does_not_hold_a_weaker_one() {
    let mut world = World::new();
    world.spec.triggers[0].critical = true;
    let finished_at = Some(MicroTime(at(NOW - 30.0)));
    world.status.last_rollback = Some(LastRollback { name: "x".into(), phase: "Restored".into(), finished_at });
    let outcome = world.decide(&[firing("operations", NOW - 20.0), firing("errors", NOW - 20.0)], at(NOW));
    assert_eq!(short(&outcome.actions[0]), "start off by operations");
    assert_eq!(outcome.held[0].1.reason, "CoolingDown");
    world.status = outcome.status;
    assert_eq!(world.breaching(), ("True", "TriggerFiring"), "what acts is told, not what waits");
}

#[test]
fn observe_mode_only_tells() {
    let mut world = World::new();
    world.spec.mode = Mode::Observe;
    let fire = [firing("errors", NOW - 180.0)];
    assert_eq!(
        world.step(&fire, NOW),
        ["would start immediate by errors", "Warning TriggerFiring", "Normal WouldRollBack"]
    );
    assert_eq!(world.breaching(), ("True", "WouldRollBack"));
    assert!(world.step(&fire, NOW + 15.0).is_empty(), "once for each time");
    assert_eq!(world.step(&[ok("errors")], NOW + 30.0), ["Normal TriggerRecovered"]);
    assert_eq!(world.step(&fire, NOW + 45.0)[0], "would start immediate by errors");
}

#[test]
fn unknown_is_unknown() {
    let mut world = World::new();
    let all = |make: &dyn Fn(&str) -> Evaluated| ["operations", "latency", "errors", "downtime"].map(make);
    world.step(&[], NOW);
    assert_eq!(world.breaching(), ("Unknown", "NothingJudged"));
    let told = world.step(&all(&|name| unknown(name, TriggerState::Unknown, None, "ConnectionRefused")), NOW);
    assert_eq!(told, ["Warning TriggerUnknown"; 4]);
    assert_eq!(world.breaching(), ("Unknown", "NothingJudged"));
    assert_eq!(world.step(&all(&ok), NOW + 15.0), ["Normal TriggerRecovered"; 4]);
    assert!(condition::is_true(&world.status.conditions, condition::rollout::METRICS_AVAILABLE));
}

#[test]
fn triggers_come_and_go_with_the_spec() {
    let mut world = World::new();
    world.step(&[ok("operations"), ok("latency"), ok("errors"), ok("downtime")], NOW);
    world.spec.triggers.remove(1);
    world.spec.triggers[0].name = "renamed".into();
    world.step(&[ok("errors"), firing("latency", NOW - 600.0)], NOW);
    let known: Vec<_> = world.status.triggers.iter().map(|known| (known.name.as_str(), known.state)).collect();
    assert_eq!(
        known,
        [("renamed", TriggerState::Unknown), ("errors", TriggerState::Ok), ("downtime", TriggerState::Ok)]
    );
    assert_eq!(world.status.triggers[0].reason.as_deref(), Some("NotEvaluated"));
}

#[test]
fn a_plan_that_does_not_exist_starts_nothing() {
    let mut world = World::new();
    world.spec.rollbacks.remove(2);
    assert_eq!(verdict(&world, firing("errors", NOW - 600.0)), "held UnknownRollback");
}

#[test]
fn hostile_texts_stay_within_the_schema() {
    let mut world = World::new();
    let mut evaluated = unknown("errors", TriggerState::Unknown, None, &"9 Äö_x".repeat(500));
    evaluated.standing.cause.as_mut().unwrap().message = "ü".repeat(5_000);
    evaluated.standing.value = Some("1".repeat(5_000));
    world.step(&[evaluated], NOW);
    let known = &world.status.triggers[2];
    let (reason, message, value) =
        (known.reason.clone().unwrap(), known.message.clone().unwrap(), known.value.clone().unwrap());
    assert!(
        reason.chars().all(|c| c.is_ascii_alphanumeric()) && reason.starts_with('x') && reason.len() <= 253,
        "{reason}"
    );
    assert_eq!((message.chars().count(), value.chars().count()), (1024, 253));
}

#[test]
fn advice() {
    let plain = spec();
    assert_eq!(advise(&plain, &BTreeMap::new()), []);
    let reasons = |triggers: &str| -> Vec<String> {
        let mut spec = spec();
        spec.triggers = serde_yaml::from_str(triggers).unwrap();
        let advice = advise(&spec, &BTreeMap::new());
        advice.iter().filter(|one| one.weight == Weight::Warning).map(|one| one.message.clone()).collect()
    };
    let shadowed = |strong: &str, weak: &str| {
        let found = reasons(&format!(
            "[{{name: strong, query: q, {strong}}}, {{name: weak, query: ' q', {weak}}}, {{name: x, query: x, above: 1, for: 1m, rollback: gradual}}]"
        ));
        found.iter().any(|message| message.starts_with("trigger weak never decides: strong "))
    };
    for (strong, weak, expected) in [
        ("above: 1, for: 1m, rollback: immediate", "above: 2, for: 5m, rollback: off", true),
        ("above: 1, for: 1m, rollback: immediate", "above: 1, for: 1m, rollback: immediate", true),
        ("above: 1, for: 5m, rollback: immediate", "above: 2, for: 1m, rollback: off", false),
        ("above: 2, for: 1m, rollback: immediate", "above: 1, for: 5m, rollback: off", false),
        ("above: 1, for: 1m, rollback: off", "above: 2, for: 5m, rollback: immediate", false),
        ("above: 1, for: 1m, rollback: immediate", "below: 2, for: 5m, rollback: off", false),
        ("above: 1, for: 1m, rollback: immediate", "atLeast: 1, for: 5m, rollback: off", false),
        ("atLeast: 1, for: 1m, rollback: immediate", "above: 1, for: 5m, rollback: off", true),
        ("atMost: 1, for: 1m, rollback: immediate", "below: 1, for: 5m, rollback: off", true),
        ("below: 1, for: 1m, rollback: immediate", "atMost: 1, for: 5m, rollback: off", false),
        ("present: true, for: 1m, rollback: immediate", "below: 1, for: 5m, rollback: off", true),
        ("above: 1, for: 1m, rollback: immediate", "above: 2, for: 5m, rollback: off, critical: true", false),
    ] {
        assert_eq!(shadowed(strong, weak), expected, "{strong} / {weak}");
    }
    let floorless = "[{name: p, query: q, above: 1, for: 1m, rollback: off, critical: true, baseline: {captured: {window: 1h}, compare: Ratio}}]";
    assert!(reasons(floorless)[0].contains("set baseline.floor"));
    let mut unnamed = spec();
    unnamed.triggers.truncate(1);
    let by_hand: Vec<_> = advise(&unnamed, &BTreeMap::new()).iter().map(|one| (one.reason, one.weight)).collect();
    assert_eq!(by_hand, [("OnlyByHand", Weight::Information); 2]);
    let odd = BTreeMap::from([(PAUSED_UNTIL.to_owned(), "10m\n".to_owned())]);
    assert!(advise(&plain, &odd)[0].message.contains(r#""10m\n", which is no time, so nothing is paused"#));
}
