//! Where the servers are. It finds, and says how to get what it does not find; it builds and downloads nothing.
//!
//! `make tools` puts them into `.tools/` at the workspace's root, which `LEARNING_ROLLOUT_TOOLS` overrides.
//! `KUBEBUILDER_ASSETS`, the folder other Kubernetes projects keep their test control plane in, comes first for the
//! binaries it holds.

use std::path::PathBuf;

use anyhow::{Context, bail};

/// The folder of all tool families.
pub fn dir() -> PathBuf {
    std::env::var_os("LEARNING_ROLLOUT_TOOLS").map_or_else(|| crate::workspace_root().join(".tools"), Into::into)
}

/// The path of `name`, a binary or folder of the tool family `family`, as in `controlplane`, `kubectl`.
pub fn find(family: &str, name: &str) -> anyhow::Result<PathBuf> {
    if family == "controlplane"
        && let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS")
    {
        let path = PathBuf::from(assets).join(name);
        if path.exists() {
            return Ok(path);
        }
    }
    let path = dir().join(family).join(name);
    if !path.exists() {
        bail!("{} is missing: run `make tools` at the workspace's root first", path.display());
    }
    // The canonical path keeps to one build even if `make tools` moves the family's link meanwhile.
    path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))
}
