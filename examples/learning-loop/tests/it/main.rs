//! What the sample learning loop promises to others: its HTTP surface, and the manifests that read it.
//!
//! promtool and Prometheus are the real ones under `.tools/prometheus`, built by `make tools`; a test that needs one
//! fails where it is missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod manifests;
mod process;
mod prometheus;
mod samples;
mod service;
