//! The test bed: real servers on this machine for tests, demo and benchmarks.
//!
//! [`ControlPlane`] is a Kubernetes control plane whose Deployments really roll out and whose Services really get
//! EndpointSlices (only the kubelets are played, by kwok), [`Prometheus`] is a Prometheus, new or old, and [`Process`]
//! runs whatever else a test needs, such as the operator itself. Everything listens on loopback, on ports of its own,
//! in a directory of its own ([`BedDir`]), so that any number stand side by side; readiness is awaited
//! ([`wait::until`]), never slept; and everything ends with its owner: when it is dropped, when its test panics, and
//! when the test process itself is killed.
//!
//! The servers are built by `make tools`. One that is missing is an error, never a reason to skip.
//!
//! Linux only: the end of the children hangs on `setpriv --pdeathsig`, the ports on abstract sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod control_plane;
mod dir;
mod port;
mod process;
mod prometheus;
pub mod tools;
pub mod wait;

pub use control_plane::{Component, ControlPlane, Options};
pub use dir::BedDir;
pub use port::Port;
pub use process::{Process, Usage};
pub use prometheus::{Prometheus, PrometheusOptions, PrometheusVersion};

/// The workspace this crate was compiled in, where `crds/`, `manifests/` and `.tools/` are.
pub fn workspace_root() -> &'static std::path::Path {
    std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The folder cargo builds into.
pub fn target_dir() -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), Into::into)
}

/// Installs the process-wide TLS provider. kube and reqwest are built without a default one, and reqwest panics when
/// none is installed; whoever comes first wins, and all of them want *ring*.
pub(crate) fn install_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
