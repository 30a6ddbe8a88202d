//! Signals: SIGTERM and SIGINT end the process gracefully, a second one at once; SIGHUP reloads; SIGUSR1
//! reopens the access log.

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::instance::Instance;
use crate::control::api::{Author, Change, Request};

/// Exit code when work was cut.
const CUT: u8 = 3;

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    reopen: Signal,
}

impl Signals {
    /// Before anything can be seen of the process: from then on a signal waits until [`serve`] looks,
    /// instead of ending the process on the spot.
    pub fn listen() -> std::io::Result<Signals> {
        // Registering asks for a runtime; what is heard goes to whichever runs later.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _inside = runtime.enter();
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {}, _ = self.interrupt.recv() => {} }
    }
}

/// Serves until told to stop.
pub fn serve(instance: Instance, mut signals: Signals) -> ExitCode {
    let runtime = instance.runtime().clone();
    let reason = runtime.block_on(until_end(&instance, &mut signals));
    let hurry = CancellationToken::new();
    let second = hurry.clone();
    runtime.spawn(async move {
        signals.end().await;
        warn!("second signal: ending now");
        second.cancel();
    });
    let ended = instance.shutdown(hurry);
    match reason {
        Reason::ControlLost => ExitCode::FAILURE,
        Reason::Told if ended.cut > 0 => ExitCode::from(CUT),
        Reason::Told => ExitCode::SUCCESS,
    }
}

/// Why the process ends.
enum Reason {
    Told,
    /// Control has died: whoever runs the process is to start it again.
    ControlLost,
}

async fn until_end(instance: &Instance, signals: &mut Signals) -> Reason {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Reason::Told,
            _ = signals.interrupt.recv() => return Reason::Told,
            () = instance.handle.lost() => {
                error!("control has ended unexpectedly: nothing can be changed any more; finishing what runs and ending");
                return Reason::ControlLost;
            }
            _ = signals.hangup.recv() => {
                let request = Request { change: Change::Reload, author: Author("signal:SIGHUP".into()), if_match: None };
                match instance.handle.request(request).await {
                    Ok(receipt) => info!(generation = receipt.generation, changed = receipt.changed, "reloaded on SIGHUP"),
                    Err(refused) => warn!(?refused, "reload on SIGHUP refused; the running generation keeps serving"),
                }
            }
            _ = signals.reopen.recv() => instance.access_log.reopen(),
        }
    }
}
