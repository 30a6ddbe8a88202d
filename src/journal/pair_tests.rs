//! Files cut, scribbled on, mixed and caught in the middle of a write: what is read is what was written, or nothing is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::config::load::Source;
use crate::control::api::{AuditRecord, GenerationInfo};
use crate::control::overlay::Weights;
use crate::control::rollouts::{Kept, Rejection};
use crate::journal::store::{Record, Standing, Store};

/// What change `n` leaves: a generation, somebody's weights, a rejection, a hold.
fn record(n: u64) -> Record {
    let weights = Weights::from([("v1".to_string(), 100 - n as u32 % 100), ("v2".into(), n as u32 % 100)]);
    let info = GenerationInfo {
        number: n,
        hash: format!("hash {}", n / 4),
        author: "cli:ada".into(),
        cause: format!("change {n}"),
        at: 1_700_000_000_000 + n,
        splits: BTreeMap::from([("shop".to_string(), weights)]),
    };
    let text = format!("text {} {}", n / 4, "x".repeat(400));
    Record { info, sources: Arc::new(vec![Source { path: PathBuf::from("a.yaml"), text }]) }
}

fn standing(n: u64) -> Standing {
    let rejection = Rejection { mark: format!("mark {n}"), why: "4 of 41 failed".into(), at: n, stable: None };
    let rejected = BTreeMap::from([("shop".to_string(), BTreeMap::from([(format!("v{n}"), rejection)]))]);
    let rollouts = Kept { rejected, clock: n, ..Kept::default() };
    Standing { rollouts, held: BTreeSet::from([format!("held {n}")]), ..Standing::default() }
}

fn audit(n: u64) -> AuditRecord {
    AuditRecord {
        at: n,
        author: "cli:ada".into(),
        from: "unix".into(),
        action: format!("change {n}"),
        result: "done".into(),
        generation: Some(n),
    }
}

fn change(store: &mut Store, n: u64) {
    store.publish(&record(n), &standing(n)).expect("written");
    store.record_audit(&audit(n)).expect("written");
}

/// Which change a store's whole contents are of; panics if they are of no single one.
fn reads_as(store: &Store, how: &str) -> u64 {
    let remembered = store.remembered().unwrap_or_else(|error| panic!("{how}: {error}"));
    let n = remembered.last_number;
    assert!(n > 0, "{how}: read as empty");
    assert_eq!(remembered.standing, standing(n), "{how}");
    for (at, kept) in (1..=n).zip(&remembered.generations) {
        assert_eq!((&kept.info, &kept.sources), (&record(at).info, &record(at).sources), "{how}");
    }
    assert_eq!(remembered.generations.len() as u64, n, "{how}");
    // The audit of the newest change is written after it.
    let audits = remembered.audit.len() as u64;
    assert!(audits == n || audits + 1 == n, "{how}: {audits} of {n}");
    for (at, kept) in (1..).zip(&remembered.audit) {
        assert_eq!(*kept, audit(at), "{how}");
    }
    n
}

/// In memory where that is to be had: what is tested is not how fast a disk flushes.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// A directory after `n` changes, closed.
fn made(n: u64) -> tempfile::TempDir {
    let dir = directory();
    let mut store = Store::open(dir.path()).expect("new");
    (1..=n).for_each(|at| change(&mut store, at));
    dir
}

fn put(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).expect("writable");
}

/// Files of a closed journal, by name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let entry = entry.expect("readable");
        let name = entry.file_name().into_string().expect("our names are ASCII");
        if name != "switchback.lock" {
            files.insert(name, fs::read(entry.path()).expect("readable"));
        }
    }
    files
}

fn laid_out(files: &BTreeMap<String, Vec<u8>>) -> tempfile::TempDir {
    let dir = directory();
    files.iter().for_each(|(name, bytes)| put(dir.path(), name, bytes));
    dir
}

/// Cut at, and scribbled over at, every sector.
fn torn(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![("gone noisy".to_string(), vec![0xA5; 4096])];
    for at in (0..whole.len()).step_by(512) {
        all.push((format!("cut at {at}"), whole[..at].to_vec()));
        let mut scribbled = whole.to_vec();
        let end = (at + 512).min(whole.len());
        scribbled[at..end].iter_mut().for_each(|byte| *byte ^= 0x5A);
        all.push((format!("scribbled at {at}"), scribbled));
        let mut flipped = whole.to_vec();
        let byte = at + (at / 512 * 37 + 60) % (end - at);
        flipped[byte] ^= 1 << (at / 512 % 8);
        all.push((format!("one bit of byte {byte} flipped"), flipped));
        let mut zeroed = whole.to_vec();
        zeroed[at..end].fill(0);
        all.push((format!("zeroed at {at}"), zeroed));
    }
    all
}

