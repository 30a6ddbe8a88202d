//! Secrets: named in the file, read from another.

use super::super::decode::Field;
use super::super::found::Found;
use super::super::model::rollout::Secret;
use super::super::scalar::Text;
use super::Around;

/// What the named file holds, one line without blanks. `what` it should be, with article. `None`: not
/// named, or reported.
pub fn secret(field: &Field<Text>, what: &str, around: &Around<'_>, found: &mut Found) -> Option<Secret> {
    let (name, span) = field.written()?;
    let file = around.path(&name.0, span);
    match (around.read)(&file) {
        Ok(text) => {
            let text = text.trim();
            if text.is_empty() || text.len() > 512 || !text.chars().all(|c| c.is_ascii_graphic()) {
                found
                    .error(span, format!("`{}` does not hold {what}", name.0))
                    .why("it must be one line of 1 to 512 visible ASCII characters");
                return None;
            }
            Some(Secret { value: text.to_owned(), file })
        }
        Err(error) => {
            found
                .error(span, format!("`{}` cannot be read", name.0))
                .why(error)
                .hint("paths are relative to the file that names them");
            None
        }
    }
}
