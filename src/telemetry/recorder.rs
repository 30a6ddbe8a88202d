//! `/metrics`: what the `metrics` recorder holds, then what is read from the cells at the scrape.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::access_log::AccessLog;
use super::carried::Counts;
use super::exposition::Exposition;
use super::series::Series;
use super::{names, process, scrape};
use crate::control::Live;
use crate::control::ports::{Drains, Listeners};
use crate::outcome::CodesRegistry;

/// From a microsecond to ten seconds: a flip is fast, a compile of 100 000 routes is not.
const RARE_BOUNDS: [f64; 15] =
    [1e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.25, 1.0, 10.0];
const UPKEEP_EVERY: Duration = Duration::from_secs(10);

/// What a scrape reads.
#[derive(Clone)]
pub struct Sources {
    pub live: Arc<Live>,
    pub codes: Arc<CodesRegistry>,
    pub drains: Arc<dyn Drains>,
    pub listeners: Arc<dyn Listeners>,
    pub access_log: AccessLog,
}

/// All metrics of the process. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    recorder: PrometheusHandle,
    attached: Arc<Mutex<Option<Attached>>>,
    /// What processes before this one have counted.
    carried: Arc<Mutex<Counts>>,
}

struct Attached {
    sources: Sources,
    series: Series,
}

impl Telemetry {
    /// Makes the process's recorder the one behind the macros of `metrics`, the first time; later calls
    /// share it. What runs in this process (the demo, a test) may call it again.
    pub fn install() -> Telemetry {
        // A global recorder is global by the nature of `metrics`: this is the handle to it.
        static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = INSTALLED.get_or_init(|| {
            let recorder = recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is installed: reloads and flips are not in /metrics");
            }
            begin();
            handle.clone()
        });
        Telemetry::with(handle.clone())
    }

    fn with(recorder: PrometheusHandle) -> Telemetry {
        Telemetry { recorder, attached: Arc::default(), carried: Arc::default() }
    }

    /// From now on, scrapes show these.
    pub fn attach(&self, sources: Sources) {
        let attached = Attached { sources, series: Series::default() };
        *self.attached.lock().expect("no holder panics") = Some(attached);
    }

    /// What a process before this one has counted is shown as counted here.
    pub fn carry(&self, counts: Counts) {
        self.carried.lock().expect("no holder panics").add(counts);
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        let carried = self.carried.lock().expect("no holder panics");
        let text = self.render_own();
        if carried.is_empty() {
            return text;
        }
        let live = self.attached.lock().expect("no holder panics").as_ref().map(|it| it.sources.live.load());
        carried.onto(&text, |service, version| {
            live.as_ref().is_some_and(|live| live.version_named(service, version).is_some())
        })
    }

    fn render_own(&self) -> String {
        let mut text = self.recorder.render();
        let mut out = Exposition::default();
        if let Some(Attached { sources, series }) = &mut *self.attached.lock().expect("no holder panics") {
            scrape::write(sources, series, &mut out);
        }
        process::write(&mut out);
        text.push_str(&out.finish());
        text
    }

    /// Keeps memory flat when nobody scrapes, and notices versions that come and go between scrapes.
    /// Runs until dropped.
    pub async fn upkeep(self) {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            self.recorder.run_upkeep();
            if let Some(Attached { sources, series }) = &mut *self.attached.lock().expect("no holder panics") {
                scrape::observe(sources, &sources.live.load(), series);
            }
        }
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(names::CONFIG_COMPILE_SECONDS.into()), &RARE_BOUNDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full(names::FLIP_SECONDS.into()), &RARE_BOUNDS))
        .expect("the bounds are not empty")
        .build_recorder()
}

