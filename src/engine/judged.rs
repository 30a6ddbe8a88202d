//! What a request means for the rollout of its service: evidence for the judge, and a second chance for the
//! client.
//!
//! Each *attempt* is judged, so a retry never hides a failure. Counted are only requests whose version was drawn
//! by lot, and those that a match stage sends to the canary, which are compared in a way that needs no lot
//! (`analysis::ErrorJudge::set_paired`): who forced a version, was pinned by a drain, or came to a version because another was not ready
//! says nothing about the two arms. Failed is: no connection, a broken one, no answer in time, a 5xx. A 4xx, a
//! client that left, and what this proxy refused by itself are not; nor is a stale pooled connection that was
//! made up for by a second chance.
//!
//! The *shield*: a canary that fails before the client has seen a byte of the answer is not the client's
//! concern. If the request may run twice, or was never sent, it is asked of stable; the judge sees the failure
//! all the same. A canary that does not answer in time, or that is withdrawn while a request waits for it, has
//! not failed as far as the engine knows: such a request is *recalled* first (see [`super::recall`]). A canary
//! that was withdrawn had no chance to answer, so that attempt says nothing about it.

use http::HeaderMap;
use pingora_proxy::Session;

use super::context::Context;
use super::grpc;
use super::recall::Why;
use crate::analysis::Arm;
use crate::control::Snapshot;
use crate::evidence::{FailedRequest, Stamped};
use crate::net::clock;
use crate::rollout::{self, Bad, Failure};
use crate::routing::{Reason, ServiceIdx};
use crate::telemetry::names;

/// What the judge knows of the present attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Judged {
    #[default]
    Not,
    /// It broke a guardrail, but did not fail.
    Bad,
    Failed,
}

/// How much of a request an endpoint can have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// There was no connection to send it on, or the endpoint says that it has not begun with it.
    Nothing,
    Maybe,
}

impl Context {
    /// The rollout that this request is evidence for, and for which arm.
    pub(super) fn trial(&self) -> Option<(&Stamped, Arm)> {
        let destination = self.destination.as_ref().filter(|_| !self.shielded)?;
        let counts = match destination.choice.reason {
            Reason::Match | Reason::Sticky | Reason::Weight => true,
            Reason::Force | Reason::DrainPin | Reason::FallbackUnhealthy | Reason::Panic => false,
        };
        let stamped = self.held.snapshot.trial(destination.service).filter(|_| counts)?;
        let version = destination.choice.version;
        if version == stamped.canary {
            Some((stamped, Arm::Canary))
        } else {
            (version == stamped.stable).then_some((stamped, Arm::Stable))
        }
    }

    /// The present attempt failed without a final answer.
    pub fn judge_failure(&mut self) {
        // An answer that was bad in another way can still break off. It is one more failure then.
        if self.judged != Judged::Failed {
            self.judged = Judged::Failed;
            self.book(0, Bad::FAILED);
        }
    }

    /// The head of the final answer is here. Says whether it is a failure.
    pub fn judge_head(&mut self, status: u16, headers: &HeaderMap) -> bool {
        self.judge_fields(status, headers)
    }

    /// The trailers of the answer are here: how a gRPC call ended.
    pub fn judge_trailers(&mut self, trailers: &HeaderMap) {
        if self.grpc.is_none() {
            return;
        }
        self.grpc_status = grpc::status(trailers).or(self.grpc_status);
        self.judge_fields(self.status, trailers);
    }

    /// By what stands in the head or the trailers. Says whether it is a failure; without a trial nobody asks.
    fn judge_fields(&mut self, status: u16, fields: &HeaderMap) -> bool {
        let Some((stamped, _)) = self.trial() else { return false };
        let bad = rollout::bad(&stamped.watches, status, fields);
        if bad.is_any() && self.judged == Judged::Not {
            self.judged = if bad.has_failed() { Judged::Failed } else { Judged::Bad };
            self.book(status, bad);
        }
        bad.has_failed()
    }

