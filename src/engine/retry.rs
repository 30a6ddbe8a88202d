//! Second chances at another endpoint of the same version, as the service's `retry` says.
//!
//! | What happened | May be asked again |
//! |---|---|
//! | no connection; a stream that the endpoint says it has not begun | any method: nothing ran |
//! | the connection broke, no answer in time, a status of `on` | what may run twice (`methods`), within the budget |
//!
//! Always: the whole request can be sent again (the engine keeps 64 KiB of its body), nothing of an answer has gone
//! to the client, and there is an endpoint that the request has not tried: a ready one, or any one where nothing ran,
//! because that costs nothing and may be all there is. Nor does it cost anything of the budget: who does not take the
//! request has no load to be spared. The last attempt's answer is passed
//! through as it is. A canary's failure is first the judge's and the shield's (see [`super::judged`]).
//!
//! An attempt that stays without an answer for `per_try_timeout` is recalled (see [`super::recall`]); its request
//! goes on waiting if there is nobody else to ask.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, header};
use pingora_error::{Error, ErrorType};
use pingora_proxy::Session;

use super::context::{Attempt, Context};
use super::hedge::{Hedge, Hedging};
use super::recall::{Reach, Waiting, Why};
use super::{entropy, peer, protocol};
use crate::analysis::Arm;
use crate::config::model::{Retry, RetryOn};
use crate::control::Snapshot;
use crate::endpoints::{Ask, At, EndpointRuntime, Picked, VersionRuntime, pick};
use crate::net::clock;
use crate::outcome::RetryReason;
use crate::routing::{ServiceIdx, Thread, VersionIdx};

/// Whom a recalled request would be asked of.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    version: VersionIdx,
    thread: Thread,
    /// Incarnations that are out of the question.
    tried: Vec<u64>,
    current: u64,
}

impl Elsewhere {
    /// Another endpoint is ready, and the budget has one more second chance, which is spent by asking.
    pub fn takes_one(&self, snapshot: &Snapshot, service: ServiceIdx) -> bool {
        let runtime = snapshot.runtime.service(service);
        let policy = &snapshot.generation.table.service(service).service.retry;
        has_another(runtime.version(self.version), &self.tried, self.current, true)
            && runtime.core.budget.take(self.thread, clock::now_ms(), policy.budget_bp)
    }

    /// The endpoint that is asked beside the present one. A version in panic has no load to spare.
    pub fn hedge(mut self, snapshot: &Snapshot, service: ServiceIdx, key: Option<u64>) -> Option<Picked> {
        let runtime = snapshot.runtime.service(service);
        let version = runtime.version(self.version);
        self.tried.push(self.current);
        if version.core.panic.load(Ordering::Relaxed) || !has_another(version, &self.tried, self.current, true) {
            return None;
        }
        let now_ms = clock::now_ms();
        let ask = Ask { avoid: &self.tried, key, ..Ask::new(self.thread, now_ms, entropy::next()) };
        let picked = pick(version, &ask).ok()?;
        let policy = &snapshot.generation.table.service(service).service.retry;
        runtime.core.budget.take(self.thread, now_ms, policy.budget_bp).then_some(picked)
    }
}

/// An endpoint that the request has not tried.
fn has_another(version: &VersionRuntime, tried: &[u64], current: u64, ready: bool) -> bool {
    let is_other = |incarnation| incarnation != current && !tried.contains(&incarnation);
    let serves = |endpoint: &EndpointRuntime| if ready { endpoint.is_ready() } else { endpoint.is_resolved() };
    version.now().endpoints.iter().any(|endpoint| is_other(endpoint.incarnation) && serves(endpoint))
}

/// What broke after there was a connection.
pub fn reason(error: &Error) -> RetryReason {
    match error.etype() {
        _ if protocol::was_refused(error) => RetryReason::Refused,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => RetryReason::Timeout,
        _ => RetryReason::Reset,
    }
}

fn is_wanted(on: &RetryOn, why: RetryReason) -> bool {
    match why {
        RetryReason::Connect => on.connect,
        RetryReason::Refused => on.refused,
        RetryReason::Reset => on.reset,
        RetryReason::Timeout => on.timeout,
        // Who has a status asks for it.
        RetryReason::Status => true,
        // Has rules of its own: RFC 9110 section 9.2.2.
        RetryReason::ReusedStale => false,
    }
}

impl Context {
    fn policy(&self) -> Option<&Retry> {
        self.compiled_service().map(|service| &service.service.retry)
    }

    /// The service counts its requests, so that second chances can be a share of them.
    pub fn count_for_budget(&self) {
        if let (Some(destination), Some(policy)) = (&self.destination, self.policy())
            && (policy.attempts > 0 || policy.hedge_after.is_some())
        {
            self.held.snapshot.runtime.service(destination.service).core.budget.request(self.thread, clock::now_ms());
        }
    }

