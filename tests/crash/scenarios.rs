//! What happens, apart from the crash: the metrics, and what people do.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};

use crate::world::{Outcome, World};

/// A story, and what must be true at its end.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) plans: Value,
    pub(crate) story: for<'a> fn(&'a World) -> BoxFuture<'a, ()>,
    pub(crate) expect: fn(&Outcome),
}

fn immediate_plan() -> Value {
    json!({"name": "immediate", "type": "Immediate", "steps": [
        {"name": "flag", "setConfig": {"configMapRef": {"name": "flags"}, "data": {"LEARNING": "false", "NEW": "a<b"}}},
        {"name": "traffic", "switchService": {"serviceRef": {"name": "front"}, "selector": {"version": "baseline"}}},
        {"name": "capacity", "scale": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "learning"}, "replicas": 0}},
    ]})
}

fn disable_plan() -> Value {
    json!({"name": "disable", "type": "FeatureDisable", "steps": [
        {"name": "flags", "setConfig": {"configMapRef": {"name": "flags"}, "data": {"LEARNING": "off", "VOICE": "off"}}},
        {"name": "restart", "restart": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "baseline"}}},
    ]})
}

fn doubled_plan() -> Value {
    json!({"name": "immediate", "type": "Immediate", "steps": [
        {"name": "one", "setConfig": {"configMapRef": {"name": "flags"}, "data": {"LEARNING": "false"}}},
        {"name": "two", "setConfig": {"configMapRef": {"name": "flags"}, "data": {"VOICE": "false"}}},
        {"name": "three", "restart": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "baseline"}}},
    ]})
}

fn scenario(
    name: &'static str,
    plans: &[Value],
    story: for<'a> fn(&'a World) -> BoxFuture<'a, ()>,
    expect: fn(&Outcome),
) -> Scenario {
    // The spec names both plans, so that both triggers are valid.
    let mut plans = plans.to_vec();
    for (missing, plan) in [("immediate", immediate_plan()), ("disable", disable_plan())] {
        if !plans.iter().any(|plan| plan["name"] == missing) {
            plans.push(plan);
        }
    }
    Scenario { name, plans: Value::Array(plans), story, expect }
}

fn rolled_back(outcome: &Outcome) {
    assert_eq!(outcome.phases, ["RolledBack"]);
    assert_eq!(outcome.target("ConfigMap flags").pointer("/data/LEARNING"), Some(&json!("false")));
    assert_eq!(outcome.target("Deployment learning").pointer("/spec/replicas"), Some(&json!(0)));
    assert_eq!(outcome.target("Service front").pointer("/spec/selector/version"), Some(&json!("baseline")));
    assert_eq!(outcome.writes.get("ConfigMap flags"), Some(&1));
    assert_eq!(outcome.writes.get("Service front"), Some(&1));
    assert_eq!(outcome.writes.get("Deployment learning"), Some(&1));
}

fn as_before(outcome: &Outcome) {
    assert_eq!(outcome.target("ConfigMap flags").pointer("/data"), Some(&json!({"LEARNING": "true", "VOICE": "true"})));
    assert_eq!(outcome.target("Deployment learning").pointer("/spec/replicas"), Some(&json!(3)));
    assert_eq!(outcome.target("Service front").pointer("/spec/selector/version"), Some(&json!("learning")));
    assert!(!outcome.mentions("learningloop.io/fence"), "a fence is left");
    assert!(!outcome.mentions("learningloop.io/undo"), "an undo note is left");
}

pub(crate) fn immediate() -> Scenario {
    scenario(
        "immediate",
        &[],
        |world| {
            async {
                breach(world, "errors", "RolledBack").await;
            }
            .boxed()
        },
        rolled_back,
    )
}

pub(crate) fn feature_disable() -> Scenario {
    let story: for<'a> fn(&'a World) -> BoxFuture<'a, ()> = |world| {
        async {
            breach(world, "failures", "RolledBack").await;
        }
        .boxed()
    };
    scenario("feature-disable", &[], story, |outcome| {
        assert_eq!(outcome.phases, ["RolledBack"]);
        assert_eq!(outcome.writes.get("Deployment baseline"), Some(&1), "one restart");
    })
}

pub(crate) fn restore() -> Scenario {
    let story: for<'a> fn(&'a World) -> BoxFuture<'a, ()> = |world| {
        async {
            let record = breach(world, "errors", "RolledBack").await;
            world.say("errors", 0.0);
            decide(world, &record, "Restored").await;
        }
        .boxed()
    };
    scenario("restore", &[], story, |outcome| {
        assert_eq!(outcome.phases, ["Restored"]);
        as_before(outcome);
    })
}

