//! The operator's program: wiring only.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use k8s_openapi::jiff::SignedDuration;
use kube::{Client, Config};
use learning_rollout::{
    api::duration::GoDuration,
    controller::{
        self, Scope,
        clock::Clock,
        context::Context,
        leader::{Elector, Leadership},
        sources::ClusterSources,
    },
    prometheus::{AddressRules, Limits, Network, SourceConfig, Sources, Trust},
    server::{self, metrics::Metrics},
};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::watch};
use tracing_subscriber::EnvFilter;

/// Rolls features back when their Prometheus metrics breach, and can put everything back.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Command {
    /// Write the definitions of the two kinds as YAML files.
    Crds {
        /// Folder to write to.
        #[arg(long, default_value = "crds")]
        dir: std::path::PathBuf,
    },
}

#[derive(Args)]
struct Run {
    /// Prometheus of rollouts that name none of their own. Trusted whatever its address.
    #[arg(long, env = "PROMETHEUS_URL")]
    prometheus_url: Option<String>,
    /// How long one query to that Prometheus may take.
    #[arg(long, env = "PROMETHEUS_TIMEOUT", default_value = "10s")]
    prometheus_timeout: GoDuration,
    /// Networks that a rollout's own Prometheus url may lead to although they are refused by default (loopback,
    /// link-local). Repeatable.
    #[arg(long = "allow-network", env = "ALLOW_NETWORK", value_delimiter = ',')]
    allow_networks: Vec<Network>,
    /// Networks that a rollout's own Prometheus url must not lead to, such as the API server's. Repeatable.
    #[arg(long = "deny-network", env = "DENY_NETWORK", value_delimiter = ',')]
    deny_networks: Vec<Network>,
    /// Address of probes and metrics.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Mind only rollouts of this namespace. Repeatable; all namespaces when absent.
    #[arg(long = "namespace", env = "NAMESPACE", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Mind only rollouts with these labels. The records of a rollout that does not exist any more are then left to an
    /// operator without a selector.
    #[arg(long, env = "SELECTOR")]
    selector: Option<String>,
    /// What $(cluster) stands for in queries.
    #[arg(long, env = "CLUSTER_NAME", default_value = "")]
    cluster_name: String,
    /// Namespace of the leader Lease. In a cluster the operator's own by default; outside the context's.
    #[arg(long, env = "LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Name of this replica in the Lease.
    #[arg(long, env = "IDENTITY")]
    identity: Option<String>,
    /// Lead without an election. Only for a single replica by construction.
    #[arg(long, env = "NO_LEADER_ELECTION")]
    no_leader_election: bool,
    /// Form of the logs.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
    /// What is logged, such as info or info,learning_rollout=debug.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    log_level: String,
    /// Shift of the wall clock in milliseconds, for fault tests.
    #[arg(long, env = "CLOCK_SHIFT_MILLIS", default_value_t = 0, allow_hyphen_values = true, hide = true)]
    clock_shift_millis: i64,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Pretty,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Crds { dir }) => learning_rollout::cli::crds::write(&dir).map(drop),
        None => run(arguments.run).await,
    }
}

async fn run(arguments: Run) -> anyhow::Result<()> {
    log(&arguments)?;
    let mut config = Config::infer().await.context("no cluster: set KUBECONFIG, or run inside one")?;
    // Deciding again is the retry, and every request has an end of its own.
    config.default_retry = false;
    let lease_namespace = arguments.lease_namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("the cluster's client could not be made")?;
    let clock = Clock::System { shift: SignedDuration::from_millis(arguments.clock_shift_millis) };
    let (stop, stopped) = watch::channel(false);
    let (leadership, elector) = match arguments.no_leader_election {
        true => (Leadership::alone(clock), None),
        false => {
            let identity = arguments.identity.clone().unwrap_or_else(identity);
            let (elector, leadership) =
                Elector::new(client.clone(), &lease_namespace, lease_name(&arguments), identity, clock);
            let mut ended = stopped.clone();
            let elector = tokio::spawn(elector.run(async move { _ = ended.wait_for(|stopped| *stopped).await }));
            (leadership, Some(elector))
        }
    };
    let own = arguments.prometheus_url.as_ref().map(|url| SourceConfig {
        timeout: arguments.prometheus_timeout.get(),
        ..SourceConfig::new(url.clone(), Trust::Trusted)
    });
    let rules = AddressRules::new(arguments.deny_networks.clone(), arguments.allow_networks.clone());
    let sources = ClusterSources::new(client.clone(), own, Sources::new(rules, Limits::default()));
    let metrics = Arc::new(Metrics::default());
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {} (--listen)", arguments.listen))?;
    let mut ended = stopped.clone();
    let server = tokio::spawn(server::serve(listener, metrics.clone(), async move {
        _ = ended.wait_for(|stopped| *stopped).await;
    }));
    let context = Context {
        client,
        clock,
        leadership,
        sources: Arc::new(sources),
        metrics,
        cluster: arguments.cluster_name.as_str().into(),
        selective: arguments.selector.is_some(),
    };
    let scope = Scope { namespaces: arguments.namespaces, selector: arguments.selector };
    controller::run(context, scope, signalled()).await;
    _ = stop.send(true);
    // The tasks have ended; the lease is given back so that another replica takes over at once.
    if let Some(elector) = elector {
        _ = tokio::time::timeout(Duration::from_secs(3), elector).await;
    }
    server.abort();
    Ok(())
}

fn log(arguments: &Run) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.log_level)
        .with_context(|| format!("--log-level {:?} is no filter such as info or debug", arguments.log_level))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Json => subscriber.json().init(),
        LogFormat::Pretty => subscriber.init(),
    }
    Ok(())
}

/// Operators that mind different rollouts lead side by side.
fn lease_name(arguments: &Run) -> String {
    if arguments.namespaces.is_empty() && arguments.selector.is_none() {
        return "learning-rollout-operator".to_owned();
    }
    let mut namespaces = arguments.namespaces.clone();
    namespaces.sort();
    let digest = Sha256::digest(format!("{namespaces:?}/{:?}", arguments.selector));
    let hash: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    format!("learning-rollout-operator-{hash}")
}

/// The pod's name where there is one, else something that no other process has.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "local".to_owned());
    let started = Clock::system().now().as_nanosecond();
    format!("{host}_{}_{started:x}", std::process::id())
}

/// The first SIGTERM or SIGINT drains; a second one stops at once.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
}
