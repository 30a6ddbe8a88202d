//! Random numbers for sticky ids: seeded once per thread by the operating system, then without a system call.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<u64> = Cell::new(seed());
}

fn seed() -> u64 {
    // Only uniqueness matters here; the address of a stack variable and the time would do as well.
    getrandom::u64().unwrap_or_else(|_| std::process::id().into())
}

/// splitmix64 (Steele, Lea, Flood 2014).
pub fn next() -> u64 {
    let state = STATE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    STATE.set(state);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
