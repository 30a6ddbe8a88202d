//! Method and path to the call they name.

use http::{Method, StatusCode};

use super::problem::Problem;
use super::query::decode;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Read(Read),
    /// `POST`, but changes nothing: what an apply would do.
    Plan,
    /// The story of a service's rollout.
    Rollout {
        service: String,
    },
    Change(ChangeCall),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    Livez,
    Readyz,
    Metrics,
    Status,
    Effective,
    Generations,
    Explain,
    Events,
    Audit,
}

/// A call that changes state: it needs the token and is audited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeCall {
    /// A new process takes over.
    Upgrade,
    Apply,
    Reload,
    Confirm,
    Revert {
        generation: u64,
    },
    /// `None`: the body names the services.
    Switch {
        service: Option<String>,
    },
    Weights {
        service: Option<String>,
    },
    Rollback {
        service: String,
    },
    Drain {
        service: String,
    },
    Hold {
        service: String,
    },
    Release {
        service: String,
    },
    Clear {
        service: String,
    },
    Rollout {
        service: String,
        verb: RolloutVerb,
    },
    /// Evidence from outside.
    Events {
        service: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutVerb {
    Start,
    Promote,
    Pause,
    Resume,
    Abort,
    Approve,
}

impl Call {
    /// Whether it is answered whatever the writer does.
    pub fn is_at_once(&self) -> bool {
        matches!(self, Call::Read(Read::Livez | Read::Readyz | Read::Events))
    }

    pub fn is_probe(&self) -> bool {
        match self {
            Call::Read(Read::Livez | Read::Readyz | Read::Metrics) => true,
            Call::Read(Read::Status | Read::Effective | Read::Generations) => false,
            Call::Read(Read::Explain | Read::Events | Read::Audit) => false,
            Call::Plan | Call::Rollout { .. } | Call::Change(_) => false,
        }
    }

    fn allow(&self) -> &'static str {
        match self {
            Call::Read(_) | Call::Rollout { .. } => "GET, HEAD",
            Call::Plan | Call::Change(_) => "POST",
        }
    }
}

/// 404 for a path that names nothing, 405 with `Allow` for the wrong method.
pub fn find(method: &Method, path: &str) -> Result<Call, Problem> {
    let call = by_path(path).ok_or_else(|| unknown(path))?;
    let fits = match call {
        Call::Read(_) | Call::Rollout { .. } => method == Method::GET || method == Method::HEAD,
        Call::Plan | Call::Change(_) => method == Method::POST,
    };
    if fits {
        return Ok(call);
    }
    let detail = format!("`{path}` takes {}, not {method}", call.allow());
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "Wrong method", detail);
    Err(problem.allow(call.allow()))
}

fn by_path(path: &str) -> Option<Call> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let change = match segments[..] {
        ["livez"] => return Some(Call::Read(Read::Livez)),
        ["readyz"] => return Some(Call::Read(Read::Readyz)),
        ["metrics"] => return Some(Call::Read(Read::Metrics)),
        ["api", "v1", "status"] => return Some(Call::Read(Read::Status)),
        ["api", "v1", "config", "effective"] => return Some(Call::Read(Read::Effective)),
        ["api", "v1", "generations"] => return Some(Call::Read(Read::Generations)),
        ["api", "v1", "explain"] => return Some(Call::Read(Read::Explain)),
        ["api", "v1", "events"] => return Some(Call::Read(Read::Events)),
        ["api", "v1", "audit"] => return Some(Call::Read(Read::Audit)),
        ["api", "v1", "config", "plan"] => return Some(Call::Plan),
        ["api", "v1", "upgrade"] => ChangeCall::Upgrade,
        ["api", "v1", "config", "apply"] => ChangeCall::Apply,
        ["api", "v1", "config", "reload"] => ChangeCall::Reload,
        ["api", "v1", "config", "confirm"] => ChangeCall::Confirm,
        ["api", "v1", "generations", number, "revert"] => ChangeCall::Revert { generation: number.parse().ok()? },
        ["api", "v1", "switch"] => ChangeCall::Switch { service: None },
        ["api", "v1", "weights"] => ChangeCall::Weights { service: None },
        ["api", "v1", "services", service, verb] => {
            let service = decode(service, false).ok().filter(|service| !service.is_empty())?;
            match verb {
                "rollout" => return Some(Call::Rollout { service }),
                "switch" => ChangeCall::Switch { service: Some(service) },
                "weights" => ChangeCall::Weights { service: Some(service) },
                "rollback" => ChangeCall::Rollback { service },
                "drain" => ChangeCall::Drain { service },
                "hold" => ChangeCall::Hold { service },
                "release" => ChangeCall::Release { service },
                "clear" => ChangeCall::Clear { service },
                "events" => ChangeCall::Events { service },
                _ => return None,
            }
        }
        ["api", "v1", "services", service, "rollout", verb] => {
            let service = decode(service, false).ok().filter(|service| !service.is_empty())?;
            let verb = match verb {
                "start" => RolloutVerb::Start,
                "promote" => RolloutVerb::Promote,
                "pause" => RolloutVerb::Pause,
                "resume" => RolloutVerb::Resume,
                "abort" => RolloutVerb::Abort,
                "approve" => RolloutVerb::Approve,
                _ => return None,
            };
            ChangeCall::Rollout { service, verb }
        }
        _ => return None,
    };
    Some(Call::Change(change))
}

