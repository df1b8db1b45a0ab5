//! The LearningRollout operator.
