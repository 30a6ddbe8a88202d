//! How results are printed: tables that can be put into a document as they are.

use comfy_table::{CellAlignment, Table, presets};

/// The first column is text, the others are numbers.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(head.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
