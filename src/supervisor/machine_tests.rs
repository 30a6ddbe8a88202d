//! Stories: what happens on the left, what is done about it on the right.

use std::path::PathBuf;

use super::*;

const PID: u32 = 4000;

struct Told {
    machine: Machine,
    now: Moment,
    did: Vec<Action>,
}

impl Told {
    /// One worker that serves.
    fn serving() -> Told {
        let mut told = Told { machine: Machine::default(), now: Duration::ZERO, did: Vec::new() };
        told.on(Event::Begin);
        told.comes_up(1);
        told
    }

    fn on(&mut self, event: Event) -> &[Action] {
        self.did = self.machine.on(event, self.now);
        &self.did
    }

    fn after(&mut self, time: Duration) -> &mut Told {
        self.now += time;
        self
    }

    fn hello(&mut self, who: Worker) {
        self.on(Event::Hello { from: who, format: FORMAT, version: format!("1.{who}"), pid: PID + who as u32 });
    }

    fn comes_up(&mut self, who: Worker) {
        self.hello(who);
        self.on(Event::WantState { from: who });
        self.on(Event::Ready { from: who });
    }

    /// From the one before it.
    fn takes_over(&mut self, who: Worker) {
        self.hello(who);
        self.on(Event::WantState { from: who });
        self.on(Event::Frozen { from: who - 1 });
        self.on(Event::Ready { from: who });
    }

    fn upgrade(&mut self) -> &[Action] {
        self.on(Event::Upgrade { from: None })
    }

    fn ends(&mut self, who: Worker, how: Exit) -> &[Action] {
        self.on(Event::Exited { who, how })
    }

    /// What the last event led to, without the words.
    fn did(&self) -> Vec<String> {
        let shown = |action: &Action| match action {
            Action::Start { who, program: Program::KnownGood } => Some(format!("start {who}")),
            Action::Start { who, program: Program::New(None) } => Some(format!("start {who} anew")),
            Action::Start { who, program: Program::New(Some(path)) } => Some(format!("start {who} {}", path.display())),
            Action::Send { to, message: ToWorker::Upgraded(outcome) } => {
                Some(format!("{}→{to}", outcome.result.as_str()))
            }
            Action::Send { to, message: ToWorker::Thaw { .. } } => Some(format!("thaw {to}")),
            Action::Send { to, message } => Some(format!("{message:?} {to}").to_lowercase()),
            Action::GiveState { to } => Some(format!("state {to}")),
            Action::Signal { who, signal } => Some(format!("signal {signal} {who}")),
            Action::Kill { who } => Some(format!("kill {who}")),
            Action::Settle { who } => Some(format!("settle {who}")),
            Action::End { code } => Some(format!("end {code}")),
            Action::ForgetState | Action::Replace | Action::Notify(_) | Action::Say { .. } => None,
        };
        self.did.iter().filter_map(shown).collect()
    }