#[test]
fn i9_whatever_happens_to_one_file_everything_is_read_back() {
    let dir = made(6);
    let good = files(dir.path());
    assert!(good.contains_key(FILE) && good.contains_key(COPY), "{:?}", good.keys());
    let dir = directory();
    let (mut restored, mut tried) = (0, 0);
    for hurt in [FILE, COPY] {
        for (how, bytes) in torn(&good[hurt]).into_iter().step_by(if hurt == FILE { 1 } else { 5 }) {
            for entry in fs::read_dir(dir.path()).expect("readable") {
                fs::remove_file(entry.expect("readable").path()).expect("ours");
            }
            good.iter().for_each(|(name, bytes)| put(dir.path(), name, bytes));
            put(dir.path(), hurt, &bytes);
            let how = format!("{hurt} {how}");
            let mut store = match Store::open(dir.path()) {
                Ok(store) => store,
                // A bit in the header that says whose it is, or of which format.
                Err(JournalError::Foreign { .. } | JournalError::Newer { .. }) => continue,
                Err(error) => panic!("{how}: {error}"),
            };
            assert_eq!(reads_as(&store, &how), 6, "{how}");
            tried += 1;
            if tried % 16 == 0 {
                // And it can be written, and found again.
                change(&mut store, 7);
                assert_eq!(reads_as(&store, &how), 7);
            }
            if !store.notes().is_empty() {
                restored += 1;
                assert!(store.notes()[0].contains("second copy"), "{:?}", store.notes());
                assert!(
                    fs::read_dir(dir.path())
                        .expect("readable")
                        .any(|entry| { entry.expect("readable").file_name().to_string_lossy().contains("damaged") })
                );
            }
        }
    }
    assert!(restored > tried / 3, "{restored} of {tried} had to be restored");
}

#[test]
fn i9_both_files_damaged_are_refused_and_kept() {
    let good = files(made(5).path());
    for (how, bytes) in torn(&good[FILE]).into_iter().step_by(3) {
        let dir = laid_out(&good);
        put(dir.path(), FILE, &bytes);
        put(dir.path(), COPY, &bytes);
        match Store::open(dir.path()) {
            // What was hurt belongs to no row: a page that is free, or the space between.
            Ok(store) => assert_eq!(reads_as(&store, &how), 5),
            Err(error) => {
                let in_header = matches!(error, JournalError::Newer { .. } | JournalError::Foreign { .. });
                assert!(in_header || matches!(error, JournalError::Damaged { .. }), "{how}: {error:?}");
                assert_eq!(fs::read(dir.path().join(FILE)).expect("readable"), bytes, "{how}: left as it was");
                assert_eq!(fs::read(dir.path().join(COPY)).expect("readable"), bytes, "{how}: left as it was");
            }
        }
    }
}

#[test]
fn i9_a_file_that_lost_its_newest_writes_is_not_believed() {
    let (old, new) = (files(made(3).path()), files(made(6).path()));
    let mut mixed = new.clone();
    mixed.insert(FILE.into(), old[FILE].clone());
    let dir = laid_out(&mixed);
    let store = Store::open(dir.path()).expect("the copy is whole");
    assert_eq!(reads_as(&store, "the first file is of an earlier moment"), 6);
    assert!(store.notes()[0].contains("lost the newest 6 changes"), "{:?}", store.notes());
    // The other way about: the copy is behind by what a kill came between, and is brought up.
    let mut mixed = new;
    mixed.insert(COPY.into(), old[COPY].clone());
    let dir = laid_out(&mixed);
    let store = Store::open(dir.path()).expect("the first file is whole");
    assert_eq!((reads_as(&store, "the copy is of an earlier moment"), store.notes().len()), (6, 0));
    drop(store);
    fs::remove_file(dir.path().join(FILE)).expect("ours");
    assert_eq!(reads_as(&Store::open(dir.path()).expect("the copy is whole"), "from the copy"), 6);
}

#[test]
fn i9_pages_of_two_moments_are_not_taken_for_one() {
    let (old, new) = (files(made(6).path()), files(made(9).path()));
    let (old, new) = (&old[FILE], &new[FILE]);
    for at in (512..old.len().min(new.len())).step_by(512) {
        // What a copy by hand in the middle of a write may be.
        let mixed = [&new[..at], &old[at..], &new[old.len().min(new.len())..]].concat();
        let dir = directory();
        put(dir.path(), FILE, &mixed);
        match Store::open(dir.path()) {
            Ok(store) => {
                let n = reads_as(&store, &format!("mixed at {at}"));
                assert!(n == 6 || n == 9, "mixed at {at}: {n}");
            }
            Err(error) => assert!(matches!(error, JournalError::Damaged { .. }), "mixed at {at}: {error:?}"),
        }
    }
}

