//! The command line: verbs, flags, help. No decisions.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand};
use k8s_openapi::jiff::Timestamp;

use crate::api::duration::GoDuration;

/// Rolls features back by hand, and tells the operator what to do with a rollback in force.
///
/// RECORD is the name of a LearningRollback; the name of a LearningRollout stands for its rollback in force. lrb/NAME and
/// lro/NAME say which of the two is meant.
///
/// Exit codes: 0 done · 1 the cluster could not be asked, or refused · 2 wrong usage · 3 refused because of what was found:
/// no such object, no such plan, a record that has ended, a final word · 4 --wait ended without success.
#[derive(Parser, Clone, Debug)]
#[command(name = "kubectl-learning_rollout", bin_name = "kubectl learning-rollout", version, max_term_width = 120)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Which cluster, which namespace.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Namespace. Default: the one of the kubeconfig's context.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// Context of the kubeconfig to use.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Path of the kubeconfig. Default: $KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
}

/// What to do.
#[derive(Subcommand, Clone, Debug)]
pub enum Verb {
    /// Roll a feature back now, without waiting for a trigger
    Rollback(Rollback),
    /// Put everything back to what it was before the rollback
    Restore(Restore),
    /// Keep the present state and stop enforcing it: the rollback is over and nothing is put back
    Release(Decision),
    /// Make no further move until `resume`; what has landed stays
    Hold(Decision),
    /// Go on with a rollback that is held
    Resume(Decision),
    /// Go straight to the last weight instead of waiting between moves
    Faster(Decision),
    /// Start nothing new for a while; a running rollback goes on
    Pause(Pause),
    /// End a pause
    Unpause {
        /// Name of the LearningRollout.
        name: String,
    },
    /// Have captured baselines taken anew, once nothing breaches
    Rebaseline {
        /// Name of the LearningRollout.
        name: String,
    },
    /// Show rollouts and rollbacks in force; of one rollout also its triggers and each step's before and after
    Status {
        /// Name of the LearningRollout. Default: all of them.
        name: Option<String>,
        /// All namespaces.
        #[arg(short = 'A', long, conflicts_with = "name")]
        all_namespaces: bool,
    },
}

/// `rollback`
#[derive(Args, Clone, Debug)]
pub struct Rollback {
    /// Name of the LearningRollout.
    pub name: String,
    /// Name of the plan: an entry of its spec.rollbacks.
    #[arg(long)]
    pub plan: String,
    /// Why. Everybody who is told of the rollback reads it.
    #[arg(long, value_parser = reason)]
    pub reason: String,
    /// Only find out what would be done: the operator makes server-side dry-runs and changes nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Not begun by then, the rollback is skipped: it must not start hours later, when an operator comes back.
    #[arg(long, default_value = "5m")]
    pub expires_in: GoDuration,
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `restore`
#[derive(Args, Clone, Debug)]
pub struct Restore {
    /// Name of the LearningRollback, or of the LearningRollout for its rollback in force.
    #[arg(value_name = "RECORD", required_unless_present = "from_target")]
    pub name: Option<String>,
    /// Why.
    #[arg(long, value_parser = reason)]
    pub reason: Option<String>,
    /// Put an object back from the note it carries, when the record is lost or the operator is gone. Shows what it would do;
    /// --yes does it. Kinds: configmap, service, deployment, statefulset, virtualservice, httproute.
    #[arg(long, value_name = "KIND/NAME", conflicts_with_all = ["name", "reason", "wait"])]
    pub from_target: Option<TargetName>,
    /// With --from-target: do it.
    #[arg(long, requires = "from_target", conflicts_with = "name")]
    pub yes: bool,
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `release`, `hold`, `resume`, `faster`
#[derive(Args, Clone, Debug)]
pub struct Decision {
    /// Name of the LearningRollback, or of the LearningRollout for its rollback in force.
    #[arg(value_name = "RECORD")]
    pub name: String,
    /// Why.
    #[arg(long, value_parser = reason)]
    pub reason: Option<String>,
}

/// Waiting for the operator.
#[derive(Args, Clone, Debug)]
pub struct Waiting {
    /// Wait until it is done.
    #[arg(long)]
    pub wait: bool,
    /// How long to wait. The rollback or restore goes on after that.
    #[arg(long, default_value = "10m", requires = "wait")]
    pub timeout: GoDuration,
}

/// `pause`
#[derive(Args, Clone, Debug)]
pub struct Pause {
    /// Name of the LearningRollout.
    pub name: String,
    /// How long, such as 1h.
    #[arg(long = "for", value_name = "DURATION", required_unless_present = "until", conflicts_with = "until")]
    pub length: Option<GoDuration>,
    /// Until when, such as 2026-01-02T15:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub until: Option<Timestamp>,
    /// Why.
    #[arg(long, value_parser = reason)]
    pub reason: Option<String>,
}

/// What the definitions hold reasons to, and no control characters that would garble a terminal or a log.
fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty: say why, in a few words".to_owned()),
        text if text.chars().count() > 1024 => Err("it is longer than 1024 characters".to_owned()),
        text if text.chars().any(char::is_control) => {
            Err("it holds line breaks or other control characters".to_owned())
        }
        text => Ok(text.to_owned()),
    }
}

