//! The operator's program: wiring only.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use learning_rollout::cli;

/// Rolls features back when their Prometheus metrics breach.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the definitions of the two kinds as YAML files.
    Crds {
        /// Folder to write to.
        #[arg(long, default_value = "crds")]
        dir: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Crds { dir } => cli::crds::write(&dir).map(drop),
    }
}
