//! A DNS server of a test's own: UDP, A and AAAA records (RFC 1035, 3596), as small as that can be.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What it says of a name.
#[derive(Debug, Clone)]
pub enum Says {
    /// These addresses, for so many seconds.
    Is(Vec<IpAddr>, u32),
    /// To questions for IPv6 addresses nothing at all; to others these.
    OnlyIpv4Answered(Vec<IpAddr>, u32),
    /// SERVFAIL.
    Fails,
}

#[derive(Default)]
struct Shared {
    zone: HashMap<String, Says>,
    asked: u32,
}

pub struct DnsServer {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    serving: JoinHandle<()>,
}

impl DnsServer {
    pub async fn start(address: SocketAddr) -> DnsServer {
        let socket = UdpSocket::bind(address).await.unwrap_or_else(|why| panic!("{address}: {why}"));
        let shared = Arc::<Mutex<Shared>>::default();
        let serving = tokio::spawn(serve(socket, shared.clone()));
        DnsServer { address, shared, serving }
    }

    /// Names that were never set do not exist.
    pub fn set(&self, name: &str, says: Says) {
        self.shared.lock().unwrap().zone.insert(name.into(), says);
    }

    /// Questions so far.
    pub fn asked(&self) -> u32 {
        self.shared.lock().unwrap().asked
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(socket: UdpSocket, shared: Arc<Mutex<Shared>>) {
    let mut packet = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        if let Some(answer) = answer(&packet[..length], &shared) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

fn answer(question: &[u8], shared: &Mutex<Shared>) -> Option<Vec<u8>> {
    let (mut name, mut at) = (Vec::new(), 12);
    while question[at] != 0 {
        let label = at + 1..at + 1 + usize::from(question[at]);
        name.push(String::from_utf8_lossy(&question[label.clone()]).to_lowercase());
        at = label.end;
    }
    let end = at + 5;
    let is_v6 = question[at + 1..at + 3] == [0, 28];
    let mut shared = shared.lock().unwrap();
    shared.asked += 1;
    let (code, addresses, ttl) = match shared.zone.get(&name.join(".")) {
        None => (3, Vec::new(), 0),
        Some(Says::Fails) => (2, Vec::new(), 0),
        Some(Says::OnlyIpv4Answered(..)) if is_v6 => return None,
        Some(Says::Is(addresses, ttl) | Says::OnlyIpv4Answered(addresses, ttl)) => (0, addresses.clone(), *ttl),
    };
    let addresses: Vec<IpAddr> = addresses.into_iter().filter(|ip| ip.is_ipv6() == is_v6).collect();
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    answer.extend(&question[12..end]);
    for address in addresses {
        // The name again, class IN.
        let octets = match address {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        answer.extend([0xC0, 12, 0, if is_v6 { 28 } else { 1 }, 0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend([0, octets.len() as u8]);
        answer.extend(octets);
    }
    Some(answer)
}
