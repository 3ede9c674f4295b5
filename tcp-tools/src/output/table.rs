//! A streaming table: columns of fixed width, so that each row can be shown at once.

use unicode_width::UnicodeWidthStr as _;

use super::time::Times;
use super::{Align, Column, Value, text};

/// Appends the line of headings.
pub(super) fn header<R>(out: &mut Vec<u8>, columns: &[&Column<R>], wide: bool) {
    line(out, columns, wide, |out, column| {
        out.extend(column.header.as_bytes())
    });
}

/// Appends one row.
pub(super) fn row<R>(
    out: &mut Vec<u8>,
    columns: &[&Column<R>],
    wide: bool,
    row: &R,
    times: &mut Times,
) {
    line(out, columns, wide, |out, column| {
        cell(out, &(column.get)(row), times)
    });
}

/// Appends one value.
pub(super) fn cell(out: &mut Vec<u8>, value: &Value, times: &mut Times) {
    match *value {
        Value::Null | Value::Flag(false) => out.push(b'-'),
        Value::Fixed(number) => text::fixed(out, text::rounded(number)),
        Value::AtLeast(number) => {
            out.push(b'>');
            text::fixed(out, text::rounded(number));
        }
        _ => text::value(out, value, times),
    }
}

fn line<R>(
    out: &mut Vec<u8>,
    columns: &[&Column<R>],
    wide: bool,
    mut cell: impl FnMut(&mut Vec<u8>, &Column<R>),
) {
    let line = out.len();
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        let start = out.len();
        cell(out, column);
        let width = column.wide.filter(|_| wide).unwrap_or(column.width);
        let padding = width.saturating_sub(displayed(&out[start..]));
        out.resize(out.len() + padding, b' ');
        if column.align == Align::Right {
            out[start..].rotate_right(padding);
        }
    }
    let trailing = out[line..]
        .iter()
        .rev()
        .take_while(|byte| **byte == b' ')
        .count();
    out.truncate(out.len() - trailing);
    out.push(b'\n');
}

/// Columns of a terminal that `text` takes.
fn displayed(text: &[u8]) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        str::from_utf8(text).map_or(text.len(), |t| t.width())
    }
}
