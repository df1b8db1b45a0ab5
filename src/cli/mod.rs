//! What people type: the verbs of the kubectl plugin, and the writing of `crds/`.
//!
//! Each verb is a function over a [`kube::Client`] that returns what it did as a value; its `Display` is what a person
//! reads. Verbs read and decide first and refuse before they write; every write names the version it was decided on.
//! Nothing here knows the controller: a verb states a person's will in an object and leaves the doing to the operator.
//! The exception is [`undo`], for when there is no operator.

pub mod args;
pub mod crds;
pub mod decision;
pub mod error;
pub mod locate;
pub mod pause;
pub mod plan;
pub mod rollback;
pub mod status;
pub mod table;
pub mod undo;
pub mod wait;

mod connect;

use std::fmt::Display;

use k8s_openapi::jiff::Timestamp;

pub use args::Arguments;
pub use error::{Error, Result};

use args::Verb;

/// Does what was asked. Progress that people wait for is told to `tell` as it comes; the result is returned.
///
/// # Errors
/// With what was found and what to do; [`Error::exit_code`] tells scripts the kind.
pub async fn run(arguments: Arguments, tell: impl Fn(&dyn Display)) -> Result<String> {
    let connection = connect::connect(&arguments.global).await?;
    let (client, namespace) = (connection.client, connection.namespace.as_str());
    let now = Timestamp::now();
    match arguments.verb {
        Verb::Rollback(request) => {
            let created = rollback::rollback(&client, namespace, &request, now).await?;
            if !request.waiting.wait {
                return Ok(created.to_string());
            }
            tell(&created);
            wait::rolled_back(&client, &created.record, request.waiting.timeout).await.map(|ended| ended.to_string())
        }
        Verb::Restore(request) => match request.from_target.as_ref() {
            Some(target) => {
                undo::restore(&client, namespace, target, request.yes).await.map(|undone| undone.to_string())
            }
            None => {
                let name = request.name.as_deref().unwrap_or_default();
                let told =
                    decision::decide(&client, namespace, name, decision::Will::Restore, request.reason.as_deref())
                        .await?;
                if !request.waiting.wait {
                    return Ok(told.to_string());
                }
                tell(&told);
                wait::restored(&client, &told.record, request.waiting.timeout).await.map(|ended| ended.to_string())
            }
        },
        Verb::Release(it) => decide(&client, namespace, &it, decision::Will::Release).await,
        Verb::Hold(it) => decide(&client, namespace, &it, decision::Will::Hold).await,
        Verb::Resume(it) => decide(&client, namespace, &it, decision::Will::Resume).await,
        Verb::Faster(it) => decide(&client, namespace, &it, decision::Will::Faster).await,
        Verb::Pause(request) => pause::pause(&client, namespace, &request, now).await.map(|done| done.to_string()),
        Verb::Unpause { name } => pause::unpause(&client, namespace, &name).await.map(|done| done.to_string()),
        Verb::Rebaseline { name } => {
            pause::rebaseline(&client, namespace, &name, now).await.map(|done| done.to_string())
        }
        Verb::Status { name, all_namespaces } => {
            let namespace = (!all_namespaces).then_some(namespace);
            match name {
                Some(name) => status::one(&client, namespace.unwrap_or_default(), &name).await,
                None => status::all(&client, namespace).await,
            }
        }
    }
}

async fn decide(client: &kube::Client, namespace: &str, it: &args::Decision, will: decision::Will) -> Result<String> {
    decision::decide(client, namespace, &it.name, will, it.reason.as_deref()).await.map(|told| told.to_string())
}