    /// The present attempt has failed. Sends the request to another endpoint if that may be done; the attempt is
    /// over then.
    pub fn try_elsewhere(&mut self, session: &Session, why: RetryReason) -> bool {
        let (Some(policy), Some(version), Some(attempt)) = (self.policy(), self.version(), &self.attempt) else {
            return false;
        };
        let has_run = match why {
            RetryReason::Connect | RetryReason::Refused => false,
            RetryReason::ReusedStale | RetryReason::Reset | RetryReason::Timeout | RetryReason::Status => true,
        };
        let may_run_again = !has_run || policy.methods.cover(&session.req_header().method);
        let is_whole = session.response_written().is_none() && !session.as_ref().retry_buffer_truncated();
        let has_tries = (self.tried.len() as u32) < policy.attempts;
        // What an upgrade has said to an endpoint nobody keeps.
        let may_move = !has_run || self.upgrade.is_none();
        let is_allowed = is_wanted(&policy.on, why) && may_run_again && is_whole && has_tries && may_move;
        if !is_allowed || !has_another(version, &self.tried, attempt.endpoint.incarnation, has_run) {
            return false;
        }
        let service = self.destination.as_ref().map(|to| self.held.snapshot.runtime.service(to.service));
        if has_run && !service.is_some_and(|it| it.core.budget.take(self.thread, clock::now_ms(), policy.budget_bp)) {
            return false;
        }
        self.go_elsewhere(why);
        true
    }

    /// As [`Context::try_elsewhere`], for an answer with this status.
    pub fn try_elsewhere_after(&mut self, session: &Session, status: u16) -> bool {
        let is_listed = status >= 500 && self.policy().is_some_and(|policy| policy.on.statuses.contains(&status));
        is_listed && self.try_elsewhere(session, RetryReason::Status)
    }

    /// Leaves the present endpoint for another one. Whether that may be was asked before.
    fn go_elsewhere(&mut self, why: RetryReason) {
        for attempt in self.attempt.iter().chain(self.hedging.first()) {
            self.tried.push(attempt.endpoint.incarnation);
        }
        if let Some(version) = self.version() {
            version.core.meter.retried_for(self.thread, why);
        }
        self.end_attempt();
        self.first_byte = None;
    }

    /// An attempt begins to wait for its answer: what may end the wait.
    pub fn waits(&mut self, session: &Session, reach: impl FnOnce(&Context) -> Option<Reach>) {
        let Some(attempt) = self.attempt.as_ref().filter(|_| self.upgrade.is_none()) else { return };
        let Some(destination) = &self.destination else { return };
        let method = &session.req_header().method;
        let policy = self.policy().filter(|policy| {
            let may_run_again = policy.on.timeout && policy.methods.cover(method);
            may_run_again && (self.tried.len() as u32) < policy.attempts
        });
        let wait = policy.and_then(|policy| policy.per_try_timeout);
        let trial = self.trial().filter(|_| method.is_safe());
        let shield = trial.filter(|(stamped, arm)| *arm == Arm::Canary && stamped.shield.is_some());
        let hedge_after = self.hedge_after(session, attempt);
        if wait.is_none() && shield.is_none() && hedge_after.is_none() {
            return;
        }
        let Some(reach) = reach(self) else { return };
        let hedge = hedge_after.and_then(|after| self.hedge(after, session, &reach));
        if wait.is_none() && shield.is_none() && hedge.is_none() {
            return;
        }
        if shield.is_some_and(|(stamped, _)| stamped.trial.is_withdrawn()) {
            // It was routed just before, and whoever recalls may have looked already.
            let client = &self.link.connection;
            client.recall(client.current());
        }
        let elsewhere = wait.and_then(|_| self.elsewhere());
        self.recall.wait(Waiting {
            held: self.held.clone(),
            service: destination.service,
            reach,
            is_shielded: shield.is_some(),
            elsewhere,
            hedge,
        });
        if let Some(wait) = wait {
            self.link.attempt_begins(wait);
        }
        self.recallable = true;
    }

    fn elsewhere(&self) -> Option<Elsewhere> {
        Some(Elsewhere {
            version: self.destination.as_ref()?.choice.version,
            thread: self.thread,
            tried: self.tried.clone(),
            current: self.attempt.as_ref()?.endpoint.incarnation,
        })
    }

    /// The wait before a second endpoint is asked beside this one, if one may be.
    fn hedge_after(&self, session: &Session, attempt: &Attempt) -> Option<Duration> {
        let after = self.policy()?.hedge_after?;
        let request = session.req_header();
        let has_body =
            [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|it| request.headers.contains_key(it));
        let may_be = !has_body && matches!(request.method, Method::GET | Method::HEAD);
        (may_be && matches!((&self.hedging, &attempt.at), (Hedging::Not, At::Ip(_)))).then_some(after)
    }

    fn hedge(&self, after: Duration, session: &Session, reach: &Reach) -> Option<Hedge> {
        let Reach::Socket(socket) = reach else { return None };
        let key = peer::key(&self.version()?.balance, session.req_header(), self);
        socket.is_plain.then(|| Hedge::new(after, self.elsewhere()?, key, socket)).flatten()
    }

    /// Goes where a recalled request goes. `false`: it cannot.
    pub fn follow(&mut self, why: Why) -> bool {
        match why {
            Why::Late | Why::Withdrawn => self.go_to_stable(),
            Why::Silent => {
                self.go_elsewhere(RetryReason::Timeout);
                true
            }
            Why::Slow(second) => {
                self.hedging = Hedging::Begins(second);
                true
            }
        }
    }
}
