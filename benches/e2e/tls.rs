//! `--tls`: what encryption costs. Full and resumed handshakes, requests over kept connections of HTTP/1.1 and HTTP/2,
//! and the memory of connections that do nothing, with one certificate (ECDSA P-256) in front of every proxy.
//!
//! The clients take as much of their core as the proxy does of its own, or more, so rates say less than the proxy's
//! CPU time for each, and what one core could do by that.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::machine;
use crate::proxies::{Kind, Proxy, Running, in_turn};
use crate::report;

const NAME: &str = "bench.test";
/// Connections at once.
const CLIENTS: usize = 16;
/// Requests at once on each connection of HTTP/2.
const STREAMS: usize = 8;
/// What does not answer for this long has broken.
const SILENCE: Duration = Duration::from_secs(20);

/// A certificate as each proxy wants it.
pub struct Secure {
    folder: TempDir,
    der: CertificateDer<'static>,
}

impl Secure {
    pub fn new() -> Result<Secure, Box<dyn Error>> {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec![NAME.to_string()])?.self_signed(&key)?;
        let folder = tempfile::Builder::new().prefix("switchback-bench-").tempdir()?;
        let (pem, key) = (certificate.pem(), key.serialize_pem());
        fs::write(folder.path().join("cert.pem"), &pem)?;
        fs::write(folder.path().join("key.pem"), &key)?;
        fs::write(folder.path().join("both.pem"), pem + &key)?;
        Ok(Secure { folder, der: certificate.der().clone() })
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn client(&self, resumption: Resumption, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = resumption;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;
type Failure = Box<dyn Error + Send + Sync>;

fn connect(config: &Arc<ClientConfig>, address: SocketAddr) -> Result<Stream, Failure> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(SILENCE))?;
    let connection = ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?;
    Ok(StreamOwned::new(connection, tcp))
}

/// One GET of 1 KiB.
fn ask(stream: &mut Stream) -> io::Result<()> {
    stream.write_all(b"GET /small HTTP/1.1\r\nhost: bench.test\r\n\r\n")?;
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let whole = loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&buffer[..read]);
        if let Some(head) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            break head + 4 + 1024;
        }
    };
    while seen.len() < whole {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&buffer[..read]);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    /// A new connection and one request, again and again.
    Handshakes { resumed: bool },
    /// Requests on kept connections, one after another.
    Requests,
    /// The same over HTTP/2, several at once.
    Streams,
}

const CELLS: [(&str, Work); 4] = [
    ("handshake + GET 1 KiB, full", Work::Handshakes { resumed: false }),
    ("handshake + GET 1 KiB, resumed", Work::Handshakes { resumed: true }),
    ("GET 1 KiB, HTTP/1.1, kept", Work::Requests),
    ("GET 1 KiB, HTTP/2, kept", Work::Streams),
];

/// What the clients of one visit have in common.
struct Clients {
    config: Arc<ClientConfig>,
    address: SocketAddr,
    core: usize,
    stop: AtomicBool,
    done: AtomicU64,
}

impl Clients {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection for each request, or one for all.
    fn ask_again_and_again(&self, work: Work) -> Result<(), Failure> {
        // Each has tickets of its own: who takes the last one that is left begins anew.
        let mut config = ClientConfig::clone(&self.config);
        if work == (Work::Handshakes { resumed: true }) {
            config.resumption = Resumption::in_memory_sessions(8);
        }
        let config = Arc::new(config);
        let mut kept = None;
        let mut is_first = true;
        while self.goes_on() {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => connect(&config, self.address)?,
            };
            ask(&mut stream)?;
            if stream.conn.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
                return Err("it is not TLS 1.3".into());
            }
            let resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
            if let Work::Handshakes { resumed: wanted } = work
                && resumed != wanted
                && !is_first
            {
                return Err(format!("a session was {}", if wanted { "not resumed" } else { "resumed" }).into());
            }
            is_first = false;
            self.count();
            if work == Work::Requests {
                kept = Some(stream);
            }
        }
        Ok(())
    }

    /// All connections of HTTP/2, on one thread.
    fn stream(self: &Arc<Self>) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut asking = tokio::task::JoinSet::new();
            for _ in 0..CLIENTS {
                let tcp = tokio::net::TcpStream::connect(self.address).await?;
                tcp.set_nodelay(true)?;
                let connector = tokio_rustls::TlsConnector::from(self.config.clone());
                let stream = connector.connect(ServerName::try_from(NAME)?, tcp).await?;
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err("it does not speak HTTP/2".into());
                }
                let (sender, connection) = h2::client::handshake(stream).await?;
                tokio::spawn(connection);
                for _ in 0..STREAMS {
                    let (clients, sender) = (self.clone(), sender.clone());
                    asking.spawn(async move { clients.ask_in_streams(sender).await });
                }
            }
            while let Some(ended) = asking.join_next().await {
                ended??;
            }
            Ok(())
        })
    }

    async fn ask_in_streams(&self, sender: h2::client::SendRequest<bytes::Bytes>) -> Result<(), Failure> {
        while self.goes_on() {
            let request = http::Request::get(format!("https://{NAME}/small")).body(())?;
            let (answer, _) = sender.clone().ready().await?.send_request(request, true)?;
            let answer = tokio::time::timeout(SILENCE, answer).await??;
            if answer.status() != http::StatusCode::OK {
                return Err(format!("status {}", answer.status()).into());
            }
            let mut body = answer.into_body();
            let mut length = 0;
            while let Some(data) = body.data().await {
                let data = data?;
                length += data.len();
                body.flow_control().release_capacity(data.len())?;
            }
            if length != 1024 {
                return Err(format!("{length} bytes").into());
            }
            self.count();
        }
        Ok(())
    }
}

