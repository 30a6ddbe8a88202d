//! `--tls`: what encryption costs. Full and resumed handshakes, requests over kept connections, and the memory of
//! connections that do nothing, with one certificate (ECDSA P-256) in front of every proxy.
//!
//! The clients take as much of their core as the proxy does of its own, so rates say less than the proxy's
//! CPU time for each.

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
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::machine;
use crate::proxies::{Kind, Proxy, Running};

const NAME: &str = "bench.test";
/// Clients at once.
const CLIENTS: usize = 16;

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

    fn client(&self, resumption: Resumption) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = resumption;
        Ok(Arc::new(config))
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn connect(config: &Arc<ClientConfig>, address: SocketAddr) -> Result<Stream, Box<dyn Error + Send + Sync>> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
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
    /// Requests on kept connections.
    Requests,
}

const CELLS: [(&str, Work); 3] = [
    ("handshake + GET 1 KiB, full", Work::Handshakes { resumed: false }),
    ("handshake + GET 1 KiB, resumed", Work::Handshakes { resumed: true }),
    ("GET 1 KiB, kept", Work::Requests),
];

pub struct Place {
    pub proxy_core: usize,
    pub load_core: usize,
    pub origin: SocketAddr,
    pub rounds: u16,
    pub long: Duration,
    pub idle_clients: usize,
}

impl Place {
    pub fn run(&self, proxies: &[Proxy], secure: &Secure) -> Result<(), Box<dyn Error>> {
        let proxies: Vec<&Proxy> = proxies.iter().filter(|proxy| proxy.kind != Kind::Bare).collect();
        for (title, work) in CELLS {
            println!("{title}: CPU us of the proxy for each (median of {}), for each second", self.rounds);
            let mut all = vec![Vec::new(); proxies.len()];
            for _ in 0..self.rounds {
                for (at, proxy) in proxies.iter().enumerate() {
                    all[at].push(self.measure(proxy, secure, work)?);
                }
            }
            for (proxy, samples) in proxies.iter().zip(&mut all) {
                samples.sort_by(|a, b| a.0.total_cmp(&b.0));
                let (cpu, rate) = samples[samples.len() / 2];
                println!("  {:<12} {cpu:>8.1} us {rate:>8.0}/s", proxy.kind.name());
            }
        }
        println!("{} idle connections: KiB for each", self.idle_clients);
        for proxy in proxies {
            println!("  {:<12} {:>8.1} KiB", proxy.kind.name(), self.hold(proxy, secure)?);
        }
        Ok(())
    }

    fn start(&self, proxy: &Proxy, secure: &Secure) -> io::Result<Running> {
        Running::start(proxy, self.origin, self.proxy_core, Some(secure))
    }

    /// CPU time of the proxy for one, and how many in a second.
    fn measure(&self, proxy: &Proxy, secure: &Secure, work: Work) -> Result<(f64, f64), Box<dyn Error>> {
        let running = self.start(proxy, secure)?;
        let resumption = match work {
            Work::Handshakes { resumed: true } => Resumption::in_memory_sessions(64),
            Work::Handshakes { resumed: false } | Work::Requests => Resumption::disabled(),
        };
        let config = secure.client(resumption)?;
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (config, stop, done) = (config.clone(), stop.clone(), done.clone());
                let (address, core) = (running.address, self.load_core);
                thread::spawn(move || -> Result<(), Box<dyn Error + Send + Sync>> {
                    machine::pin(core)?;
                    let mut kept = None;
                    while !stop.load(Ordering::Relaxed) {
                        let mut stream = match kept.take() {
                            Some(stream) => stream,
                            None => connect(&config, address)?,
                        };
                        ask(&mut stream)?;
                        done.fetch_add(1, Ordering::Relaxed);
                        if work == Work::Requests {
                            kept = Some(stream);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        let processes = running.processes();
        let (began, before, times) = (Instant::now(), done.load(Ordering::Relaxed), machine::times(&processes));
        thread::sleep(self.long);
        let (after, now, took) = (done.load(Ordering::Relaxed), machine::times(&processes), began.elapsed());
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| "a client panicked")?.map_err(|why| why.to_string())?;
        }
        let count = (after - before).max(1) as f64;
        Ok(((now.running - times.running) as f64 / 1000.0 / count, count / took.as_secs_f64()))
    }

    /// KiB of the proxy for one connection that asked once and does nothing.
    fn hold(&self, proxy: &Proxy, secure: &Secure) -> Result<f64, Box<dyn Error>> {
        let running = self.start(proxy, secure)?;
        let config = secure.client(Resumption::disabled())?;
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
        let streams = open(self.idle_clients)?;
        thread::sleep(Duration::from_millis(500));
        let grown = machine::pss_kib(&running.processes()).saturating_sub(before);
        let each = grown as f64 / streams.len() as f64;
        drop(streams);
        Ok(each)
    }
}
