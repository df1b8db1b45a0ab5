//! The operator's program against a real control plane and a real Prometheus: what a team would see.
//!
//! Every test has a namespace and an operator of its own; control plane, Prometheus and exporter are shared
//! ([`harness`]). Tests wait for what they expect and count what was written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod harness;
mod main_job;
mod manual;
