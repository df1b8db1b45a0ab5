//! The Prometheus client against a server that answers by script: what it sends, and what it makes of everything
//! that can come back. All on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

mod addresses;
mod failures;
mod requests;
mod server;
mod sharing;
mod tls;

use std::sync::Arc;

use learning_rollout::prometheus::{AddressRules, Source, SourceConfig, Timestamp, Trust};

fn now() -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_123).unwrap()
}

fn trusted(url: impl Into<String>) -> SourceConfig {
    SourceConfig::new(url, Trust::Trusted)
}

fn source(config: &SourceConfig) -> Source {
    Source::new(config, &Arc::new(AddressRules::default())).unwrap()
}
