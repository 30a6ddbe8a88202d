//! How many of something each client has now. As large as what is open: a client without any is not in the table.

use std::sync::Arc;

use super::Who;
use super::shards::Shards;

#[derive(Debug, Default)]
pub struct PerClient {
    counts: Shards<u32>,
}

/// One of them; given back when dropped.
#[derive(Debug)]
pub struct Entered {
    of: Arc<PerClient>,
    who: Who,
}

impl PerClient {
    /// `None` while the client has `max` of them.
    pub fn try_enter(self: &Arc<Self>, who: Who, max: u32) -> Option<Entered> {
        let mut shard = self.counts.of(who.0);
        let count = shard.entry(who.0).or_insert(0);
        // One that has none has no entry, so this leaves no empty one behind: `max` is at least 1.
        if *count >= max {
            return None;
        }
        *count += 1;
        drop(shard);
        Some(Entered { of: self.clone(), who })
    }

    /// Clients that have any.
    pub fn clients(&self) -> usize {
        self.counts.count()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut shard = self.of.counts.of(self.who.0);
        match shard.get_mut(&self.who.0) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                shard.remove(&self.who.0);
                // After a flood the memory is given back.
                if shard.is_empty() {
                    shard.shrink_to(4);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_and_gives_them_back() {
        let table = Arc::new(PerClient::default());
        let (ada, bob) = (Who(1), Who(2));
        let mut held: Vec<Entered> = (0..3).map(|_| table.try_enter(ada, 3).expect("room")).collect();
        assert!(table.try_enter(ada, 3).is_none());
        let of_bob = table.try_enter(bob, 3).expect("the other has its own");
        held.pop();
        held.push(table.try_enter(ada, 3).expect("one was given back"));
        assert!(table.try_enter(ada, 2).is_none(), "a lowered limit holds for the next");
        assert_eq!(table.clients(), 2);
        drop((held, of_bob));
        assert_eq!(table.clients(), 0, "nothing is left of those that are gone");
    }

    #[test]
    fn no_interleaving_of_threads_goes_beyond_the_limit() {
        let table = Arc::new(PerClient::default());
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for nth in 0..20_000_u64 {
                        if let Some(entered) = table.try_enter(Who(nth % 3), 2) {
                            let now = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            assert!(now < 6, "three clients with two each");
                            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            drop(entered);
                        }
                    }
                });
            }
        });
        assert_eq!(table.clients(), 0);
    }
}
