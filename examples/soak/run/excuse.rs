//! Which failures were declared beforehand: what was in flight when something was killed, and nothing else.

use std::time::{Duration, Instant};

/// What an event may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    Nothing,
    /// Exchanges that run on what is killed.
    InFlight,
    /// Exchanges that run, and connections that are open.
    Connections,
}

/// From the first to the last moment of what an event did.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub begin: Instant,
    pub end: Instant,
    pub cost: Cost,
}

/// An exchange that failed.
#[derive(Debug, Clone, Copy)]
pub struct Broken {
    pub begin: Instant,
    pub end: Instant,
    /// No connection could be made: never excused.
    pub refused: bool,
    /// Not the first on its connection.
    pub reused: bool,
}

/// A client finds out that its idle connection is gone when it sends the next request on it.
const THINKS: Duration = Duration::from_millis(300);

impl Span {
    pub fn excuses(&self, broken: &Broken) -> bool {
        if broken.refused || self.cost == Cost::Nothing {
            return false;
        }
        let was_running = broken.begin <= self.end && broken.end >= self.begin;
        let was_open = self.cost == Cost::Connections && broken.reused;
        was_running || (was_open && broken.begin >= self.begin && broken.begin <= self.end + THINKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ran_or_was_open_is_excused() {
        let zero = Instant::now();
        let at = |millis| zero + Duration::from_millis(millis);
        let span = |cost| Span { begin: at(1000), end: at(1010), cost };
        let broken = |begin, end, reused| Broken { begin: at(begin), end: at(end), refused: false, reused };
        for (what, cost, broken, excused) in [
            ("ran across", Cost::InFlight, broken(990, 1005, false), true),
            ("ended before", Cost::InFlight, broken(900, 990, false), false),
            ("began after", Cost::InFlight, broken(1011, 1020, false), false),
            ("began after on an old connection, which stays", Cost::InFlight, broken(1011, 1020, true), false),
            ("began after on a connection that is gone", Cost::Connections, broken(1200, 1201, true), true),
            ("much later on such a connection", Cost::Connections, broken(2000, 2001, true), false),
            ("began after, on a new connection", Cost::Connections, broken(1011, 1012, false), false),
            ("nothing was killed", Cost::Nothing, broken(990, 1005, true), false),
        ] {
            assert_eq!(span(cost).excuses(&broken), excused, "{what}");
        }
        let refused = Broken { refused: true, ..broken(1000, 1001, false) };
        assert!(!span(Cost::Connections).excuses(&refused), "a refused connection is never declared");
    }
}