fn unknown(path: &str) -> Problem {
    let detail = format!("`{path}` names nothing here");
    let problem = Problem::new(StatusCode::NOT_FOUND, "unknown-path", "There is no such call", detail);
    problem.hint("calls begin with /api/v1/; `GET /api/v1/status` is a good first one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_names_its_call() {
        let shop = || String::from("shop");
        for (method, path, call) in [
            (Method::GET, "/livez", Call::Read(Read::Livez)),
            (Method::HEAD, "/readyz", Call::Read(Read::Readyz)),
            (Method::GET, "/metrics", Call::Read(Read::Metrics)),
            (Method::GET, "/api/v1/status", Call::Read(Read::Status)),
            (Method::GET, "/api/v1/config/effective", Call::Read(Read::Effective)),
            (Method::POST, "/api/v1/config/plan", Call::Plan),
            (Method::POST, "/api/v1/upgrade", Call::Change(ChangeCall::Upgrade)),
            (Method::POST, "/api/v1/config/apply", Call::Change(ChangeCall::Apply)),
            (Method::POST, "/api/v1/config/reload", Call::Change(ChangeCall::Reload)),
            (Method::POST, "/api/v1/config/confirm", Call::Change(ChangeCall::Confirm)),
            (Method::GET, "/api/v1/generations", Call::Read(Read::Generations)),
            (Method::POST, "/api/v1/generations/7/revert", Call::Change(ChangeCall::Revert { generation: 7 })),
            (Method::POST, "/api/v1/switch", Call::Change(ChangeCall::Switch { service: None })),
            (Method::POST, "/api/v1/weights", Call::Change(ChangeCall::Weights { service: None })),
            (Method::POST, "/api/v1/services/shop/switch", Call::Change(ChangeCall::Switch { service: Some(shop()) })),
            (
                Method::POST,
                "/api/v1/services/s%68op/weights",
                Call::Change(ChangeCall::Weights { service: Some(shop()) }),
            ),
            (Method::POST, "/api/v1/services/shop/rollback", Call::Change(ChangeCall::Rollback { service: shop() })),
            (Method::POST, "/api/v1/services/shop/drain", Call::Change(ChangeCall::Drain { service: shop() })),
            (Method::POST, "/api/v1/services/shop/hold", Call::Change(ChangeCall::Hold { service: shop() })),
            (Method::POST, "/api/v1/services/shop/release", Call::Change(ChangeCall::Release { service: shop() })),
            (Method::POST, "/api/v1/services/shop/clear", Call::Change(ChangeCall::Clear { service: shop() })),
            (
                Method::POST,
                "/api/v1/services/shop/rollout/abort",
                Call::Change(ChangeCall::Rollout { service: shop(), verb: RolloutVerb::Abort }),
            ),
            (Method::POST, "/api/v1/services/shop/events", Call::Change(ChangeCall::Events { service: shop() })),
            (Method::GET, "/api/v1/explain", Call::Read(Read::Explain)),
            (Method::GET, "/api/v1/events", Call::Read(Read::Events)),
            (Method::GET, "/api/v1/audit", Call::Read(Read::Audit)),
            (Method::GET, "/api/v1/services/shop/rollout", Call::Rollout { service: shop() }),
        ] {
            assert_eq!(find(&method, path), Ok(call), "{method} {path}");
        }
    }

    #[test]
    fn other_paths_are_404() {
        for path in [
            "/",
            "",
            "*",
            "/livez/",
            "//livez",
            "/api/v1",
            "/api/v1/status/x",
            "/api/v2/status",
            "/api/v1/services/shop",
            "/api/v1/services//switch",
            "/api/v1/services/shop/explode",
            "/api/v1/services/shop/rollout/explode",
            "/api/v1/services/%ff/switch",
            "/api/v1/generations/x/revert",
            "/api/v1/generations/-1/revert",
            "/livez/../metrics",
        ] {
            assert_eq!(find(&Method::GET, path).unwrap_err().status, 404, "{path}");
        }
    }

    #[test]
    fn the_wrong_method_is_told_the_right_one() {
        for (method, path, allow) in [
            (Method::POST, "/livez", "GET, HEAD"),
            (Method::DELETE, "/api/v1/status", "GET, HEAD"),
            (Method::GET, "/api/v1/config/apply", "POST"),
            (Method::GET, "/api/v1/services/shop/switch", "POST"),
            (Method::OPTIONS, "/api/v1/switch", "POST"),
            (Method::POST, "/api/v1/services/shop/rollout", "GET, HEAD"),
        ] {
            let problem = find(&method, path).unwrap_err();
            assert_eq!((problem.status, problem.allow), (405, Some(allow)), "{method} {path}");
            assert_eq!(problem.into_response().headers()["allow"], allow);
        }
    }
}
