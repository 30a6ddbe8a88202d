//! A running proxy: one control runtime, its data threads, and what they share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::above::Above;
use super::successor::handed;
use crate::admin::{Admin, token};
use crate::control::ports::Ports;
use crate::control::{Handle, Options, Phase, Source, StartError, Turn};
use crate::endpoints::Checks;
use crate::engine::mirror::Mirror;
use crate::engine::{Services, threads};
use crate::handover::FromWorker;
use crate::net::tls::keeper::Keeper;
use crate::net::{Manager, Stage, StageFlag};
use crate::outcome::CodesRegistry;
use crate::routing::Thread;
use crate::sessions::Drainer;
use crate::sessions::connections::Connections;
use crate::sockets::{Direct, Sockets};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::{Events, Sources, Telemetry};

/// How long the access log may take to write what it has.
const LOG_FLUSH: std::time::Duration = std::time::Duration::from_secs(1);

/// How long a running admin call may take to end.
pub(super) const ADMIN_PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);

pub struct Instance {
    pub handle: Handle,
    pub(super) control: tokio::runtime::Runtime,
    pub(super) listeners: Arc<Manager>,
    pub(super) connections: Arc<Connections>,
    pub(super) drains: Arc<Drainer>,
    pub(super) access_log: AccessLog,
    pub(super) stage: Arc<StageFlag>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) admin: Arc<Admin>,
    pub(super) telemetry: Arc<Telemetry>,
    /// The supervisor, if there is one.
    pub(super) above: Option<Arc<Above>>,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

/// Why a proxy could not start. Its text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error("error: the control runtime cannot be started: {0}")]
    Runtime(std::io::Error),
    #[error("error: a data thread cannot be started: {0}")]
    Thread(std::io::Error),
    #[error("error: the system gives no randomness: {0}")]
    Random(std::io::Error),
    #[error("{0}")]
    Control(#[from] StartError),
    #[error("error: the process does not answer its own request: {0}")]
    Trial(String),
    #[error("error: the admin token cannot be prepared: {0}")]
    Token(std::io::Error),
}

impl Instance {
    /// Everything up and listening, or nothing.
    pub fn start(source: Source, threads: usize) -> Result<Instance, InstanceError> {
        Instance::start_with(source, threads, Arc::new(Direct::new()), None)
    }

    /// [`Instance::start`] with sockets from `sockets`, under a supervisor if there is one.
    pub(super) fn start_with(
        source: Source,
        threads: usize,
        sockets: Arc<dyn Sockets>,
        above: Option<Arc<Above>>,
    ) -> Result<Instance, InstanceError> {
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("control")
            .enable_all()
            .build()
            .map_err(InstanceError::Runtime)?;
        let runtime = control.handle().clone();
        let events = Events::default();
        let connections = Connections::new(threads);
        let codes = Arc::new(CodesRegistry::new(threads));
        let listeners = Manager::closed(sockets.clone()).map_err(InstanceError::Random)?;
        let checks = Checks::start(runtime.clone(), events.clone());
        let drains = Drainer::start(runtime.clone(), connections.clone(), events.clone());
        let access_log = AccessLog::default();
        let telemetry = Arc::new(Telemetry::install());
        let (phase, phase_seen) = watch::channel(Phase::Starting);
        let render = telemetry.clone();
        let admin = Admin::new(runtime, sockets, Arc::new(move || render.render()), phase_seen.clone());
        let ports = Ports {
            listeners: listeners.clone(),
            endpoints: checks.clone(),
            drains: drains.clone(),
            admin: admin.clone(),
            access_log: Arc::new(access_log.clone()),
        };
        let options = Options {
            source,
            threads,
            ports,
            events: events.clone(),
            codes: codes.clone(),
            phase: phase_seen,
            connections: connections.clone(),
            turn: above.clone().map(|above| -> Turn {
                let telemetry = telemetry.clone();
                Box::pin(async move { handed(above.turn().await, &telemetry) })
            }),
        };
        let handle = control.block_on(crate::control::start(options))?;
        let live = handle.live().clone();
        drains.boot(&live.load());
        control.spawn((*telemetry).clone().upkeep());
        let state_dir = live.load().generation.table.config.state_dir.clone();
        if let Some(dir) = &state_dir
            && let Err(why) = listeners.tickets().keep_in(dir)
        {
            tracing::warn!(
                why,
                "ticket keys cannot be kept: TLS clients of this process will not resume with the next"
            );
        }
        control.spawn(Keeper::new(listeners.clone(), live.clone(), events).run());
        let token = token::load_or_create(state_dir.as_deref()).map_err(InstanceError::Token)?;
        admin.attach(handle.clone(), token, above.clone().map(Above::upgrades));
        telemetry.attach(Sources {
            live: live.clone(),
            codes,
            drains: drains.clone(),
            listeners: listeners.clone(),
            access_log: access_log.clone(),
        });
        let (mirror, copies) = Mirror::new();
        control.spawn(crate::engine::copies::run(copies));
        let stage = Arc::new(StageFlag::default());
        let services = Arc::new(Services {
            live,
            connections: connections.clone(),
            passive: checks.passive(),
            access_log: access_log.clone(),
            mirror,
            stage: stage.clone(),
        });
        let stop = CancellationToken::new();
        let spawn = |index| threads::spawn(Thread(index as u16), services.clone(), listeners.subscribe(), stop.clone());
        let threads = (0..threads).map(spawn).collect::<Result<Vec<_>, _>>().map_err(InstanceError::Thread)?;
        if above.is_some() {
            // Who waits for this process to be ready has another one as long as it is not.
            control.block_on(super::trial::pass(&listeners)).map_err(InstanceError::Trial)?;
        }
        phase.send_replace(Phase::Ready);
        listeners.accept();
        let instance = Instance {
            handle,
            control,
            listeners,
            connections,
            drains,
            access_log,
            stage,
            phase,
            admin,
            telemetry,
            above,
            stop,
            threads,
        };
        if let Some(above) = &instance.above {
            instance.tell_ready_timeout(above);
            above.say(&FromWorker::Ready);
        }
        // Last: whoever hears here that this process is ready finds that the supervisor knows.
        instance.admin.accept();
        Ok(instance)
    }

    /// Where a listener is, after a bind to port 0.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.listeners.address(listener)
    }

    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.control.handle()
    }

    /// The supervisor does not read the configuration.
    pub(super) fn tell_ready_timeout(&self, above: &Above) {
        let timeout = self.handle.live().load().generation.table.config.upgrade.ready_timeout;
        let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        above.say(&FromWorker::ReadyTimeout { ms });
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.set(stage);
        self.connections.wake_all();
    }

    /// Ends the threads, whatever still runs on them.
    pub(super) fn end(self) {
        self.stop.cancel();
        for thread in self.threads {
            // A data thread that panicked has said so already.
            let _ = thread.join();
        }
        self.control.block_on(async {
            self.admin.close(ADMIN_PATIENCE).await;
            self.handle.stop().await;
        });
        self.access_log.close(LOG_FLUSH);
        self.control.shutdown_timeout(std::time::Duration::from_millis(500));
    }
}
