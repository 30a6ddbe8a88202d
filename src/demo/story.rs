//! What happens in the show, in order.

use std::time::{Duration, Instant};

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use tokio::sync::broadcast;

use super::load::{Load, Outcome, Seen};
use super::narrator::{Narrator, by_version, millis};
use super::origin::Origin;
use super::{DemoOptions, Fault};
use crate::control::Source;
use crate::control::api::{Author, Change, EventRecord, Receipt, Refused, Request, RolloutAction, RolloutStatus};
use crate::worker::Instance;

/// Clients that keep their connection, and such that make a new one for each request.
const CLIENTS: (usize, usize) = (24, 4);
const SLOWER_BY: Duration = Duration::from_millis(120);
/// A latency rule cannot look at less.
const SHORTEST_RULE: Duration = Duration::from_secs(1);
/// How long the endpoints may take to pass their first health check.
const READY: Duration = Duration::from_secs(10);
/// The stage in which a version shows its fault, and its share.
const FAULT_AT: (usize, &str) = (2, "25 %");
/// What is left to be seen after that.
const PATIENCE: Duration = Duration::from_secs(60);

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
    #[error("{0} did not happen within {PATIENCE:?}")]
    TooLong(String),
}

struct Show<'a> {
    narrator: Narrator,
    instance: &'a Instance,
    origins: &'a [Origin],
    load: Load,
    beat: Duration,
    /// First request not yet shown.
    shown: usize,
    events: broadcast::Receiver<EventRecord>,
    receipts: Vec<Receipt>,
}

/// `true`: no request failed.
pub fn tell(runtime: &tokio::runtime::Runtime, options: &DemoOptions) -> Result<bool, Trouble> {
    let origins = runtime.block_on(async {
        let mut origins = Vec::new();
        for name in ["v1", "v2", "v3", "v4"].into_iter().take(2 + options.faults.len()) {
            origins.push(Origin::start(name).await?);
        }
        Ok::<_, std::io::Error>(origins)
    })?;
    let threads = crate::engine::threads::default_count().min(2);
    let hold = options.duration / (4 * (1 + options.faults.len()) as u32 + 4);
    let source = Source::Text { name: "demo.yaml".into(), text: config(&origins, "v1", hold) };
    let instance = Instance::start(source, threads)?;
    let told = runtime.block_on(play(&instance, &origins, options, hold));
    instance.stop();
    told
}

/// Stages as in production, with times for a show.
fn config(origins: &[Origin], active: &str, hold: Duration) -> String {
    let versions: String = origins
        .iter()
        .map(|origin| format!("      {}: {{ endpoints: [\"{}\"] }}\n", origin.name, origin.address))
        .collect();
    let (hold, slow) = (hold.as_millis(), hold.max(SHORTEST_RULE).as_millis());
    format!(
        "schema: 1\n\
         listeners:\n  web: {{ bind: \"127.0.0.1:0\" }}\n\
         admin: {{ bind: \"127.0.0.1:0\" }}\n\
         expose: {{ response_headers: true }}\n\
         shutdown: {{ pre_drain: 0s, linger: 100ms, timeout: 3s }}\n\
         routes:\n  - {{ name: shop, match: {{ path_prefix: / }}, service: shop }}\n\
         services:\n  shop:\n    versions:\n{versions}    active: {active}\n\
         \x20   health: {{ path: /healthz, every: 200ms, timeout: 200ms, pass: 1, fail: 2 }}\n\
         \x20   rollout:\n      stages: [5%, 25%, 50%, 100%]\n      shield: {{ budget: 50% }}\n\
         \x20     guardrails: {{ errors: {{ max: 1% }}, latency: {{ max_ratio: 1.5, for: {slow}ms, warm_up: 0s }} }}\n\
         \x20     promote_when: {{ errors_below: 1%, hold: {hold}ms, promote_on_time: true }}\n"
    )
}

async fn play(instance: &Instance, origins: &[Origin], options: &DemoOptions, hold: Duration) -> Result<bool, Trouble> {
    ready(instance).await?;
    let proxy = instance.address("web").expect("the demo's configuration has a listener `web`");
    let narrator = Narrator::new();
    narrator.title("switchback demo: versions of `shop`, one proxy, clients that never retry");
    narrator.say(&format!(
        "proxy on http://{proxy}, admin on the same process; {} clients keep their connection, {} do not",
        CLIENTS.0, CLIENTS.1
    ));
    let load = Load::start(&tokio::runtime::Handle::current(), proxy, CLIENTS.0, CLIENTS.1);
    let beat = (hold / 2).max(Duration::from_millis(200));
    let (_, events) = instance.handle.events().subscribe(0);
    let mut show = Show { narrator, instance, origins, load, beat, shown: 0, events, receipts: Vec::new() };

    show.narrator.title("v1 is live");
    show.beats(2).await;
    show.narrator.title("`active: v2`: the edit is the deployment, and v2 is good");
    show.edit("v2", hold).await?;
    show.until("the promotion of v2", |rollout| rollout.phase == "promoted").await?;
    for (origin, fault) in origins[2..].iter().zip(&options.faults) {
        show.next_version(origin, *fault, hold).await?;
    }
    show.beats(2).await;

    let Show { narrator, load, receipts, .. } = show;
    let log = load.stop().await;
    Ok(summary(&narrator, &log.since(0), &receipts))
}

