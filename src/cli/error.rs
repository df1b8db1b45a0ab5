//! Why a verb did not do what was asked, in words for the person who typed it and as an exit code for scripts.

use kube::{config::KubeconfigError, core::Status};

/// A verb's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a verb did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was asked of any cluster.
    #[error("no connection to a cluster: {0}")]
    Connection(String),
    /// The API server could not be asked, or refused.
    #[error("{what}: {}", explain(.source))]
    Server {
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// What was found does not allow it. Nothing was written.
    #[error("{0}")]
    Refused(String),
    /// `--wait` ended without success.
    #[error("{0}")]
    NotReached(String),
}

impl Error {
    /// As `--help` and the docs tell them. 2 is the command line's own.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Connection(_) | Self::Server { .. } => 1,
            Self::Refused(_) => 3,
            Self::NotReached(_) => 4,
        }
    }

    /// For `map_err`: what was being asked of the server.
    pub fn asking(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Server { what, source: Box::new(source) }
    }

    pub(super) fn refused<T>(why: impl Into<String>) -> Result<T> {
        Err(Self::Refused(why.into()))
    }
}

impl From<KubeconfigError> for Error {
    fn from(error: KubeconfigError) -> Self {
        Self::Connection(format!("{}; check --kubeconfig, --context and $KUBECONFIG", chain(&error)))
    }
}

/// The server's own words where it answered, and what to do where that is known.
fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{}{}", status.message, remedy(status)),
        other => chain(other),
    }
}

fn remedy(status: &Status) -> &'static str {
    // A 404 that names no object is about the kind; where no kind of the group is served, it is not even a Status.
    let names_object = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
    if status.code == 404 && !names_object {
        "; are the definitions installed? kubectl apply -f crds/"
    } else if status.code == 429 {
        // Also what a definition answers in its first moments.
        "; try again in a moment"
    } else if status.is_forbidden() {
        "; ask for the right, or use a context that has it"
    } else {
        ""
    }
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}