/// `KIND/NAME` of an object that a rollback edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetName {
    pub kind: TargetKind,
    pub name: String,
}

/// Kinds that rollbacks edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    ConfigMap,
    Service,
    Deployment,
    StatefulSet,
    VirtualService,
    HTTPRoute,
}

impl FromStr for TargetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) =
            text.split_once('/').ok_or("write it as KIND/NAME, such as configmap/learning-loop-config")?;
        if name.is_empty() || name.contains('/') {
            return Err(format!("{name:?} is no name of an object"));
        }
        let kind = match kind.to_ascii_lowercase().as_str() {
            "configmap" | "configmaps" | "cm" => TargetKind::ConfigMap,
            "service" | "services" | "svc" => TargetKind::Service,
            "deployment" | "deployments" | "deploy" => TargetKind::Deployment,
            "statefulset" | "statefulsets" | "sts" => TargetKind::StatefulSet,
            "virtualservice" | "virtualservices" | "vs" => TargetKind::VirtualService,
            "httproute" | "httproutes" => TargetKind::HTTPRoute,
            _ => {
                return Err(format!(
                    "{kind:?} is no kind that rollbacks edit: configmap, service, deployment, statefulset, virtualservice or httproute"
                ));
            }
        };
        Ok(Self { kind, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("kubectl-learning_rollout").chain(line.split(' ')))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_and_after_the_verb() {
        for line in ["-n a status x", "status x -n a", "status -n a x"] {
            assert_eq!(parse(line).unwrap().global.namespace.as_deref(), Some("a"), "{line}");
        }
    }

    #[test]
    fn what_is_no_sense_is_refused_as_usage() {
        for (line, kind) in [
            ("rollback x --reason y", ErrorKind::MissingRequiredArgument),
            ("rollback x --plan p", ErrorKind::MissingRequiredArgument),
            ("rollback x --plan p --reason y --expires-in 5", ErrorKind::ValueValidation),
            ("rollback x --plan p --reason y --timeout 5m", ErrorKind::MissingRequiredArgument),
            ("rollback x --plan p --reason ", ErrorKind::ValueValidation),
            ("restore", ErrorKind::MissingRequiredArgument),
            ("restore x --from-target cm/x", ErrorKind::ArgumentConflict),
            ("restore x --yes", ErrorKind::ArgumentConflict),
            ("restore --from-target secret/x", ErrorKind::ValueValidation),
            ("restore --from-target x", ErrorKind::ValueValidation),
            ("pause x", ErrorKind::MissingRequiredArgument),
            ("pause x --for 1h --until 2026-01-02T15:00:00Z", ErrorKind::ArgumentConflict),
            ("pause x --until tomorrow", ErrorKind::ValueValidation),
            ("status x -A", ErrorKind::ArgumentConflict),
        ] {
            assert_eq!(parse(line).unwrap_err().kind(), kind, "{line}");
        }
        assert!(reason("two\nlines").is_err());
        assert!(reason(&"r".repeat(1025)).is_err());
    }

    #[test]
    fn kinds_have_their_usual_short_names() {
        assert_eq!("deploy/web".parse(), Ok(TargetName { kind: TargetKind::Deployment, name: "web".to_owned() }));
        assert_eq!("ConfigMap/a.b".parse(), Ok(TargetName { kind: TargetKind::ConfigMap, name: "a.b".to_owned() }));
        assert!("cm/".parse::<TargetName>().is_err());
    }
}
