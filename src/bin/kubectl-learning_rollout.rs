//! The kubectl plugin's program: wiring only. On the PATH, `kubectl learning-rollout` runs it.

use std::process::ExitCode;

use clap::Parser;
use learning_rollout::cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match cli::run(arguments, |progress| println!("{progress}")).await {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
