//! What is told: acts, sentences, what kubectl shows, and at the end when everything happened.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The telling of a demo.
pub(crate) struct Story {
    began: Instant,
    moments: Mutex<Vec<(Duration, String)>>,
}

impl Story {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), moments: Mutex::new(Vec::new()) }
    }

    fn stamp(&self) -> String {
        format!("{:7.1}s", self.began.elapsed().as_secs_f64())
    }

    /// Begins an act.
    pub(crate) fn act(&self, title: &str) {
        println!("\n{} == {title}", self.stamp());
        self.moment(&format!("== {title}"));
    }

    /// Says what has happened.
    pub(crate) fn say(&self, text: &str) {
        println!("{}    {text}", self.stamp());
    }

    /// Says it, and keeps it for the timeline.
    pub(crate) fn happened(&self, text: &str) {
        self.say(text);
        self.moment(text);
    }

    /// Shows what a command printed.
    pub(crate) fn show(&self, command: &str, output: &str) {
        println!("{}    $ {command}", self.stamp());
        for line in output.lines() {
            println!("              {line}");
        }
    }

    fn moment(&self, text: &str) {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner).push((self.began.elapsed(), text.to_owned()));
    }

    /// Everything that happened, with seconds since the start.
    pub(crate) fn timeline(&self) {
        println!("\nTimeline, in seconds since the start:");
        for (at, text) in self.moments.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            println!("{:9.1}  {text}", at.as_secs_f64());
        }
        println!();
    }
}
