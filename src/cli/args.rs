//! Arguments that several commands share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;

/// Which instance, and how to be allowed to change it.
#[derive(Args, Debug, Clone, Default)]
pub struct InstanceArgs {
    /// Address of the admin API: http://127.0.0.1:9900 or unix:/path
    #[arg(long, value_name = "ADDRESS", env = "SWITCHBACK_ADMIN", help_heading = "Instance")]
    pub admin: Option<String>,
    /// Configuration that names the admin API; default switchback.yaml or config/switchback.yaml
    #[arg(short, long, value_name = "PATH", env = "SWITCHBACK_CONFIG", help_heading = "Instance")]
    pub config: Option<PathBuf>,
    /// File with the admin token; default admin.token in the configuration's state_dir
    #[arg(long, value_name = "FILE", env = "SWITCHBACK_TOKEN_FILE", help_heading = "Instance")]
    pub token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// For commands that change something.
#[derive(Args, Debug, Clone, Default)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Refuse unless this generation is live
    #[arg(long, value_name = "GENERATION")]
    pub if_match: Option<u64>,
}

/// `KEY=VALUE` pairs; a key given twice is a mistake.
pub fn pairs(words: &[String], what: &str) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for word in words {
        let Some((key, value)) = word.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty())
        else {
            return Err(Failure::Usage(format!("`{word}` is not {what}")));
        };
        if pairs.insert(key.to_string(), value.to_string()).is_some() {
            return Err(Failure::Usage(format!("`{key}` is given twice")));
        }
    }
    Ok(pairs)
}

/// `v1=90 v2=10`; a trailing `%` is allowed.
pub fn weights(words: &[String]) -> Result<BTreeMap<String, u32>, Failure> {
    let mut weights = BTreeMap::new();
    for (version, weight) in pairs(words, "VERSION=WEIGHT, as in `v1=90`")? {
        let number = weight.strip_suffix('%').unwrap_or(&weight).parse();
        let number = number
            .map_err(|_| Failure::Usage(format!("the weight of `{version}` is a whole number, not `{weight}`")))?;
        weights.insert(version, number);
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn weights_are_whole_numbers_by_version() {
        let read = |line: &str| weights(&words(line)).map(|weights| format!("{weights:?}")).map_err(|_| ());
        assert_eq!(read("v1=90 v2=10"), Ok(r#"{"v1": 90, "v2": 10}"#.into()));
        assert_eq!(read("v2=10% v1=90%"), Ok(r#"{"v1": 90, "v2": 10}"#.into()));
        for wrong in ["v1", "v1=", "=5", "v1=x", "v1=-1", "v1=1.5", "v1=1 v1=2", "v1=99999999999"] {
            assert_eq!(read(wrong), Err(()), "{wrong}");
        }
    }
}