pub struct Place {
    pub proxy_core: usize,
    pub load_core: usize,
    pub origin: SocketAddr,
    pub rounds: u16,
    pub long: Duration,
    pub idle_clients: usize,
}

/// One visit.
#[derive(Clone, Copy)]
struct Seen {
    /// CPU microseconds of the proxy for each.
    cpu: f64,
    rate: f64,
    /// Share of the time in which the proxy could have run but did not get its core.
    wait: f64,
}

impl Place {
    pub fn run(&self, proxies: &[Proxy], secure: &Secure) -> Result<(), Box<dyn Error>> {
        let proxies: Vec<&Proxy> = proxies.iter().filter(|proxy| proxy.kind != Kind::Bare).collect();
        println!("\n{} rounds of {:?}, {CLIENTS} connections; medians of rounds\n", self.rounds, self.long);
        for (title, work) in CELLS {
            let mut all = vec![Vec::new(); proxies.len()];
            for round in 0..self.rounds {
                for (at, proxy) in in_turn(usize::from(round), proxies.iter().enumerate()) {
                    all[at].push(self.measure(proxy, secure, work)?);
                }
            }
            let median = |samples: &[Seen], of: fn(&Seen) -> f64| report::median(samples.iter().map(of).collect());
            let rows = proxies.iter().zip(&all).map(|(proxy, samples)| {
                let cpu = median(samples, |seen| seen.cpu);
                let numbers = [
                    (cpu, 1),
                    (cpu.map(|cpu| 1e6 / cpu), 0),
                    (median(samples, |seen| seen.rate), 0),
                    (median(samples, |seen| seen.wait), 2),
                ];
                (proxy.kind, numbers)
            });
            println!("{}\n", report::tls(title, rows));
        }
        println!("memory of connections that asked once and do nothing, for each");
        for proxy in proxies {
            let (count, each) = self.hold(proxy, secure)?;
            println!("  {:<12} {each:>8.1} KiB ({count} connections)", proxy.kind.name());
        }
        Ok(())
    }

    fn start(&self, proxy: &Proxy, secure: &Secure) -> io::Result<Running> {
        Running::start(proxy, self.origin, self.proxy_core, Some(secure))
    }

    fn measure(&self, proxy: &Proxy, secure: &Secure, work: Work) -> Result<Seen, Box<dyn Error>> {
        let running = self.start(proxy, secure)?;
        let config = match work {
            Work::Handshakes { .. } | Work::Requests => secure.client(Resumption::disabled(), &[])?,
            Work::Streams => secure.client(Resumption::disabled(), &[b"h2"])?,
        };
        let clients = Arc::new(Clients {
            config,
            address: running.address,
            core: self.load_core,
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
        });
        let threads: Vec<_> = (0..if work == Work::Streams { 1 } else { CLIENTS })
            .map(|_| {
                let clients = clients.clone();
                thread::spawn(move || -> Result<(), Failure> {
                    machine::pin(clients.core)?;
                    match work {
                        Work::Handshakes { .. } | Work::Requests => clients.ask_again_and_again(work),
                        Work::Streams => clients.stream(),
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        let processes = running.processes();
        let done = || clients.done.load(Ordering::Relaxed);
        let (began, before, times) = (Instant::now(), done(), machine::times(&processes));
        thread::sleep(self.long);
        let (after, now, took) = (done(), machine::times(&processes), began.elapsed());
        clients.stop.store(true, Ordering::Relaxed);
        for thread in threads {
            let ended = thread.join().map_err(|_| "a client panicked")?;
            ended.map_err(|why| format!("{}: {why}", proxy.kind.name()))?;
        }
        let count = (after - before).max(1) as f64;
        Ok(Seen {
            cpu: (now.running - times.running) as f64 / 1000.0 / count,
            rate: count / took.as_secs_f64(),
            wait: (now.waiting - times.waiting) as f64 / took.as_nanos() as f64,
        })
    }

    /// How many connections that asked once and do nothing, and KiB of the proxy for each.
    fn hold(&self, proxy: &Proxy, secure: &Secure) -> Result<(usize, f64), Box<dyn Error>> {
        let running = self.start(proxy, secure)?;
        let config = secure.client(Resumption::disabled(), &[])?;
        let open = |count: usize| -> Result<Vec<Stream>, Box<dyn Error>> {
            let mut streams = Vec::with_capacity(count);
            for _ in 0..count {
                let mut stream = connect(&config, running.address).map_err(|why| why.to_string())?;
                ask(&mut stream)?;
                streams.push(stream);
            }
            Ok(streams)
        };
        // What any traffic costs once is not the clients' share.
        drop(open(64)?);
        thread::sleep(Duration::from_millis(300));
        let before = machine::pss_kib(&running.processes());
        let mut streams = open(self.idle_clients)?;
        thread::sleep(Duration::from_millis(500));
        let grown = machine::pss_kib(&running.processes()).saturating_sub(before);
        // All are there still: the first, which has waited for longest, is answered again.
        ask(&mut streams[0])?;
        Ok((streams.len(), grown as f64 / streams.len() as f64))
    }
}
