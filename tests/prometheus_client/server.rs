//! An HTTP server on loopback that answers by script, down to the byte, and remembers what it was asked.
//! It ends with its handle.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What the server does after a request.
#[derive(Clone)]
pub enum Reply {
    /// These bytes; the connection stays open.
    Raw(Vec<u8>),
    /// These bytes; then the connection is closed.
    RawThenClose(Vec<u8>),
    /// Not a byte, and the connection stays open.
    Nothing,
    /// The first bytes at once, the rest one at a time.
    Drip(Vec<u8>, Vec<u8>, Duration),
    /// A body without an end, in chunks of 64 KiB.
    Endless,
    /// TCP reset.
    Reset,
    /// What the first of these says once the watched value is true.
    When(watch::Receiver<bool>, Box<Reply>),
}

impl Reply {
    /// A whole answer with a length.
    pub fn http(status: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        Self::Raw(bytes)
    }

    pub fn json(body: &str) -> Self {
        Self::http("200 OK", &["Content-Type: application/json"], body)
    }

    /// The scalar `value`.
    pub fn scalar(value: &str) -> Self {
        Self::json(&format!(r#"{{"status":"success","data":{{"resultType":"scalar","result":[1,"{value}"]}}}}"#))
    }
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub connection: usize,
    pub line: String,
    /// In lower case, with their values as they came.
    pub headers: Vec<(String, String)>,
    pub form: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn field(&self, name: &str) -> &str {
        let found = self.form.iter().find(|(found, _)| found == name);
        &found.unwrap_or_else(|| panic!("no {name} in {:?}", self.form)).1
    }
}

type Script = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    task: AbortHandle,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    asked: Mutex<Vec<Asked>>,
    arrived: watch::Sender<usize>,
    written: AtomicUsize,
    closed: watch::Sender<usize>,
}

impl Server {
    pub async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, Arc::new(script)).await
    }

    pub async fn start_tls(acceptor: TlsAcceptor, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(Some(acceptor), Arc::new(script)).await
    }

    /// Always the same.
    pub async fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    async fn start_with(tls: Option<TlsAcceptor>, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let accepting = accept(listener, tls, script, Arc::clone(&seen));
        Self { address, seen, task: tokio::spawn(accepting).abort_handle() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.seen.asked.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Bytes of bodies that the kernel took from us.
    pub fn written(&self) -> usize {
        self.seen.written.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests have arrived.
    pub async fn wait_for(&self, count: usize) {
        let mut arrived = self.seen.arrived.subscribe();
        let waiting = arrived.wait_for(|arrived| *arrived >= count);
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the requests did not arrive").unwrap();
    }

    /// Waits until `count` connections have ended.
    pub async fn wait_for_closed(&self, count: usize) {
        let mut closed = self.seen.closed.subscribe();
        let waiting = closed.wait_for(|closed| *closed >= count);
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the connections did not end").unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, script: Script, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = seen.connections.fetch_add(1, Ordering::SeqCst);
        let (tls, script, seen) = (tls.clone(), Arc::clone(&script), Arc::clone(&seen));
        connections.spawn(async move {
            // What a client does to a connection is not the server's failure.
            let _ended = match tls {
                None => serve(stream, number, &script, &seen).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, number, &script, &seen).await,
                    Err(error) => Err(error),
                },
            };
            seen.closed.send_modify(|closed| *closed += 1);
        });
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes closing a reset.
    fn reset_on_close(&self) {}
}

impl Stream for TcpStream {
    fn reset_on_close(&self) {
        self.set_zero_linger().unwrap();
    }
}

impl Stream for tokio_rustls::server::TlsStream<TcpStream> {}

async fn serve(mut stream: impl Stream, connection: usize, script: &Script, seen: &Seen) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(asked) = request(&mut stream, &mut buffer, connection).await? {
        let mut reply = script(&asked);
        seen.asked.lock().unwrap().push(asked);
        seen.arrived.send_modify(|arrived| *arrived += 1);
        if let Reply::When(mut watched, then) = reply {
            let _dropped = watched.wait_for(|now| *now).await;
            reply = *then;
        }
        match reply {
            Reply::Raw(bytes) => stream.write_all(&bytes).await?,
            Reply::RawThenClose(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            // Until the client closes.
            Reply::Nothing => while stream.read_buf(&mut buffer).await? > 0 {},
            Reply::Drip(head, rest, every) => {
                stream.write_all(&head).await?;
                for byte in rest {
                    tokio::time::sleep(every).await;
                    stream.write_all(&[byte]).await?;
                }
            }
            Reply::Endless => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n";
                stream.write_all(head.as_bytes()).await?;
                // A gigabyte is enough to call it endless, and ends if nobody stops us.
                for _ in 0..16_384 {
                    stream.write_all(&[b' '; 0x10000]).await?;
                    seen.written.fetch_add(0x10000, Ordering::SeqCst);
                    stream.write_all(b"\r\n10000\r\n").await?;
                }
            }
            Reply::Reset => {
                stream.reset_on_close();
                return Ok(());
            }
            Reply::When(..) => unreachable!("unwrapped above"),
        }
    }
    Ok(())
}

/// Reads one request; `None` at the end of the connection.
async fn request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    connection: usize,
) -> io::Result<Option<Asked>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length =
        headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
    while buffer.len() < end + 4 + length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body = buffer[end + 4..end + 4 + length].to_vec();
    buffer.drain(..end + 4 + length);
    // Any URL will do: it lends its form decoder.
    let mut url = reqwest::Url::parse("http://form").unwrap();
    url.set_query(Some(std::str::from_utf8(&body).unwrap()));
    let form = url.query_pairs().into_owned().collect();
    Ok(Some(Asked { connection, line, headers, form }))
}
