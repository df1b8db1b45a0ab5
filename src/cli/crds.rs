//! Writes the definitions of the two kinds where `make generate` and packagers want them.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::api::crd;

/// Writes `crds/*.yaml` into `dir`, which is created if need be. Returns the files in the order they were written.
///
/// # Errors
/// When the folder or a file cannot be written; the error names it.
pub fn write(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let manifests = crd::manifests().map_err(|error| anyhow!("cannot express the definitions as YAML: {error}"))?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    manifests
        .into_iter()
        .map(|(file, text)| {
            let path = dir.join(file);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        })
        .collect()
}