/// Describes what goes through the recorder, and gives it its first value: a counter that appears only
/// with its first event hides that event from `rate`.
fn begin() {
    let help = "1 if the configuration on disk is what serves, 0 while it is broken.";
    describe_gauge!(names::CONFIG_LAST_RELOAD_SUCCESSFUL, Unit::Count, help);
    gauge!(names::CONFIG_LAST_RELOAD_SUCCESSFUL).set(1.0);
    let help = "1 while the last known good configuration serves because the file was broken at start.";
    describe_gauge!(names::CONFIG_DEGRADED, Unit::Count, help);
    gauge!(names::CONFIG_DEGRADED).set(0.0);
    let help = "0 while the journal cannot be written: a restart would not remember the newest changes.";
    describe_gauge!(names::JOURNAL_WRITABLE, Unit::Count, help);
    gauge!(names::JOURNAL_WRITABLE).set(1.0);
    let help = "1 if the journal was damaged at the start and its second copy took its place.";
    describe_gauge!(names::JOURNAL_RESTORED, Unit::Count, help);
    gauge!(names::JOURNAL_RESTORED).set(0.0);
    describe_counter!(names::JOURNAL_LOST_TOTAL, Unit::Count, "Records dropped because they could not be written.");
    counter!(names::JOURNAL_LOST_TOTAL).absolute(0);
    describe_counter!(names::CONFIG_RELOADS_TOTAL, Unit::Count, "Times the configuration was read again.");
    for result in ["ok", "unchanged", "invalid", "refused"] {
        counter!(names::CONFIG_RELOADS_TOTAL, "result" => result).absolute(0);
    }
    let help = "Time to parse, check and compile a configuration.";
    describe_histogram!(names::CONFIG_COMPILE_SECONDS, Unit::Seconds, help);
    describe_histogram!(names::FLIP_SECONDS, Unit::Seconds, "Time from the trigger of a change to its being live.");
    let help = "Workers that ended although they were not to, and were started again.";
    describe_counter!(names::WORKER_RESTARTS_TOTAL, Unit::Count, help);
    describe_counter!(names::UPGRADES_TOTAL, Unit::Count, "Upgrades of the running program, by how they ended.");
    let help = "Processes from before an upgrade that still finish what they had.";
    describe_gauge!(names::RETIRED_WORKERS, Unit::Count, help);
    describe_gauge!(names::RETIRED_IN_FLIGHT, Unit::Count, "What processes from before an upgrade have in flight.");
    gauge!(names::RETIRED_WORKERS).set(0.0);
    for kind in ["http", "sse", "websocket", "grpc"] {
        gauge!(names::RETIRED_IN_FLIGHT, "kind" => kind).set(0.0);
    }
    describe_gauge!(names::BUILD_INFO, Unit::Count, "Always 1; the labels say what runs.");
    gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use metrics::histogram;

    use super::super::exposition::strict;
    use super::*;
    use crate::config::model::{Listener, Name};
    use crate::control::Snapshot;
    use crate::control::api::{DrainStatus, ListenerStatus};
    use crate::control::ports::Prepared;
    use crate::endpoints::testing;
    use crate::routing::{Bucket, RouteIdx, Share, Thread, VersionIdx};

    struct Nothing;

    impl Drains for Nothing {
        fn published(&self, _: &Arc<Snapshot>, _: &Arc<Snapshot>) {}
        fn status(&self) -> Vec<DrainStatus> {
            Vec::new()
        }
    }

    impl Listeners for Nothing {
        fn prepare(&self, _: &BTreeMap<Name, Listener>) -> Result<Prepared, String> {
            Err("not in this test".into())
        }
        fn settle(&self, _: &Prepared) {}
        fn commit(&self, _: Prepared) {}
        fn status(&self) -> Vec<ListenerStatus> {
            vec![ListenerStatus {
                name: "web".into(),
                address: String::new(),
                connections: 0,
                draining: false,
                refused: BTreeMap::new(),
                tls: None,
            }]
        }
        fn difference(&self, _: &BTreeMap<Name, Listener>) -> (Vec<String>, Vec<String>) {
            Default::default()
        }
    }

    /// What is in `/metrics`, once it was read by the strict reader.
    fn scrape(telemetry: &Telemetry) -> BTreeMap<String, f64> {
        strict::read(&telemetry.render())
    }

    #[test]
    fn counters_outlive_generations_and_every_family_is_there() {
        let recorder = recorder();
        let telemetry = Telemetry::with(recorder.handle());
        metrics::with_local_recorder(&recorder, begin);
        let codes = Arc::new(CodesRegistry::new(1));
        let both = || testing::compiled("shop", &[("v1", &[1]), ("v2", &[2])], true);
        let first = testing::snapshot(vec![both()], None, &codes);
        let live = Arc::new(Live::new(first.clone(), 1));
        telemetry.attach(Sources {
            live: live.clone(),
            codes: codes.clone(),
            drains: Arc::new(Nothing),
            listeners: Arc::new(Nothing),
            access_log: AccessLog::new(),
        });
        let second = testing::reweighted(&first, vec![Share::Weight(3), Share::Weight(1)]);
        live.store(second.clone());
        drop(first);

        // One request, as the engine counts it.
        let (thread, version) = (Thread(0), VersionIdx(1));
        second.generation.splits[0].tally(thread, version, Some(Bucket(17)));
        second.codes.codes(&second.generation, Some(RouteIdx(0)), Some(version)).count(thread, 200);
        let core = &second.runtime.services[0].versions[1].core;
        core.meter.answered(thread, Duration::from_millis(3));

        let requests = r#"switchback_requests_total{service="shop",version="v2",route="to-shop",code="200"}"#;
        let took = r#"switchback_request_duration_seconds_count{service="shop",version="v2"}"#;
        let seen = scrape(&telemetry);
        assert_eq!((seen[requests], seen[took]), (1.0, 1.0));
        assert_eq!(seen["switchback_config_generation"], 2.0);
        assert_eq!(seen["switchback_generations_live"], 1.0, "nothing holds the first any more");
        let share =
            |of: &str, version: &str| seen[&format!("switchback_split_{of}{{service=\"shop\",version=\"{version}\"}}")];
        assert_eq!((share("weight", "v1"), share("target_share", "v1")), (3.0, 0.75));
        let realised = r#"switchback_split_realised_share{service="shop",version="v2",of="clients"}"#;
        assert_eq!(seen[realised], 1.0);
        for name in ["request_errors_total", "in_flight", "endpoint_healthy", "retries_total", "hold_waiting"] {
            let name = format!("switchback_{name}{{service=\"shop\"");
            assert!(seen.keys().any(|series| series.starts_with(&name)), "{name}");
        }
        assert_eq!(seen["switchback_connections{listener=\"web\"}"], 0.0);
        assert_eq!(seen["switchback_access_log_dropped_total"], 0.0);

        // v2 is removed: what it counted stays for a while, its split and its endpoint are gone.
        let third = testing::snapshot(vec![testing::compiled("shop", &[("v1", &[1])], true)], Some(&second), &codes);
        live.store(third);
        let seen = scrape(&telemetry);
        assert_eq!((seen[requests], seen[took]), (1.0, 1.0));
        assert_eq!(seen["switchback_generations_live"], 2.0, "this test holds the second");
        assert!(!seen.keys().any(|series| series.contains("split") && series.contains("v2")));
    }

    #[test]
    fn what_goes_through_the_recorder_is_there_from_the_start_and_valid() {
        let recorder = recorder();
        let telemetry = Telemetry::with(recorder.handle());
        metrics::with_local_recorder(&recorder, || {
            begin();
            counter!(names::CONFIG_RELOADS_TOTAL, "result" => "ok").increment(2);
            histogram!(names::FLIP_SECONDS).record(3e-6);
            histogram!(names::CONFIG_COMPILE_SECONDS).record(0.2);
        });
        let seen = scrape(&telemetry);
        assert_eq!(seen["switchback_config_reloads_total{result=\"ok\"}"], 2.0);
        assert_eq!(seen["switchback_config_reloads_total{result=\"invalid\"}"], 0.0);
        assert_eq!(seen["switchback_config_last_reload_successful"], 1.0);
        assert_eq!(seen["switchback_flip_seconds_bucket{le=\"0.000005\"}"], 1.0);
        assert_eq!(seen["switchback_config_compile_seconds_sum"], 0.2);
        assert!(seen.contains_key("process_open_fds"));
    }

    #[test]
    fn install_twice_is_one_recorder() {
        let (first, second) = (Telemetry::install(), Telemetry::install());
        counter!(names::CONFIG_RELOADS_TOTAL, "result" => "refused").increment(1);
        for telemetry in [first, second] {
            let seen = scrape(&telemetry);
            assert!(seen["switchback_config_reloads_total{result=\"refused\"}"] >= 1.0);
        }
    }
}
