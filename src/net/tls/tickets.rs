//! Session tickets: what lets a client come back without a full handshake. RFC 5077, RFC 8446 section 4.6.1.
//!
//! A ticket is the state of a session, encrypted with a key that only we have. The keys outlive certificates,
//! configurations and, in `state_dir`, the process: after an upgrade clients resume as if nothing had happened,
//! and two processes that share the directory for a while understand each other's tickets. They do not outlive
//! a day: whoever steals a key reads what it protected, but no older traffic.
//!
//! **Never from one kind of client to another.** Resuming skips the client's certificate, so a ticket given to
//! clients that were asked for nothing must not open a connection that asks for something. Each policy of
//! client authentication has its own key, derived from the shared one, and cannot read another's tickets.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;
use sha2::Sha256;

use super::server::Policy;
use crate::config::hex;
use crate::config::load::now;

pub const FILE_NAME: &str = "tls-tickets.key";
const FIRST_LINE: &str = "switchback tls tickets 1";
/// A newer key is made after this.
const FRESH_FOR: i64 = 8 * 3600;
/// A key reads tickets for this long after it was made.
const KEPT_FOR: i64 = 24 * 3600;
/// The least time for which a ticket can be read.
const TICKET_LIFETIME: u32 = (KEPT_FOR - FRESH_FOR) as u32;
/// More keys than rotation leaves can only be a mistake.
const KEYS_MAX: usize = 16;
const BYTES_MAX: u64 = 4096;

const NAME: usize = 16;

#[derive(Clone, PartialEq, Eq)]
struct Key {
    secret: [u8; 32],
    /// Seconds since the Unix epoch.
    made: i64,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key(made {})", self.made)
    }
}

/// The keys of the process.
#[derive(Debug)]
pub struct TicketKeys {
    /// Newest first, at least one.
    keys: ArcSwap<Vec<Key>>,
    /// Where they are kept; without it they end with the process.
    file: Mutex<Option<PathBuf>>,
}

impl TicketKeys {
    /// Keys that nobody else has.
    pub fn new() -> io::Result<Arc<TicketKeys>> {
        let keys = vec![Key::random(now())?];
        Ok(Arc::new(TicketKeys { keys: ArcSwap::from_pointee(keys), file: Mutex::new(None) }))
    }

    /// From now on they are kept in this directory, beginning with what is there.
    ///
    /// On an error they stay in memory; the text is for the operator.
    pub fn keep_in(&self, dir: &Path) -> Result<(), String> {
        let path = dir.join(FILE_NAME);
        *self.file() = Some(path);
        self.rotate(now())
    }

    /// Takes over what another process has written, makes a new key when it is time, forgets old ones.
    pub fn rotate(&self, now: i64) -> Result<(), String> {
        let file = self.file();
        let path = file.as_deref();
        let stored = match path {
            Some(path) => match read(path) {
                Ok(keys) => Ok(keys),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(format!("{}: {error}", path.display())),
            },
            None => Ok(Vec::new()),
        };
        let kept = stored.as_ref().map_or(&[][..], Vec::as_slice);
        let have = self.keys.load_full();
        let keys = next(&have, kept, now).map_err(|error| format!("no randomness for a ticket key: {error}"))?;
        let is_news = keys != kept;
        if keys != **have {
            self.keys.store(Arc::new(keys.clone()));
        }
        // A file that is not ours to read is not ours to replace.
        stored?;
        match path {
            Some(path) if is_news => write(path, &keys).map_err(|error| format!("{}: {error}", path.display())),
            Some(_) | None => Ok(()),
        }
    }

    fn file(&self) -> std::sync::MutexGuard<'_, Option<PathBuf>> {
        self.file.lock().expect("no holder panics")
    }
}

/// The keys from now on, newest first.
fn next(have: &[Key], stored: &[Key], now: i64) -> io::Result<Vec<Key>> {
    // A key from the future is one from before the clock was set back; it is good, but not for longer.
    let is_alive = |key: &&Key| key.made > now - KEPT_FOR && key.made <= now + KEPT_FOR;
    let mut keys: Vec<Key> = Vec::new();
    // What others may have used already comes first: a key that only we know is of no use to them.
    for key in stored.iter().chain(have).filter(is_alive) {
        if !keys.iter().any(|known| known.secret == key.secret) {
            keys.push(key.clone());
        }
    }
    keys.sort_by_key(|key| std::cmp::Reverse(key.made));
    if keys.first().is_none_or(|newest| newest.made <= now - FRESH_FOR) {
        keys.insert(0, Key::random(now)?);
    }
    keys.truncate(KEYS_MAX);
    Ok(keys)
}

impl Key {
    fn random(made: i64) -> io::Result<Key> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        Ok(Key { secret, made })
    }

    /// The name and the key for clients of one policy.
    fn of(&self, policy: &Policy) -> ([u8; NAME], LessSafeKey) {
        let derive = |purpose: &[u8]| -> [u8; 32] {
            let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("any length is a key");
            mac.update(purpose);
            mac.update(policy);
            mac.finalize().into_bytes().into()
        };
        let mut name = [0; NAME];
        name.copy_from_slice(&derive(b"switchback ticket name")[..NAME]);
        let key = UnboundKey::new(&AES_256_GCM, &derive(b"switchback ticket key")).expect("32 bytes are a key");
        (name, LessSafeKey::new(key))
    }
}

