//! The counters of one rollout, per data thread, and its judge.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use super::note::{FailedRequest, Failing, Notes};
use crate::analysis::{Arm, MAX_BUCKET, MIN_BUCKET, bucket_of};
use crate::rollout::{Failure, Judge, replays_allowed};
use crate::routing::{Thread, is_first};

/// Failures that are left to whoever judges; beyond that a thread waits until it can judge them itself.
const WAITING_MAX: usize = 4_096;
const BUCKETS: usize = (MAX_BUCKET - MIN_BUCKET + 1) as usize;
const NEVER: u64 = u64::MAX;
/// All requests, in hundredths of a percent.
const WHOLE: u64 = 10_000;

/// What judges; a type of its own in tests.
pub trait Judging {
    fn succeeded(&mut self, arm: Arm, requests: u64);
    /// Says whether the canary is to be rolled back now.
    fn failed(&mut self, failure: &Failure) -> bool;
}

impl Judging for Judge {
    fn succeeded(&mut self, arm: Arm, requests: u64) {
        Judge::succeeded(self, arm, requests);
    }

    fn failed(&mut self, failure: &Failure) -> bool {
        Judge::failed(self, failure)
    }
}

/// Only its own thread adds to it.
struct Line {
    answered: [AtomicU64; 2],
    latencies: [Box<[AtomicU32]>; 2],
    /// Requests that a mirror stage could copy.
    copyable: AtomicU64,
}

impl Line {
    fn took(&self, arm: Arm, took: Option<Duration>) {
        if let Some(took) = took {
            let bucket = bucket_of(took.as_secs_f64() * 1e3) - MIN_BUCKET;
            self.latencies[at(arm)][bucket as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Bench<J> {
    judge: J,
    /// Successes that the judge knows of, by thread and arm.
    told: Vec<[u64; 2]>,
}

/// What is judged in the order in which it happened.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Failed(Failure),
    /// A good one of the canary, in a match stage.
    Good,
}

pub struct Trial<J> {
    lines: Box<[CachePadded<Line>]>,
    bench: Mutex<Bench<J>>,
    waiting: Mutex<Vec<(Answer, u64)>>,
    has_waiting: AtomicBool,
    /// When the canary was withdrawn, on the clock of `Live::nanos`.
    withdrawn: AtomicU64,
    tripped: Arc<Notify>,
    replays: AtomicU64,
    notes: Notes,
}

impl<J> fmt::Debug for Trial<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("withdrawn", &self.withdrawn).finish_non_exhaustive()
    }
}

impl<J: Judging> Trial<J> {
    /// `tripped` is woken when a data thread has withdrawn the canary.
    pub fn new(judge: J, threads: usize, tripped: Arc<Notify>) -> Trial<J> {
        let buckets = || (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        let line =
            || Line { answered: Default::default(), latencies: [buckets(), buckets()], copyable: AtomicU64::new(0) };
        Trial {
            lines: (0..threads).map(|_| CachePadded::new(line())).collect(),
            bench: Mutex::new(Bench { judge, told: vec![[0; 2]; threads] }),
            waiting: Mutex::default(),
            has_waiting: AtomicBool::new(false),
            withdrawn: AtomicU64::new(NEVER),
            tripped,
            replays: AtomicU64::new(0),
            notes: Notes::default(),
        }
    }

    /// With the failing requests that were known before a restart.
    pub fn with_failing(self, known: [Option<Failing>; 2]) -> Trial<J> {
        Trial { notes: Notes::of(known), ..self }
    }

    /// Which request fails; said before [`Trial::failed`], so that a decision knows it.
    pub fn note(&self, arm: Arm, request: FailedRequest) {
        self.notes.note(arm, request);
    }

    /// Stable's and the canary's.
    pub fn failing(&self) -> [Option<Failing>; 2] {
        self.notes.known()
    }

    /// A good answer. `took`: for exchanges whose length says something (no streams).
    pub fn answered(&self, thread: Thread, arm: Arm, took: Option<Duration>) {
        let Some(line) = self.lines.get(usize::from(thread.0)) else { return };
        let answered = &line.answered[at(arm)];
        answered.store(answered.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        line.took(arm, took);
    }

    /// A good answer of the canary in a match stage. There it is compared with the next one of stable, so it is
    /// judged at once like a failure; such stages have few clients.
    pub fn answered_in_order(&self, thread: Thread, took: Option<Duration>, nanos: u64) {
        if let Some(line) = self.lines.get(usize::from(thread.0)) {
            line.took(Arm::Canary, took);
        }
        self.tell(Answer::Good, nanos);
    }

    /// A failure that was seen at `nanos`: judged before this returns, here or by whoever is judging.
    pub fn failed(&self, failure: Failure, nanos: u64) {
        self.tell(Answer::Failed(failure), nanos);
    }

    fn tell(&self, answer: Answer, nanos: u64) {
        let is_full = {
            let mut waiting = lock(&self.waiting);
            waiting.push((answer, nanos));
            self.has_waiting.store(true, Ordering::SeqCst);
            waiting.len() >= WAITING_MAX
        };
        if is_full {
            // Failures come faster than they are judged: this thread waits for its turn, so none is lost.
            self.settle(&mut lock(&self.bench));
        }
        // Whoever holds the bench looks again after letting go of it, so none is left behind.
        while self.is_waiting() {
            let Some(mut bench) = self.try_bench() else { return };
            self.settle(&mut bench);
        }
    }

    /// Asked after an answer was left, and again after the bench was let go: of two threads that do so at once one must
    /// see what the other has done, whatever the order of memory.
    fn is_waiting(&self) -> bool {
        fence(Ordering::SeqCst);
        self.has_waiting.load(Ordering::SeqCst)
    }

    /// For the writer: everything that is known so far, then `act`.
    pub fn judge<R>(&self, act: impl FnOnce(&mut J) -> R) -> R {
        let result = {
            let mut bench = lock(&self.bench);
            self.settle(&mut bench);
            act(&mut bench.judge)
        };
        while self.is_waiting() {
            let Some(mut bench) = self.try_bench() else { break };
            self.settle(&mut bench);
        }
        result
    }

    /// Latencies since the last call, as bucket and count.
    pub fn take_latencies(&self, arm: Arm, into: &mut impl FnMut(i32, u64)) {
        for bucket in 0..BUCKETS {
            let cells = self.lines.iter().map(|line| &line.latencies[at(arm)][bucket]);
            let count: u64 = cells
                .filter(|cell| cell.load(Ordering::Relaxed) > 0)
                .map(|cell| u64::from(cell.swap(0, Ordering::Relaxed)))
                .sum();
            if count > 0 {
                into(bucket as i32 + MIN_BUCKET, count);
            }
        }
    }

    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire) != NEVER
    }

