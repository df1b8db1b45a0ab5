//! Every history of a bounded length, against the definition of "fires" read backwards from the last moment.

use learning_rollout::{
    api::rollout::{NoDataPolicy, Trigger},
    decide::{
        timer::Timer,
        trigger::{Cause, Finding, Judged, Judgement, Labels},
    },
};

use super::{at, pace, trigger};

const LENGTH: usize = 7;
/// What may happen at a moment. Missed: nobody asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    Breach,
    Ok,
    Unknown,
    Missed,
}
use Moment::{Breach, Missed, Ok, Unknown};

fn judgement(moment: Moment) -> Option<Judgement> {
    let series = |value, finding| {
        Some(Judgement::Series(vec![Judged { labels: Labels::new(), value, baseline: None, finding }]))
    };
    match moment {
        Breach => series(2.0, Finding::Breach),
        Ok => series(0.0, Finding::Ok),
        Unknown => Some(Judgement::Unknown(Cause::new("Timeout", "it took too long"))),
        Missed => None,
    }
}

/// The definition: breaches cover `[now - hold, now]`, witnessed at both ends, no Ok in between, no hole wider than 25 s; what lies
/// around a held Unknown is not counted. Moments are 10 s apart.
fn fires(history: &[Moment], policy: NoDataPolicy, hold: u64) -> bool {
    let read = |moment| match (moment, policy) {
        (Unknown, NoDataPolicy::Reset) => Ok,
        (Unknown, NoDataPolicy::Breach) => Breach,
        (other, _) => other,
    };
    let mut backwards = history.iter().rev().map(|moment| read(*moment));
    if backwards.next() != Some(Breach) {
        return false;
    }
    let (mut covered, mut gap, mut blind) = (0, 0, false);
    for moment in backwards {
        gap += 10;
        match moment {
            Ok => break,
            Missed => {}
            Unknown => blind = true,
            Breach if gap > 25 => break,
            Breach => {
                covered += if blind { 0 } else { gap };
                (gap, blind) = (0, false);
            }
        }
    }
    covered >= hold
}

/// Goes on from a history in every possible way, and counts the histories and those that fire.
fn explore(trigger: &Trigger, history: &mut Vec<Moment>, timer: &Timer, counts: &mut (u32, u32)) {
    for moment in [Breach, Ok, Unknown, Missed] {
        let mut timer = timer.clone();
        history.push(moment);
        if let Some(judgement) = judgement(moment) {
            let now = at(10.0 * history.len() as f64);
            let fired = timer.observe(trigger, "q", &judgement, now, &pace()).conviction.is_some();
            let expected = fires(history, trigger.no_data, trigger.hold.get().as_secs());
            assert_eq!(fired, expected, "{history:?}, {:?}, for {}", trigger.no_data, trigger.hold);
            counts.0 += 1;
            counts.1 += u32::from(fired);
        }
        if history.len() < LENGTH {
            explore(trigger, history, &timer, counts);
        }
        history.pop();
    }
}

#[test]
fn every_short_history_fires_by_definition() {
    let mut counts = (0, 0);
    for policy in [NoDataPolicy::Hold, NoDataPolicy::Reset, NoDataPolicy::Breach] {
        for hold in ["0s", "10s", "20s", "35s", "40s"] {
            let mut trigger = trigger("{above: 1}");
            (trigger.no_data, trigger.hold) = (policy, hold.parse().unwrap());
            explore(&trigger, &mut Vec::new(), &Timer::default(), &mut counts);
        }
    }
    let (histories, firing) = counts;
    println!("{histories} histories, {firing} of them fire");
    assert!(firing > 10_000);
}
