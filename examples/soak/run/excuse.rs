//! Which failures were declared beforehand: what was in flight when something was killed, and nothing else.

use std::time::Instant;

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
    /// Not the first on its connection, which was there at this moment.
    pub kept_since: Option<Instant>,
}

impl Span {
    pub fn excuses(&self, broken: &Broken) -> bool {
        if broken.refused || self.cost == Cost::Nothing {
            return false;
        }
        let was_running = broken.begin <= self.end && broken.end >= self.begin;
        // A client finds out that its idle connection is gone when it sends the next request on it.
        let was_open = self.cost == Cost::Connections && broken.kept_since.is_some_and(|since| since <= self.end);
        was_running || (was_open && broken.begin >= self.begin)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_ran_or_was_open_is_excused() {
        let zero = Instant::now();
        let at = |millis| zero + Duration::from_millis(millis);
        let span = |cost| Span { begin: at(1000), end: at(1010), cost };
        let broken = |begin, end, kept_since: u64| {
            let kept_since = (kept_since > 0).then(|| at(kept_since));
            Broken { begin: at(begin), end: at(end), refused: false, kept_since }
        };
        for (what, cost, broken, excused) in [
            ("ran across", Cost::InFlight, broken(990, 1005, 0), true),
            ("ended before", Cost::InFlight, broken(900, 990, 0), false),
            ("began after", Cost::InFlight, broken(1011, 1020, 0), false),
            ("began after on an old connection, which stays", Cost::InFlight, broken(1011, 1020, 980), false),
            ("began after on a connection that is gone", Cost::Connections, broken(1200, 1201, 980), true),
            ("began after on a connection that was made after", Cost::Connections, broken(1200, 1201, 1150), false),
            ("began after, on a new connection", Cost::Connections, broken(1011, 1012, 0), false),
            ("nothing was killed", Cost::Nothing, broken(990, 1005, 980), false),
        ] {
            assert_eq!(span(cost).excuses(&broken), excused, "{what}");
        }
        let refused = Broken { refused: true, ..broken(1000, 1001, 0) };
        assert!(!span(Cost::Connections).excuses(&refused), "a refused connection is never declared");
    }
}
