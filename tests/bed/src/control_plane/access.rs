//! Who talks to the API server, and with what: tokens, kubeconfigs, clients and kubectl.
//!
//! Every component has a name of its own, so that the audit log tells who asked. All of them are cluster
//! administrators (`system:masters`); whoever wants to meet RBAC takes a ServiceAccount's credentials
//! ([`ControlPlane::service_account_kubeconfig`]) or impersonates ([`ControlPlane::client_as`]).

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client, Config};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{ControlPlane, text};
use crate::tools;

/// kubectl's own waits end earlier.
const KUBECTL_WITHIN: Duration = Duration::from_secs(120);

/// Longer than an idle watch goes without a bookmark.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug)]
pub(super) enum Identity {
    Admin,
    ControllerManager,
    Scheduler,
    Kwok,
}

impl Identity {
    const ALL: [Self; 4] = [Self::Admin, Self::ControllerManager, Self::Scheduler, Self::Kwok];

    fn user(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::ControllerManager => "system:kube-controller-manager",
            Self::Scheduler => "system:kube-scheduler",
            Self::Kwok => "kwok",
        }
    }

    /// Known to everybody; the server listens on loopback only and lives as long as a test.
    fn token(self) -> String {
        format!("token-of-{}", self.user().replace(':', "-"))
    }

    fn file(self) -> String {
        format!("{}.kubeconfig", self.user().replace(':', "-"))
    }
}

impl ControlPlane {
    /// Writes what the servers need to know of each other before any of them runs.
    pub(super) fn write_credentials(&self) -> anyhow::Result<()> {
        let mut tokens = String::new();
        for identity in Identity::ALL {
            let (user, token) = (identity.user(), identity.token());
            writeln!(tokens, "{token},{user},{user},\"system:masters\"")?;
            self.write_kubeconfig(&identity.file(), &token)?;
        }
        self.dir.write("tokens.csv", tokens)?;
        self.dir.write("service-account.key", signing_key()?)?;
        Ok(())
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of(Identity::Admin)
    }

    /// An administrator's client, of the current runtime. Retries are off, so that a test sees every answer.
    pub fn client(&self) -> Client {
        self.admin_client().expect("a started control plane has its certificate")
    }

    /// The client of the user `user` in `groups`, by impersonation: RBAC holds for it.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> anyhow::Result<Client> {
        let mut config = self.config(&Identity::Admin.token())?;
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(groups.iter().map(|&group| group.to_owned()).collect());
        Ok(Client::try_from(config)?)
    }

    /// The client of whoever has this token.
    pub fn client_with_token(&self, token: &str) -> anyhow::Result<Client> {
        Ok(Client::try_from(self.config(token)?)?)
    }

    /// A token of the ServiceAccount, valid for a day.
    pub async fn service_account_token(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(24 * 3600), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let answer = accounts
            .create_token_request(name, &kube::api::PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for ServiceAccount {namespace}/{name}"))?;
        Ok(answer.status.context("a TokenRequest without a status")?.token)
    }

    /// A kubeconfig with which a program is the ServiceAccount, as it would be in a pod of its own.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token = self.service_account_token(namespace, name).await?;
        self.write_kubeconfig(&format!("{namespace}-{name}.kubeconfig"), &token)
    }

    /// kubectl with the administrator's kubeconfig, to be run or changed by the caller.
    pub fn kubectl_command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(tools::find("controlplane", "kubectl")?);
        command.args(args).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir.path());
        Ok(command)
    }

    /// Runs kubectl. That it fails is for the caller to judge: see [`KubectlOutput::ok`].
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<KubectlOutput> {
        self.kubectl_with_input(args, "").await
    }

    /// Runs kubectl with a standard input, as for `apply -f -`.
    pub async fn kubectl_with_input(&self, args: &[&str], input: &str) -> anyhow::Result<KubectlOutput> {
        let shown = format!("kubectl {}", args.join(" "));
        let mut child = tokio::process::Command::from(self.kubectl_command(args)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {shown}"))?;
        let mut stdin = child.stdin.take().context("kubectl has no stdin")?;
        let run = async {
            // Written beside the reading, else both sides could wait on full pipes; kubectl may end unread.
            let (_, output) = tokio::join!(
                async move {
                    let written = stdin.write_all(input.as_bytes()).await;
                    drop(stdin);
                    written
                },
                child.wait_with_output()
            );
            output
        };
        let output = tokio::time::timeout(KUBECTL_WITHIN, run)
            .await
            .map_err(|_| anyhow!("{shown} did not end within {KUBECTL_WITHIN:?}"))??;
        Ok(KubectlOutput {
            command: shown,
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    pub(super) fn admin_client(&self) -> anyhow::Result<Client> {
        self.client_with_token(&Identity::Admin.token())
    }

    pub(super) fn kubeconfig_of(&self, identity: Identity) -> PathBuf {
        self.file(&identity.file())
    }

    pub(super) fn token_file(&self) -> PathBuf {
        self.file("tokens.csv")
    }

    pub(super) fn service_account_key(&self) -> PathBuf {
        self.file("service-account.key")
    }

    /// Where the API server makes itself a serving certificate on its first start, and finds it on the next.
    pub(super) fn cert_dir(&self) -> PathBuf {
        self.file("certs")
    }

    /// The serving certificate with the authority that signed it.
    pub(super) fn ca_file(&self) -> PathBuf {
        self.cert_dir().join("apiserver.crt")
    }

    fn config(&self, token: &str) -> anyhow::Result<Config> {
        let ca = self.ca_file();
        let certificates = fs::read(&ca).with_context(|| format!("cannot read {}", ca.display()))?;
        let mut config = Config::new(self.url().parse()?);
        config.root_cert = Some(pem::parse_many(certificates)?.into_iter().map(pem::Pem::into_contents).collect());
        config.auth_info.token = Some(token.to_owned().into());
        config.default_retry = false;
        config.read_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        Ok(config)
    }

    fn write_kubeconfig(&self, file: &str, token: &str) -> anyhow::Result<PathBuf> {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bed", "cluster": {"server": self.url(), "certificate-authority": text(&self.ca_file())}}],
            "users": [{"name": "bed", "user": {"token": token}}],
            "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
            "current-context": "bed",
        });
        self.dir.write(file, serde_yaml::to_string(&kubeconfig)?)
    }
}

/// What kubectl said.
#[derive(Clone, Debug)]
pub struct KubectlOutput {
    command: String,
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl KubectlOutput {
    /// Its standard output, or an error with what it complained of.
    pub fn ok(self) -> anyhow::Result<String> {
        if !self.success {
            bail!("{} failed: {}{}", self.command, self.stderr, self.stdout);
        }
        Ok(self.stdout)
    }
}

/// A new key for ServiceAccount tokens, as PEM: the private one, of which Kubernetes takes the public one too where it
/// is told to look for both in one file.
fn signing_key() -> anyhow::Result<String> {
    let random = ring::rand::SystemRandom::new();
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(|_| anyhow!("no key"))?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
        .map_err(|why| anyhow!("bad key: {why}"))?;
    // SubjectPublicKeyInfo of a P-256 key: a fixed head before the point.
    let mut public = vec![0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    public.extend([0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00]);
    public.extend(pair.public_key().as_ref());
    Ok(pem::encode_many(&[pem::Pem::new("PRIVATE KEY", pkcs8.as_ref()), pem::Pem::new("PUBLIC KEY", public)]))
}