fn break_it(origin: &Origin, fault: Fault) -> String {
    let (name, share) = (origin.name, FAULT_AT.1);
    match fault {
        Fault::None => format!("{name} stays well"),
        Fault::Errors => {
            origin.begin_to_fail();
            format!("at {share}, {name} begins to answer one request in three with 500")
        }
        Fault::Latency => {
            origin.become_slow(SLOWER_BY);
            format!("at {share}, {name} becomes {SLOWER_BY:?} slower")
        }
        Fault::Crash => {
            origin.crash();
            format!("at {share}, {name} crashes: its port is closed, its connections are gone")
        }
    }
}

fn summary(narrator: &Narrator, seen: &[Seen], receipts: &[Receipt]) -> bool {
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
    for receipt in receipts {
        // The evidence is told above.
        let what = receipt.cause.split(':').next().unwrap_or_default();
        changes.add_row([
            what.to_string(),
            receipt.generation.to_string(),
            receipt.flip_micros.to_string(),
            receipt.last_old_start_micros.to_string(),
            receipt.in_flight_at_flip.to_string(),
        ]);
    }
    println!("{changes}");
    let failed: Vec<&Seen> = seen.iter().filter(|seen| seen.outcome != Outcome::Ok).collect();
    println!("{} requests, {} failed", seen.len(), failed.len());
    for seen in failed.iter().take(10) {
        println!("  {:?} from {}", seen.outcome, seen.version.as_deref().unwrap_or("nobody"));
    }
    failed.is_empty()
}

impl Show<'_> {
    /// One more version, which shows its fault when it has a quarter of the clients.
    async fn next_version(&mut self, origin: &Origin, fault: Fault, hold: Duration) -> Result<(), Trouble> {
        let name = origin.name;
        self.narrator.title(&format!("`active: {name}`"));
        self.edit(name, hold).await?;
        self.until("its second stage", |rollout| rollout.stage == FAULT_AT.0).await?;
        self.beats(1).await;
        self.narrator.title(&break_it(origin, fault));
        match fault {
            Fault::None => self.until("its promotion", |rollout| rollout.phase == "promoted").await,
            Fault::Errors | Fault::Crash => {
                self.until("its rollback", |rollout| rollout.phase == "rolled_back").await?;
                self.beats(2).await;
                Ok(())
            }
            Fault::Latency => {
                self.until("its pause", |rollout| rollout.phase == "paused").await?;
                self.beats(1).await;
                self.narrator.title("somebody looks at it, and says no");
                let action = RolloutAction::Abort { reason: Some("too slow".into()) };
                let receipt = self.request(Change::Rollout { service: "shop".into(), action }).await?;
                self.narrator.receipt(&receipt);
                self.receipts.push(receipt);
                self.until("its rollback", |rollout| rollout.phase == "rolled_back").await
            }
        }
    }

    async fn edit(&mut self, active: &str, hold: Duration) -> Result<(), Trouble> {
        let text = config(self.origins, active, hold);
        self.request(Change::Apply { text, name: "demo.yaml".into(), confirm_ms: None }).await.map(|_| ())
    }

    async fn request(&self, change: Change) -> Result<Receipt, Trouble> {
        let request = Request { change, author: Author("demo".into()), if_match: None };
        let answered = self.instance.handle.request(request).await;
        answered.map_err(|refused| Trouble::Refused(explain(&refused)))
    }

    async fn beats(&mut self, count: usize) {
        for _ in 0..count {
            let until = Instant::now() + self.beat;
            self.tell_until(until, |_| false).await;
        }
    }

    /// Goes on until the rollout is where it should be.
    async fn until(&mut self, what: &str, done: impl Fn(&RolloutStatus) -> bool) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let until = Instant::now() + self.beat;
            if self.tell_until(until, &done).await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Trouble::TooLong(what.into()));
            }
        }
    }

    /// Tells what is decided as it is decided, and at the end of a beat what the clients saw. `true`: done.
    async fn tell_until(&mut self, until: Instant, done: impl Fn(&RolloutStatus) -> bool) -> bool {
        let is_done = |instance: &Instance| {
            let status = instance.handle.status();
            status.services.iter().filter_map(|service| service.rollout.as_ref()).any(&done)
        };
        let mut happened = is_done(self.instance);
        while !happened {
            match tokio::time::timeout_at(until.into(), self.events.recv()).await {
                Ok(Ok(event)) => self.tell(event),
                Ok(Err(_)) => {}
                Err(_) => break,
            }
            happened = is_done(self.instance);
        }
        while let Ok(event) = self.events.try_recv() {
            self.tell(event);
        }
        let seen = self.load.log.since(self.shown);
        if !seen.is_empty() {
            self.shown += seen.len();
            self.narrator.beat(&seen);
        }
        happened
    }

    fn tell(&mut self, event: EventRecord) {
        match event.kind.as_str() {
            "rollout" => self.narrator.say(&format!("  {}", event.message)),
            "receipt" => {
                if let Ok(receipt) = serde_json::from_value::<Receipt>(event.data) {
                    self.narrator.receipt(&receipt);
                    self.receipts.push(receipt);
                }
            }
            _ => {}
        }
    }
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
