//! How names are looked up: in `/etc/hosts`, then by DNS, with the servers and search domains of `/etc/resolv.conf` or
//! the servers of the configuration. What else a system may know (mDNS, NIS, plugins of nsswitch) is not asked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup as Records;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::system_conf::read_system_conf;

use super::resolve::{Answer, Family, Lookup};
use crate::config::model::{AddressFamily, Dns};

/// For one question to one server; a name that no server answers has failed after a few of these.
const QUESTION: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// What the system's part of a resolver is made of.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

pub(super) fn lookup(dns: &Dns) -> Lookup {
    let resolver = Arc::new(Resolver { dns: dns.clone(), made: Mutex::default() });
    Lookup::new(move |host, port| {
        let resolver = resolver.clone();
        Box::pin(async move { resolver.ask(&host, port).await })
    })
}

struct Resolver {
    dns: Dns,
    made: Mutex<Option<Made>>,
}

struct Made {
    /// When the system's files were changed last.
    of: [Option<SystemTime>; 2],
    resolver: TokioResolver,
}

/// What was learned of one family.
enum Found {
    Records(Records),
    /// There is no such name, or it has no such address.
    Nothing,
    /// Nobody knows.
    Failed(NetError),
}

impl Found {
    fn of(asked: Result<Records, NetError>) -> Found {
        match asked {
            Ok(records) => Found::Records(records),
            Err(error) if error.is_no_records_found() => Found::Nothing,
            Err(error) => Found::Failed(error),
        }
    }
}

impl Resolver {
    async fn ask(&self, host: &str, port: u16) -> io::Result<Answer> {
        let resolver = self.resolver()?;
        let v4 = match self.dns.family {
            AddressFamily::Both | AddressFamily::Ipv4 => Found::of(resolver.lookup(host, RecordType::A).await),
            AddressFamily::Ipv6 => Found::Nothing,
        };
        let v6 = match (self.dns.family, &v4) {
            (AddressFamily::Ipv4, _) => Found::Nothing,
            // Of the same name, if there are several in the search domains.
            (AddressFamily::Both, Found::Records(records)) => {
                Found::of(resolver.lookup(records.query().name().clone(), RecordType::AAAA).await)
            }
            (AddressFamily::Both | AddressFamily::Ipv6, _) => Found::of(resolver.lookup(host, RecordType::AAAA).await),
        };
        self.answer(host, port, v4, v6)
    }

    fn answer(&self, host: &str, port: u16, v4: Found, v6: Found) -> io::Result<Answer> {
        let mut answer = Answer { addresses: Vec::new(), fresh_for: self.dns.ttl_max, unknown: None };
        for (found, family) in [(v4, Family::V4), (v6, Family::V6)] {
            match found {
                Found::Records(records) => {
                    for record in records.answers() {
                        answer.fresh_for = answer.fresh_for.min(Duration::from_secs(u64::from(record.ttl)));
                        let ip: Option<IpAddr> = record.data.ip_addr();
                        answer.addresses.extend(ip.map(|ip| SocketAddr::new(ip, port)));
                    }
                }
                Found::Nothing => {}
                Found::Failed(why) => answer.unknown = Some((family, why.to_string())),
            }
        }
        answer.fresh_for = answer.fresh_for.max(self.dns.ttl_min);
        match (&answer.unknown, answer.addresses.is_empty()) {
            (Some((_, why)), true) => Err(io::Error::other(why.clone())),
            (None, true) => Err(io::Error::other(format!("there is no address for {host}"))),
            (_, false) => Ok(answer),
        }
    }

    /// Made again when the system's files have changed: a container's are written late, a laptop's often.
    fn resolver(&self) -> io::Result<TokioResolver> {
        let changed = |file: &str| Path::new(file).metadata().and_then(|metadata| metadata.modified()).ok();
        let of = FILES.map(changed);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made
            && made.of == of
        {
            return Ok(made.resolver.clone());
        }
        let resolver = self.make()?;
        *made = Some(Made { of, resolver: resolver.clone() });
        Ok(resolver)
    }

    fn make(&self) -> io::Result<TokioResolver> {
        let (config, mut options) = match self.dns.servers.as_slice() {
            // Without the file there may still be `/etc/hosts`.
            [] => read_system_conf().unwrap_or_default(),
            servers => (config_of(servers), ResolverOpts::default()),
        };
        // What is kept, and for how long, is decided by who asks.
        options.cache_size = 0;
        options.timeout = QUESTION;
        options.attempts = ATTEMPTS;
        options.use_hosts_file = ResolveHosts::Always;
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.with_options(options).build().map_err(io::Error::other)
    }
}

fn config_of(servers: &[SocketAddr]) -> ResolverConfig {
    let name_servers = servers.iter().map(|server| {
        let mut one = NameServerConfig::udp_and_tcp(server.ip());
        one.connections.iter_mut().for_each(|connection| connection.port = server.port());
        one
    });
    ResolverConfig::from_parts(None, vec![], name_servers.collect())
}