    fn book(&mut self, status: u16, bad: Bad) {
        if self.trial().is_none() {
            return;
        }
        let id = self.request_id();
        let Some((stamped, arm)) = self.trial() else { return };
        let endpoint = self.attempt.as_ref().and_then(|attempt| attempt.endpoint.ip());
        stamped.trial.note(arm, FailedRequest { id, at: crate::telemetry::unix_ms(), status, endpoint });
        let bucket = self.destination.as_ref().and_then(|to| to.choice.bucket).map(|bucket| bucket.0);
        let failure = Failure { arm, pi: stamped.pi, bucket, status, bad };
        stamped.trial.failed(failure, self.services.live.nanos());
    }

    /// The exchange is over; counts it unless it was judged a failure.
    pub fn judge_end(&mut self, took: std::time::Duration) {
        if self.judged != Judged::Not
            || self.attempt.is_none()
            || self.error.is_some()
            || !(100..500).contains(&self.status)
        {
            return;
        }
        let (Some((stamped, arm)), Some(attempt)) = (self.trial(), &self.attempt) else { return };
        if arm == Arm::Canary {
            attempt.endpoint.warmth.answered(clock::now_ms(), stamped.warm_up);
        }
        // How long a stream stayed says nothing about how fast the version is.
        let connection = &self.link.connection;
        let counts = !self.kind.is_stream() && connection.may_count(connection.current());
        let took = counts.then_some(took);
        let is_matched = self.destination.as_ref().is_some_and(|to| to.choice.reason == Reason::Match);
        match is_matched {
            true => stamped.trial.answered_in_order(self.thread, took, self.services.live.nanos()),
            false => stamped.trial.answered(self.thread, arm, took),
        }
    }

    /// The first attempt begins: its time is evidence, also while it waits, unless its endpoint is a fresh one.
    pub fn time_attempt(&self) {
        let (Some((stamped, arm)), Some(attempt)) = (self.trial(), &self.attempt) else { return };
        let is_warm = arm == Arm::Stable || attempt.endpoint.warmth.is_warm(clock::now_ms(), stamped.warm_up);
        if is_warm && self.attempts == 1 {
            self.link.connection.time_it();
        }
    }

    /// Sends the request to stable after all, if that may be done. Called after the failure was judged.
    pub fn shield(&mut self, session: &Session, sent: Sent) -> bool {
        let method = &session.req_header().method;
        let may_run_again = sent == Sent::Nothing || method.is_safe();
        let is_whole = session.response_written().is_none() && !session.as_ref().retry_buffer_truncated();
        if !may_run_again || !is_whole || self.upgrade.is_some() {
            return false;
        }
        let (Some((_, Arm::Canary)), Some(destination)) = (self.trial(), &self.destination) else { return false };
        stable_takes_one(&self.held.snapshot, destination.service) && self.go_to_stable()
    }

    /// What a recalled attempt says about its endpoint and the canary.
    pub fn judge_recall(&mut self, why: &Why) {
        match why {
            Why::Late | Why::Silent => {
                self.attempt_failed();
                self.judge_failure();
            }
            Why::Withdrawn | Why::Slow(_) => {}
        }
    }

    /// Leaves the canary for stable. Whether that may be was asked before.
    pub fn go_to_stable(&mut self) -> bool {
        let Some((stamped, Arm::Canary)) = self.trial() else { return false };
        let stable = stamped.stable;
        self.end_attempt();
        self.leave_version();
        if let Some(destination) = &mut self.destination {
            destination.choice.version = stable;
        }
        self.shielded = true;
        self.tried.clear();
        self.begin();
        self.link.asked_again();
        if let Some(service) = self.compiled_service() {
            metrics::counter!(names::SHIELDED_TOTAL, "service" => service.name.to_string()).increment(1);
        }
        true
    }
}

/// Stable is there, and the shield's budget has one more replay, which is spent by asking.
pub(super) fn stable_takes_one(snapshot: &Snapshot, service: ServiceIdx) -> bool {
    let Some(stamped) = snapshot.trial(service) else { return false };
    let stable = snapshot.runtime.service(service).version(stamped.stable);
    stamped.shield.is_some_and(|budget| stable.has_ready() && stamped.trial.may_replay(budget))
}
