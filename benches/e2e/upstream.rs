//! `--upstream-tls`: what encryption towards endpoints costs. Clients speak plain HTTP/1.1; between proxy and endpoint a
//! connection is kept or made for each request, plain or encrypted, the handshake whole or resumed. Everybody verifies
//! the endpoint by a file of authorities.
//!
//! The endpoint leaves nothing to choose but TLS 1.3 with AES-128-GCM and X25519, and counts the handshakes.

use std::error::Error;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{HandshakeKind, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::load::Ask;
use crate::proxies::{Endpoint, Kind, Proxy, Running, in_turn};
use crate::report::{self, Upstream};
use crate::{Place, machine, origin};

const NAME: &str = "bench.test";
/// Connections of clients, and as many to the endpoint at most.
const CLIENTS: usize = 16;

/// How requests reach the endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Plain { kept: bool },
    Kept,
    Full,
    Resumed,
}

const CELLS: [(&str, Way); 5] = [
    ("plain, kept", Way::Plain { kept: true }),
    ("TLS, kept", Way::Kept),
    ("plain, a connection each", Way::Plain { kept: false }),
    ("TLS, a connection each, full", Way::Full),
    ("TLS, a connection each, resumed", Way::Resumed),
];

impl Way {
    fn keeps(self) -> bool {
        matches!(self, Way::Plain { kept: true } | Way::Kept)
    }
}

pub fn run(place: &Place, proxies: &[Proxy], rounds: u16, long: Duration) -> Result<(), Box<dyn Error>> {
    let proxies: Vec<&Proxy> = proxies.iter().filter(|proxy| proxy.kind != Kind::Bare).collect();
    let authority = Authority::new()?;
    let ask = Ask { path: "/small", body: 0, clients: CLIENTS, every: None, ramp: Duration::ZERO };
    println!("\n{rounds} rounds of {long:?}, {CLIENTS} clients; medians of rounds\n");
    for (title, way) in CELLS {
        let mut all = vec![Vec::new(); proxies.len()];
        for round in 0..rounds {
            let round = usize::from(round);
            for (at, proxy) in in_turn(round, proxies.iter().enumerate()) {
                all[at].push(measure(place, proxy, &authority, way, &ask, (round, long))?);
            }
        }
        let rows = proxies.iter().zip(&all).map(|(proxy, samples)| (proxy.kind, &samples[..]));
        println!("{}\n", report::upstream(title, rows));
    }
    Ok(())
}

fn measure(
    place: &Place,
    proxy: &Proxy,
    authority: &Authority,
    way: Way,
    ask: &Ask,
    (round, long): (usize, Duration),
) -> Result<Upstream, Box<dyn Error>> {
    // One for each visit: what a proxy remembers of another is of no use to it.
    let origin = Origin::start(place.load_core, authority, way)?;
    let ca_file = authority.folder.path().join("ca.pem");
    let encrypted = !matches!(way, Way::Plain { .. });
    let endpoint = Endpoint { address: origin.address, encrypted: encrypted.then_some((&ca_file, NAME)) };
    let running = Running::start_before(proxy, endpoint, place.proxy_core)?;
    let sample = place.measure_running(&running, ask, round, long)?;
    let [full, resumed, plain, answered] = origin.counts.all();
    let failed = |what: String| Err(format!("{}, {way:?}: {what}", proxy.kind.name()).into());
    if sample.broken > 0 || answered == 0 {
        return failed(format!("{} requests were broken, {answered} answered", sample.broken));
    }
    let made = full + resumed + plain;
    if way.keeps() && made > answered / 10 || !way.keeps() && made < answered {
        return failed(format!("{made} connections for {answered} requests"));
    }
    if way == Way::Full && resumed > 0 || encrypted && plain > 0 || !encrypted && full + resumed > 0 {
        return failed(format!("{full} full, {resumed} resumed, {plain} plain"));
    }
    let share = |part: u64, of: u64| part as f64 / of.max(1) as f64;
    Ok(Upstream { sample, connections: share(made, answered), resumed: share(resumed, full + resumed) })
}

