//! The rooms of `src/` depend downwards only, and the pure ones reach for nothing of the outside world.
//!
//! Read from the sources: what a room may import is a matter of the design, which the compiler does not know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Rooms by storey; a room may use those of lower storeys, and itself. A new room gets its place here.
const STOREYS: [&[&str]; 6] = [
    &["api"],
    &["decide"],
    &["prometheus", "steps", "notify", "report"],
    &["server"],
    &["controller", "cli"],
    &["bin"],
];

/// Rooms that have no client, no clock and no randomness, and the crates they may use. Of kube `api` has the derives alone.
const PURE: [(&str, &[&str]); 2] = [
    ("api", &["std", "serde", "serde_json", "schemars", "thiserror", "k8s_openapi", "kube"]),
    ("decide", &["std", "serde", "serde_json", "thiserror", "k8s_openapi"]),
];

/// Whatever pure code could see of the world without importing a crate for it.
const IMPURE: [&str; 20] = [
    "Timestamp::now",
    "SystemTime",
    "Instant::now",
    "std::time::Instant",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::sync",
    "RandomState",
    "HashMap",
    "HashSet",
    "tokio::",
    "reqwest::",
    "rand::",
    "futures::",
    "rustix::",
    "async fn",
];

/// What `api` may take from kube: what makes a type a kind.
const KUBE: [&str; 3] = ["CustomResource", "CustomResourceExt", "KubeSchema"];

/// A source file without comments and string literals.
struct Source {
    path: PathBuf,
    room: String,
    code: String,
}

fn sources(root: &Path) -> Vec<Source> {
    let (mut folders, mut found) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && path != root.join("lib.rs") {
                let first = path.strip_prefix(root).unwrap().components().next().unwrap();
                let room = Path::new(&first).file_stem().unwrap().to_str().unwrap().to_owned();
                let code = plain(&fs::read_to_string(&path).unwrap());
                found.push(Source { path, room, code });
            }
        }
    }
    found
}

/// Leaves out comments and the contents of string literals, so that words about the world are not taken for its use.
fn plain(text: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    for line in text.lines() {
        let mut previous = ' ';
        let mut rest = line.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '"' if previous != '\'' && !(quoted && previous == '\\') => quoted = !quoted,
                '/' if !quoted && rest.peek() == Some(&'/') => break,
                _ if quoted => {}
                _ => code.push(c),
            }
            previous = if previous == '\\' && c == '\\' { ' ' } else { c };
        }
        code.push('\n');
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Does a path stand in the code, not at the end of a longer word?
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let after = &code[at + path.len()..];
        !code[..at].ends_with(is_word) && (path.ends_with(':') || !after.starts_with(is_word))
    })
}

/// The first segments after `prefix::`, of `prefix::one` as of `prefix::{one::…, two}`.
fn first_segments(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let prefix = format!("{prefix}::");
    for (at, _) in code.match_indices(&prefix).filter(|(at, _)| !code[..*at].ends_with(|c| is_word(c) || c == ':')) {
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(rest.chars().take_while(|c| is_word(*c)).collect());
            continue;
        };
        let (mut depth, mut word, mut taken) = (0, String::new(), false);
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => taken = false,
                c if depth == 0 && !taken && is_word(c) => word.push(c),
                _ if depth == 0 && !word.is_empty() => {
                    found.insert(std::mem::take(&mut word));
                    taken = true;
                }
                _ => {}
            }
            if c == ',' && depth == 0 && !word.is_empty() {
                found.insert(std::mem::take(&mut word));
            }
        }
        if !word.is_empty() {
            found.insert(word);
        }
    }
    found.remove("");
    found
}

/// Crates that are named in `use` declarations; a capital begins a type of the module itself, and its own
/// modules are no crates either.
fn crates(code: &str) -> BTreeSet<String> {
    let uses = code.split(['\n', ';']).map(str::trim).filter_map(|line| {
        line.strip_prefix("use ")
            .or_else(|| line.strip_prefix("pub use "))
            .or_else(|| line.strip_prefix("pub(crate) use "))
    });
    let own = ["crate", "super", "self"];
    uses.map(|path| path.chars().take_while(|c| is_word(*c)).collect())
        .filter(|name: &String| {
            !own.contains(&name.as_str())
                && name.starts_with(char::is_lowercase)
                && !names(code, &format!("mod {name}"))
        })
        .collect()
}

