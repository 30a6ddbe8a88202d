//! How far the process is on its way out, as client connections see it.

use std::sync::atomic::{AtomicU8, Ordering};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    Serving = 0,
    /// Nothing new is accepted and each answer is the last on its connection; idle connections stay, so
    /// that a request that is on its way is answered.
    LameDuck = 1,
    /// Idle connections are closed.
    CloseIdle = 2,
    /// What still runs is cut.
    Cut = 3,
}

/// Read by every data thread, written a few times in the life of the process.
#[derive(Debug, Default)]
pub struct StageFlag(AtomicU8);

impl StageFlag {
    pub fn get(&self) -> Stage {
        match self.0.load(Ordering::Relaxed) {
            0 => Stage::Serving,
            1 => Stage::LameDuck,
            2 => Stage::CloseIdle,
            _ => Stage::Cut,
        }
    }

    pub fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Release);
    }
}
