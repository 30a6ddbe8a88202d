//! `docs/hostile-traffic.md` lists every case: `UPDATE_HOSTILE=1 cargo test --test e2e hostile` writes its tables.

use std::path::Path;

use super::{answers, http2, http2_answers, requests};

/// Control characters as escapes, so that a table shows them.
pub fn visible(text: &str) -> String {
    text.replace("\r\n", " CR LF ").escape_debug().to_string().trim().replace('|', "\\|")
}

/// The tables, by the name that stands in their markers.
fn tables() -> Vec<(&'static str, String)> {
    vec![
        ("requests", of_requests()),
        ("http2", of_http2()),
        ("floods", of_floods()),
        ("answers", of_answers()),
        ("http2 answers", of_http2_answers()),
    ]
}

fn of_requests() -> String {
    let mut text = String::new();
    for group in requests::groups() {
        text +=
            &format!("### {}\n\n| A client sends | It sees | The endpoint receives |\n|---|---|---|\n", group.title);
        for case in group.cases {
            text += &format!("| {} | {} | {} |\n", case.name, case.client.in_words(), case.endpoint.in_words());
        }
        text += "\n";
    }
    text
}

fn of_answers() -> String {
    let mut text = String::new();
    for (title, cases) in answers::groups() {
        text += &format!(
            "### {title}\n\n| An endpoint answers with | The client sees | Its connection is |\n|---|---|---|\n"
        );
        for case in cases {
            text += &format!("| {} | {} | {} |\n", case.name, case.sees.in_words(), case.connection.in_words());
        }
        text += "\n";
    }
    text
}

fn of_http2() -> String {
    let mut text = String::new();
    for group in http2::groups() {
        text +=
            &format!("### {}\n\n| A client sends | It sees | The endpoint receives |\n|---|---|---|\n", group.title);
        for case in group.cases {
            text += &format!("| {} | {} | {} |\n", case.name, case.sees.in_words(), case.reaches.in_words());
        }
        text += "\n";
    }
    text
}

fn of_floods() -> String {
    let mut text = "| A client sends | It sees | The endpoint receives |\n|---|---|---|\n".to_string();
    for flood in http2::floods() {
        let received = match flood.reach {
            0 => "nothing".into(),
            1 => "no whole request".into(),
            most => format!("at most {most} requests of {}, each let go", http2::FLOOD),
        };
        text += &format!("| {} | {} | {received} |\n", flood.name, flood.sees.in_words());
    }
    text + "\n"
}

fn of_http2_answers() -> String {
    let mut text = "| An endpoint answers with | The client sees |\n|---|---|\n".to_string();
    for case in http2_answers::cases() {
        text += &format!("| {} | {} |\n", case.name, case.sees.in_words());
    }
    text + "\n"
}

#[test]
fn the_document_lists_every_case() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/hostile-traffic.md");
    let mut document = std::fs::read_to_string(&path).expect("the document is there");
    for (name, table) in tables() {
        let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
        let from = document.find(&begin).unwrap_or_else(|| panic!("no `{begin}` in the document")) + begin.len();
        let to = from + document[from..].find(&end).unwrap_or_else(|| panic!("no `{end}` in the document"));
        if document[from..to] != table {
            assert!(
                std::env::var_os("UPDATE_HOSTILE").is_some(),
                "the table `{name}` is not what is tested: run UPDATE_HOSTILE=1 cargo test --test e2e hostile"
            );
            document.replace_range(from..to, &table);
            std::fs::write(&path, &document).expect("the document can be written");
        }
    }
}
