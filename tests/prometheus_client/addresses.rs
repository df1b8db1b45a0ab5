//! Names are judged by what they resolve to, at the moment of connecting.

use std::sync::Arc;

use learning_rollout::prometheus::{AddressRules, Limits, QueryBackend, Source, SourceConfig, Sources, Trust};

use crate::now;
use crate::server::{Reply, Server};

/// Loopback by name, as every machine has it.
fn by_name(server: &Server, trust: Trust) -> SourceConfig {
    SourceConfig::new(format!("http://localhost:{}", server.address.port()), trust)
}

#[tokio::test]
async fn a_name_that_leads_to_loopback_is_refused_for_objects_only() {
    let server = Server::always(Reply::scalar("1")).await;
    let rules = Arc::new(AddressRules::default());

    let tenants = Source::new(&by_name(&server, Trust::FromObject), &rules).unwrap();
    let error = tenants.query("x", now()).await.unwrap_err();
    assert_eq!(error.reason(), "AddressRefused");
    assert!(error.to_string().contains("loopback"), "{error}");
    assert_eq!(server.connections(), 0);

    let operators = Source::new(&by_name(&server, Trust::Trusted), &rules).unwrap();
    assert_eq!(operators.query("x", now()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_operators_exception_lets_a_name_through_and_the_deny_list_does_not() {
    let server = Server::always(Reply::scalar("1")).await;
    let config = by_name(&server, Trust::FromObject);
    let loopback = || ["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];

    let allowing = Arc::new(AddressRules::new([], loopback()));
    let source = Source::new(&config, &allowing).unwrap();
    assert_eq!(source.query("x", now()).await.unwrap().len(), 1);
    let seen = server.connections();

    let denying = Arc::new(AddressRules::new(loopback(), loopback()));
    let source = Source::new(&config, &denying).unwrap();
    let error = source.query("x", now()).await.unwrap_err();
    assert_eq!(error.reason(), "AddressRefused");
    assert_eq!(server.connections(), seen);
}

#[tokio::test]
async fn a_literal_is_refused_before_there_is_a_client() {
    let server = Server::always(Reply::scalar("1")).await;
    let sources = Sources::new(AddressRules::default(), Limits::default());
    let port = server.address.port();
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let config = SourceConfig::new(format!("http://{host}:{port}"), Trust::FromObject);
        let error = sources.get(&config).unwrap_err();
        assert_eq!(error.reason(), "AddressRefused", "{host}");
    }
    assert_eq!(server.connections(), 0);
    let trusted = SourceConfig::new(server.url(), Trust::Trusted);
    let source = sources.get(&trusted).unwrap();
    assert_eq!(source.query("x", now()).await.unwrap().len(), 1);
}
