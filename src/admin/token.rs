//! The secret that allows changes: 256 random bits, in a file only its owner can read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use subtle::ConstantTimeEq;

use crate::config::hex;

pub const FILE_NAME: &str = "admin.token";
/// Shorter is a mistake, not a secret.
const SHORTEST: usize = 16;
const LONGEST: u64 = 4096;

/// Never printed: its `Debug` hides it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub fn random() -> io::Result<Token> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Token(hex(&bytes)))
    }

    /// Takes the same time however much of `given` is right; only the length is not hidden.
    pub fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// For the holder of the token (the command line, a test); never for a log.
    pub fn secret(&self) -> &str {
        &self.0
    }

    fn parse(text: &str, path: &Path) -> io::Result<Token> {
        let text = text.trim();
        if text.len() < SHORTEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let what = format!(
                "{} holds no token: it should be one line of at least {SHORTEST} visible ASCII characters; \
                 remove the file and a new one is made at the next start",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Token(text.to_string()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The token of this instance: `admin.token` in `state_dir`, made there on first start. Without a
/// `state_dir` it lives in memory and only this process knows it.
///
/// Refuses a file that others may read: whoever could read it may have it.
pub fn load_or_create(state_dir: Option<&Path>) -> io::Result<Token> {
    let Some(dir) = state_dir else { return Token::random() };
    let path = dir.join(FILE_NAME);
    match read_private(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(dir, &path),
        other => other,
    }
}

/// The token in a file, whoever may read it (the command line reads what it is pointed at).
pub fn read(path: &Path) -> io::Result<Token> {
    Token::parse(&read_text(File::open(path)?)?, path)
}

fn read_private(path: &Path) -> io::Result<Token> {
    let file = File::open(path)?;
    // Asked of the open file, so that it cannot be another one by the time it is read.
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        let what = format!(
            "{} may be read by others (mode {:04o}): run `chmod 600 {}`, or remove it and a new token is made",
            path.display(),
            mode & 0o7777,
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Token::parse(&read_text(file)?, path)
}

fn read_text(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Written aside and linked into place: a crash leaves no half token, and of two starts one wins.
fn create(dir: &Path, path: &Path) -> io::Result<Token> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let token = Token::random()?;
    let aside = dir.join(format!("{FILE_NAME}.{}", std::process::id()));
    let _ = fs::remove_file(&aside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    writeln!(file, "{}", token.secret())?;
    file.sync_all()?;
    let linked = fs::hard_link(&aside, path);
    let _ = fs::remove_file(&aside);
    match linked {
        Ok(()) => Ok(token),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_private(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_makes_a_token_that_later_starts_keep() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = load_or_create(Some(&state)).unwrap();
        assert_eq!(first.secret().len(), 64);
        let mode = fs::metadata(state.join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing is left beside it");

        let second = load_or_create(Some(&state)).unwrap();
        assert!(second.is(first.secret()));
        assert!(read(&state.join(FILE_NAME)).unwrap().is(first.secret()));
    }

    #[test]
    fn a_token_that_others_may_read_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(Some(dir.path())).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(dir.path().join(FILE_NAME), fs::Permissions::from_mode(mode)).unwrap();
            let error = load_or_create(Some(dir.path())).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn an_empty_or_binary_token_file_is_refused() {
        for content in [&b""[..], b"short\n", b"has spaces in it, so it is no token", b"\xff\xfe\xfd"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(FILE_NAME);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(load_or_create(Some(dir.path())).is_err(), "{content:?}");
        }
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = load_or_create(None).unwrap();
        let right = token.secret().to_string();
        assert!(token.is(&right));
        for wrong in ["", &right[1..], &format!("{right} "), &right.to_uppercase(), &"0".repeat(64)] {
            assert!(!token.is(wrong), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token(hidden)");
    }
}
