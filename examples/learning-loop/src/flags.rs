//! The feature flags that a rollback sets, read from a directory with one file per key, as kubelet mounts a ConfigMap.
//!
//! Reading is separate from deciding: [`read`] looks at the directory, [`Flags`] is a value the traffic reads at each
//! tick. A value that makes no sense keeps the one before it: a typo in a ConfigMap must not switch a feature over.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// kubelet itself syncs a mounted ConfigMap about once a minute; looking more often than each second gains nothing.
const READ_EVERY: Duration = Duration::from_secs(1);

/// What the ConfigMap says, by the keys' own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    /// `ENABLE_LEARNING`: whether any request takes the learning path.
    pub(crate) learning: bool,
    /// `ENABLE_REAL_TIME_LEARNING`: whether the learning path learns from the session it serves.
    pub(crate) real_time_learning: bool,
    /// `ENABLE_VOICE_FEEDBACK`: whether voice feedback is taken.
    pub(crate) voice_feedback: bool,
    /// `LEARNING_WEIGHT`: percentage of the requests asking for learning that get there. In a cluster the mesh does
    /// this; here a demo without a mesh mirrors the route's weight to it.
    pub(crate) learning_weight: u8,
}

impl Default for Flags {
    fn default() -> Self {
        Self { learning: true, real_time_learning: true, voice_feedback: true, learning_weight: 100 }
    }
}

impl Flags {
    /// Each flag with its key, for the exposition.
    pub(crate) fn switches(self) -> [(&'static str, bool); 3] {
        [
            ("ENABLE_LEARNING", self.learning),
            ("ENABLE_REAL_TIME_LEARNING", self.real_time_learning),
            ("ENABLE_VOICE_FEEDBACK", self.voice_feedback),
        ]
    }
}

/// Reads the directory. `before` supplies every key whose file cannot be read or makes no sense; each such key is
/// named in the second value. An absent file means the default.
pub(crate) fn read(dir: &Path, before: Flags) -> (Flags, Vec<String>) {
    let mut keys = Keys { dir, complaints: Vec::new() };
    if let Err(error) = std::fs::metadata(dir) {
        keys.complaints.push(format!("{}: {error}; keeping the flags as they are", dir.display()));
        return (before, keys.complaints);
    }
    let default = Flags::default();
    let flags = Flags {
        learning: keys.switch("ENABLE_LEARNING", default.learning, before.learning),
        real_time_learning: keys.switch(
            "ENABLE_REAL_TIME_LEARNING",
            default.real_time_learning,
            before.real_time_learning,
        ),
        voice_feedback: keys.switch("ENABLE_VOICE_FEEDBACK", default.voice_feedback, before.voice_feedback),
        learning_weight: keys.percent("LEARNING_WEIGHT", default.learning_weight, before.learning_weight),
    };
    (flags, keys.complaints)
}

/// One pass over the directory, collecting what is wrong with it.
struct Keys<'a> {
    dir: &'a Path,
    complaints: Vec<String>,
}

impl Keys<'_> {
    fn switch(&mut self, name: &str, default: bool, before: bool) -> bool {
        self.value(name, default, before, "true or false", |text| text.to_ascii_lowercase().parse().ok())
    }

    fn percent(&mut self, name: &str, default: u8, before: u8) -> u8 {
        self.value(name, default, before, "a whole number from 0 to 100", |text| {
            text.parse().ok().filter(|percent| *percent <= 100)
        })
    }

    fn value<T>(&mut self, name: &str, default: T, before: T, expected: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        let complaint = match std::fs::read_to_string(self.dir.join(name)) {
            Ok(text) => match parse(text.trim()) {
                Some(value) => return value,
                None => format!("{:?} is not {expected}", text.trim()),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => return default,
            Err(error) => error.to_string(),
        };
        self.complaints.push(format!("{name}: {complaint}; keeping it as it is"));
        before
    }
}

/// Re-reads `dir` every second until nobody listens, and logs each change and each new complaint once.
pub(crate) async fn follow(dir: PathBuf, flags: watch::Sender<Flags>) {
    let mut tick = tokio::time::interval(READ_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Vec::new();
    while !flags.is_closed() {
        tick.tick().await;
        let before = *flags.borrow();
        let (now, complaints) = read(&dir, before);
        if complaints != told {
            for complaint in &complaints {
                tracing::warn!(dir = %dir.display(), "{complaint}");
            }
            told = complaints;
        }
        if now != before {
            tracing::info!(?now, "flags changed");
            flags.send_replace(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own per test, removed at its end.
    struct Dir(PathBuf);

    impl Dir {
        fn new(test: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("learning-loop-{test}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn write(&self, key: &str, value: &str) {
            std::fs::write(self.0.join(key), value).unwrap();
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_key_switches_its_own_flag_and_an_absent_one_is_on() {
        let dir = Dir::new("keys");
        assert_eq!(read(&dir.0, Flags::default()), (Flags::default(), vec![]));
        dir.write("ENABLE_LEARNING", "false\n");
        dir.write("ENABLE_VOICE_FEEDBACK", "False");
        dir.write("LEARNING_WEIGHT", "25");
        let (flags, complaints) = read(&dir.0, Flags::default());
        assert!(complaints.is_empty());
        assert_eq!(
            flags,
            Flags { learning: false, real_time_learning: true, voice_feedback: false, learning_weight: 25 }
        );
    }

    #[test]
    fn nonsense_keeps_what_was_there_and_is_named() {
        let dir = Dir::new("nonsense");
        let off = Flags { learning: false, learning_weight: 50, ..Flags::default() };
        dir.write("ENABLE_LEARNING", "off");
        dir.write("LEARNING_WEIGHT", "101");
        let (flags, complaints) = read(&dir.0, off);
        assert_eq!(flags, off);
        assert!(complaints[0].contains("ENABLE_LEARNING"), "{complaints:?}");
        assert!(complaints[1].contains("LEARNING_WEIGHT"), "{complaints:?}");
    }

    #[test]
    fn a_vanished_directory_changes_nothing() {
        let gone = std::env::temp_dir().join("learning-loop-never-made");
        let off = Flags { learning: false, ..Flags::default() };
        let (flags, complaints) = read(&gone, off);
        assert_eq!(flags, off);
        assert_eq!(complaints.len(), 1);
    }
}
