//! The operator is killed before, during and after every write of every scenario, and ends where an undisturbed run ends,
//! with the same writes to every target.
//!
//! It runs in this process against the API server double, on tokio's paused clock: waits cost nothing, and a crash falls
//! exactly where it is wanted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod scenarios;
mod world;

use apiserver_double::Moment;
use scenarios::Scenario;
use world::{Outcome, World};

/// Runs a scenario undisturbed, and then once for each request and moment.
async fn survives_every_crash(scenario: Scenario) {
    let name = scenario.name;
    let reference = World::run(&scenario, None).await;
    (scenario.expect)(&reference);
    assert!(reference.requests > 5, "{name}: only {} requests were counted", reference.requests);
    let mut differences = Vec::new();
    for n in 1..=reference.requests {
        for moment in Moment::ALL {
            let outcome = World::run(&scenario, Some((n, moment))).await;
            if let Some(difference) = outcome.difference(&reference) {
                differences.push(format!("crash at {n} ({}), {moment:?}: {difference}", reference.lines[n - 1]));
            }
        }
    }
    let runs = reference.requests * Moment::ALL.len();
    println!("{name}: {} requests, {runs} crashes, {} differ", reference.requests, differences.len());
    assert!(differences.is_empty(), "{name}:\n{}", differences.join("\n"));
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                survives_every_crash(scenarios::$name()).await;
            }
        )*
    };
}

scenarios!(
    immediate,
    feature_disable,
    restore,
    restore_after_restart,
    release,
    manual,
    supersession,
    restore_after_supersession,
    two_steps_on_one_target,
);

/// The comparison itself must be able to fail.
#[tokio::test(start_paused = true)]
async fn a_different_end_is_noticed() {
    let (left, right) =
        (World::run(&scenarios::immediate(), None).await, World::run(&scenarios::restore(), None).await);
    assert!(left.difference(&right).is_some());
    let same: Outcome = World::run(&scenarios::immediate(), None).await;
    assert_eq!(left.difference(&same), None);
}
