//! The LearningRollout operator: rolls a feature back when its Prometheus metrics breach, exactly once, and can put
//! everything back.

pub mod api;
pub mod decide;
