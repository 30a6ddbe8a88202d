//! What routing makes of a request that is only described: for `expect:` cases and `explain`.
//!
//! Uses the same steps as the engine (host, path, route, force, client key), without a connection.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use subtle::ConstantTimeEq;

use crate::config::model::{Action, Force, Sticky};
use crate::routing::matcher::RequestView;
use crate::routing::table::{CompiledRoute, CompiledService};
use crate::routing::{Client, ClientKey, RouteIdx, ServiceIdx, StickyCookie, Table, VersionIdx, host, path};

/// The request that `explain` is asked about.
#[derive(Debug, Clone, Default)]
pub struct Question {
    pub method: String,
    /// Absolute (`http://host/path?query`) or just a path.
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// For `sticky: client_ip`.
    pub client: Option<std::net::IpAddr>,
}

/// How far a request gets without choosing a version.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    /// The proxy itself refuses the request: status and why.
    pub refused: Option<(u16, String)>,
    pub route: Option<RouteIdx>,
    pub service: Option<ServiceIdx>,
    pub client: Client,
    pub headers: HeaderMap,
    /// One line for people per step.
    pub steps: Vec<String>,
}

impl Asked {
    pub fn route<'a>(&self, table: &'a Table) -> Option<&'a CompiledRoute> {
        self.route.map(|route| table.route_at(route))
    }
    pub fn route_name(&self, table: &Table) -> Option<String> {
        self.route(table).map(|route| route.route.name.to_string())
    }
    pub fn service_name(&self, table: &Table) -> Option<String> {
        self.service.map(|service| table.service(service).name.to_string())
    }
    /// The status, if the proxy answers by itself.
    pub fn status(&self, table: &Table) -> Option<u16> {
        if let Some((status, _)) = &self.refused {
            return Some(*status);
        }
        match self.route(table).map(|route| &route.route.action) {
            None => Some(404),
            Some(Action::Redirect { status, .. } | Action::Respond { status, .. }) => Some(*status),
            Some(Action::Forward { .. }) => None,
        }
    }
}

/// An error says what of the description is no HTTP request.
pub(crate) fn ask(table: &Table, question: &Question) -> Result<Asked, String> {
    let method: Method = question.method.parse().map_err(|_| format!("`{}` is no HTTP method", question.method))?;
    let uri: Uri = question.url.parse().map_err(|error| format!("`{}` is no URL: {error}", question.url))?;
    let headers = header_map(&question.headers)?;
    let mut asked = Asked { query: uri.query().map(str::to_string), ..Asked::default() };

    let given = uri.authority().map(|authority| authority.as_str().as_bytes().to_vec());
    let given = given.or_else(|| headers.get(http::header::HOST).map(|value| value.as_bytes().to_vec()));
    match &given {
        None => asked.steps.push("no host is given: only routes without `host` can match".into()),
        Some(given) => match host::normalise(given) {
            Some(host) => asked.host = host.into_owned(),
            None => return Ok(refuse(asked, "the host is not one name or address with an optional port")),
        },
    }
    let written = if uri.path().is_empty() { "/" } else { uri.path() };
    match path::normalise(written) {
        Ok(normal) => {
            if normal != written {
                asked.steps.push(format!("path {written} is read as {normal}"));
            }
            asked.path = normal.into_owned();
        }
        Err(problem) => return Ok(refuse(asked, &format!("the path {problem}"))),
    }

    let view = RequestView {
        method: &method,
        host: &asked.host,
        path: &asked.path,
        query: asked.query.as_deref(),
        headers: &headers,
    };
    asked.route = match table.route_path(&view) {
        Ok(route) => route,
        Err(problem) => return Ok(refuse(asked, &format!("the path {problem}"))),
    };
    let Some(route) = asked.route(table) else {
        asked.steps.push(format!("no route matches host `{}`, path {}: 404", asked.host, asked.path));
        return Ok(asked);
    };
    asked.steps.push(format!("route `{}` is the most specific that matches", route.route.name));
    asked.service = route.service;
    if let Some(service) = route.service {
        let service = table.service(service);
        let mut steps = std::mem::take(&mut asked.steps);
        asked.client = Client {
            force: service.service.force.as_ref().and_then(|force| forced(service, force, &headers, &mut steps)),
            ..client(service, &headers, question.client, &mut steps)
        };
        asked.steps = steps;
    }
    asked.headers = headers;
    Ok(asked)
}

fn refuse(mut asked: Asked, why: &str) -> Asked {
    asked.steps.push(format!("{why}: 400"));
    asked.refused = Some((400, why.to_string()));
    asked
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let parsed: HeaderName = name.parse().map_err(|_| format!("`{name}` is no header name"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("the value of `{name}` is no header value"))?;
        map.append(parsed, value);
    }
    Ok(map)
}

fn forced(
    service: &CompiledService,
    force: &Force,
    headers: &HeaderMap,
    steps: &mut Vec<String>,
) -> Option<VersionIdx> {
    let value = headers.get(&force.header)?.to_str().ok()?;
    let (name, allowed) = match &force.token {
        None => (value, true),
        Some(token) => {
            let (name, given) = value.split_once(':').unwrap_or((value, ""));
            (name, bool::from(given.as_bytes().ct_eq(token.as_bytes())))
        }
    };
    if !allowed {
        steps.push(format!("{} does not carry the right token: ignored", force.header));
        return None;
    }
    let version = service.version_named(name);
    match version {
        Some(_) => steps.push(format!("{} names version `{name}` and may", force.header)),
        None => steps.push(format!("{} names `{name}`, which is no version: ignored", force.header)),
    }
    version
}

fn client(
    service: &CompiledService,
    headers: &HeaderMap,
    address: Option<std::net::IpAddr>,
    steps: &mut Vec<String>,
) -> Client {
    let mut client = Client::default();
    match &service.service.sticky {
        None => steps.push("clients are not sticky: the next version in the weighted order".into()),
        Some(Sticky::Cookie { name, .. }) => match cookie(headers, name).and_then(StickyCookie::parse) {
            Some(cookie) => {
                client.key = Some(cookie.key());
                client.pinned = cookie.version(service);
                steps.push(format!("cookie `{name}` identifies the client"));
            }
            None => steps.push(format!("no valid cookie `{name}`: a new client, which will get one")),
        },
        Some(Sticky::Header(name)) => match headers.get(name) {
            Some(value) => {
                client.key = Some(ClientKey::from_bytes(value.as_bytes()));
                steps.push(format!("header `{name}` identifies the client"));
            }
            None => steps.push(format!("header `{name}` is absent: by weight")),
        },
        Some(Sticky::ClientIp) => match address {
            Some(address) => {
                client.key = Some(ClientKey::of_address(address));
                steps.push(format!("address {address} identifies the client"));
            }
            None => steps.push("clients are told apart by address, and none was given: by weight".into()),
        },
    }
    client
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(http::header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(have, _)| *have == name).map(|(_, value)| value)
}
