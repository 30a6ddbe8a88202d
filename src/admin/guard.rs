//! Who may call: no foreign name for this address, no foreign site, the token for whatever changes state.
//!
//! A browser on the operator's machine can reach a loopback address. A page of another site gives itself
//! away by `Origin`; a page whose name was re-pointed at this address (DNS rebinding) by `Host`. An IP
//! address cannot be re-pointed, and a browser cannot open a Unix socket.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, StatusCode, Uri, header};

use super::problem::Problem;
use super::token::Token;

/// The way a call came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// The address the connection was made to.
    Tcp(SocketAddr),
    Unix,
}

/// Refuses a `Host` that is not an address of ours. `probe`: one of the calls that load balancers and
/// scrapers make, which may use any name once the operator has opened the API beyond this machine.
pub fn host(uri: &Uri, headers: &HeaderMap, door: &Door, probe: bool) -> Result<(), Problem> {
    let local = match door {
        Door::Unix => return Ok(()),
        Door::Tcp(local) => local,
    };
    for named in names(uri, headers)? {
        let Some(name) = host_name(&named) else { return Err(foreign_host(&named)) };
        let fits = match name.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || !local.ip().is_loopback(),
            Err(_) => is_localhost(name) || (probe && !local.ip().is_loopback()),
        };
        if !fits {
            return Err(foreign_host(&named));
        }
    }
    Ok(())
}

/// Refuses a call from a web page, unless this very address served the page.
pub fn origin(headers: &HeaderMap) -> Result<(), Problem> {
    let own = headers.get(header::HOST).map(|host| format!("http://{}", String::from_utf8_lossy(host.as_bytes())));
    for origin in headers.get_all(header::ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        if !own.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(&origin)) {
            let detail = format!("pages of `{origin}` may not call this API");
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "foreign-origin",
                "The call comes from another site",
                detail,
            ));
        }
    }
    Ok(())
}

/// `Authorization: Bearer <token>`.
pub fn token(headers: &HeaderMap, token: &Token) -> Result<(), Problem> {
    let refuse = |detail: &str| {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "This call needs the admin token", detail);
        Err(problem
            .hint("send `Authorization: Bearer <token>`; the token is in `admin.token` in the instance's state_dir"))
    };
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return refuse("the call brings no token, or more than one");
    };
    let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
    match bearer {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") => match token.is(secret.trim()) {
            true => Ok(()),
            false => refuse("the token is not the one of this instance"),
        },
        Some(_) | None => refuse("`Authorization` is not `Bearer <token>`"),
    }
}

/// The `Host` and, if the target is absolute, its authority: both must fit (RFC 9112 3.2.2 would let the
/// second win, a careless reader the first).
fn names(uri: &Uri, headers: &HeaderMap) -> Result<Vec<String>, Problem> {
    let hosts: Vec<_> = headers.get_all(header::HOST).iter().collect();
    let [host] = hosts[..] else {
        return Err(Problem::bad_request("the call must have exactly one `Host`"));
    };
    let mut names = vec![String::from_utf8_lossy(host.as_bytes()).into_owned()];
    names.extend(uri.authority().map(|authority| authority.to_string()));
    Ok(names)
}

