//! Answers to the engine's asynchronous phases that are known at once.
//!
//! The engine takes a boxed future from each phase. A phase of ours that waits for nothing gives one without
//! size, which needs no allocation; the signatures in [`super::app`] are written out for that reason.

use std::pin::Pin;
use std::task::{Context, Poll};

use pingora_error::Result;

pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

struct Done;
struct Is<const ANSWER: bool>;
struct Nothing;

impl Future for Done {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl<const ANSWER: bool> Future for Is<ANSWER> {
    type Output = Result<bool>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<bool>> {
        Poll::Ready(Ok(ANSWER))
    }
}

impl Future for Nothing {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

pub fn done<'a>(result: Result<()>) -> Boxed<'a, ()> {
    match result {
        Ok(()) => Box::pin(Done),
        Err(error) => is(Err(error)),
    }
}

/// For answers that have a size, and failures.
pub fn is<'a, T: Send + 'a>(result: Result<T>) -> Boxed<'a, T> {
    Box::pin(std::future::ready(result))
}

pub fn yes<'a>() -> Boxed<'a, bool> {
    Box::pin(Is::<true>)
}

pub fn no<'a>() -> Boxed<'a, bool> {
    Box::pin(Is::<false>)
}

pub fn nothing<'a>() -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(Nothing)
}
