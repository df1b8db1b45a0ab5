//! The terminal: what is told, with the seconds since the start. It decides nothing.

use std::io::Write;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

/// As wide as the longest stamp, `123.4 s  `.
const MARGIN: &str = "           ";

/// Tells, and knows when it all began.
pub(crate) struct Narrator {
    started: Instant,
    began: Timestamp,
}

impl Narrator {
    pub(crate) fn begin() -> Self {
        Self { started: Instant::now(), began: Timestamp::now() }
    }

    /// Seconds from the start to a moment that an object tells of.
    pub(crate) fn since_start(&self, at: Timestamp) -> f64 {
        at.duration_since(self.began).as_secs_f64()
    }

    pub(crate) fn act(&self, number: usize, title: &str) {
        self.blank();
        print(&format!("{number}. {title}"));
    }

    /// A line with the time.
    pub(crate) fn line(&self, text: &str) {
        let stamp = format!("{:>7.1} s", self.started.elapsed().as_secs_f64());
        print(&format!("{stamp}  {text}"));
    }

    /// What somebody typed, and what came of it.
    pub(crate) fn typed(&self, command: &str, output: &str) {
        print(&format!("{MARGIN}$ {command}"));
        self.output(output);
    }

    pub(crate) fn output(&self, text: &str) {
        for line in text.lines() {
            print(format!("{MARGIN}{line}").trim_end());
        }
    }

    pub(crate) fn lines(&self, title: &str, lines: &[String]) {
        self.blank();
        print(title);
        for line in lines {
            print(&format!("  {line}"));
        }
    }

    pub(crate) fn blank(&self) {
        print("");
    }
}

/// A reader that has gone away must not keep the rest from being ended.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
