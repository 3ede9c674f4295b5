//! Rows of a view turned into bytes: a table, CSV or JSON.
//!
//! A view describes its columns once, as constants; the formats know nothing of any view. Nothing
//! here does I/O: rows are appended to one buffer, which the caller writes and clears once per
//! drain. Strings from outside (process names, host names) are escaped in every format, so that no
//! terminal sequence and no line break gets through.

mod csv;
mod escape;
mod json;
mod table;
mod text;
mod time;

use std::net::{IpAddr, SocketAddr};

use self::csv::Csv;
use self::time::Times;

/// One field of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Not known: `-` in a table, empty in CSV, absent in JSON.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A mark that most rows do not have: in JSON absent unless it is set, `-` in a table. CSV has a word for both.
    Flag(bool),
    /// A count, or an identifier.
    Uint(u64),
    /// A number with decimals.
    Fixed(Fixed),
    /// A number that the true one may exceed. A table puts `>` before it; CSV and JSON give the
    /// bare number, and the view has a field of its own that says so.
    AtLeast(Fixed),
    /// A string of our own.
    Text(&'static str),
    /// A string from outside: any bytes.
    Untrusted(&'a [u8]),
    /// An address. IPv4-mapped ones are the view's to unmap.
    Ip(IpAddr),
    /// An address and a port.
    Endpoint(SocketAddr),
    /// A name from outside and a port.
    NamedEndpoint(&'a [u8], u16),
    /// Local time of day, `HH:MM:SS`, of nanoseconds since the epoch.
    Clock(u64),
    /// Date and time in UTC with microseconds, of nanoseconds since the epoch.
    Rfc3339(u64),
}

/// The number `units` / 10^`scale`. Exact, unlike a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    /// The number in units of its last decimal, such as microseconds for a number of milliseconds.
    pub units: u64,
    /// Decimals in CSV and JSON, at most 9: 3 for microseconds shown as milliseconds.
    pub scale: u8,
    /// Decimals in a table, rounded half up; no more than `scale`.
    pub shown: u8,
}

/// The JSON type of a column, for the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Value::Bool`], [`Value::Flag`]
    Boolean,
    /// [`Value::Uint`]
    Integer,
    /// [`Value::Fixed`], [`Value::AtLeast`]
    Number,
    /// All others.
    String,
}

/// The side of its column that a value stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Padded behind.
    Left,
    /// Padded before.
    Right,
}

/// One column of a view whose rows are `R`.
#[derive(Debug)]
pub struct Column<R: 'static> {
    /// JSON key, and what `--fields` calls it. Must need no escape in JSON.
    pub name: &'static str,
    /// Heading in tables and CSV.
    pub header: &'static str,
    /// Characters in a table. A longer value is not cut: it pushes the rest of its row aside.
    pub width: usize,
    /// Characters in a wide table (`-w`), where that differs.
    pub wide: Option<usize>,
    /// Side in a table.
    pub align: Align,
    /// Type in JSON.
    pub kind: Kind,
    /// Meaning and unit, for the schema and the help.
    pub doc: &'static str,
    /// The row's value in this column.
    pub get: for<'a> fn(&'a R) -> Value<'a>,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns for people.
    Table {
        /// Room for full IPv6 addresses ([`Column::wide`]).
        wide: bool,
    },
    /// RFC 4180, with line feeds.
    Csv,
    /// One object a line.
    Json,
}

/// Formats rows of `R` into one buffer.
#[derive(Debug)]
pub struct Writer<R: 'static> {
    format: Format,
    columns: Vec<&'static Column<R>>,
    buffer: Vec<u8>,
    csv: Csv,
    times: Times,
}

impl<R> Writer<R> {
    /// A writer of these columns, in this order.
    #[must_use]
    pub fn new(format: Format, columns: Vec<&'static Column<R>>) -> Self {
        let (buffer, csv, times) = (Vec::new(), Csv::default(), Times::default());
        Self {
            format,
            columns,
            buffer,
            csv,
            times,
        }
    }

    /// The columns, in their order.
    #[must_use]
    pub fn columns(&self) -> &[&'static Column<R>] {
        &self.columns
    }

    /// From now on with other columns.
    pub fn set_columns(&mut self, columns: Vec<&'static Column<R>>) {
        self.columns = columns;
    }

    /// Appends one row.
    pub fn row(&mut self, row: &R) {
        let (out, columns, times) = (&mut self.buffer, &self.columns, &mut self.times);
        match self.format {
            Format::Table { wide } => table::row(out, columns, wide, row, times),
            Format::Csv => self.csv.row(out, columns, row, times),
            Format::Json => {
                json::object(out, columns.iter().map(|c| (c.name, (c.get)(row))), times);
            }
        }
    }

    /// A value as a table shows it.
    pub fn shown(&mut self, value: &Value<'_>) -> String {
        let mut text = Vec::new();
        table::cell(&mut text, value, &mut self.times);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Appends lines that are neither rows nor objects, such as a summary.
    pub fn text(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
    }
}

/// The lines of a view, whatever its rows are.
pub trait Lines {
    /// How rows are written.
    fn format(&self) -> Format;

    /// Appends the line of headings; in JSON there is none.
    fn header(&mut self);

    /// Appends a JSON object on a line of its own, whatever the format: what a stream of rows says in
    /// between, such as events lost.
    fn object(&mut self, fields: &[(&'static str, Value<'_>)]);

    /// What was appended since the last [`clear`](Self::clear).
    fn bytes(&self) -> &[u8];

    /// Empties the buffer and keeps its memory.
    fn clear(&mut self);
}

impl<R> Lines for Writer<R> {
    fn format(&self) -> Format {
        self.format
    }

    fn header(&mut self) {
        match self.format {
            Format::Table { wide } => table::header(&mut self.buffer, &self.columns, wide),
            Format::Csv => self.csv.header(&mut self.buffer, &self.columns),
            Format::Json => {}
        }
    }

    fn object(&mut self, fields: &[(&'static str, Value<'_>)]) {
        json::object(&mut self.buffer, fields.iter().copied(), &mut self.times);
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    fn clear(&mut self) {
        self.buffer.clear();
    }
}

/// `bytes` from outside as text for a terminal, escaped like [`Value::Untrusted`].
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    escape::terminal(&mut text, bytes);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests;
