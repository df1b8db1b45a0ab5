//! Asks the API server of the current kubeconfig context every scenario that the double is held to.
//!
//! `cargo run -p apiserver-double --example conformance -- NAMESPACE`: the namespace and a CustomResourceDefinition
//! `widgets.conformance.learningloop.io` are made, and stay. Meant for a throw-away cluster.

use std::process::ExitCode;

use apiserver_double::conformance;
use kube::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let namespace = std::env::args().nth(1).unwrap_or_else(|| "conformance".to_owned());
    let client = Client::try_default().await?;
    let report = conformance::check(client, &namespace).await;
    println!("{report}");
    Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
