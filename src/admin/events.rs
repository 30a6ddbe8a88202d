//! What happens, as server-sent events: `id`, `event` (the kind) and `data` (the record as JSON).
//!
//! A subscriber that was away names the last event it saw (`Last-Event-ID`, or `?after=`) and gets what
//! is still kept; `?after=0` asks for everything kept. One that does not keep up is told how much it
//! missed and is let go, so that it can come back and no queue grows.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::body::{self, Body, Response};
use super::problem::Problem;
use super::query::Query;
use crate::control::api::EventRecord;
use crate::telemetry::Events;

/// Subscribers at once; more are refused, so that none of them can keep an operator out.
pub const SUBSCRIBERS_MAX: usize = 64;
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that may wait for one subscriber, beside those in [`Events`] itself.
const WAITING: usize = 16;

pub fn stream(
    events: &Events,
    headers: &HeaderMap,
    query: &mut Query,
    permit: OwnedSemaphorePermit,
    stop: CancellationToken,
) -> Result<Response, Problem> {
    let after = last_seen(headers, query)?;
    // All kept events, because ids begin again with the process: a last id beyond ours is of an earlier one.
    let (kept, live) = events.subscribe(0);
    let newest = kept.last().map_or(0, |record| record.id);
    let after = match after {
        None => newest,
        Some(after) if after > newest => 0,
        Some(after) => after,
    };
    let missed: Vec<_> = kept.into_iter().filter(|record| record.id > after).collect();
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let _permit = permit;
        // Whatever ends first ends the stream: the subscriber, the address, the process.
        let _ = feed(missed, live, &sender, &stop).await;
    });
    Ok(body::with_headers(StatusCode::OK, "text/event-stream", Body::Stream(receiver)))
}

fn last_seen(headers: &HeaderMap, query: &mut Query) -> Result<Option<u64>, Problem> {
    let asked = query.take("after").map_err(Problem::bad_request)?;
    let header = headers.get("last-event-id").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let Some(text) = header.or(asked) else { return Ok(None) };
    let id = text.trim().parse().map_err(|_| Problem::bad_request(format!("`{text}` is not the id of an event")))?;
    Ok(Some(id))
}

/// The subscriber has gone.
struct Gone;

async fn feed(
    missed: Vec<EventRecord>,
    mut live: broadcast::Receiver<EventRecord>,
    to: &mpsc::Sender<Bytes>,
    stop: &CancellationToken,
) -> Result<(), Gone> {
    let send = async |text: String| to.send(text.into()).await.map_err(|_| Gone);
    send(": connected\n\n".into()).await?;
    for record in missed {
        send(frame(&record)).await?;
    }
    loop {
        let next = tokio::select! {
            () = to.closed() => return Err(Gone),
            () = stop.cancelled() => return send(end("closing", "this address closes; connect again")).await,
            next = tokio::time::timeout(HEARTBEAT, live.recv()) => next,
        };
        match next {
            Err(_) => send(": heartbeat\n\n".into()).await?,
            Ok(Ok(record)) => send(frame(&record)).await?,
            Ok(Err(RecvError::Lagged(events))) => {
                let why = format!("{events} events were not read in time; connect again with Last-Event-ID");
                return send(end("lagged", &why)).await;
            }
            Ok(Err(RecvError::Closed)) => return send(end("closing", "the process ends")).await,
        }
    }
}

fn frame(record: &EventRecord) -> String {
    let data = serde_json::to_string(record).expect("our own types have string keys and cannot fail");
    format!("id: {}\nevent: {}\ndata: {data}\n\n", record.id, record.kind)
}

/// The last event of a stream. It has no id: the next `Last-Event-ID` stays that of the last record.
fn end(kind: &str, reason: &str) -> String {
    format!("event: {kind}\ndata: {}\n\n", serde_json::json!({ "reason": reason }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Event;
    use http_body_util::BodyExt;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    struct Subscriber(Response);

    impl Subscriber {
        async fn next(&mut self) -> Option<String> {
            let frame = tokio::time::timeout(Duration::from_secs(5), self.0.body_mut().frame()).await;
            let frame = frame.expect("an event or the end comes")?;
            Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
        }
    }

    fn subscribe(events: &Events, last_id: Option<&str>, stop: &CancellationToken) -> Subscriber {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let mut headers = HeaderMap::new();
        if let Some(id) = last_id {
            headers.insert("last-event-id", id.parse().unwrap());
        }
        Subscriber(stream(events, &headers, &mut Query::default(), permit, stop.clone()).unwrap())
    }

    fn emit(events: &Events, message: &str) {
        events.emit(Event { kind: "publish", message: message.into(), ..Event::default() });
    }

    #[tokio::test]
    async fn a_subscriber_gets_what_happens_and_a_clear_end() {
        let (events, stop) = (Events::default(), CancellationToken::new());
        emit(&events, "before");
        let mut seen = subscribe(&events, None, &stop);
        assert_eq!(seen.next().await.unwrap(), ": connected\n\n");
        emit(&events, "after");
        let event = seen.next().await.unwrap();
        assert!(event.starts_with("id: 2\nevent: publish\ndata: {") && event.contains("\"after\""), "{event}");
        stop.cancel();
        assert!(seen.next().await.unwrap().starts_with("event: closing\n"));
        assert_eq!(seen.next().await, None);
    }

    #[tokio::test]
    async fn who_was_away_gets_what_was_missed() {
        let (events, stop) = (Events::default(), CancellationToken::new());
        for message in ["one", "two", "three"] {
            emit(&events, message);
        }
        let mut seen = subscribe(&events, Some("1"), &stop);
        seen.next().await;
        assert!(seen.next().await.unwrap().contains("\"two\""));
        assert!(seen.next().await.unwrap().contains("\"three\""));
        let mut of_another_process = subscribe(&events, Some("900"), &stop);
        of_another_process.next().await;
        assert!(of_another_process.next().await.unwrap().contains("\"one\""));
    }

    #[tokio::test]
    async fn who_does_not_keep_up_is_told_and_let_go() {
        let (events, stop) = (Events::default(), CancellationToken::new());
        let mut seen = subscribe(&events, None, &stop);
        for number in 0..3000 {
            emit(&events, &format!("event {number}"));
        }
        let mut last = String::new();
        while let Some(event) = seen.next().await {
            last = event;
        }
        assert!(last.starts_with("event: lagged\n"), "{last}");
    }

    #[test]
    fn a_broken_last_id_is_refused() {
        let mut query = Query::parse(Some("after=x")).unwrap();
        assert_eq!(last_seen(&HeaderMap::new(), &mut query).unwrap_err().status, 400);
    }
}
