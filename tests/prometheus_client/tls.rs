//! TLS: whom a source trusts, and HTTP/2 where it is offered.

use std::sync::Arc;

use bytes::Bytes;
use learning_rollout::prometheus::{Auth, Secret, SourceConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::{Reply, Server};
use crate::{now, source, trusted};

/// A certificate authority of this test's own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A server that presents a certificate for `name` and speaks `protocols`.
    fn acceptor(&self, name: &str, protocols: &[&[u8]], expired: bool) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn https(server: &Server, ca_pem: Vec<u8>) -> SourceConfig {
    let mut config = trusted(format!("https://{}", server.address));
    config.ca_pem = Some(ca_pem);
    config
}

async fn refusal(config: &SourceConfig) -> String {
    let error = source(config).query("x", now()).await.unwrap_err();
    assert_eq!(error.reason(), "TlsFailed", "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_source_trusts_its_own_authority_and_no_other() {
    let (ours, other) = (Authority::new(), Authority::new());
    let acceptor = ours.acceptor("127.0.0.1", &[], false);
    let server = Server::start_tls(acceptor, |_| Reply::scalar("1")).await;
    let answer = source(&https(&server, ours.pem())).query("x", now()).await;
    assert_eq!(answer.unwrap()[0].value, 1.0);

    let text = refusal(&https(&server, other.pem())).await;
    assert!(text.contains("caSecretRef"), "{text}");
    assert_eq!(server.asked().len(), 1, "nothing is asked of a stranger");

    // A bundle trusts all that are in it.
    let bundle = [other.pem(), ours.pem()].concat();
    let answer = source(&https(&server, bundle)).query("x", now()).await;
    assert_eq!(answer.unwrap()[0].value, 1.0);
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_is_refused_in_our_own_words() {
    let ours = Authority::new();
    let elsewhere = ours.acceptor("hunter2.example.org", &[], false);
    let server = Server::start_tls(elsewhere, |_| Reply::scalar("1")).await;
    let text = refusal(&https(&server, ours.pem())).await;
    assert!(text.contains("not for the host"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");

    let expired = ours.acceptor("127.0.0.1", &[], true);
    let server = Server::start_tls(expired, |_| Reply::scalar("1")).await;
    let text = refusal(&https(&server, ours.pem())).await;
    assert!(text.contains("expired"), "{text}");

    // The scheme is wrong: a plain HTTP server answers the handshake in its own language.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 7\r\n\r\nhunter2";
        stream.write_all(answer).await.unwrap();
        // Held open until the client has read it and leaves.
        let _ended = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    let mut config = trusted(format!("https://{address}"));
    config.ca_pem = Some(ours.pem());
    let text = refusal(&config).await;
    assert!(text.contains("does not speak TLS"), "{text}");
    serving.await.unwrap();
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered() {
    let ours = Authority::new();
    let acceptor = ours.acceptor("127.0.0.1", &[b"h2", b"http/1.1"], false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // There is one connection, or the later queries find nobody.
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let stream = acceptor.accept(stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.uri().path(), "/api/v1/query");
            assert_eq!(request.headers()["authorization"], "Bearer hunter2");
            let head = http::Response::builder().status(200).body(()).unwrap();
            let mut body = respond.send_response(head, false).unwrap();
            let json = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#;
            body.send_data(Bytes::from_static(json.as_bytes()), true).unwrap();
        }
    });
    let mut config = trusted(format!("https://{address}"));
    config.ca_pem = Some(ours.pem());
    config.auth = Auth::Bearer(Secret::new("hunter2"));
    let source = source(&config);
    let queries = (0..10).map(|_| source.query("x", now()));
    for answer in futures::future::join_all(queries).await {
        assert_eq!(answer.unwrap()[0].value, 1.0);
    }
    serving.abort();
}
