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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Source;

    /// The two that write (the thread that keeps the journal, the task that changes what is live) end together.
    #[test]
    fn a_journal_that_has_died_ends_the_process_with_1_after_its_work() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = format!(
            "schema: 1\nstate_dir: {}\nshutdown: {{ pre_drain: 0s, linger: 0s, timeout: 3s }}\nlisteners: {{ web: {{ bind: \"127.0.0.1:0\" }} }}\nroutes: [{{ name: hello, match: {{ path: /hello }}, respond: {{ status: 200, body: hello }} }}]\n",
            dir.path().join("state").display()
        );
        let signals = Signals::listen().expect("registered");
        let instance = Instance::start(Source::Text { name: "test.yaml".into(), text }, 1).expect("started");
        instance.handle.break_journal();
        assert_eq!(serve(instance, signals), ExitCode::FAILURE);
        crate::journal::Journal::open(&dir.path().join("state"), Default::default()).expect("the lock went with it");
    }
}
