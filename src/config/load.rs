//! Files to text to [`Config`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::certificate::{Dates, Roots};
use super::check::{self, Around};
use super::decode::{Decode, ROOT};
use super::env;
use super::found::{Found, Places, Span};
use super::hashing::{digest, hex};
use super::merge;
use super::model::Config;
use super::problem::{Problem, Problems, Severity};
use super::raw::Raw;
use super::tree::{self, Value};

/// One source file as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// A configuration with where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Arc<Config>,
    pub sources: Vec<Source>,
    /// SHA-256 over names and contents of the sources, hex.
    pub hash: String,
    /// Warnings; never errors.
    pub warnings: Problems,
}

/// All files of a configuration together, in bytes.
pub const BYTES_MAX: u64 = 16 << 20;

/// A file with a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;
const PAGE_BYTES_MAX: u64 = 256 << 10;
/// A file of certificates, in bytes: many times the bundle of a whole system.
const CERTIFICATE_BYTES_MAX: u64 = 4 << 20;

/// Reads a file, or every `*.yaml`/`*.yml` of a directory in name order.
pub fn read(path: &Path) -> Result<Vec<Source>, Problems> {
    let is_dir = match path.metadata() {
        Ok(metadata) => metadata.is_dir(),
        Err(error) => return Err(unreadable(path, &error)),
    };
    let files = if is_dir { files_of(path)? } else { vec![path.to_owned()] };
    let mut left = BYTES_MAX;
    let mut sources = Vec::with_capacity(files.len());
    let mut problems = Vec::new();
    for path in files {
        match read_one(&path, left) {
            Ok(text) => {
                left = left.saturating_sub(text.len() as u64);
                sources.push(Source { path, text });
            }
            Err(Problems(more)) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(Problems(problems)) }
}

/// Hash of sources, as in [`Loaded::hash`].
pub fn hash(sources: &[Source]) -> String {
    let parts = sources
        .iter()
        .flat_map(|source| [source.path.file_name().unwrap_or_default().as_encoded_bytes(), source.text.as_bytes()]);
    hex(&digest(parts))
}

/// Parses, merges, checks. All problems at once. Relative paths in the file are taken relative to the
/// directory of the file that names them. `${NAME}` is looked up in the environment of the process.
pub fn parse(sources: Vec<Source>) -> Result<Loaded, Problems> {
    parse_dated(sources, &Dates::Strict)
}

/// [`parse`] with a word on certificates that are out of date.
pub fn parse_dated(sources: Vec<Source>, dates: &Dates) -> Result<Loaded, Problems> {
    parse_all(sources, &|name| std::env::var(name).ok(), dates)
}

/// [`parse`] with other variables than those of the process.
pub fn parse_with(sources: Vec<Source>, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    parse_all(sources, lookup, &Dates::Strict)
}

fn parse_all(sources: Vec<Source>, lookup: &dyn Fn(&str) -> Option<String>, dates: &Dates) -> Result<Loaded, Problems> {
    let mut found = Found::default();
    let config = config(&sources, lookup, dates, &mut found);
    let failed = found.has_errors();
    let problems = found.into_problems(&sources);
    match config {
        Some(config) if !failed => {
            let hash = hash(&sources);
            Ok(Loaded { config: Arc::new(config), sources, hash, warnings: problems })
        }
        Some(_) | None => Err(problems),
    }
}

/// `None` when `found` has errors that leave nothing to check.
fn config(sources: &[Source], lookup: env::Lookup<'_>, dates: &Dates, found: &mut Found) -> Option<Config> {
    let total: usize = sources.iter().map(|source| source.text.len()).sum();
    if total as u64 > BYTES_MAX {
        found.error_nowhere("the configuration is too large").why(format!("{total} bytes; at most {BYTES_MAX}"));
        return None;
    }
    let mut roots = Vec::new();
    let mut broken = false;
    for (file, source) in sources.iter().enumerate() {
        let file = u32::try_from(file).expect("each file has a byte, and bytes are few");
        let before = found.errors();
        if let Some(at) = source.text.find('\0') {
            let at = at as u32;
            found
                .error(Span { file, start: at, end: at + 1 }, "this is not a text file")
                .why("there is a NUL byte here")
                .hint("was the wrong file named, or the file cut short by a crash?");
            broken = true;
            continue;
        }
        match tree::parse(file, &source.text, found) {
            Some(mut root) => {
                env::substitute(&mut root, lookup, found);
                roots.push(root);
            }
            None => broken |= found.errors() > before,
        }
    }
    // A file with comments only may stand beside others; a configuration of nothing is a mistake.
    roots.retain(|root| root.value != Value::Null);
    if roots.is_empty() {
        if !broken {
            let hint = "begin with `schema: 1`; `switchback config init` writes a working example";
            match sources.first() {
                Some(source) => {
                    let what = format!("{} is empty", source.path.display());
                    found.error_nowhere(what).hint(hint);
                }
                None => drop(found.error_nowhere("there is no configuration file").hint(hint)),
            }
        }
        return None;
    }
    let root = merge::merge(roots, sources, found)?;
    let raw = Raw::decode(&root, ROOT, found)?;
    if broken || raw.schema.get().is_none() {
        // What a broken file defines would be missing everywhere else, and what the keys of another
        // format mean together is not known here.
        return None;
    }
    let bases: Vec<PathBuf> = sources.iter().map(|source| base(&source.path)).collect();
    let mut places = Places::new(sources);
    let mut place = |span| {
        let place = places.of(span);
        format!("{}:{}", place.file, place.line)
    };
    let system = std::cell::OnceCell::new();
    let mut around = Around {
        bases: &bases,
        read: &read_secret,
        read_page: &read_page,
        read_bytes: &read_certificates,
        system_roots: &|| system.get_or_init(system_roots).clone(),
        now: now(),
        dates,
        place: &mut place,
    };
    Some(check::check(&raw, &mut around, found))
}

/// Absolute, so that a rendered configuration means the same wherever it is read.
fn base(path: &Path) -> PathBuf {
    let parent = path.parent().unwrap_or(Path::new(""));
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    std::path::absolute(parent).unwrap_or_else(|_| parent.to_owned())
}

fn read_secret(path: &Path) -> Result<String, String> {
    read_text(path, SECRET_BYTES_MAX)
}

fn read_page(path: &Path) -> Result<String, String> {
    read_text(path, PAGE_BYTES_MAX)
}

fn read_text(path: &Path, most: u64) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| reason(&error))?;
    file.take(most + 1).read_to_string(&mut text).map_err(|error| reason(&error))?;
    if text.len() as u64 > most { Err(format!("it is larger than {} KiB", most >> 10)) } else { Ok(text) }
}

