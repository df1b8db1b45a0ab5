//! Which certificates a source may present, and the crypto provider behind all TLS of this process.
//!
//! A source with its own CA trusts that and nothing else, as a Prometheus does with `ca_file`. Without one,
//! `https` trusts the machine's roots. A plain `http` source loads no roots at all: reading them takes
//! milliseconds and memory for each client, and would fail in an image that has none.

use std::sync::Once;

use reqwest::{Certificate, ClientBuilder};

use super::config::SourceConfig;
use super::error::QueryError;

/// Installs ring as the process's provider unless somebody (kube's client, a test) already did. Without a
/// provider `ClientBuilder::build` panics.
fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that there is one already, which is all that is wanted.
        let _already = rustls::crypto::ring::default_provider().install_default();
    });
}

/// `builder` with the roots that `config` asks for.
pub(super) fn with_roots(
    builder: ClientBuilder,
    config: &SourceConfig,
    https: bool,
) -> Result<ClientBuilder, QueryError> {
    install_provider();
    let Some(pem) = &config.ca_pem else {
        return Ok(if https { builder } else { builder.tls_certs_only([]) });
    };
    let invalid = |problem| QueryError::CaInvalid { problem };
    let certificates =
        Certificate::from_pem_bundle(pem).map_err(|_| invalid("caSecretRef does not hold PEM certificates"))?;
    if certificates.is_empty() {
        return Err(invalid("caSecretRef holds no PEM certificate"));
    }
    Ok(builder.tls_certs_only(certificates))
}

/// Our words for what rustls found. Its own would name what stands in the server's certificate.
pub(super) fn describe(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            Certificate::UnknownIssuer | Certificate::BadSignature => {
                "its certificate is not signed by a trusted authority; see prometheus.caSecretRef"
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                "its certificate is not for the host in prometheus.url"
            }
            Certificate::Expired | Certificate::ExpiredContext { .. } => "its certificate has expired",
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => "its certificate is not valid yet",
            Certificate::Revoked => "its certificate has been revoked",
            _ => "its certificate is not valid",
        },
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS; is the url's scheme right?",
        rustls::Error::AlertReceived(_) => "the server broke off the handshake",
        _ => "the handshake failed",
    }
}