/// Who vouches for the endpoint.
struct Authority {
    folder: TempDir,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Authority {
    fn new() -> Result<Authority, Box<dyn Error>> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "bench authority");
        let key = KeyPair::generate()?;
        let own = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![NAME.to_string()])?.signed_by(&key, &issuer)?;
        let folder = tempfile::Builder::new().prefix("switchback-bench-").tempdir()?;
        fs::write(folder.path().join("ca.pem"), own.pem())?;
        Ok(Authority { folder, certificate: certificate.der().clone(), key: key.serialize_der() })
    }

    fn server(&self, way: Way) -> Result<ServerConfig, Box<dyn Error>> {
        let mut provider = ring::default_provider();
        provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![ring::kx_group::X25519];
        let builder = ServerConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?.with_no_client_auth();
        let key = PrivateKeyDer::try_from(self.key.clone())?;
        let mut config = builder.with_single_cert(vec![self.certificate.clone()], key)?;
        match way {
            Way::Resumed => config.ticketer = ring::Ticketer::new()?,
            Way::Full => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
            Way::Plain { .. } | Way::Kept => {}
        }
        Ok(config)
    }
}

#[derive(Default)]
struct Counts {
    full: AtomicU64,
    resumed: AtomicU64,
    plain: AtomicU64,
    answered: AtomicU64,
}

impl Counts {
    fn all(&self) -> [u64; 4] {
        [&self.full, &self.resumed, &self.plain, &self.answered].map(|count| count.load(Ordering::Relaxed))
    }
}

/// An endpoint that serves until this is dropped.
struct Origin {
    address: SocketAddr,
    counts: Arc<Counts>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Origin {
    fn start(core: usize, authority: &Authority, way: Way) -> Result<Origin, Box<dyn Error>> {
        let acceptor = match way {
            Way::Plain { .. } => None,
            Way::Kept | Way::Full | Way::Resumed => Some(TlsAcceptor::from(Arc::new(authority.server(way)?))),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(async { TcpListener::bind("127.0.0.1:0").await })?;
        let (address, counts) = (listener.local_addr()?, Arc::<Counts>::default());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = serve(listener, acceptor, way.keeps(), counts.clone());
        let thread = thread::spawn(move || {
            if let Err(problem) = machine::pin(core) {
                eprintln!("the endpoint is on another core: {problem}");
            }
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    _ = serving => {}
                }
            });
        });
        Ok(Origin { address, counts, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, keeps: bool, counts: Arc<Counts>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, counts) = (acceptor.clone(), counts.clone());
        // A connection that breaks is a broken request, which the clients count.
        tokio::spawn(async move { connection(stream, acceptor, keeps, &counts).await });
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, keeps: bool, counts: &Counts) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = acceptor else {
        counts.plain.fetch_add(1, Ordering::Relaxed);
        return answer(stream, keeps, counts).await;
    };
    let stream = acceptor.accept(stream).await?;
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    if resumed { &counts.resumed } else { &counts.full }.fetch_add(1, Ordering::Relaxed);
    answer(stream, keeps, counts).await
}

/// 1 KiB for each head.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, keeps: bool, counts: &Counts) -> io::Result<()> {
    let close = if keeps { "" } else { "Connection: close\r\n" };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n{}: 0\r\n{close}\r\n", origin::HEADER);
    let whole = [head.as_bytes(), &[b'x'; 1024]].concat();
    let mut seen = Vec::new();
    loop {
        if stream.read_buf(&mut seen).await? == 0 {
            return Ok(());
        }
        if !seen.ends_with(b"\r\n\r\n") {
            continue;
        }
        seen.clear();
        counts.answered.fetch_add(1, Ordering::Relaxed);
        stream.write_all(&whole).await?;
        stream.flush().await?;
        if !keeps {
            return stream.shutdown().await;
        }
    }
}
