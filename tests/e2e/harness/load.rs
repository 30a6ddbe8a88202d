//! Many clients at once that never retry; what they saw is judged at the end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::task::JoinSet;

use super::client::{Client, Outcome, Seen};

/// One exchange, short enough to keep hundreds of thousands.
#[derive(Debug, Clone)]
pub struct Shot {
    pub started: Instant,
    pub generation: u64,
    pub version: String,
    pub status: u16,
    pub outcome: Outcome,
    /// Not the first on its connection.
    pub reused: bool,
}

#[derive(Debug, Default)]
pub struct Report {
    pub shots: Vec<Shot>,
    /// Connections that keep-alive clients opened beyond their first: each stands for one that was closed.
    pub reopened: u64,
}

impl Report {
    pub fn failures(&self) -> Vec<&Shot> {
        self.shots.iter().filter(|shot| shot.outcome != Outcome::Ok || !(200..500).contains(&shot.status)).collect()
    }

    pub fn from(&self, version: &str) -> usize {
        self.shots.iter().filter(|shot| shot.version == version).count()
    }

    /// Nothing failed and nothing was closed.
    pub fn assert_unbroken(&self) {
        let failures = self.failures();
        assert!(!self.shots.is_empty(), "the load sent nothing");
        assert!(failures.is_empty(), "{} of {} failed, first: {:?}", failures.len(), self.shots.len(), failures[0]);
        assert_eq!(self.reopened, 0, "keep-alive connections were closed");
    }
}

#[derive(Clone)]
pub struct Plan {
    pub keep_alive: usize,
    pub fresh: usize,
    pub path: String,
    /// Between two requests of one client.
    pub think: std::time::Duration,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { keep_alive: 8, fresh: 1, path: "/".into(), think: std::time::Duration::from_millis(2) }
    }
}

pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    shots: Arc<Mutex<Vec<Shot>>>,
    clients: JoinSet<u64>,
}

impl Load {
    pub fn start(address: SocketAddr, plan: &Plan) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let shots = Arc::new(Mutex::new(Vec::new()));
        let mut clients = JoinSet::new();
        for nth in 0..plan.keep_alive + plan.fresh {
            let fresh = nth >= plan.keep_alive;
            let (stop, sent, shots, plan) = (stop.clone(), sent.clone(), shots.clone(), plan.clone());
            clients.spawn(async move {
                let mut client = Client::new(address);
                while !stop.load(Ordering::Relaxed) {
                    let seen = client.get(&plan.path).await;
                    sent.fetch_add(1, Ordering::Relaxed);
                    shots.lock().unwrap().push(Shot::of(&seen));
                    if fresh {
                        client.hang_up();
                    }
                    tokio::time::sleep(plan.think).await;
                }
                if fresh { 0 } else { client.opened.saturating_sub(1) }
            });
        }
        Load { stop, sent, shots, clients }
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Until that many more answers came.
    pub async fn more(&self, count: u64) {
        let goal = self.sent() + count;
        super::until("the load makes progress", || async { self.sent() >= goal }).await;
    }

    pub async fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        while let Some(reopened) = self.clients.join_next().await {
            report.reopened += reopened.expect("a client does not panic");
        }
        report.shots = std::mem::take(&mut *self.shots.lock().unwrap());
        report
    }
}

impl Shot {
    fn of(seen: &Seen) -> Shot {
        Shot {
            started: seen.started,
            generation: seen.generation().unwrap_or(0),
            version: seen.version().unwrap_or("").into(),
            status: seen.status,
            outcome: seen.outcome.clone(),
            reused: seen.reused,
        }
    }
}