fn storey(room: &str) -> Option<usize> {
    STOREYS.iter().position(|rooms| rooms.contains(&room))
}

/// What is wrong with a source, if anything.
fn offences(source: &Source) -> Vec<String> {
    let Source { path, room, code } = source;
    let place = path.display();
    let mut told = Vec::new();
    let Some(here) = storey(room) else {
        return vec![format!("{place}: {room} is no room of the design: give it a storey in tests/layering.rs")];
    };
    let mut used = first_segments(code, if room == "bin" { "learning_rollout" } else { "crate" });
    if path.ends_with(format!("{room}/mod.rs")) {
        used.extend(first_segments(code, "super"));
    }
    for other in used.iter().filter(|other| *other != room) {
        match storey(other) {
            Some(there) if there < here => {}
            Some(_) => told.push(format!("{place}: {room} may not use {other}, which is not below it")),
            // Anything else of the crate's root is a constant or macro, none of which exists today.
            None => told.push(format!("{place}: {other} is no room of the design")),
        }
    }
    if let Some((_, allowed)) = PURE.iter().find(|(pure, _)| pure == room) {
        for foreign in crates(code).iter().filter(|name| !allowed.contains(&name.as_str())) {
            told.push(format!("{place}: {room} may not use the crate {foreign}"));
        }
        for word in IMPURE.iter().filter(|word| names(code, word)) {
            told.push(format!("{place}: {word} has no place in {room}, which is pure"));
        }
        for derive in first_segments(code, "kube").iter().filter(|name| !KUBE.contains(&name.as_str())) {
            told.push(format!("{place}: kube::{derive} has no place in {room}, which is pure"));
        }
    }
    told
}

#[test]
fn rooms_depend_downwards_only() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for room in ["api", "decide"] {
        assert!(sources.iter().any(|source| source.room == room), "{room} is where it is looked for");
    }
    let told: Vec<String> = sources.iter().flat_map(offences).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    println!("{} files keep to their storeys", sources.len());
}

#[test]
fn offences_are_seen() {
    let of = |path: &str, room: &str, code: &str| {
        offences(&Source { path: path.into(), room: room.into(), code: plain(code) })
    };
    for (room, code, offending) in [
        ("decide", "use crate::{api::rollout::Trigger, controller::{Context, clock}};", true),
        ("decide", "use crate::api::rollout::{Trigger, step};", false),
        ("decide", "let client = crate::prometheus::Client::new();", true),
        ("decide", "use tokio::time::sleep;", true),
        ("decide", "let now = std::time::Instant::now();", true),
        ("decide", "use std::time::{Duration, SystemTime};", true),
        ("decide", "use k8s_openapi::jiff::Timestamp; let now = Timestamp::now();", true),
        ("decide", "use kube::ResourceExt;", true),
        ("decide", "use std::collections::HashMap;", true),
        ("decide", "// tokio::spawn, reqwest::get, SystemTime", false),
        ("decide", "let text = \"tokio::time \\\" SystemTime\"; let next = operand::now();", false),
        ("decide", "fn brand() {} brand::new();", false),
        ("api", "use kube::{CustomResource, KubeSchema};", false),
        ("api", "use kube::{Api, KubeSchema};", true),
        ("api", "fn get(client: kube::Client) {}", true),
        ("api", "use crate::decide::rollout::decide;", true),
        ("steps", "use crate::{api::step::Scale, decide::fields};", false),
        ("steps", "use crate::prometheus::Answer;", true),
        ("controller", "use crate::{decide::{timer, rollout}, server::metrics, steps, prometheus};", false),
        ("server", "use crate::controller::Context;", true),
        ("bin", "use learning_rollout::{cli, controller};", false),
        ("attic", "", true),
    ] {
        assert_eq!(!of(&format!("src/{room}/file.rs"), room, code).is_empty(), offending, "{room}: {code}");
    }
    assert!(!of("src/decide/mod.rs", "decide", "use super::controller::Context;").is_empty());
}
