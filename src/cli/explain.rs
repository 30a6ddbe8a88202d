//! `switchback explain METHOD URL`.

use std::net::IpAddr;
use std::process::ExitCode;

use super::args::InstanceArgs;
use super::client::{Call, Client};
use super::failure::Failure;
use super::{output, render};
use crate::admin::query::encode;
use crate::control::api::Explanation;

#[derive(clap::Args, Debug)]
pub struct Args {
    method: String,
    /// http://host/path?query
    url: String,
    /// A header of the request
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
    /// The client's address, for `sticky: client_ip`
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    #[command(flatten)]
    instance: InstanceArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let explanation: Explanation = Client::find(&args.instance)?.json(Call::get(path(&args)?)).await?;
    if args.instance.json {
        output::json(&explanation)?;
    } else {
        output::out(&render::explanation(&explanation, output::colour()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn path(args: &Args) -> Result<String, Failure> {
    let mut path =
        format!("/api/v1/explain?method={}&url={}", encode(&args.method.to_ascii_uppercase()), encode(&args.url));
    for header in &args.headers {
        let Some((name, value)) = header.split_once(':').filter(|(name, _)| !name.trim().is_empty()) else {
            return Err(Failure::Usage(format!("`{header}` is not a header: write `name: value`")));
        };
        path.push_str(&format!("&h.{}={}", encode(name.trim()), encode(value.trim())));
    }
    if let Some(client) = args.client {
        path.push_str(&format!("&client={}", encode(&client.to_string())));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_becomes_a_query() {
        let args = |headers: &[&str]| Args {
            method: "get".into(),
            url: "http://shop.test/a?b=c&d".into(),
            headers: headers.iter().map(|header| header.to_string()).collect(),
            client: Some("::1".parse().unwrap()),
            instance: InstanceArgs::default(),
        };
        let wanted =
            "/api/v1/explain?method=GET&url=http%3A%2F%2Fshop.test%2Fa%3Fb%3Dc%26d&h.x-user=a%3Ab&client=%3A%3A1";
        assert_eq!(path(&args(&["x-user: a:b"])).unwrap(), wanted);
        assert!(path(&args(&["x-user"])).is_err() && path(&args(&[": 7"])).is_err());
    }
}
