//! The fuzz targets, without a fuzzer: every kept input, and a few hundred made from each by chance, with the same
//! seed every time. What a fuzzer found lies in `fuzz/corpus/` and stays found.

#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::path::{Path, PathBuf};

use proptest::test_runner::{RngAlgorithm, TestRng};
use rand::Rng;

/// Made from each kept input.
const MADE: usize = 200;

#[test]
fn every_target_holds_on_its_corpus_and_around_it() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let inputs = files(&corpora.join(name));
        assert!(inputs.len() >= 3, "{name} has no corpus");
        let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        for path in &inputs {
            let kept = std::fs::read(path).expect("the corpus can be read");
            target(&kept);
            // Reading a whole configuration takes milliseconds without optimisation.
            let most = if kept.len() > 2000 { MADE / 20 } else { MADE };
            for _ in 0..most {
                target(&damaged(kept.clone(), &mut random));
            }
        }
    }
}

/// Every target is built by the fuzzer too.
#[test]
fn every_target_is_a_binary_of_the_fuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("the manifest is there");
    let mut names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    for name in &names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not in fuzz/Cargo.toml");
    }
    let mut binaries = files(&folder.join("fuzz_targets"));
    binaries.sort_unstable();
    let built: Vec<&str> = binaries.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
    assert_eq!(built, names);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.sort_unstable();
    paths
}

/// A few bytes other than they were, gone, or more of them.
fn damaged(mut bytes: Vec<u8>, random: &mut TestRng) -> Vec<u8> {
    const LIKELY: &[u8] = b"\r\n\0 \t:;,/.%#\"@\\0159aAfFxZ-_\x7f\x80\xff";
    for _ in 0..=random.next_u32() % 3 {
        let at = random.next_u32() as usize % (bytes.len() + 1);
        let byte = match random.next_u32() % 4 {
            0 => random.next_u32() as u8,
            _ => LIKELY[random.next_u32() as usize % LIKELY.len()],
        };
        match random.next_u32() % 4 {
            0 => bytes.insert(at, byte),
            1 => drop(bytes.drain(at..(at + 1 + random.next_u32() as usize % 4).min(bytes.len()).max(at))),
            2 => {
                let piece = bytes[at / 2..at].to_vec();
                bytes.splice(at..at, piece);
            }
            _ if at < bytes.len() => bytes[at] = byte,
            _ => bytes.push(byte),
        }
    }
    bytes
}
