//! One JSON line per exchange, off the request path.
//!
//! A data thread builds a record only while the log is on and hands it over without waiting; if the
//! writer cannot keep up the record is dropped and counted. The writer is a thread of its own, because
//! a disk or a pipe may block. Changing the target starts a new writer; the old one writes what it has
//! and ends.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::{Serialize, Serializer};

use crate::config::model::{AccessLog as Wanted, AccessLogTarget, Name};
use crate::control::ports::{LogTarget, Prepared};
use crate::endpoints::At;
use crate::evidence::RequestId;
use crate::outcome::{ErrorClass, Hedged};
use crate::sessions::Kind;

/// The writer writes at the latest when this much has been gathered.
const BATCH_BYTES: usize = 64 * 1024;
/// Longer header values are cut.
const HEADER_BYTES_MAX: usize = 256;

/// One line. Times are microseconds from the end of the request head.
#[derive(Debug, Clone, Serialize)]
pub struct AccessRecord {
    /// End of the exchange, milliseconds since the Unix epoch.
    pub at: u64,
    /// The client's `x-request-id`, or one made here.
    pub request_id: RequestId,
    pub client: IpAddr,
    /// Who passed the request on, if that was not the client itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    pub listener: Name,
    #[serde(serialize_with = "as_str")]
    pub method: http::Method,
    pub host: String,
    /// Without the query, which may hold secrets.
    pub path: String,
    pub has_query: bool,
    /// `HTTP/1.1`
    pub protocol: &'static str,
    pub status: u16,
    /// Of the bodies.
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// To the last byte of the answer.
    pub duration_us: u64,
    /// To the endpoint's response head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttfb_us: Option<u64>,
    /// Spent on connecting; absent when a pooled connection was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<u64>,
    pub generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<At>,
    /// Why that version: see [`crate::routing::Reason`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorClass>,
    /// Endpoints tried.
    pub attempts: u32,
    /// A second endpoint was asked beside the first: whose answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedged>,
    /// See [`bounded`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

fn as_str<S: Serializer>(method: &http::Method, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(method.as_str())
}

/// A header's value as it goes into the log: cut to 256 bytes, whatever is not text replaced.
pub fn bounded(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(HEADER_BYTES_MAX)]).into_owned()
}

/// The access log. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AccessLog {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    enabled: AtomicBool,
    sender: ArcSwapOption<SyncSender<Message>>,
    lost: Arc<Lost>,
    running: Mutex<Running>,
}

/// Lines that were not written, and whether that was said.
#[derive(Debug, Default)]
struct Lost {
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Running {
    wanted: Option<Wanted>,
    /// Closed by the writer when it has written all.
    done: Option<Receiver<()>>,
}

enum Message {
    Record(Box<AccessRecord>),
    Reopen,
}

enum Target {
    Stdout,
    File { file: File, path: PathBuf },
}

/// What `prepare` opened.
enum Opened {
    Unchanged,
    Off,
    Target { target: Target, buffer: usize },
}

impl AccessLog {
    /// Off until a target is committed.
    pub fn new() -> AccessLog {
        AccessLog::default()
    }

    /// Whether a record is worth building.
    pub fn enabled(&self) -> bool {
        self.inner.enabled.load(Ordering::Relaxed)
    }

