//! What the service can be told on its command line or, flag by flag, in its environment.
//!
//! Values are checked here once; the other modules get numbers that are in range and may not read the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// The sample learning loop: exports the metrics of the learning loop's monitoring,
/// generates its own bounded traffic, and breaks on request.
///
/// Each --listen address is one replica with an exposition of its own, so that one
/// process can stand for a Deployment of several. Every address serves:
///
///   GET    /api/metrics/learning   the metrics, or 503 while this replica is down
///   GET    /healthz                200, or 503 while this replica is down
///   GET    /api/analyze            one request; the header `learning-enabled: true`
///                                  asks for the learning path
///   GET    /faults                 every fault: level, limits, what it does
///   PUT    /faults/{name}          set it to the level in the body: 0.3 or {"level": 0.3}
///   DELETE /faults/{name}          clear it
///
/// All faults but baseline-errors live on the learning path: ENABLE_LEARNING=false in
/// the config directory takes everything to the baseline path and ends them.
#[derive(Debug, Parser)]
#[command(name = "learning-loop", version, verbatim_doc_comment)]
pub(crate) struct Args {
    /// Address of one replica; repeat it (comma-separated in the environment) for more. Port 0 takes a free port;
    /// the address that was taken is printed on standard output as `listening on ADDRESS`.
    #[arg(long, env = "LEARNING_LOOP_LISTEN", value_delimiter = ',', default_value = "127.0.0.1:3000")]
    pub(crate) listen: Vec<SocketAddr>,

    /// Directory with one file per key, as a mounted ConfigMap: ENABLE_LEARNING, ENABLE_REAL_TIME_LEARNING,
    /// ENABLE_VOICE_FEEDBACK (true or false) and LEARNING_WEIGHT (0 to 100, the share of requests asking for
    /// learning that the mesh sends there). Read every second; an absent key means true, or 100.
    #[arg(long, env = "LEARNING_LOOP_CONFIG_DIR")]
    pub(crate) config_dir: Option<PathBuf>,

    /// Requests a second, over all replicas; 0 generates none (requests to /api/analyze still count).
    #[arg(long, env = "LEARNING_LOOP_RATE", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) rate: u32,

    /// Percentage of the requests that ask for the learning path; the rest keeps the baseline path measurable.
    #[arg(long, env = "LEARNING_LOOP_LEARNING_PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) learning_percent: u8,

    /// Seed of durations and scores: the same seed, flags and faults give the same counters.
    #[arg(long, env = "LEARNING_LOOP_SEED", default_value_t = 1)]
    pub(crate) seed: u64,

    /// What to log: a tracing filter, such as `info` or `learning_loop=debug`.
    #[arg(long, env = "LEARNING_LOOP_LOG", default_value = "info")]
    pub(crate) log: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_flag_has_an_environment_twin() {
        let command = Args::command();
        command.clone().debug_assert();
        for arg in command.get_arguments() {
            assert!(arg.get_env().is_some(), "--{} has no environment twin", arg.get_id());
        }
    }

    #[test]
    fn out_of_range_values_are_refused() {
        assert!(Args::try_parse_from(["learning-loop", "--rate", "10001"]).is_err());
        assert!(Args::try_parse_from(["learning-loop", "--learning-percent", "101"]).is_err());
    }
}
