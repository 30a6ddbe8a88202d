//! What happens in the show, in order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};

use super::load::{Load, Outcome, Seen};
use super::narrator::{Narrator, by_version, millis};
use super::origin::Origin;
use super::{DemoOptions, Fault};
use crate::control::Source;
use crate::control::api::{Author, Change, Receipt, Refused, Request};
use crate::worker::Instance;

/// Clients that keep their connection, and such that make a new one for each request.
const CLIENTS: (usize, usize) = (24, 4);
const SLOWER_BY: Duration = Duration::from_millis(120);
/// How long the endpoints may take to pass their first health check.
const READY: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Start(#[from] crate::worker::instance::InstanceError),
    #[error("the proxy refused a change: {0}")]
    Refused(String),
    #[error("the example versions did not become healthy within {READY:?}")]
    NotReady,
}

struct Show<'a> {
    narrator: Narrator,
    instance: &'a Instance,
    load: Load,
    beat: Duration,
    /// First request not yet shown.
    shown: usize,
    receipts: Vec<(&'static str, Receipt)>,
}

/// `true`: no request failed that should not have.
pub fn tell(runtime: &tokio::runtime::Runtime, options: &DemoOptions) -> Result<bool, Trouble> {
    let origins = runtime.block_on(async {
        Ok::<_, std::io::Error>([Origin::start("v1").await?, Origin::start("v2").await?, Origin::start("v3").await?])
    })?;
    let threads = crate::engine::threads::default_count().min(2);
    let instance = Instance::start(Source::Text { name: "demo.yaml".into(), text: config(&origins) }, threads)?;
    let told = runtime.block_on(play(&instance, &origins, options));
    instance.shutdown(tokio_util::sync::CancellationToken::new());
    told
}

fn config(origins: &[Origin]) -> String {
    let versions: String = origins
        .iter()
        .map(|origin| format!("      {}: {{ endpoints: [\"{}\"] }}\n", origin.name, origin.address))
        .collect();
    format!(
        "schema: 1\n\
         listeners:\n  web: {{ bind: \"127.0.0.1:0\" }}\n\
         admin: {{ bind: \"127.0.0.1:0\" }}\n\
         expose: {{ response_headers: true }}\n\
         shutdown: {{ pre_drain: 0s, linger: 100ms, timeout: 3s }}\n\
         routes:\n  - {{ name: shop, match: {{ path_prefix: / }}, service: shop }}\n\
         services:\n  shop:\n    versions:\n{versions}    active: v1\n\
         \x20   health: {{ path: /healthz, every: 200ms, timeout: 500ms, pass: 1, fail: 2 }}\n"
    )
}

async fn play(instance: &Instance, origins: &[Origin; 3], options: &DemoOptions) -> Result<bool, Trouble> {
    ready(instance).await?;
    let proxy = instance.address("web").expect("the demo's configuration has a listener `web`");
    let narrator = Narrator::new();
    narrator.title("switchback demo: three versions of `shop`, one proxy, clients that never retry");
    narrator.say(&format!(
        "proxy on http://{proxy}, admin on the same process; {} clients keep their connection, {} do not",
        CLIENTS.0, CLIENTS.1
    ));
    let load = Load::start(&tokio::runtime::Handle::current(), proxy, CLIENTS.0, CLIENTS.1);
    let beat = (options.duration / 20).max(Duration::from_millis(200));
    let mut show = Show { narrator, instance, load, beat, shown: 0, receipts: Vec::new() };

    show.narrator.title("v1 is live");
    show.beats(2).await;

    show.narrator.title("blue-green: everything flips to v2");
    show.change("flip v1 -> v2", switch("v2")).await?;
    show.beats(3).await;
    show.narrator.title("canary: v3 takes 10 %");
    show.change("canary 10 %", weights(90, 10)).await?;
    show.beats(3).await;
    show.narrator.title("canary: v3 takes 50 %");
    show.change("canary 50 %", weights(50, 50)).await?;
    show.beats(2).await;
    show.narrator.title("canary: v3 takes everything");
    show.change("canary 100 %", switch("v3")).await?;
    show.beats(2).await;

    show.narrator.title("the next build of v1 goes live");
    show.change("flip v3 -> v1", switch("v1")).await?;
    show.beats(2).await;
    let fault_at = Instant::now();
    show.narrator.title(&break_it(&origins[0], options.fault));
    show.beats(2).await;
    show.narrator.title("rollback: back to what was live before");
    show.change("rollback to v3", rollback("v1 is broken")).await?;
    let fault_ends = Instant::now();
    show.beats(4).await;

    let Show { narrator, load, receipts, .. } = show;
    let log = load.stop().await;
    let seen = log.since(0);
    // A request that was under way when v1 broke, or when the rollback came, may fail with it.
    let expected = |seen: &Seen| {
        options.fault != Fault::None
            && seen.started + seen.took >= fault_at
            && seen.started <= fault_ends
            && seen.version.as_deref() != Some("v3")
    };
    Ok(summary(&narrator, &seen, &receipts, &expected))
}