    /// Hands a record to the writer. Never waits.
    pub fn submit(&self, record: AccessRecord) {
        let sender = self.inner.sender.load();
        let Some(sender) = &*sender else {
            return; // Switched off since the caller asked.
        };
        if sender.try_send(Message::Record(Box::new(record))).is_err() {
            self.inner.lost.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines lost since the start: the writer was too slow, or writing failed.
    pub fn dropped(&self) -> u64 {
        self.inner.lost.dropped.load(Ordering::Relaxed)
    }

    /// Opens the file again by its name: after it was rotated.
    pub fn reopen(&self) {
        if let Some(sender) = &*self.inner.sender.load() {
            let sender = sender.clone();
            // The order must not be lost to a full queue, and the caller must not wait for a disk.
            std::thread::spawn(move || sender.send(Message::Reopen));
        }
    }

    /// Switches the log off and waits until what was submitted is written, at most for `within`.
    /// Returns whether it is.
    pub fn close(&self, within: Duration) -> bool {
        let done = {
            let mut running = self.inner.running.lock().expect("no holder panics");
            running.wanted = None;
            running.done.take()
        };
        self.inner.enabled.store(false, Ordering::Relaxed);
        self.inner.sender.store(None);
        match done.map(|done| done.recv_timeout(within)) {
            // The writer never sends: it lets go when it has ended.
            None | Some(Err(RecvTimeoutError::Disconnected) | Ok(())) => true,
            Some(Err(RecvTimeoutError::Timeout)) => false,
        }
    }
}

impl LogTarget for AccessLog {
    fn prepare(&self, wanted: &Wanted) -> Result<Prepared, String> {
        let running = self.inner.running.lock().expect("no holder panics");
        let opened = if running.wanted.as_ref() == Some(wanted) {
            Opened::Unchanged
        } else {
            match &wanted.to {
                AccessLogTarget::Off => Opened::Off,
                AccessLogTarget::Stdout => Opened::Target { target: Target::Stdout, buffer: wanted.buffer },
                AccessLogTarget::File(path) => {
                    let file = open(path)?;
                    Opened::Target { target: Target::File { file, path: path.clone() }, buffer: wanted.buffer }
                }
            }
        };
        Ok(Box::new((opened, wanted.clone())))
    }

    fn commit(&self, prepared: Prepared) {
        let prepared = prepared.downcast::<(Opened, Wanted)>().expect("made by prepare of this type");
        let (opened, wanted) = *prepared;
        let mut running = self.inner.running.lock().expect("no holder panics");
        match opened {
            Opened::Unchanged => return,
            Opened::Off => {
                self.inner.enabled.store(false, Ordering::Relaxed);
                self.inner.sender.store(None);
            }
            Opened::Target { target, buffer } => {
                let (sender, receiver) = sync_channel(buffer.max(1));
                let (ended, done) = sync_channel(0);
                let writer = Writer { target, lost: self.inner.lost.clone(), failing: false };
                let spawned = std::thread::Builder::new().name("access-log".into()).spawn(move || {
                    writer.run(&receiver);
                    drop(ended);
                });
                match spawned {
                    Ok(_) => {
                        self.inner.sender.store(Some(Arc::new(sender)));
                        self.inner.enabled.store(true, Ordering::Relaxed);
                        running.done = Some(done);
                    }
                    Err(error) => {
                        tracing::error!(%error, "no thread for the access log: its target stays as it was");
                        return;
                    }
                }
            }
        }
        running.wanted = Some(wanted);
    }
}

fn open(path: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| format!("access_log: cannot open `{}`: {error}", path.display()))
}

struct Writer {
    target: Target,
    lost: Arc<Lost>,
    /// The last write failed, and that was said.
    failing: bool,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        let mut lines = 0;
        loop {
            // Wait only when everything is written.
            let message = if batch.is_empty() {
                messages.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                messages.try_recv()
            };
            match message {
                Ok(Message::Record(record)) => {
                    match serde_json::to_writer(&mut batch, &record) {
                        Ok(()) => {
                            batch.push(b'\n');
                            lines += 1;
                        }
                        Err(error) => tracing::error!(%error, "an access log record cannot be written as JSON"),
                    }
                    if batch.len() < BATCH_BYTES {
                        continue;
                    }
                    self.write(&mut batch, &mut lines);
                }
                Ok(Message::Reopen) => {
                    self.write(&mut batch, &mut lines);
                    self.reopen();
                }
                Err(TryRecvError::Empty) => self.write(&mut batch, &mut lines),
                Err(TryRecvError::Disconnected) => {
                    self.write(&mut batch, &mut lines);
                    return;
                }
            }
        }
    }

    fn write(&mut self, batch: &mut Vec<u8>, lines: &mut u64) {
        let written = match &mut self.target {
            Target::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(batch).and_then(|()| stdout.flush())
            }
            Target::File { file, .. } => file.write_all(batch),
        };
        match written {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.lost.dropped.fetch_add(*lines, Ordering::Relaxed);
                if !self.failing {
                    self.failing = true;
                    tracing::error!(%error, "the access log cannot be written; lines are dropped and counted");
                }
            }
        }
        batch.clear();
        *lines = 0;
    }

    fn reopen(&mut self) {
        match &mut self.target {
            Target::Stdout => {}
            Target::File { file, path } => match open(path) {
                Ok(new) => *file = new,
                Err(error) => tracing::error!(error, "the access log goes on in the file it has open"),
            },
        }
    }
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
