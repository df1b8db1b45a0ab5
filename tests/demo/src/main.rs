//! The demo: starts everything on this machine, breaks the feature, and shows what a person would see as it is rolled back
//! and restored. Exits with 0 only if all of it truly happened.

mod acts;
mod stage;
mod story;

use std::process::ExitCode;

use stage::Stage;
use story::Story;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    match until_signalled().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn until_signalled() -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let story = Story::begin();
    // Dropping the stage ends every server, whichever way this goes.
    tokio::select! {
        outcome = play(&story) => outcome,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}

async fn play(story: &Story) -> anyhow::Result<()> {
    story.act("Everything starts: a control plane, Prometheus, the sample learning loop, the operator");
    let mut stage = Stage::set(story).await?;
    let outcome = acts::all(&mut stage, story).await;
    match &outcome {
        Ok(()) => {
            story.timeline();
            story.say("All of this was checked as it happened.");
        }
        Err(error) => story.say(&format!("FAILED: {error:#}")),
    }
    story.say(&format!("Logs: {}", stage.logs().display()));
    if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
        story.say("Kept running; Ctrl-C ends it. To look around:");
        println!(
            "\n  export KUBECONFIG={}\n  # Prometheus: {}\n",
            stage.kubeconfig().display(),
            stage.prometheus_url()
        );
        std::future::pending::<()>().await;
    }
    stage.clear().await?;
    outcome
}
