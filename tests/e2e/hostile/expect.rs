//! What must come of a hostile case: at the client, and at the endpoint. In code, and in words for the document.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::harness::client::{Outcome, Raw, Seen};
use crate::harness::origin::Received;

/// What the client sees.
#[derive(Debug, Clone, Copy)]
pub enum Client {
    /// One answer with this status, not a byte behind it, and the connection is closed.
    Refused(u16),
    /// An answer with this status; the connection goes on.
    Answered(u16),
    /// An answer with this status, the last on its connection, and not a byte behind it.
    Last(u16),
    /// So many answers with this status, one behind the other.
    Each(usize, u16),
}

/// What the endpoint received: these requests in all, each whole, and nothing else.
#[derive(Debug, Clone, Copy)]
pub enum Endpoint {
    /// Not a byte.
    Nothing,
    /// At most the beginning of a request; none was completed.
    Unfinished,
    /// One whole request, of which these facts hold.
    One(&'static [Fact]),
    /// So many, the first to `/outer` and the others to `/second`.
    Pipelined(usize),
}

#[derive(Debug, Clone, Copy)]
pub enum Fact {
    Field(&'static str, &'static str),
    Without(&'static str),
    Body(&'static str),
    Target(&'static str),
    Method(&'static str),
}

impl Client {
    pub fn in_words(self) -> String {
        match self {
            Client::Refused(status) => format!("{status}, closed"),
            Client::Answered(status) => format!("{status}"),
            Client::Last(status) => format!("{status}, `Connection: close`"),
            Client::Each(count, status) => format!("{count} x {status}"),
        }
    }

    /// Reads what comes on the connection and says what is wrong with it.
    pub async fn check<R, W>(self, raw: &mut Raw<R, W>, method: &str) -> Result<(), String>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let first = answer(raw, method).await;
        let status = match self {
            Client::Refused(status) | Client::Answered(status) | Client::Last(status) | Client::Each(_, status) => {
                status
            }
        };
        is(&first, status)?;
        match self {
            Client::Refused(_) | Client::Last(_) => {
                if !first.closes() {
                    return Err(format!("{status} without `Connection: close`"));
                }
                match raw.until_closed(super::CLOSED).await {
                    None => Err(format!("{status}, and the connection stays open")),
                    Some(rest) if !rest.is_empty() => {
                        Err(format!("{status}, and more behind it: {:?}", String::from_utf8_lossy(&rest)))
                    }
                    Some(_) => Ok(()),
                }
            }
            Client::Answered(_) => {
                if first.closes() {
                    return Err(format!("{status} with `Connection: close`"));
                }
                // Whatever was left behind would be read as the beginning of this.
                raw.write(b"GET /alive HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.map_err(|why| why.to_string())?;
                let next = answer(raw, "GET").await;
                is(&next, 200)?;
                if next.text() != "/alive" {
                    return Err(format!("the next answer is {:?}", next.text()));
                }
                Ok(())
            }
            Client::Each(count, _) => {
                for _ in 1..count {
                    is(&answer(raw, method).await, status)?;
                }
                Ok(())
            }
        }
    }
}

async fn answer<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(raw: &mut Raw<R, W>, method: &str) -> Seen {
    raw.answer_to(method, Instant::now()).await
}

fn is(seen: &Seen, status: u16) -> Result<(), String> {
    if seen.outcome == Outcome::Ok && seen.status == status {
        return Ok(());
    }
    Err(format!("{status} expected, got {:?} {} {:?}", seen.outcome, seen.status, seen.text()))
}

impl Endpoint {
    pub fn in_words(self) -> String {
        match self {
            Endpoint::Nothing => "nothing".into(),
            Endpoint::Unfinished => "no whole request".into(),
            Endpoint::One([]) => "one request".into(),
            Endpoint::One(facts) => {
                let facts: Vec<String> = facts.iter().map(Fact::in_words).collect();
                format!("one request: {}", facts.join(", "))
            }
            Endpoint::Pipelined(count) => format!("{count} requests, in order"),
        }
    }

    /// `received`: what came of this case, in the order in which it came.
    pub fn check(self, received: &[&Received]) -> Result<(), String> {
        let whole: Vec<&&Received> = received.iter().filter(|one| one.complete).collect();
        if let Some(hidden) = received.iter().find(|one| one.line.contains("hidden")) {
            return Err(format!("the hidden request got through: {}", hidden.line));
        }
        match self {
            Endpoint::Nothing if !received.is_empty() => Err(format!("the endpoint received {received:?}")),
            Endpoint::Unfinished if !whole.is_empty() => Err(format!("the endpoint received all of {whole:?}")),
            Endpoint::Nothing | Endpoint::Unfinished => Ok(()),
            Endpoint::One(facts) => {
                let (&[one], 1) = (received, whole.len()) else {
                    return Err(format!("the endpoint received {received:?}"));
                };
                facts.iter().try_for_each(|fact| fact.check(one))
            }
            Endpoint::Pipelined(count) => {
                let order: Vec<&str> =
                    whole.iter().map(|one| one.target().trim_end_matches(|c: char| c.is_ascii_digit())).collect();
                let wanted: Vec<&str> = (0..count).map(|nth| if nth == 0 { "/outer" } else { "/second" }).collect();
                if order != wanted || whole.len() != received.len() {
                    return Err(format!("the endpoint received {received:?}"));
                }
                Ok(())
            }
        }
    }
}

impl Fact {
    fn in_words(&self) -> String {
        let shown = |text: &str| text.replace("###", "");
        match self {
            Fact::Field(name, "") => format!("empty `{name}`"),
            Fact::Field(name, value) => format!("`{name}: {}`", shown(value)),
            Fact::Without(name) => format!("no `{name}`"),
            Fact::Body("") => "no body".into(),
            Fact::Body(body) => format!("body `{}`", super::document::visible(&shown(body))),
            Fact::Target(target) => format!("target `{}`", shown(target)),
            Fact::Method(method) => format!("method `{method}`"),
        }
    }

    fn check(&self, got: &Received) -> Result<(), String> {
        let id: String = got.line.chars().filter(char::is_ascii_digit).take(3).collect();
        let with_id = |text: &str| text.replace("###", &id);
        let holds = match self {
            Fact::Field(name, value) => got.fields(name) == [with_id(value)],
            Fact::Without(name) => got.field(name).is_none(),
            Fact::Body(body) => got.body == with_id(body).as_bytes(),
            Fact::Target(target) => got.target() == with_id(target),
            Fact::Method(method) => got.method() == *method,
        };
        if holds { Ok(()) } else { Err(format!("not so at the endpoint: {self:?}; it received {got:?}")) }
    }
}
