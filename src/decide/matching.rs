//! Which series of a baseline belongs to which series of a value.
//!
//! As Prometheus matches vectors, on the labels both sides share, one to one or one to all. The metric's name never
//! matches anything. What is left is told by its labels: guessing would compare a series with another one's past.

use super::{
    trigger::{Cause, Labels, Series},
    words::{self, clip},
};

/// The baseline of each value, in the order of the values.
pub fn pair(values: &[&Series], bases: &[&Series]) -> Vec<Result<f64, Cause>> {
    let candidates: Vec<Vec<usize>> = values
        .iter()
        .map(|value| {
            let agreeing = bases.iter().enumerate().filter(|(_, base)| agree(&value.labels, &base.labels));
            agreeing.map(|(position, _)| position).collect()
        })
        .collect();
    let one_to_all = bases.len() == 1;
    let claims = |position: usize| candidates.iter().filter(|found| found.contains(&position)).count();
    values
        .iter()
        .zip(&candidates)
        .map(|(value, found)| match found.as_slice() {
            [] => Err(unmatched(value, bases)),
            &[only] if one_to_all || claims(only) == 1 => {
                bases.get(only).map(|base| base.value).ok_or_else(|| unmatched(value, bases))
            }
            [_] => Err(mismatch(format!(
                "the baseline of {} is also that of other series: aggregate the value or split the baseline by the same labels",
                words::labels(&value.labels)
            ))),
            several => Err(mismatch(format!(
                "{} has {} baselines: they differ in labels that the value lacks; aggregate them away",
                words::labels(&value.labels),
                several.len()
            ))),
        })
        .collect()
}

/// Do two series have the same value for every label that both have?
fn agree(value: &Labels, base: &Labels) -> bool {
    base.iter().all(|(name, expected)| name == "__name__" || value.get(name).is_none_or(|found| found == expected))
}

fn unmatched(value: &Series, bases: &[&Series]) -> Cause {
    let differing = bases.first().map_or_else(String::new, |base| {
        let names: Vec<&str> = base
            .labels
            .iter()
            .filter(|(name, expected)| *name != "__name__" && value.labels.get(*name).is_some_and(|found| found != *expected))
            .map(|(name, _)| name.as_str())
            .collect();
        format!(
            "; {}, for one, differs in {}: if such a label does not tell series apart, aggregate it away, for example with max without({})",
            words::labels(&base.labels),
            names.join(", "),
            names.join(", ")
        )
    });
    mismatch(format!("no series of the baseline has the labels of {}{differing}", words::labels(&value.labels)))
}

fn mismatch(message: String) -> Cause {
    Cause::new("BaselineMismatch", clip(&message, words::TEXT))
}