/// Makes and reads the tickets of one policy.
#[derive(Debug)]
pub struct Ticketer {
    keys: Arc<TicketKeys>,
    policy: Policy,
}

impl Ticketer {
    pub fn new(keys: Arc<TicketKeys>, policy: Policy) -> Ticketer {
        Ticketer { keys, policy }
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.keys.load();
        let (name, key) = keys.first()?.of(&self.policy);
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&name), &mut sealed);
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + sealed.len() + 16);
        ticket.extend_from_slice(&name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(&sealed);
        ticket.extend_from_slice(tag.ok()?.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let oldest = now() - KEPT_FOR;
        for key in self.keys.keys.load().iter().filter(|key| key.made > oldest) {
            let (known, key) = key.of(&self.policy);
            if known == name {
                let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
                let mut sealed = sealed.to_vec();
                let opened = key.open_in_place(nonce, Aad::from(&known), &mut sealed).ok()?.len();
                sealed.truncate(opened);
                return Some(sealed);
            }
        }
        None
    }
}

fn read(path: &Path) -> io::Result<Vec<Key>> {
    let file = File::open(path)?;
    // Asked of the open file, so that it cannot be another one by the time it is read.
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        let what = format!("others may read it (mode {:04o}); remove it, and new keys are made", mode & 0o7777);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it holds no ticket keys; remove it"))
}

fn parse(text: &str) -> Option<Vec<Key>> {
    let mut lines = text.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    lines
        .map(|line| {
            let (made, hex) = line.split_once(' ')?;
            let mut secret = [0; 32];
            if hex.len() != 64 || !hex.is_ascii() {
                return None;
            }
            for (at, byte) in secret.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
            }
            Some(Key { secret, made: made.parse().ok()? })
        })
        .collect()
}

/// Written aside and renamed into place: there is never half a file, and nobody else can read it.
fn write(path: &Path, keys: &[Key]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let aside = path.with_extension(format!("key.{}", std::process::id()));
    let _ = fs::remove_file(&aside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let mut text = format!("{FIRST_LINE}\n");
    for key in keys {
        text.push_str(&key.made.to_string());
        text.push(' ');
        text.push_str(&hex(&key.secret));
        text.push('\n');
    }
    let written =
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::server::NOBODY;

    const STAFF: Policy = [7; 32];

    fn ticketer(keys: &Arc<TicketKeys>, policy: Policy) -> Ticketer {
        Ticketer::new(keys.clone(), policy)
    }

    #[test]
    fn a_ticket_is_read_by_its_own_policy_only() {
        let keys = TicketKeys::new().unwrap();
        let (nobody, staff) = (ticketer(&keys, NOBODY), ticketer(&keys, STAFF));
        let ticket = nobody.encrypt(b"a session").unwrap();
        assert_eq!(nobody.decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
        assert_eq!(staff.decrypt(&ticket), None);
        assert_ne!(nobody.encrypt(b"a session").unwrap(), ticket, "never twice the same");
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(nobody.decrypt(&changed), None, "byte {at}");
            assert_eq!(nobody.decrypt(&ticket[..at]), None, "first {at} bytes");
        }
    }

    #[test]
    fn keys_are_kept_for_the_next_process_and_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let before = TicketKeys::new().unwrap();
        before.keep_in(&state).unwrap();
        let ticket = ticketer(&before, STAFF).encrypt(b"x").unwrap();
        let mode = fs::metadata(state.join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing is left beside it");

        let after = TicketKeys::new().unwrap();
        assert_eq!(ticketer(&after, STAFF).decrypt(&ticket), None);
        after.keep_in(&state).unwrap();
        assert_eq!(ticketer(&after, STAFF).decrypt(&ticket).as_deref(), Some(&b"x"[..]));
        // The older process learns the newer one's key at its next look.
        let newer = ticketer(&after, STAFF).encrypt(b"y").unwrap();
        before.rotate(now()).unwrap();
        assert!(ticketer(&before, STAFF).decrypt(&newer).is_some());
    }

    #[test]
    fn keys_change_and_end() {
        let start = 1_000_000;
        let first = next(&[], &[], start).unwrap();
        assert_eq!(next(&first, &first, start + FRESH_FOR - 1).unwrap(), first);
        let second = next(&first, &first, start + FRESH_FOR).unwrap();
        assert_eq!((second.len(), &second[1]), (2, &first[0]), "the older one still reads");
        let later = next(&second, &second, start + KEPT_FOR).unwrap();
        assert!(!later.contains(&first[0]), "{later:?}");
        // Two processes agree on the newest.
        let other = next(&[], &second, start + FRESH_FOR + 1).unwrap();
        assert_eq!(other[0], second[0]);
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_broken_is_not_used_and_not_replaced() {
        for (content, mode, why) in [
            (format!("{FIRST_LINE}\n"), 0o644, "others may read"),
            ("garbage".to_string(), 0o600, "no ticket keys"),
            (format!("{FIRST_LINE}\n12 abc\n"), 0o600, "no ticket keys"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(FILE_NAME);
            fs::write(&path, &content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let keys = TicketKeys::new().unwrap();
            let trouble = keys.keep_in(dir.path()).expect_err(why);
            assert!(trouble.contains(why), "{trouble}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            let own = ticketer(&keys, NOBODY);
            assert!(own.decrypt(&own.encrypt(b"x").unwrap()).is_some(), "it goes on in memory");
        }
    }
}
