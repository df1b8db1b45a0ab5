//! A control plane to play with: starts one, says how to reach it, and ends it with Ctrl-C, SIGTERM, or its own end.
//!
//!     cargo run -p testbed --bin bed [api-only]

use std::io::Write as _;

use testbed::{ControlPlane, Options};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let kind = match std::env::args().nth(1).as_deref() {
        None => Options::default(),
        Some("api-only") => Options::api_only(),
        Some(other) => {
            anyhow::bail!("{other:?} is no bed: say nothing for a whole control plane, or api-only")
        }
    };
    // Before the start, so that a signal during it is not lost.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let options = Options { name: Some("bed".to_owned()), ..kind };
    let plane = tokio::select! {
        plane = ControlPlane::start(options) => plane?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    println!("export KUBECONFIG={}", plane.kubeconfig().display());
    std::io::stdout().flush()?;
    eprintln!("logs: {}; Ctrl-C ends it", plane.dir().logs().display());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