    pub fn withdrawn_at(&self) -> Option<u64> {
        Some(self.withdrawn.load(Ordering::Acquire)).filter(|at| *at != NEVER)
    }

    /// Nobody is routed to the canary from now on. Says whether this call did it.
    pub fn withdraw(&self, nanos: u64) -> bool {
        let now = nanos.min(NEVER - 1);
        self.withdrawn.compare_exchange(NEVER, now, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The canary is routed to again: it is the writer who decided against the rollback.
    pub fn reinstate(&self, withdrawn_at: u64) {
        // Only what the writer has looked at: a later withdrawal is another one. Whoever lost has been overtaken.
        let _ = self.withdrawn.compare_exchange(withdrawn_at, NEVER, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Whether the next request that could be copied is: exactly the share `bp` of them on each thread, in random order.
    pub fn is_copied(&self, thread: Thread, bp: u16) -> bool {
        let Some(line) = self.lines.get(usize::from(thread.0)) else { return false };
        let turn = line.copyable.load(Ordering::Relaxed);
        line.copyable.store(turn + 1, Ordering::Relaxed);
        is_first(turn, u64::from(bp), WHOLE, u64::from(thread.0) + 1)
    }

    /// Whether one more request may be replayed on stable, within `budget_bp` hundredths of a percent of all.
    pub fn may_replay(&self, budget_bp: u16) -> bool {
        let answered = self.lines.iter().flat_map(|line| &line.answered).map(|count| count.load(Ordering::Relaxed));
        let allowed = replays_allowed(answered.sum(), budget_bp);
        self.replays
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < allowed).then_some(used + 1))
            .is_ok()
    }

    pub fn replays(&self) -> u64 {
        self.replays.load(Ordering::Relaxed)
    }

    /// Unless somebody judges right now.
    fn try_bench(&self) -> Option<MutexGuard<'_, Bench<J>>> {
        match self.bench.try_lock() {
            Ok(bench) => Some(bench),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn settle(&self, bench: &mut Bench<J>) {
        self.has_waiting.store(false, Ordering::SeqCst);
        let answers = std::mem::take(&mut *lock(&self.waiting));
        // Successes first: none that came before a failure may be missing when it is judged.
        for (line, told) in self.lines.iter().zip(&mut bench.told) {
            for arm in [Arm::Stable, Arm::Canary] {
                let now = line.answered[at(arm)].load(Ordering::Relaxed);
                bench.judge.succeeded(arm, now - told[at(arm)]);
                told[at(arm)] = now;
            }
        }
        for (answer, nanos) in answers {
            match answer {
                Answer::Good => bench.judge.succeeded(Arm::Canary, 1),
                Answer::Failed(failure) if bench.judge.failed(&failure) && self.withdraw(nanos) => {
                    self.tripped.notify_one();
                }
                Answer::Failed(_) => {}
            }
        }
    }
}

pub(super) fn at(arm: Arm) -> usize {
    match arm {
        Arm::Stable => 0,
        Arm::Canary => 1,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Counting {
        succeeded: u64,
        failed: u64,
        rolls_back_at: u64,
    }

    impl Judging for Counting {
        fn succeeded(&mut self, _: Arm, requests: u64) {
            self.succeeded += requests;
        }

        fn failed(&mut self, _: &Failure) -> bool {
            self.failed += 1;
            self.failed >= self.rolls_back_at
        }
    }

    const FAILURE: Failure =
        Failure { arm: Arm::Canary, pi: 0.05, bucket: None, status: 500, bad: crate::rollout::Bad::FAILED };

    fn trial(rolls_back_at: u64, threads: usize) -> Trial<Counting> {
        Trial::new(Counting { rolls_back_at, ..Counting::default() }, threads, Arc::default())
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let trial = trial(u64::MAX, 4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let trial = &trial;
                scope.spawn(move || {
                    for at in 0..2_000 {
                        trial.answered(Thread(thread), Arm::Stable, Some(Duration::from_millis(3)));
                        if at % 4 == 0 {
                            trial.failed(FAILURE, 1);
                        }
                    }
                });
            }
        });
        // Before anybody looks: what was left to whoever judged was judged.
        assert!(!trial.has_waiting.load(Ordering::SeqCst), "a failure was left behind");
        assert_eq!(trial.judge(|judge| (judge.succeeded, judge.failed)), (8_000, 2_000));
        let mut latencies = 0;
        trial.take_latencies(Arm::Stable, &mut |_, count| latencies += count);
        assert_eq!(latencies, 8_000);
        trial.take_latencies(Arm::Stable, &mut |_, count| latencies += count);
        assert_eq!(latencies, 8_000, "taken once");
    }

    #[test]
    fn nothing_is_lost_when_failures_come_faster_than_they_are_judged() {
        let trial = trial(u64::MAX, 2);
        let many = WAITING_MAX as u64 * 2;
        std::thread::scope(|scope| {
            // Whoever judges is busy while all of them come in.
            let (begun, has_begun) = std::sync::mpsc::channel();
            let (end, may_end) = std::sync::mpsc::channel::<()>();
            let trial = &trial;
            scope.spawn(move || {
                trial.judge(|_| {
                    begun.send(()).expect("the test waits for it");
                    let _ = may_end.recv();
                });
            });
            has_begun.recv().expect("the judge begins");
            let failing = scope.spawn(move || (0..many).for_each(|nanos| trial.failed(FAILURE, nanos)));
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while lock(&trial.waiting).len() < WAITING_MAX && std::time::Instant::now() < deadline {
                std::thread::yield_now();
            }
            end.send(()).expect("the judge waits for it");
            failing.join().expect("no failure is too many");
        });
        assert_eq!(trial.judge(|judge| judge.failed), many);
    }

    #[test]
    fn the_canary_is_withdrawn_once_by_the_failure_that_breaks_the_rule() {
        let trial = trial(3, 1);
        for nanos in 1..=5 {
            assert_eq!(trial.is_withdrawn(), nanos > 3, "{nanos}");
            trial.failed(FAILURE, nanos);
        }
        assert_eq!(trial.withdrawn_at(), Some(3));
        assert!(!trial.withdraw(9));
    }

    #[test]
    fn good_answers_of_matched_clients_keep_their_place_among_those_of_stable() {
        #[derive(Default)]
        struct Order(Vec<(Arm, u64)>);
        impl Judging for Order {
            fn succeeded(&mut self, arm: Arm, requests: u64) {
                if requests > 0 {
                    self.0.push((arm, requests));
                }
            }
            fn failed(&mut self, failure: &Failure) -> bool {
                self.0.push((failure.arm, 0));
                false
            }
        }
        let trial = Trial::new(Order::default(), 1, Arc::default());
        let stable = || trial.answered(Thread(0), Arm::Stable, None);
        stable();
        trial.answered_in_order(Thread(0), None, 1);
        stable();
        stable();
        trial.failed(FAILURE, 2);
        trial.answered_in_order(Thread(0), None, 3);
        stable();
        let order = trial.judge(|judge| std::mem::take(&mut judge.0));
        let (canary, stable) = (Arm::Canary, Arm::Stable);
        assert_eq!(order, [(stable, 1), (canary, 1), (stable, 2), (canary, 0), (canary, 1), (stable, 1)]);
    }

    #[test]
    fn copies_are_exactly_their_share_on_each_thread() {
        for bp in [1, 100, 1_000, 3_333, 9_999, 10_000] {
            let trial = trial(u64::MAX, 2);
            for thread in [0, 1] {
                let mut copied = 0;
                for asked in 1..=20_000_u32 {
                    copied += u32::from(trial.is_copied(Thread(thread), bp));
                    let due = f64::from(asked) * f64::from(bp) / 10_000.0;
                    assert!((f64::from(copied) - due).abs() < 1.0, "{bp}: {copied} of {asked}");
                }
            }
        }
    }

    #[test]
    fn replays_keep_to_their_share() {
        let trial = trial(u64::MAX, 1);
        let replays = |trial: &Trial<Counting>| (0..100).filter(|_| trial.may_replay(2_000)).count();
        assert_eq!(replays(&trial), 10);
        (0..100).for_each(|_| trial.answered(Thread(0), Arm::Stable, None));
        assert_eq!((replays(&trial), trial.replays()), (20, 30));
    }
}
