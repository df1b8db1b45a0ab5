//! The faults that can be switched on over HTTP, and what level each may have.
//!
//! This module knows levels and limits only. What a fault does to the traffic is decided in `traffic`, and only there,
//! so that a flag that takes the learning path out takes its faults out too.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use serde::Serialize;

/// A fault by the name it has in the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    Errors,
    Latency,
    MemoryLeak,
    Accuracy,
    OperationFailures,
    Down,
    BaselineErrors,
}

impl Fault {
    pub(crate) const ALL: [Self; 7] = [
        Self::Errors,
        Self::Latency,
        Self::MemoryLeak,
        Self::Accuracy,
        Self::OperationFailures,
        Self::Down,
        Self::BaselineErrors,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::MemoryLeak => "memory-leak",
            Self::Accuracy => "accuracy",
            Self::OperationFailures => "operation-failures",
            Self::Down => "down",
            Self::BaselineErrors => "baseline-errors",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    fn effect(self) -> &'static str {
        match self {
            Self::Errors => "share of the learning path's requests that fail",
            Self::Latency => "factor on every duration of the learning path",
            Self::MemoryLeak => "bytes a second by which every replica's reported memory grows (nothing is allocated)",
            Self::Accuracy => "loss of accuracy against the baseline: 0.1 makes learning 10 % worse than it",
            Self::OperationFailures => "share of the learning operations that fail",
            Self::Down => "number of replicas, from the last one on, that fail their health check and their scrape",
            Self::BaselineErrors => {
                "share of the baseline path's requests that fail; stays when learning is switched off"
            }
        }
    }

    /// The level at which it does nothing.
    fn none(self) -> f64 {
        match self {
            Self::Latency => 1.0,
            _ => 0.0,
        }
    }

    fn max(self, replicas: usize) -> f64 {
        match self {
            Self::Errors | Self::Accuracy | Self::OperationFailures | Self::BaselineErrors => 1.0,
            Self::Latency => 100.0,
            // 1 TB a second keeps the gauge far from where a double loses whole bytes, for hours.
            Self::MemoryLeak => 1e12,
            Self::Down => replicas as f64,
        }
    }
}

/// A level as `GET /faults` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Shown {
    pub(crate) level: f64,
    pub(crate) active: bool,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) effect: &'static str,
}

/// Why a level was not taken. The text goes to the caller as it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) String);

/// The levels in force, shared by every replica of the process.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    replicas: usize,
    levels: Arc<RwLock<BTreeMap<Fault, f64>>>,
}

impl Faults {
    pub(crate) fn new(replicas: usize) -> Self {
        Self { replicas, levels: Arc::default() }
    }

    pub(crate) fn level(&self, fault: Fault) -> f64 {
        // A poisoned lock still holds whole numbers: no writer can leave one half written.
        let levels = self.levels.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        levels.get(&fault).copied().unwrap_or_else(|| fault.none())
    }

    pub(crate) fn set(&self, fault: Fault, level: f64) -> Result<(), Refused> {
        let (min, max) = (fault.none(), fault.max(self.replicas));
        if !(min..=max).contains(&level) {
            return Err(Refused(format!(
                "fault {}: level {level} is outside {min} to {max} ({})",
                fault.name(),
                fault.effect()
            )));
        }
        if fault == Fault::Down && level.fract() != 0.0 {
            return Err(Refused(format!("fault down: level {level} is not a whole number of replicas")));
        }
        self.write(|levels| levels.insert(fault, level));
        Ok(())
    }

    pub(crate) fn clear(&self, fault: Fault) {
        self.write(|levels| levels.remove(&fault));
    }

    pub(crate) fn show(&self, fault: Fault) -> Shown {
        let level = self.level(fault);
        Shown {
            level,
            active: level != fault.none(),
            min: fault.none(),
            max: fault.max(self.replicas),
            effect: fault.effect(),
        }
    }

    pub(crate) fn show_all(&self) -> BTreeMap<&'static str, Shown> {
        Fault::ALL.into_iter().map(|fault| (fault.name(), self.show(fault))).collect()
    }

    fn write<T>(&self, change: impl FnOnce(&mut BTreeMap<Fault, f64>) -> T) -> T {
        change(&mut self.levels.write().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for fault in Fault::ALL {
            assert_eq!(Fault::from_name(fault.name()), Some(fault));
        }
        assert_eq!(Fault::from_name("typo"), None);
    }

    #[test]
    fn levels_outside_the_limits_are_refused_and_change_nothing() {
        let faults = Faults::new(3);
        for (fault, level) in [
            (Fault::Errors, 1.1),
            (Fault::Errors, -0.1),
            (Fault::Errors, f64::NAN),
            (Fault::Latency, 0.5),
            (Fault::Latency, f64::INFINITY),
            (Fault::Down, 4.0),
            (Fault::Down, 1.5),
        ] {
            assert!(faults.set(fault, level).is_err(), "{fault:?} took {level}");
            assert!(!faults.show(fault).active);
        }
    }

    #[test]
    fn cleared_is_as_never_set() {
        let faults = Faults::new(1);
        let before = faults.show_all();
        for fault in Fault::ALL {
            faults.set(fault, 1.0).unwrap();
            faults.clear(fault);
        }
        assert_eq!(faults.show_all(), before);
    }
}
