//! Every history of a bounded length, against the definition of "fires" read backwards from the last moment.

use learning_rollout::{
    api::rollout::NoDataPolicy,
    decide::{
        timer::Timer,
        trigger::{Cause, Finding, Judged, Judgement, Labels},
    },
};

use super::{at, pace, trigger};

const LENGTH: u32 = 7;
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
fn fires(history: &[Moment], policy: NoDataPolicy, hold: u32) -> bool {
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

#[test]
fn every_short_history_fires_by_definition() {
    let (mut histories, mut firings) = (0, 0);
    for policy in [NoDataPolicy::Hold, NoDataPolicy::Reset, NoDataPolicy::Breach] {
        for hold in [0, 10, 20, 35, 40] {
            let mut trigger = trigger("{above: 1}");
            trigger.no_data = policy;
            trigger.hold = format!("{hold}s").parse().unwrap();
            for number in 0..4_u32.pow(LENGTH) {
                let history: Vec<Moment> = (0..LENGTH)
                    .map(|place| [Breach, Ok, Unknown, Missed][(number >> (2 * place)) as usize % 4])
                    .collect();
                let mut timer = Timer::default();
                for (position, moment) in history.iter().enumerate() {
                    let Some(judgement) = judgement(*moment) else { continue };
                    let standing = timer.observe(&trigger, "q", &judgement, at(10.0 * position as f64), &pace());
                    // Whether a prefix fires is the business of the history that ends there.
                    if position + 1 == history.len() {
                        let expected = fires(&history, policy, hold);
                        assert_eq!(standing.conviction.is_some(), expected, "{history:?}, {policy:?}, for {hold}s");
                        firings += u32::from(expected);
                    }
                }
                histories += 1;
            }
        }
    }
    println!("{histories} histories, {firings} of them fire");
    assert!(firings > 1_000);
}
