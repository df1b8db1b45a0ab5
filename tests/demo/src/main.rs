//! `make demo`: a feature breaks on a real cluster, is rolled back, and is put back; told as it happens.
//!
//! Every sentence it prints is asserted. It exits with 0 only if all of them came true, and it ends everything it has
//! started, also after a failure and on Ctrl-C. This file parses, waits for the end and judges; what is started is in
//! [`stage`], what happens on it in [`acts`], and what the two share in [`story`].

mod acts;
mod fields;
mod narrator;
mod stage;
mod story;
mod timeline;

use std::process::ExitCode;

use clap::{Parser, builder::FalseyValueParser};
use tokio::signal::unix::{SignalKind, signal};

use crate::{narrator::Narrator, stage::Stage, story::Story};

/// Breaks the sample feature, shows how it is rolled back and put back, and fails unless all of it happens.
#[derive(Parser)]
struct Arguments {
    /// Leave everything running at the end, until Ctrl-C.
    #[arg(long, env = "KEEP", value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    keep: bool,
    /// Use the cluster of this kubeconfig context instead of starting one. The namespace `learning` is created in it and
    /// removed at the end. The operator and Prometheus run on this machine.
    #[arg(long, env = "CONTEXT")]
    context: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // kube and reqwest are built without a provider of their own; an error means that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let narrator = Narrator::begin();
    // Listened for from the start, so that no signal ends this process before it has ended the others.
    let mut stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => return failed(&narrator, &error.into()),
    };
    let context = arguments.context.filter(|context| !context.is_empty());
    let stage = match Stage::set(&narrator, context.as_deref(), stop.asked()).await {
        Ok(Some(stage)) => stage,
        Ok(None) => return interrupted(&narrator),
        Err(error) => return failed(&narrator, &error),
    };
    let mut story = Story::new(narrator, stage);
    let played = tokio::select! {
        played = acts::play(&mut story) => Some(played),
        () = stop.asked() => None,
    };
    let code = match &played {
        Some(Ok(())) => {
            timeline::print(&story);
            story.narrator.blank();
            story.tell(format!("All of it happened: {} claims held.", story.claims()));
            ExitCode::SUCCESS
        }
        Some(Err(error)) => {
            story.show_what_is_there().await;
            failed(&story.narrator, error)
        }
        None => interrupted(&story.narrator),
    };
    story.narrator.lines("Where to look:", &story.stage.places());
    if arguments.keep && played.is_some() {
        story.narrator.lines("Left running until Ctrl-C. In another terminal:", &story.stage.invitations());
        stop.asked().await;
    }
    let Story { narrator, stage, .. } = story;
    match stage.end(&narrator).await {
        Ok(()) => code,
        Err(error) => failed(&narrator, &error),
    }
}

fn failed(narrator: &Narrator, error: &anyhow::Error) -> ExitCode {
    narrator.blank();
    narrator.line(&format!("FAILED: {error:#}"));
    ExitCode::FAILURE
}

fn interrupted(narrator: &Narrator) -> ExitCode {
    narrator.blank();
    narrator.line("Interrupted: the demo has shown nothing.");
    ExitCode::from(130)
}

/// Ctrl-C, or SIGTERM.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
