//! The LearningRollout operator.

pub mod prometheus;
