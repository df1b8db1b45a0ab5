//! A bed's directory, `target/bed/NAME-PID-N/`, with its logs and its servers' data.
//!
//! The data goes with the bed. The logs stay for an hour, since a bed cannot know whether its test goes on to fail
//! (an `Err` looks like a success from inside a `Drop`); the directories of older beds are swept by the next one.
//! `KEEP_BED=1` keeps everything until `cargo clean`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;

const KEPT_FOR: Duration = Duration::from_secs(3600);
const KEEP_MARK: &str = ".keep";

/// A directory of its own, for one control plane, one Prometheus, or one test's processes.
#[derive(Debug)]
pub struct BedDir {
    path: PathBuf,
}

impl BedDir {
    /// Makes `target/bed/NAME-PID-N/`, named after the test whose thread this is when no name is given.
    pub fn create(name: Option<&str>) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        let beds = std::path::absolute(crate::target_dir())?.join("bed");
        fs::create_dir_all(&beds).with_context(|| format!("cannot create {}", beds.display()))?;
        SWEEP.call_once(|| sweep(&beds));

        let thread = std::thread::current();
        let name: String = name
            .or(thread.name())
            .unwrap_or("bed")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = beds.join(format!("{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("data")).with_context(|| format!("cannot create {}", path.display()))?;
        fs::create_dir_all(path.join("logs"))?;
        if kept() {
            fs::write(path.join(KEEP_MARK), "")?;
        }
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where logs go; what [`crate::Process::spawn`] wants.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Where a server's data goes: removed with the bed.
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Writes a file of the bed and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for BedDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the bed's logs are in {}", self.logs().display());
        }
        if !kept() {
            let _ = fs::remove_dir_all(self.data());
        }
    }
}

fn kept() -> bool {
    std::env::var_os("KEEP_BED").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Removes what processes that are gone have left: their data at once (a killed process removes nothing itself),
/// their logs after [`KEPT_FOR`]. Whatever cannot be removed is another bed's affair.
fn sweep(beds: &Path) {
    for entry in fs::read_dir(beds).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.join(KEEP_MARK).exists() || owner(&path).is_none_or(alive) {
            continue;
        }
        let _ = fs::remove_dir_all(path.join("data"));
        let age = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if age.is_ok_and(|age| age > KEPT_FOR) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// The process that made the bed: NAME-**PID**-N.
fn owner(bed: &Path) -> Option<u32> {
    bed.file_name()?.to_str()?.rsplit('-').nth(1)?.parse().ok()
}

fn alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
