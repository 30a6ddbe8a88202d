//! `switchback events`: follows what happens; comes back by itself after a lost connection.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::args::InstanceArgs;
use super::client::{Call, Client};
use super::failure::Failure;
use super::{output, render};
use crate::control::api::EventRecord;

/// The server sends a heartbeat every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long a restart may take.
const RETRY_FOR: Duration = Duration::from_secs(30);

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Begin after the event with this id, as far as it is kept; 0 shows all kept ones
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
    #[command(flatten)]
    instance: InstanceArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let client = Client::find(&args.instance)?;
    let mut last = args.after;
    let mut stream = open(&client, last).await?;
    loop {
        follow(&mut stream, &mut last, args.instance.json).await?;
        output::err("the stream ended; connecting again\n");
        let lost = Instant::now();
        stream = loop {
            tokio::time::sleep(RETRY_EVERY).await;
            match open(&client, last).await {
                Ok(stream) => break stream,
                Err(failure) if lost.elapsed() > RETRY_FOR => return Err(failure),
                Err(_) => {}
            }
        };
    }
}

async fn open(client: &Client, last: Option<u64>) -> Result<Incoming, Failure> {
    client.stream(Call { last_event_id: last, ..Call::get("/api/v1/events") }).await
}

/// Until the stream ends, for whatever reason.
async fn follow(stream: &mut Incoming, last: &mut Option<u64>, json: bool) -> Result<(), Failure> {
    let mut parser = Parser::default();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE_MAX, stream.frame()).await {
        let Ok(bytes) = frame.into_data() else { continue };
        for data in parser.push(&bytes) {
            match serde_json::from_str::<EventRecord>(&data) {
                Ok(record) => {
                    *last = Some(record.id);
                    let line = if json { format!("{data}\n") } else { render::event(&record, output::colour()) };
                    output::out(&line)?;
                }
                // The goodbye of the server: `{"reason": "…"}`.
                Err(_) => output::err(&format!("{data}\n")),
            }
        }
    }
    Ok(())
}

/// Takes the `data` out of a stream of events that may be cut anywhere.
#[derive(Default)]
struct Parser {
    pending: Vec<u8>,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.pending.extend_from_slice(bytes);
        let mut found = Vec::new();
        while let Some(end) = self.pending.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = self.pending.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&event);
            found.extend(text.lines().find_map(|line| line.strip_prefix("data: ")).map(String::from));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_cut_anywhere_come_out_whole() {
        let stream =
            ": connected\n\nid: 1\nevent: publish\ndata: {\"a\":1}\n\n: heartbeat\n\nid: 2\ndata: {\"ü\":2}\n\n";
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let found: Vec<_> = stream.as_bytes().chunks(size).flat_map(|chunk| parser.push(chunk)).collect();
            assert_eq!(found, ["{\"a\":1}", "{\"ü\":2}"], "in pieces of {size}");
        }
    }
}