fn break_it(v1: &Origin, fault: Fault) -> String {
    match fault {
        Fault::None => "v1 stays well; it is taken back all the same".to_string(),
        Fault::Errors => {
            v1.begin_to_fail();
            "v1 begins to answer one request in three with 500".to_string()
        }
        Fault::Latency => {
            v1.become_slow(SLOWER_BY);
            format!("v1 becomes {SLOWER_BY:?} slower")
        }
        Fault::Crash => {
            v1.crash();
            "v1 crashes: its port is closed, its connections are gone".to_string()
        }
    }
}

fn summary(
    narrator: &Narrator,
    seen: &[Seen],
    receipts: &[(&'static str, Receipt)],
    expected: &dyn Fn(&Seen) -> bool,
) -> bool {
    narrator.title("summary");
    let mut versions = Table::new();
    versions.load_style(UTF8_BORDERS_ONLY).set_header(["version", "requests", "failed", "p50 ms", "p99 ms"]);
    for (version, tally) in by_version(seen) {
        versions.add_row([
            version,
            tally.requests.to_string(),
            tally.failed.to_string(),
            format!("{:.2}", millis(tally.quantile(0.5))),
            format!("{:.2}", millis(tally.quantile(0.99))),
        ]);
    }
    println!("{versions}");
    let mut changes = Table::new();
    changes.load_style(UTF8_BORDERS_ONLY).set_header([
        "change",
        "generation",
        "flip us",
        "last old start us",
        "in flight",
    ]);
    for (what, receipt) in receipts {
        changes.add_row([
            (*what).to_string(),
            receipt.generation.to_string(),
            receipt.flip_micros.to_string(),
            receipt.last_old_start_micros.to_string(),
            receipt.in_flight_at_flip.to_string(),
        ]);
    }
    println!("{changes}");
    let failed: Vec<&Seen> = seen.iter().filter(|seen| seen.outcome != Outcome::Ok).collect();
    let unexpected: Vec<&&Seen> = failed.iter().filter(|seen| !expected(seen)).collect();
    println!(
        "{} requests, {} failed while v1 was broken and live, {} failed that should not have",
        seen.len(),
        failed.len() - unexpected.len(),
        unexpected.len()
    );
    for seen in unexpected.iter().take(10) {
        println!("  unexpected: {:?} from {}", seen.outcome, seen.version.as_deref().unwrap_or("nobody"));
    }
    unexpected.is_empty()
}

impl Show<'_> {
    async fn beats(&mut self, count: usize) {
        for _ in 0..count {
            tokio::time::sleep(self.beat).await;
            let seen = self.load.log.since(self.shown);
            self.shown += seen.len();
            self.narrator.beat(&seen, self.beat);
        }
    }

    async fn change(&mut self, what: &'static str, change: Change) -> Result<(), Trouble> {
        let receipt = request(self.instance, change).await?;
        // What was seen before the change belongs to the line before it.
        self.shown = self.load.log.len();
        self.narrator.receipt(&receipt);
        self.receipts.push((what, receipt));
        Ok(())
    }
}

async fn request(instance: &Instance, change: Change) -> Result<Receipt, Trouble> {
    let request = Request { change, author: Author("demo".into()), if_match: None };
    instance.handle.request(request).await.map_err(|refused| Trouble::Refused(explain(&refused)))
}

fn explain(refused: &Refused) -> String {
    match refused {
        Refused::Invalid { rendered, .. } => rendered.clone(),
        Refused::NotFound { what, .. } | Refused::Conflict { what, .. } | Refused::Failed { what, .. } => what.clone(),
        Refused::Stale { wanted, live } => format!("generation {wanted} was wanted, {live} is live"),
    }
}

async fn ready(instance: &Instance) -> Result<(), Trouble> {
    let snapshot = instance.handle.live().load();
    let all_ready = async {
        while !snapshot.runtime.endpoints().all(|endpoint| endpoint.is_ready()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(READY, all_ready).await.map_err(|_| Trouble::NotReady)
}

fn switch(to: &str) -> Change {
    Change::Switch { to: BTreeMap::from([("shop".to_string(), to.to_string())]), force: false }
}

fn weights(v2: u32, v3: u32) -> Change {
    let weights = BTreeMap::from([("v2".to_string(), v2), ("v3".to_string(), v3)]);
    Change::Weights { to: BTreeMap::from([("shop".to_string(), weights)]), force: false }
}

fn rollback(reason: &str) -> Change {
    Change::Rollback { service: "shop".into(), reason: Some(reason.into()) }
}