    fn said(&self) -> String {
        let text = |action: &Action| match action {
            Action::Say { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.did.iter().filter_map(text).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn a_crash_starts_the_next_one_at_once_and_a_row_of_them_ever_more_slowly() {
    let mut told = Told::serving();
    told.ends(1, Exit::Signal(9));
    assert_eq!(told.did(), ["start 2"]);
    let mut waits = Vec::new();
    for who in 2..12 {
        told.ends(who, Exit::Code(101));
        let at = told.machine.wake_at().expect("it starts again");
        waits.push((at - told.now).as_millis());
        told.now = at;
        told.on(Event::Time);
        assert_eq!(told.did(), [format!("start {}", who + 1)]);
    }
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000, 10_000]);
    assert_eq!(told.machine.tally.restarts, 11);
    // Once one has lived, the next crash is a first one.
    told.comes_up(12);
    told.after(LONG_LIFE).ends(12, Exit::Signal(11));
    assert_eq!(told.did(), ["start 13"]);
}

#[test]
fn the_first_start_is_the_only_one_that_may_fail() {
    for (how, code) in [(Exit::Code(1), 1), (Exit::Code(2), 2), (Exit::Signal(9), 1), (Exit::Code(0), 0)] {
        let mut told = Told { machine: Machine::default(), now: Duration::ZERO, did: Vec::new() };
        told.on(Event::Begin);
        told.ends(1, how);
        assert_eq!(told.did(), [format!("end {code}")], "{how}");
    }
}

#[test]
fn a_worker_that_hangs_when_it_starts_again_is_ended() {
    let mut told = Told::serving();
    told.ends(1, Exit::Signal(9));
    told.hello(2);
    told.after(READY_TIMEOUT).on(Event::Time);
    assert_eq!(told.did(), ["kill 2"]);
    told.on(Event::Time);
    assert_eq!(told.did(), [""; 0], "once");
    told.ends(2, Exit::Signal(9));
    assert!(told.machine.wake_at().is_some(), "and the next one starts");
}

#[test]
fn an_upgrade_passes_the_state_and_then_the_place() {
    let mut told = Told::serving();
    told.upgrade();
    assert_eq!(told.did(), ["start 2 anew"]);
    told.hello(2);
    told.on(Event::WantState { from: 2 });
    assert_eq!(told.did(), ["freeze 1"], "nobody else decides when 2 gets the state");
    told.on(Event::Frozen { from: 1 });
    assert_eq!(told.did(), ["state 2"]);
    told.after(Duration::from_millis(80)).on(Event::Ready { from: 2 });
    assert_eq!(told.did(), ["settle 2", "ok→1", "ok→2", "retire 1"]);
    told.ends(1, Exit::Code(0));
    assert_eq!(told.did(), [""; 0]);
    // And again.
    told.upgrade();
    assert_eq!(told.did(), ["start 3 anew"]);
}

#[test]
fn what_is_saved_is_gone_on_from() {
    let mut told = Told::serving();
    told.upgrade();
    told.takes_over(2);
    assert!(told.did.contains(&Action::Replace) && told.machine.is_quiet());
    let text = serde_json::to_string(&told.machine).expect("plain data");
    told.machine = serde_json::from_str(&text).expect("as written");
    told.ends(1, Exit::Code(0));
    assert_eq!(told.did(), [""; 0], "it is known to be retired");
    told.ends(2, Exit::Signal(9));
    assert_eq!(told.did(), ["start 3"]);
    assert_eq!(told.machine.tally.upgrades[&UpgradeResult::Ok], 1);
}

#[test]
fn whatever_is_wrong_with_the_new_one_the_old_one_stays() {
    let until_state = |told: &mut Told| {
        told.hello(2);
        told.on(Event::WantState { from: 2 });
        told.on(Event::Frozen { from: 1 });
    };
    // It exits at once, or after it had the state.
    for with_state in [false, true] {
        let mut told = Told::serving();
        told.upgrade();
        if with_state {
            until_state(&mut told);
        }
        told.ends(2, Exit::Code(1));
        let expected: &[&str] = if with_state { &["thaw 1", "failed→1"] } else { &["failed→1"] };
        assert_eq!(told.did(), expected);
        assert!(told.said().contains("exit code 1"), "{}", told.said());
    }
    // It hangs: killed first, and only when it is gone the old one decides again.
    let mut told = Told::serving();
    told.upgrade();
    until_state(&mut told);
    told.after(READY_TIMEOUT).on(Event::Time);
    assert_eq!(told.did(), ["kill 2"]);
    told.on(Event::Ready { from: 2 });
    assert_eq!(told.did(), [""; 0], "too late");
    told.ends(2, Exit::Signal(9));
    assert_eq!(told.did(), ["thaw 1", "failed→1"]);
    assert!(told.said().contains("not ready within 30s"), "{}", told.said());
    // It cannot be started.
    let mut told = Told::serving();
    told.upgrade();
    told.on(Event::NotStarted { who: 2, why: "permission denied".into() });
    assert_eq!(told.did(), ["failed→1"]);
    assert!(told.said().contains("permission denied"));
    // It speaks another language.
    let mut told = Told::serving();
    told.upgrade();
    told.on(Event::Hello { from: 2, format: FORMAT + 1, version: "9".into(), pid: 1 });
    assert_eq!(told.did(), ["kill 2"]);
    // And in every case the next upgrade is welcome.
    told.ends(2, Exit::Signal(9));
    told.upgrade();
    assert_eq!(told.did(), ["start 3 anew"]);
}

#[test]
fn a_frozen_worker_that_must_decide_gets_the_state_back() {
    let mut told = Told::serving();
    told.upgrade();
    told.hello(2);
    told.on(Event::WantState { from: 2 });
    told.on(Event::Frozen { from: 1 });
    told.on(Event::Reclaim { from: 1, why: "a guardrail is broken".into() });
    assert_eq!(told.did(), ["kill 2"]);
    told.ends(2, Exit::Signal(9));
    assert_eq!(told.did(), ["thaw 1", "failed→1"]);
    assert!(told.said().contains("a guardrail is broken"));
    // Too late: the successor has it, and sees for itself.
    told.upgrade();
    told.hello(3);
    told.on(Event::WantState { from: 3 });
    told.on(Event::Ready { from: 3 });
    assert_eq!(told.did(), [""; 0], "it cannot be: it has no state");
    told.on(Event::Frozen { from: 1 });
    told.on(Event::Ready { from: 3 });
    told.on(Event::Reclaim { from: 1, why: "a guardrail is broken".into() });
    assert_eq!(told.did(), [""; 0]);
}

#[test]
fn one_that_cannot_be_frozen_now_says_so() {
    let mut told = Told::serving();
    told.upgrade();
    told.hello(2);
    told.on(Event::WantState { from: 2 });
    told.on(Event::NotNow { from: 1, why: "generation 7 waits for its confirmation".into() });
    assert_eq!(told.did(), ["kill 2"]);
    told.ends(2, Exit::Signal(9));
    assert!(told.said().contains("generation 7 waits"), "{}", told.said());
}

#[test]
fn upgrades_come_one_at_a_time_and_only_to_what_serves() {
    let asked = Asked { ask: 5, binary: Some(PathBuf::from("/opt/new")), author: "ada".into(), from: "here".into() };
    let mut told = Told::serving();
    told.on(Event::Upgrade { from: Some((1, asked.clone())) });
    assert_eq!(told.did(), ["start 2 /opt/new"]);
    told.upgrade();
    assert_eq!(told.did(), ["refused→1"]);
    assert!(told.said().contains("one at a time"));

    let mut told = Told::serving();
    told.ends(1, Exit::Signal(9));
    told.upgrade();
    assert_eq!(told.did(), ["refused→2"], "whoever serves next hears of it");
    assert_eq!(told.machine.tally.upgrades[&UpgradeResult::Refused], 1);
}

#[test]
fn those_that_finish_are_bounded() {
    let mut told = Told::serving();
    for who in 2..2 + RETIRED_MAX as u64 {
        told.upgrade();
        told.takes_over(who);
    }
    told.upgrade();
    assert_eq!(told.machine.tally.upgrades[&UpgradeResult::Refused], 1, "{}", told.said());
    told.ends(3, Exit::Code(0));
    told.upgrade();
    assert_eq!(told.machine.tally.upgrades[&UpgradeResult::Refused], 1);
}

#[test]
fn a_crash_of_the_old_one_in_an_upgrade_goes_back_to_what_is_known() {
    let mut told = Told::serving();
    told.upgrade();
    told.hello(2);
    told.ends(1, Exit::Signal(11));
    assert_eq!(told.did(), ["kill 2", "start 3"]);
    told.ends(2, Exit::Signal(9));
    told.comes_up(3);
    assert!(told.machine.is_serving());
}

#[test]
fn a_stop_waits_for_all_and_ends_with_the_worst_code() {
    let mut told = Told::serving();
    told.upgrade();
    told.takes_over(2);
    told.on(Event::Stop { signal: 15 });
    assert_eq!(told.did(), ["signal 15 1", "signal 15 2"]);
    told.ends(1, Exit::Code(3));
    assert_eq!(told.did(), [""; 0]);
    told.on(Event::Stop { signal: 2 });
    assert_eq!(told.did(), ["signal 2 2"], "a second one hurries");
    told.ends(2, Exit::Code(0));
    assert_eq!(told.did(), ["end 3"]);
}

#[test]
fn a_stop_before_the_worker_can_hear_it_is_a_clean_end() {
    let mut told = Told { machine: Machine::default(), now: Duration::ZERO, did: Vec::new() };
    told.on(Event::Begin);
    assert!(!told.machine.can_hear(1));
    told.on(Event::Stop { signal: 15 });
    told.ends(1, Exit::Signal(15));
    assert_eq!(told.did(), ["end 0"]);

    let mut told = Told::serving();
    assert!(told.machine.can_hear(1));
    told.on(Event::Stop { signal: 15 });
    told.ends(1, Exit::Signal(11));
    assert_eq!(told.did(), ["end 1"], "this one had work to finish");
}

#[test]
fn a_stop_between_two_workers_is_no_clean_end() {
    let mut told = Told::serving();
    for who in 1..3 {
        told.ends(who, Exit::Signal(9));
    }
    told.on(Event::Stop { signal: 15 });
    assert_eq!(told.did(), ["end 1"]);
}

#[test]
fn a_stop_ends_an_upgrade_first() {
    let mut told = Told::serving();
    told.upgrade();
    told.on(Event::Stop { signal: 15 });
    assert_eq!(told.did(), ["kill 2", "signal 15 1", "signal 15 2"]);
    told.ends(2, Exit::Signal(9));
    told.ends(1, Exit::Code(0));
    assert_eq!(told.did(), ["end 0"]);
}

#[test]
fn a_worker_that_somebody_else_told_to_end_takes_us_with_it() {
    let mut told = Told::serving();
    told.ends(1, Exit::Code(0));
    assert_eq!(told.did(), ["end 0"]);
}
