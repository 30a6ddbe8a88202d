//! `docs/hostile-traffic.md` lists every case: `UPDATE_HOSTILE=1 cargo test --test e2e hostile` writes its tables.

use std::path::Path;

use super::{answers, requests};

/// Control characters as escapes, so that a table shows them.
pub fn visible(text: &str) -> String {
    text.replace("\r\n", " CR LF ").escape_debug().to_string().trim().replace('|', "\\|")
}

/// The tables, by the name that stands in their markers.
fn tables() -> Vec<(&'static str, String)> {
    vec![("requests", of_requests()), ("answers", of_answers())]
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