/// The files as a power cut leaves them while `file` is written: the rollback journal is on disk, some of the pages are.
fn caught_writing(name: &str, n: u64) -> (BTreeMap<String, Vec<u8>>, BTreeMap<String, Vec<u8>>) {
    let dir = made(n);
    let before = files(dir.path());
    let file = dir.path().join(name);
    let connection = schema::open(&file, Mode::Write).expect("whole");
    connection.pragma_update(None, "cache_size", 1).expect("a pragma");
    let transaction = connection.unchecked_transaction().expect("begun");
    // Far more than the cache holds: pages go to the file before the commit, and what they were to the journal.
    for _ in 0..3 {
        transaction.execute("UPDATE configs SET sources = sources || ?1", ["y".repeat(9000)]).expect("written");
        transaction.execute("UPDATE generations SET cause = cause || ?1", ["z".repeat(300)]).expect("written");
    }
    // With the locks dropped by this reading, nobody else is there to mind.
    let during = files(dir.path());
    drop(transaction);
    (before, during)
}

#[test]
fn i9_a_power_cut_in_the_middle_of_a_write_finds_the_state_before_it() {
    for name in [FILE, COPY] {
        let (before, during) = caught_writing(name, 6);
        let rollback = format!("{name}-journal");
        assert_ne!(before[name], during[name], "pages were written");
        assert!(during[&rollback].len() > 512, "what they were is in the journal");
        let (old, new) = (&before[name], &during[name]);
        // Some sectors of the write arrived, in this order or another.
        for at in (0..new.len()).step_by(2048) {
            let mut first = old.clone();
            first.resize(new.len().max(old.len()), 0);
            let mut last = new.clone();
            last.resize(first.len(), 0);
            let end = at.min(first.len());
            for half in [[&last[..end], &first[end..]].concat(), [&first[..end], &last[end..]].concat()] {
                let mut cut = during.clone();
                cut.insert(name.into(), half);
                let dir = laid_out(&cut);
                let store = Store::open(dir.path()).unwrap_or_else(|error| panic!("{name} {at}: {error}"));
                assert_eq!(reads_as(&store, &format!("{name}, cut at {at}")), 6);
                assert!(store.notes().is_empty(), "{:?}", store.notes());
            }
        }
        // The journal itself was still being written: the file had not been touched.
        for at in (0..during[&rollback].len()).step_by(512) {
            let mut cut = before.clone();
            cut.insert(rollback.clone(), during[&rollback][..at].to_vec());
            let dir = laid_out(&cut);
            let store = Store::open(dir.path()).unwrap_or_else(|error| panic!("{rollback} {at}: {error}"));
            assert_eq!(reads_as(&store, &format!("{rollback}, cut at {at}")), 6);
        }
    }
}

#[test]
fn one_process_at_a_time_and_a_lock_that_its_owner_left_is_none() {
    let dir = directory();
    let store = Store::open(dir.path()).expect("new");
    let error = Store::open(dir.path()).map(|_| ()).expect_err("taken");
    let us = std::process::id();
    assert!(matches!(error, JournalError::InUse { by: Some(pid), .. } if pid == us), "{error:?}");
    assert!(error.to_string().contains("two instances need two state_dir"), "{error}");
    drop(store);
    put(dir.path(), "switchback.lock", b"99999999\n");
    Store::open(dir.path()).expect("nobody holds it");
}

#[test]
fn only_their_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = made(1);
    for entry in fs::read_dir(dir.path()).expect("readable") {
        let entry = entry.expect("readable");
        let mode = entry.metadata().expect("readable").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} {mode:o}", entry.file_name());
    }
}

#[test]
fn a_copy_that_cannot_be_written_is_said_and_made_again() {
    let dir = made(2);
    let mut store = Store::open(dir.path()).expect("whole");
    // A directory in the way of the new copy.
    fs::remove_file(dir.path().join(COPY)).expect("ours");
    fs::create_dir(dir.path().join(COPY)).expect("ours");
    store.files_mut().is_alone("the disk said so");
    store.files_mut().renew();
    assert!(store.notes()[0].contains("second copy"), "{:?}", store.notes());
    change(&mut store, 3);
    fs::remove_dir(dir.path().join(COPY)).expect("ours");
    store.files_mut().renew();
    assert!(store.notes().is_empty(), "{:?}", store.notes());
    change(&mut store, 4);
    drop(store);
    fs::remove_file(dir.path().join(FILE)).expect("ours");
    assert_eq!(reads_as(&Store::open(dir.path()).expect("the copy is whole"), "from the copy"), 4);
}
