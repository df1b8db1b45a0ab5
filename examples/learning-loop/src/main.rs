//! The sample learning loop: wiring only. `--help` says what it serves.

mod args;
mod chance;
mod faults;
mod flags;
mod metrics;
mod server;
mod traffic;

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::args::Args;
use crate::faults::Faults;
use crate::flags::Flags;
use crate::traffic::Traffic;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_new(&args.log)
                .with_context(|| format!("--log {:?} is not a tracing filter", args.log))?,
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let faults = Faults::new(args.listen.len());
    let traffic = Arc::new(Mutex::new(Traffic::new(
        args.listen.len(),
        faults.clone(),
        f64::from(args.learning_percent) / 100.0,
        args.seed,
    )));
    let (flags, following) = watch::channel(Flags::default());
    let mut background = JoinSet::new();
    if let Some(dir) = args.config_dir {
        anyhow::ensure!(dir.is_dir(), "--config-dir {} is not a directory", dir.display());
        // Read once before anything is served, so that a service started with learning off never learns.
        flags.send_replace(flags::read(&dir, Flags::default()).0);
        background.spawn(flags::follow(dir, flags));
    }
    let (stop, stopping) = watch::channel(false);
    let mut servers = JoinSet::new();
    for (index, address) in args.listen.into_iter().enumerate() {
        let listener = TcpListener::bind(address).await.with_context(|| format!("--listen {address}"))?;
        writeln!(std::io::stdout(), "listening on {}", listener.local_addr()?)?;
        let router = server::router(server::Replica {
            index,
            traffic: traffic.clone(),
            faults: faults.clone(),
            flags: following.clone(),
        });
        let mut stopping = stopping.clone();
        let stopped = async move {
            // An error means the sender is gone, which is a stop as well.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        servers.spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
    }
    background.spawn(async move { match traffic::run(traffic, following, args.rate).await {} });

    stop_signal().await?;
    tracing::info!("stopping: finishing open requests; a second signal ends at once");
    stop.send_replace(true);
    tokio::select! {
        () = async { while servers.join_next().await.is_some() {} } => {}
        signal = stop_signal() => signal?,
    }
    Ok(())
}

async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