/// The name or address in `host[:port]`, without brackets. The port is not looked at: behind a port
/// mapping it is another one.
fn host_name(text: &str) -> Option<&str> {
    let (name, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (name, rest) = bracketed.split_once(']')?;
            (name, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    let port_fits = port.is_none_or(|port| port.is_empty() || port.parse::<u16>().is_ok());
    (!name.is_empty() && port_fits).then_some(name)
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn foreign_host(host: &str) -> Problem {
    let detail = format!("`{host}` is not a name of this API");
    let problem = Problem::new(StatusCode::FORBIDDEN, "foreign-host", "The call is for another host", detail);
    problem.hint("use the address in `admin.bind`, `localhost`, or the Unix socket")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name: http::HeaderName = name;
            map.append(name, value);
        }
        map
    }

    fn host_status(door: &Door, host_value: &str, probe: bool) -> u16 {
        let result = host(&Uri::from_static("/"), &headers(&[("host", host_value)]), door, probe);
        result.err().map_or(200, |problem| problem.status)
    }

    #[test]
    fn on_loopback_only_loopback_names_reach_the_api() {
        let door = Door::Tcp("127.0.0.1:9900".parse().unwrap());
        for good in
            ["127.0.0.1:9900", "127.0.0.1", "localhost:9900", "LOCALHOST", "sb.localhost", "[::1]:9900", "127.9.9.9:1"]
        {
            assert_eq!(host_status(&door, good, false), 200, "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:9900",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "10.0.0.1:9900",
            "[::1",
            "[::1]x",
            "::1",
            "",
            ":9900",
            "localhost:port",
            "localhost:99999",
            "a@localhost",
        ] {
            assert_eq!(host_status(&door, bad, false), 403, "{bad}");
            assert_eq!(host_status(&door, bad, true), 403, "{bad}, as a probe");
        }
    }

    #[test]
    fn beyond_loopback_addresses_work_and_names_only_for_probes() {
        let door = Door::Tcp("10.0.0.5:9900".parse().unwrap());
        for (host, probe, status) in [
            ("10.0.0.5:9900", false, 200),
            ("192.168.1.1:19900", false, 200),
            ("localhost:9900", false, 200),
            ("switchback:9900", false, 403),
            ("switchback:9900", true, 200),
        ] {
            assert_eq!(host_status(&door, host, probe), status, "{host} {probe}");
        }
    }

    #[test]
    fn a_unix_socket_takes_any_host() {
        let none = host(&Uri::from_static("/"), &headers(&[]), &Door::Unix, false);
        assert_eq!(none, Ok(()));
        assert_eq!(host_status(&Door::Unix, "evil.example", false), 200);
    }

    #[test]
    fn no_host_two_hosts_or_a_foreign_absolute_target_are_refused() {
        let door = Door::Tcp("127.0.0.1:9900".parse().unwrap());
        let root = Uri::from_static("/");
        assert_eq!(host(&root, &headers(&[]), &door, false).unwrap_err().status, 400);
        let two = headers(&[("host", "localhost"), ("host", "evil.example")]);
        assert_eq!(host(&root, &two, &door, false).unwrap_err().status, 400);
        let absolute = Uri::from_static("http://evil.example/livez");
        assert_eq!(host(&absolute, &headers(&[("host", "localhost")]), &door, false).unwrap_err().status, 403);
    }

    #[test]
    fn only_a_page_of_this_address_may_call() {
        for (origin_value, status) in [
            ("http://localhost:9900", 200),
            ("http://LOCALHOST:9900", 200),
            ("http://localhost:3000", 403),
            ("https://localhost:9900", 403),
            ("https://evil.example", 403),
            ("null", 403),
            ("", 403),
        ] {
            let result = origin(&headers(&[("host", "localhost:9900"), ("origin", origin_value)]));
            assert_eq!(result.err().map_or(200, |problem| problem.status), status, "{origin_value}");
        }
        assert_eq!(origin(&headers(&[("host", "localhost:9900")])), Ok(()), "not a browser");
    }

    #[test]
    fn changes_need_the_token_of_this_instance() {
        let ours = Token::random().unwrap();
        let right = format!("Bearer {}", ours.secret());
        assert_eq!(token(&headers(&[("authorization", &right)]), &ours), Ok(()));
        assert_eq!(token(&headers(&[("authorization", &right.replace("Bearer", "bearer"))]), &ours), Ok(()));
        let other = format!("Bearer {}", Token::random().unwrap().secret());
        for wrong in [
            &other[..],
            "Bearer ",
            "Bearer",
            ours.secret(),
            &right.replace("Bearer", "Basic"),
            &right[..right.len() - 1],
        ] {
            assert_eq!(token(&headers(&[("authorization", wrong)]), &ours).unwrap_err().status, 401, "{wrong}");
        }
        assert_eq!(token(&headers(&[]), &ours).unwrap_err().status, 401);
        let twice = headers(&[("authorization", &right), ("authorization", &right)]);
        assert_eq!(token(&twice, &ours).unwrap_err().status, 401);
    }
}
