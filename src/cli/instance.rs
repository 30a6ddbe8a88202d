//! Finds the running instance: `--admin`, `SWITCHBACK_ADMIN`, or the configuration file; and its token.
//!
//! A broken configuration must not keep an operator from `status` and `rollback`. So if the file does not
//! pass the checks, the three values needed (`admin.bind`, `state_dir` and where the file lies) are read
//! line by line, whatever the rest looks like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::args::InstanceArgs;
use super::failure::Failure;
use crate::admin::token::{self, Token};
use crate::config::load;
use crate::config::model::AdminBind;

const DEFAULT_FILES: [&str; 2] = ["switchback.yaml", "config/switchback.yaml"];
const DEFAULT_ADMIN: &str = "127.0.0.1:9900";

/// Where the admin API of an instance answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

#[derive(Debug, Clone)]
pub struct Instance {
    pub target: Target,
    /// How it was found, for messages: "`admin.bind` in switchback.yaml".
    pub found_by: String,
    token_file: Option<PathBuf>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Tcp(address) => write!(f, "http://{address}"),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Target {
    pub fn parse(text: &str) -> Result<Target, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err("`unix:` needs a path".into()) } else { Ok(Target::Unix(path.into())) };
        }
        if text.starts_with("https://") {
            return Err(format!("`{text}`: the admin API speaks plain HTTP; use http:// or unix:"));
        }
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
        match port.map(str::parse::<u16>) {
            Some(Ok(_)) if !address.contains(['/', '@', ' ']) => Ok(Target::Tcp(reachable(address))),
            Some(_) | None => Err(format!("`{text}` is not an address: write http://127.0.0.1:9900 or unix:/path")),
        }
    }
}

/// An instance bound to every interface is asked on loopback.
fn reachable(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(v4)) if v4.ip().is_unspecified() => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), v4.port()).to_string()
        }
        Ok(SocketAddr::V6(v6)) if v6.ip().is_unspecified() => {
            SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), v6.port()).to_string()
        }
        Ok(_) | Err(_) => address.to_string(),
    }
}

impl Instance {
    pub fn find(args: &InstanceArgs) -> Result<Instance, Failure> {
        let file = args.config.clone().or_else(default_config);
        if let (None, Some(path)) = (&args.admin, &args.config)
            && let Err(error) = std::fs::metadata(path)
        {
            let what = format!("cannot read {}: {error}", path.display());
            return Err(Failure::new(what, "name the instance's configuration with -c, or its address with --admin"));
        }
        let complete = args.admin.is_some() && args.token_file.is_some();
        let named = file.as_deref().filter(|_| !complete).map(named_in).unwrap_or_default();
        let token_file = args.token_file.clone().or_else(|| named.state_dir.map(|dir| dir.join(token::FILE_NAME)));
        let (text, found_by) = match (&args.admin, named.admin, &file) {
            (Some(text), _, _) => (text.clone(), "--admin or SWITCHBACK_ADMIN".to_string()),
            (None, Some(text), Some(file)) => (text, format!("`admin.bind` in {}", file.display())),
            (None, _, Some(file)) => {
                (DEFAULT_ADMIN.to_string(), format!("the default, as {} names no `admin.bind`", file.display()))
            }
            (None, _, None) => {
                let looked = DEFAULT_FILES.join(" or ");
                (DEFAULT_ADMIN.to_string(), format!("the default, as there is no --admin, no -c and no {looked} here"))
            }
        };
        let target = Target::parse(&text).map_err(|what| Failure::Usage(format!("{what} (from {found_by})")))?;
        Ok(Instance { target, found_by, token_file })
    }

    pub fn token(&self) -> Result<Token, Failure> {
        let Some(path) = &self.token_file else {
            return Err(Failure::new(
                "changes need the admin token, and no token file is known",
                "name it with --token-file or SWITCHBACK_TOKEN_FILE, or name the configuration with -c (the token is \
                 admin.token in its state_dir)",
            ));
        };
        token::read(path).map_err(|error| {
            let what = match error.kind() {
                std::io::ErrorKind::InvalidData => error.to_string(),
                _ => format!("cannot read the admin token {}: {error}", path.display()),
            };
            Failure::new(what, "the instance writes it at its first start; name another file with --token-file")
        })
    }
}

fn default_config() -> Option<PathBuf> {
    DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// The configuration a command is about: the one named, or the default one.
pub fn config_path(named: Option<&Path>) -> Result<PathBuf, Failure> {
    named.map(Path::to_path_buf).or_else(default_config).ok_or_else(|| {
        Failure::new(
            format!("there is no configuration: neither {} is here", DEFAULT_FILES.join(" nor ")),
            "name it with -c, or write a first one with `switchback config init`",
        )
    })
}

/// What a configuration says about reaching its instance.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    admin: Option<String>,
    state_dir: Option<PathBuf>,
}

