//! While another process is about to take over: nothing is decided, and the state is its own.
//!
//! What serves goes on with the generation that is live, counters and judges included. What is asked waits until it
//! is known who answers. A guardrail that breaks, or an operator who wants to go back, does not wait: then this
//! process wants the state back, and there is no upgrade.

use std::collections::VecDeque;

use tokio::sync::{mpsc, oneshot};

use super::api::{Change, Refused, RolloutAction};
use super::controller::Controller;
use super::event::{Ask, Event};

/// How it ends.
pub(crate) enum After {
    /// Decide again; first about what came in the meantime.
    Thawed(VecDeque<Event>),
    Retired,
    /// The process is to end, frozen as it is.
    Stopped(oneshot::Sender<()>),
}

impl Controller {
    /// Lets go of the state, or says why not now.
    pub async fn freeze(&mut self) -> Result<(), String> {
        if let Some(unconfirmed) = &self.unconfirmed {
            let number = unconfirmed.generation;
            return Err(format!("generation {number} waits for its confirmation: confirm it or go back first"));
        }
        self.stand();
        match &self.shared.journal {
            Some(journal) => journal.let_go().await,
            None => Ok(()),
        }
    }

    pub async fn thaw(&mut self) {
        let live = self.live().generation.number();
        if let Some(journal) = &self.shared.journal
            && let Err(error) = journal.take_back(live).await
        {
            // Tried again with every record; `status` says so until it works.
            tracing::error!(%error, "the journal could not be opened again");
        }
        self.stand();
    }
}

/// Until it is known what becomes of this process.
pub(crate) async fn frozen(
    controller: &mut Controller,
    events: &mut mpsc::Receiver<Event>,
    urgent: &mpsc::UnboundedSender<String>,
) -> After {
    let mut kept = VecDeque::new();
    loop {
        let tripped = controller.rollouts.tripped.clone();
        let event = tokio::select! {
            () = tripped.notified() => {
                want_back(urgent, "a rollout has to go back, and that does not wait for an upgrade");
                continue;
            }
            event = events.recv() => event,
        };
        match event {
            Some(Event::Thaw { done }) => {
                controller.thaw().await;
                let _ = done.send(());
                return After::Thawed(kept);
            }
            Some(Event::Retire { done }) => {
                kept.into_iter().for_each(refuse);
                let _ = done.send(());
                return After::Retired;
            }
            Some(Event::Stop { done }) => return After::Stopped(done),
            Some(Event::Freeze { done, .. }) => {
                let _ = done.send(Err("it is frozen already".into()));
            }
            Some(event @ (Event::Asked { .. } | Event::File { .. } | Event::Unwatchable(_))) => {
                if goes_back(&event) {
                    want_back(urgent, "an operator wants to go back, and that does not wait for an upgrade");
                }
                kept.push_back(event);
            }
            None => return After::Retired,
        }
    }
}

fn want_back(urgent: &mpsc::UnboundedSender<String>, why: &str) {
    // Who froze this is gone only with the process.
    let _ = urgent.send(why.into());
}

fn goes_back(event: &Event) -> bool {
    let Event::Asked { ask: Ask::Splits(change), .. } = event else { return false };
    match change {
        Change::Rollback { .. } | Change::Switch { .. } => true,
        Change::Rollout { action, .. } => matches!(action, RolloutAction::Abort { .. }),
        Change::Weights { .. }
        | Change::Drain { .. }
        | Change::Hold { .. }
        | Change::Release { .. }
        | Change::Clear { .. }
        | Change::Confirm { .. }
        | Change::Report { .. }
        | Change::Apply { .. }
        | Change::Reload
        | Change::Revert { .. } => false,
    }
}

fn refuse(event: Event) {
    if let Event::Asked { reply, .. } = event {
        let what = "another process has taken over in the meantime; nothing was changed".into();
        // Who asked may have gone.
        let _ = reply.send(Err(Refused::Conflict { what, hint: Some("ask again: the new process answers".into()) }));
    }
}
