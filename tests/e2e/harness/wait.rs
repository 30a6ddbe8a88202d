//! Waiting for a state, never for a time.

use std::future::Future;
use std::time::{Duration, Instant};

/// Long enough for a busy machine, short enough that a broken test ends.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the answer is yes; panics with `what` when the deadline passes.
pub async fn within<F>(deadline: Duration, what: &str, mut holds: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let end = Instant::now() + deadline;
    while !holds().await {
        assert!(Instant::now() < end, "still not so after {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// [`within`] the usual patience.
pub async fn until<F>(what: &str, holds: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    within(PATIENCE, what, holds).await;
}

/// The future's value, or a panic with `what` when it takes longer than the usual patience.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not finished after {PATIENCE:?}: {what}"),
    }
}