pub(crate) fn restore_after_restart() -> Scenario {
    let story: for<'a> fn(&'a World) -> BoxFuture<'a, ()> = |world| {
        async {
            let record = breach(world, "failures", "RolledBack").await;
            world.say("failures", 0.0);
            decide(world, &record, "Restored").await;
        }
        .boxed()
    };
    scenario("restore after a restart", &[], story, |outcome| {
        assert_eq!(outcome.phases, ["Restored"]);
        assert_eq!(outcome.writes.get("Deployment baseline"), Some(&2), "restarted once, and once more");
        as_before(outcome);
    })
}

pub(crate) fn release() -> Scenario {
    let story: for<'a> fn(&'a World) -> BoxFuture<'a, ()> = |world| {
        async {
            let record = breach(world, "errors", "RolledBack").await;
            world.say("errors", 0.0);
            decide(world, &record, "Released").await;
        }
        .boxed()
    };
    scenario("release", &[], story, |outcome| {
        assert_eq!(outcome.phases, ["Released"]);
        assert_eq!(outcome.target("ConfigMap flags").pointer("/data/LEARNING"), Some(&json!("false")));
        assert!(!outcome.mentions("learningloop.io/fence"), "a fence is left");
    })
}

pub(crate) fn manual() -> Scenario {
    let story: for<'a> fn(&'a World) -> BoxFuture<'a, ()> = |world| {
        async {
            world.double.put(json!({
                "apiVersion": "learningloop.io/v1alpha1", "kind": "LearningRollback",
                "metadata": {"name": "by-hand", "namespace": "learning"},
                "spec": {"rolloutRef": {"name": "loop"}, "rollback": "immediate", "reason": "a bad feeling",
                    "dryRun": false, "desiredState": "RolledBack", "pace": "Normal"},
            }));
            world.until("the manual rollback", |world| world.phase("by-hand") == "RolledBack").await;
        }
        .boxed()
    };
    scenario("manual", &[], story, rolled_back)
}

pub(crate) fn supersession() -> Scenario {
    scenario(
        "supersession",
        &[],
        |world| {
            async {
                escalate(world).await;
            }
            .boxed()
        },
        |outcome| {
            assert_eq!(outcome.phases, ["RolledBack", "Superseded"]);
            assert_eq!(outcome.target("ConfigMap flags").pointer("/data/LEARNING"), Some(&json!("false")));
            assert_eq!(outcome.target("ConfigMap flags").pointer("/data/VOICE"), Some(&json!("off")));
        },
    )
}

pub(crate) fn restore_after_supersession() -> Scenario {
    let story: for<'a> fn(&'a World) -> BoxFuture<'a, ()> = |world| {
        async {
            let record = escalate(world).await;
            world.say("errors", 0.0);
            world.say("failures", 0.0);
            decide(world, &record, "Restored").await;
        }
        .boxed()
    };
    scenario("restore after supersession", &[], story, |outcome| {
        assert_eq!(outcome.phases, ["Restored", "Superseded"]);
        as_before(outcome);
    })
}

pub(crate) fn two_steps_on_one_target() -> Scenario {
    let story: for<'a> fn(&'a World) -> BoxFuture<'a, ()> = |world| {
        async {
            let record = breach(world, "errors", "RolledBack").await;
            world.say("errors", 0.0);
            decide(world, &record, "Restored").await;
        }
        .boxed()
    };
    scenario("two steps on one target", &[doubled_plan()], story, |outcome| {
        assert_eq!(outcome.phases, ["Restored"]);
        assert_eq!(outcome.writes.get("ConfigMap flags"), Some(&4), "two there, two back");
        as_before(outcome);
    })
}

/// Lets a metric breach until the rollback is in a phase. Answers with the record's name.
async fn breach(world: &World, metric: &str, phase: &str) -> String {
    world.say(metric, 1.0);
    world.until("a rollback to land", |world| world.records().iter().any(|(_, seen)| seen == phase)).await;
    world.records().into_iter().find(|(_, seen)| seen == phase).unwrap().0
}

/// A weaker rollback is in force when the stronger trigger fires.
async fn escalate(world: &World) -> String {
    let weak = breach(world, "failures", "RolledBack").await;
    world.say("errors", 1.0);
    world
        .until("the stronger rollback", |world| {
            world.phase(&weak) == "Superseded" && world.records().iter().any(|(_, phase)| phase == "RolledBack")
        })
        .await;
    world.records().into_iter().find(|(_, phase)| phase == "RolledBack").unwrap().0
}

/// A person decides; the story goes on when it has been carried out.
async fn decide(world: &World, record: &str, state: &str) {
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.decide(record, state).await;
    world.until(state, |world| world.phase(record) == state).await;
}