/// A file of certificates, keys or authorities; the error is for people.
pub fn read_certificates(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| reason(&error))?;
    file.take(CERTIFICATE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| reason(&error))?;
    if bytes.len() as u64 > CERTIFICATE_BYTES_MAX { Err("it is too large".into()) } else { Ok(bytes) }
}

/// Whom the system trusts: `SSL_CERT_FILE` and `SSL_CERT_DIR` if they are set, else where systems keep them.
fn system_roots() -> Result<Roots, String> {
    let found = rustls_native_certs::load_native_certs();
    Roots::of_system(&found.certs).ok_or_else(|| match found.errors.first() {
        Some(error) => error.to_string(),
        None => "no authorities were found where systems keep them".into(),
    })
}

/// Seconds since the Unix epoch.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Names that begin with a dot are skipped: editors and ConfigMap mounts keep their own things there.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>, Problems> {
    let entries = std::fs::read_dir(dir).map_err(|error| unreadable(dir, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(dir, &error))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden && !path.is_dir() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(nowhere(
            format!("there is no configuration in the directory {}", dir.display()),
            "no file there ends in `.yaml` or `.yml`".into(),
            "`switchback config init` writes a working example".into(),
        ));
    }
    files.sort();
    Ok(files)
}

fn read_one(path: &Path, left: u64) -> Result<String, Problems> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut bytes = Vec::new();
    file.take(left + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > left {
        return Err(nowhere(
            format!("the configuration is too large at {}", path.display()),
            format!("all files together may have {} MiB", BYTES_MAX >> 20),
            "was the wrong file named?".into(),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let source = Source { path: path.to_owned(), text };
        let mut found = Found::default();
        let at = Span { file: 0, start: good as u32, end: good as u32 };
        found
            .error(at, "this is not a text file in UTF-8")
            .why(format!("byte {:#04x} cannot stand here", error.as_bytes()[good]))
            .hint("save the file as UTF-8");
        found.into_problems(&[source])
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Problems {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "`switchback config init` writes a working example; `-c` names another file",
        io::ErrorKind::PermissionDenied => "give the user that runs switchback the right to read it",
        _ => "check the path and the disk",
    };
    nowhere(format!("{} cannot be read", path.display()), reason(error), hint.into())
}

/// Without "(os error 2)".
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_lowercase()
}

fn nowhere(what: String, why: String, hint: String) -> Problems {
    Problems(vec![Problem { severity: Severity::Error, what, place: None, why: Some(why), hint: Some(hint) }])
}