fn named_in(path: &Path) -> Named {
    if let Ok(loaded) = load::read(path).and_then(load::parse) {
        let admin = match &loaded.config.admin.bind {
            AdminBind::Tcp(address) => address.to_string(),
            AdminBind::Unix(path) => format!("unix:{}", path.display()),
        };
        return Named { admin: Some(admin), state_dir: loaded.config.state_dir.clone() };
    }
    let mut named = Named::default();
    for file in files(path) {
        let Ok(bytes) = std::fs::read(&file) else { continue };
        let found = scan(&String::from_utf8_lossy(&bytes), &|name| std::env::var(name).ok());
        let dir = file.parent().unwrap_or(Path::new(""));
        named.admin = named.admin.or(found.admin.map(|admin| match admin.strip_prefix("unix:") {
            Some(path) => format!("unix:{}", dir.join(path).display()),
            None => admin,
        }));
        named.state_dir = named.state_dir.or(found.state_dir.map(|state| dir.join(state)));
    }
    named
}

fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_path_buf()];
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let yaml = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml");
    let mut files: Vec<_> = entries.filter(yaml).collect();
    files.sort();
    files
}

/// Reads `state_dir:` and the `bind` of `admin:` from text that may be broken anywhere else.
fn scan(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Named {
    let mut named = Named::default();
    let mut in_admin = false;
    for line in text.lines() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        if line.starts_with(char::is_whitespace) {
            if in_admin && let Some(rest) = line.trim_start().strip_prefix("bind:") {
                named.admin = scalar(rest, env);
            }
            continue;
        }
        in_admin = false;
        if let Some(rest) = line.strip_prefix("state_dir:") {
            named.state_dir = scalar(rest, env).map(PathBuf::from);
        } else if let Some(rest) = line.strip_prefix("admin:") {
            in_admin = true;
            if let Some(at) = rest.find("bind:") {
                named.admin = scalar(&rest[at + "bind:".len()..], env);
            }
        }
    }
    named
}

/// A plain or quoted scalar at the start of `text`, with `${NAME}` and `${NAME:-default}` filled in.
fn scalar(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let text = text.trim_start();
    let raw = match text.chars().next()? {
        quote @ ('"' | '\'') => text[1..].split(quote).next()?,
        _ => text.split([',', '#', ' ', '\t']).next()?.trim_end_matches('}'),
    };
    // A `}` closes the flow map, but it also ends a variable.
    let raw = if raw.contains("${") && !raw.contains('}') { format!("{raw}}}") } else { raw.to_string() };
    let mut value = String::new();
    let mut rest = &raw[..];
    while let Some((before, after)) = rest.split_once("${") {
        let (variable, after) = after.split_once('}')?;
        let (name, default) = variable.split_once(":-").map_or((variable, None), |(name, text)| (name, Some(text)));
        value.push_str(before);
        value.push_str(&env(name).or(default.map(String::from))?);
        rest = after;
    }
    value.push_str(rest);
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, target) in [
            ("http://127.0.0.1:9900", "http://127.0.0.1:9900"),
            ("127.0.0.1:9900/", "http://127.0.0.1:9900"),
            ("0.0.0.0:9900", "http://127.0.0.1:9900"),
            ("[::]:9900", "http://[::1]:9900"),
            ("http://localhost:9900", "http://localhost:9900"),
            ("unix:/run/sb.sock", "unix:/run/sb.sock"),
            ("unix:///run/sb.sock", "unix:/run/sb.sock"),
        ] {
            assert_eq!(Target::parse(text).unwrap().to_string(), target, "{text}");
        }
        for text in ["", "9900", ":9900", "localhost", "localhost:x", "https://localhost:9900", "unix:", "http://a:1/x"]
        {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_broken_file_still_leads_to_its_instance() {
        let env = |name: &str| (name == "STATE").then(|| "/var/lib/sb".to_string());
        let named = |admin: Option<&str>, state_dir: Option<&str>| Named {
            admin: admin.map(String::from),
            state_dir: state_dir.map(PathBuf::from),
        };
        for (text, wanted) in [
            (
                "state_dir: ./state\nadmin: { bind: \"127.0.0.1:9901\" }\nroutes: [{",
                named(Some("127.0.0.1:9901"), Some("./state")),
            ),
            ("admin:\n  # where\n  bind: unix:/run/a.sock # here\nbroken", named(Some("unix:/run/a.sock"), None)),
            ("admin: {bind: 127.0.0.1:1}\n", named(Some("127.0.0.1:1"), None)),
            (
                "state_dir: ${STATE}\nadmin: {bind: '${ADDR:-[::1]:9900}'}",
                named(Some("[::1]:9900"), Some("/var/lib/sb")),
            ),
            ("state_dir: ${MISSING}\nlisteners:\n  web:\n    bind: 1.2.3.4:80", named(None, None)),
            ("\u{0}\u{1}garbage", named(None, None)),
        ] {
            assert_eq!(scan(text, &env), wanted, "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_not_taken_for_the_default() {
        let args = InstanceArgs { config: Some("/nonexistent/sb.yaml".into()), ..InstanceArgs::default() };
        assert!(format!("{:?}", Instance::find(&args).unwrap_err()).contains("/nonexistent/sb.yaml"));
        let args = InstanceArgs { admin: Some("unix:/a.sock".into()), token_file: Some("t".into()), ..args };
        assert_eq!(Instance::find(&args).unwrap().target, Target::Unix("/a.sock".into()));
    }

    #[test]
    fn the_token_must_be_known() {
        let instance = |token_file| Instance { target: Target::Tcp("x:1".into()), found_by: String::new(), token_file };
        assert!(instance(None).token().is_err());
        assert!(instance(Some("/nonexistent/token".into())).token().is_err());
    }
}
