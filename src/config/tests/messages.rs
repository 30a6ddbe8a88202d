//! The text that operators read is an interface.

use super::parse;

fn report(text: &str) -> String {
    match parse(text) {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(problems) => problems.to_string(),
    }
}

const HEAD: &str = "listeners: { web: { bind: \"127.0.0.1:8080\" } }\nroutes: [{ name: api, service: api }]\n";

fn service(rest: &str) -> String {
    format!(
        "{HEAD}services:\n  api:\n    versions:\n      blue: {{ endpoints: [\"127.0.0.1:1\"] }}\n      green: {{ endpoints: [\"127.0.0.1:2\"] }}\n{rest}"
    )
}

#[test]
fn an_unknown_version() {
    insta::assert_snapshot!(report(&service("    active: gren\n")), @r#"
    error: service `api` has no version `gren`
      --> f.yaml:8:13
    8 |     active: gren
      |             ^^^^ its versions are `blue` and `green`
      = help: did you mean `green`?
    "#);
}

#[test]
fn an_unknown_key() {
    insta::assert_snapshot!(report(&service("    activ: blue\n")), @r#"
    error: unknown key `activ`
      --> f.yaml:8:5
    8 |     activ: blue
      |     ^^^^^ not a key of `api`
      = help: did you mean `active`?
    "#);
}

#[test]
fn a_name_of_another_tool() {
    insta::assert_snapshot!(report("listeners: { web: { bind: \"127.0.0.1:8080\" } }\nroutes: []\nbackends: {}\n"), @r#"
    error: unknown key `backends`
      --> f.yaml:3:1
    3 | backends: {}
      | ^^^^^^^^ not a key of the configuration
      = help: here it is called `services`

    warning: there are no routes
      = why: every request is answered with 404
    "#);
}

#[test]
fn a_feature_of_a_later_version() {
    insta::assert_snapshot!(report(&service("    active: blue\n    mirror: { to: green }\n")), @r#"
    error: unknown key `mirror`
      --> f.yaml:9:5
    9 |     mirror: { to: green }
      |     ^^^^^^ not a key of `api`
      = help: this version of switchback does not have `mirror` yet; remove it
    "#);
}

#[test]
fn a_percentage_as_weight() {
    insta::assert_snapshot!(report(&service("    split: { blue: 90%, green: 10 }\n")), @r#"
    error: `90%` is not a weight for `blue`
      --> f.yaml:8:20
    8 |     split: { blue: 90%, green: 10 }
      |                    ^^^ weights are whole numbers, 0 (draining) to 1000000
      = help: write `90`
    "#);
}

#[test]
fn a_duration_without_unit() {
    insta::assert_snapshot!(report(&service("    active: blue\n    timeouts: { request: 30 }\n")), @r#"
    error: `30` is not a duration for `request`
      --> f.yaml:9:26
    9 |     timeouts: { request: 30 }
      |                          ^^ write a whole number and a unit, such as `250ms`, `30s`, `5m`, `1h` or `1d`
      = help: did you mean `30s`?
    "#);
}

#[test]
fn a_key_given_twice() {
    insta::assert_snapshot!(report(&service("    active: blue\n    active: green\n")), @r#"
    error: the key `active` is given twice
      --> f.yaml:9:5
    9 |     active: green
      |     ^^^^^^ first on line 8
      = help: keep one of them, or give them different names
    "#);
}

#[test]
fn a_line_indented_too_far() {
    insta::assert_snapshot!(report(&service("     active: blue\n")), @r#"
    error: not valid YAML: while parsing a block mapping, did not find expected key
      --> f.yaml:8:6
    8 |      active: blue
      |      ^
      = help: check the indentation of this line and the one above, and that quotes and brackets are closed
    "#);
}

#[test]
fn a_line_indented_too_little() {
    insta::assert_snapshot!(report(&service("active: blue\n")), @r#"
    error: service `api` does not say which version is live
      --> f.yaml:4:3
    4 |   api:
      |   ^^^
      = help: add `active: blue`, or `split: { blue: 100 }`

    error: unknown key `active`
      --> f.yaml:8:1
    8 | active: blue
      | ^^^^^^ not a key of the configuration
      = help: `active` belongs to a service: check the indentation
    "#);
}

#[test]
fn a_header_that_is_not_ours_to_change() {
    let text = "listeners: { web: { bind: \"127.0.0.1:8080\" } }\nroutes:\n  - name: a\n    respond: { headers: { Content-Length: \"3\" } }\n";
    insta::assert_snapshot!(report(text), @r#"
    error: the header `content-length` cannot be changed
      --> f.yaml:4:27
    4 |     respond: { headers: { Content-Length: "3" } }
      |                           ^^^^^^^^^^^^^^ it frames the message or belongs to one connection
      = help: remove it: the proxy writes it itself
    "#);
}

#[test]
fn an_open_admin() {
    insta::assert_snapshot!(report(&format!("admin: {{ bind: \"0.0.0.0:9900\" }}\n{}", service("    active: blue\n"))), @r#"
    error: the admin API would be open to other machines without encryption
      --> f.yaml:1:16
    1 | admin: { bind: "0.0.0.0:9900" }
      |                ^^^^^^^^^^^^^^ `0.0.0.0` is not a loopback address
      = help: bind 127.0.0.1 or `unix:/path`; or write `insecure: true` if the network is trusted
    "#);
}

#[test]
fn warnings_only() {
    let text = "listeners: { web: { bind: \"127.0.0.1:8080\" } }\nroutes:\n  - { name: a, respond: {} }\n  - { name: b, respond: {} }\n\
        services: { s: { versions: { v1: { endpoints: [\"h:1\"] } }, active: v1 } }\n";
    insta::assert_snapshot!(report(text), @r#"
    warning: route `b` gets no requests
      --> f.yaml:4:13
    4 |   - { name: b, respond: {} }
      |             ^ `a` above matches the same and comes first

    warning: service `s` gets no requests
      --> f.yaml:5:13
    5 | services: { s: { versions: { v1: { endpoints: ["h:1"] } }, active: v1 } }
      |             ^ no route names it
    "#);
}

#[test]
fn a_hedge_without_anybody_else() {
    let text = service("    active: blue\n    retry: { attempts: 0, budget: 5%, hedge: { after: 50ms } }\n");
    insta::assert_snapshot!(report(&text), @r#"
    warning: `hedge` has no effect
      --> f.yaml:9:39
    9 |     retry: { attempts: 0, budget: 5%, hedge: { after: 50ms } }
      |                                       ^^^^^ no version has a second endpoint
    "#);
    let several = text.replacen("endpoints: [", "endpoints: [\"shop.internal:80\", ", 1);
    assert_eq!(report(&several), "", "the budget has an effect without attempts");
}

#[test]
fn a_very_long_line_is_cut_around_the_mark() {
    let list = (0..60).map(|n| format!("\"127.0.0.1:{}\"", 1000 + n)).collect::<Vec<_>>().join(", ");
    let text = service(&format!("      red: {{ endpoints: [{list}, oops] }}\n    active: blue\n"));
    insta::assert_snapshot!(report(&text), @r#"
    error: `oops` is not an endpoint for `endpoints`
      --> f.yaml:8:1106
    8 | …7", "127.0.0.1:1058", "127.0.0.1:1059", oops] }
      |                                          ^^^^ write address and port: `10.0.0.1:3000`, `[::1]:3000`, `shop.internal:3000` or `unix:/run/shop.sock`
      = help: the port is missing
    "#);
}

#[test]
fn a_file_that_cannot_be_read() {
    let problems = super::super::load::read(std::path::Path::new("nowhere/switchback.yaml")).unwrap_err();
    insta::assert_snapshot!(problems.render(Some("nothing changed, generation 41 keeps serving")), @r#"
    error: nowhere/switchback.yaml cannot be read
      = why: no such file or directory
      = help: `switchback config init` writes a working example; `-c` names another file
      = note: nothing changed, generation 41 keeps serving
    "#);
}

#[test]
fn for_github_and_for_programs() {
    let problems = parse(&service("    active: gren\n    mirror: {}\n")).unwrap_err();
    insta::assert_snapshot!(problems.render_github(), @r#"
    ::error file=f.yaml,line=8,col=13,endColumn=17::service `api` has no version `gren`: its versions are `blue` and `green` (help: did you mean `green`?)
    ::error file=f.yaml,line=9,col=5,endColumn=11::unknown key `mirror`: not a key of `api` (help: this version of switchback does not have `mirror` yet; remove it)
    "#);
    let json: serde_json::Value = serde_json::from_str(&problems.render_json()).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["problems"][0]["place"]["line"], 8);
    assert_eq!(json["problems"][0]["severity"], "error");
}
