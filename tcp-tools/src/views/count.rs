//! How often each flow occurs (`-c`).

use std::{cmp::Reverse, collections::HashMap, net::IpAddr};

use super::columns::column;
use crate::output::{Align, Column, Format, Kind, Value, Writer};

/// More flows than this are counted together.
const MAX_FLOWS: usize = 100_000;

/// Between whom; `lport` only where it is no accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) laddr: IpAddr,
    pub(super) lport: Option<u16>,
    pub(super) raddr: IpAddr,
    pub(super) rport: u16,
}

/// A line of the result.
#[derive(Debug)]
pub(super) struct Count {
    /// `None`: all that did not fit.
    key: Option<Key>,
    count: u64,
}

/// Counts, and writes them at the end.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) writer: Writer<Count>,
    counts: HashMap<Key, u64>,
    others: u64,
}

impl Counter {
    /// `view` is what JSON calls it.
    pub(super) fn new(format: Format, view: &'static Column<Count>, with_lport: bool) -> Self {
        let columns = [(true, view), (true, &LADDR), (with_lport, &LPORT)]
            .into_iter()
            .chain([(true, &RADDR), (true, &RPORT), (true, &COUNT)])
            .filter(|(wanted, column)| {
                *wanted && (format == Format::Json || column.name != "event")
            })
            .map(|(_, column)| column)
            .collect();
        Self {
            writer: Writer::new(format, columns),
            counts: HashMap::new(),
            others: 0,
        }
    }

    pub(super) fn add(&mut self, key: Key) {
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
        } else if self.counts.len() < MAX_FLOWS {
            self.counts.insert(key, 1);
        } else {
            self.others += 1;
        }
    }

    /// Most frequent first.
    pub(super) fn end(&mut self) {
        let mut counts: Vec<_> = self.counts.drain().collect();
        counts.sort_unstable_by_key(|(key, count)| (Reverse(*count), *key));
        for (key, count) in counts {
            self.writer.row(&Count {
                key: Some(key),
                count,
            });
        }
        if self.others > 0 {
            self.writer.row(&Count {
                key: None,
                count: self.others,
            });
            log::warn!("the last line counts all beyond the first {MAX_FLOWS} flows");
        }
    }
}

/// The name of the lines in JSON.
pub(super) const fn event(get: for<'a> fn(&'a Count) -> Value<'a>) -> Column<Count> {
    column("event", "EVENT", Kind::String, "Name of the count.", get)
}

const LADDR: Column<Count> = Column {
    width: 15,
    wide: Some(39),
    ..column("laddr", "LADDR", Kind::String, "Local address.", |row| {
        row.key.map_or(Value::Null, |key| Value::Ip(key.laddr))
    })
};
const LPORT: Column<Count> = Column {
    align: Align::Left,
    ..column("lport", "LPORT", Kind::Integer, "Local port.", |row| {
        row.key
            .and_then(|key| key.lport)
            .map_or(Value::Null, |port| Value::Uint(port.into()))
    })
};
const RADDR: Column<Count> = Column {
    width: 15,
    wide: Some(39),
    ..column("raddr", "RADDR", Kind::String, "Remote address.", |row| {
        row.key.map_or(Value::Null, |key| Value::Ip(key.raddr))
    })
};
const RPORT: Column<Count> = Column {
    align: Align::Left,
    ..column("rport", "RPORT", Kind::Integer, "Remote port.", |row| {
        row.key
            .map_or(Value::Null, |key| Value::Uint(key.rport.into()))
    })
};
const COUNT: Column<Count> = Column {
    width: 8,
    ..column("count", "COUNT", Kind::Integer, "How often.", |row| {
        Value::Uint(row.count)
    })
};
