//! CSV as in RFC 4180, with line feeds.

use std::fmt;

use super::time::Times;
use super::{Column, text};

#[derive(Default)]
pub(super) struct Csv {
    writer: csv_core::Writer,
    field: Vec<u8>,
}

impl fmt::Debug for Csv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Csv").finish_non_exhaustive()
    }
}

impl Csv {
    /// Appends the line of headings.
    pub(super) fn header<R>(&mut self, out: &mut Vec<u8>, columns: &[&Column<R>]) {
        self.line(out, columns, |field, column| {
            field.extend(column.header.as_bytes())
        });
    }

    /// Appends one row.
    pub(super) fn row<R>(
        &mut self,
        out: &mut Vec<u8>,
        columns: &[&Column<R>],
        row: &R,
        times: &mut Times,
    ) {
        self.line(out, columns, |field, column| {
            text::value(field, &(column.get)(row), times)
        });
    }

    fn line<R>(
        &mut self,
        out: &mut Vec<u8>,
        columns: &[&Column<R>],
        mut cell: impl FnMut(&mut Vec<u8>, &Column<R>),
    ) {
        for (at, column) in columns.iter().enumerate() {
            self.field.clear();
            cell(&mut self.field, column);
            let start = out.len();
            // At worst a delimiter, two quotes, and every byte a quote that is doubled.
            out.resize(start + 2 * self.field.len() + 4, 0);
            let mut end = start;
            if at > 0 {
                end += self.writer.delimiter(&mut out[end..]).1;
            }
            end += self.writer.field(&self.field, &mut out[end..]).2;
            out.truncate(end);
        }
        let start = out.len();
        // At worst the closing quote, or the pair that stands for one empty field, and the end.
        out.resize(start + 4, 0);
        let end = start + self.writer.terminator(&mut out[start..]).1;
        out.truncate(end);
    }
}
