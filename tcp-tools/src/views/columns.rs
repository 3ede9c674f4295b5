//! Columns that all views of events share, and how a view's columns are chosen.

use crate::{
    event::{Flow, Owner},
    output::{Align, Column, Fixed, Format, Kind, Value, Writer},
};

use super::{Row, Subject};

/// The columns of a view, and which of them are shown when nobody chooses.
pub struct Layout<E: 'static> {
    /// All, in the order of the JSON object.
    pub all: &'static [&'static Column<Row<E>>],
    /// Names of those in a table and in CSV.
    pub table: Vec<&'static str>,
    /// Names of those that are only for tables and CSV.
    pub table_only: &'static [&'static str],
}

/// `--fields` names what the view does not have.
#[derive(Debug, thiserror::Error)]
#[error("unknown field {name:?}; this view has {}", .known.join(", "))]
pub struct UnknownField {
    name: String,
    known: Vec<&'static str>,
}

impl<E: Subject> Layout<E> {
    /// A writer of `fields`, or of the columns that `format` has by default.
    ///
    /// # Errors
    ///
    /// When a field is unknown.
    pub fn writer(
        &self,
        format: Format,
        fields: Option<&[String]>,
    ) -> Result<Writer<Row<E>>, UnknownField> {
        let find = |name: &str| self.all.iter().copied().find(|column| column.name == name);
        let columns = match (fields, format) {
            (Some(names), _) => names
                .iter()
                .map(|name| find(name).ok_or_else(|| self.unknown(name)))
                .collect::<Result<_, _>>()?,
            (None, Format::Json) => {
                let table_only = |name| self.table_only.contains(&name);
                self.all
                    .iter()
                    .copied()
                    .filter(|column| !table_only(column.name))
                    .collect()
            }
            (None, _) => self.table.iter().filter_map(|name| find(name)).collect(),
        };
        Ok(Writer::new(format, columns))
    }

    fn unknown(&self, name: &str) -> UnknownField {
        let known = self.all.iter().map(|column| column.name).collect();
        UnknownField {
            name: name.to_owned(),
            known,
        }
    }
}

/// Columns about the flow of any event.
pub(super) struct Common<E>(std::marker::PhantomData<E>);

fn owner<E: Subject>(row: &Row<E>) -> Option<&Owner> {
    row.event.flow().owner.as_ref()
}

fn flow<E: Subject>(row: &Row<E>) -> &Flow {
    row.event.flow()
}

/// An optional number.
pub(super) fn uint(value: Option<impl Into<u64>>) -> Value<'static> {
    value.map_or(Value::Null, |value| Value::Uint(value.into()))
}

/// An optional word of our own.
pub(super) fn text(value: Option<&'static str>) -> Value<'static> {
    value.map_or(Value::Null, Value::Text)
}

/// A column for machines: JSON above all, and `--fields`.
pub(super) const fn column<R>(
    name: &'static str,
    header: &'static str,
    kind: Kind,
    doc: &'static str,
    get: for<'a> fn(&'a R) -> Value<'a>,
) -> Column<R> {
    let align = if matches!(kind, Kind::String) {
        Align::Left
    } else {
        Align::Right
    };
    Column {
        name,
        header,
        width: header.len(),
        wide: None,
        align,
        kind,
        doc,
        get,
    }
}

impl<E: Subject> Common<E> {
    pub(super) const EVENT: Column<Row<E>> = Column {
        width: 8,
        ..column("event", "EVENT", Kind::String, "Name of the view.", |_| {
            Value::Text(E::VIEW)
        })
    };
    pub(super) const TS: Column<Row<E>> = Column {
        width: 27,
        ..column(
            "ts",
            "TS",
            Kind::String,
            "When: RFC 3339, UTC, microseconds.",
            |row| Value::Rfc3339(row.wall_ns),
        )
    };
    pub(super) const TS_NS: Column<Row<E>> = Column {
        width: 16,
        ..column(
            "ts_ns",
            "TS_NS",
            Kind::Integer,
            "When: CLOCK_MONOTONIC, ns.",
            |row| Value::Uint(flow(row).ts_ns),
        )
    };
    pub(super) const TIME: Column<Row<E>> = Column {
        width: 8,
        ..column(
            "time",
            "TIME",
            Kind::String,
            "When: local time of day.",
            |row| Value::Clock(row.wall_ns),
        )
    };
    pub(super) const TIME_S: Column<Row<E>> = Column {
        width: 9,
        align: Align::Left,
        ..column(
            "time_s",
            "TIME(s)",
            Kind::Number,
            "When: seconds since the trace began.",
            |row| {
                Value::Fixed(Fixed {
                    units: row.elapsed_ns / 1000,
                    scale: 6,
                    shown: 6,
                })
            },
        )
    };
    pub(super) const PID: Column<Row<E>> = Column {
        width: 7,
        align: Align::Left,
        ..column(
            "pid",
            "PID",
            Kind::Integer,
            "Process that owns the socket.",
            |row| uint(owner(row).map(|owner| owner.pid)),
        )
    };
    pub(super) const COMM: Column<Row<E>> = Column {
        width: 15,
        ..column(
            "comm",
            "COMM",
            Kind::String,
            "Name of that process (not of a thread).",
            |row| owner(row).map_or(Value::Null, |owner| Value::Untrusted(owner.comm())),
        )
    };
    pub(super) const UID: Column<Row<E>> = Column {
        width: 6,
        ..column(
            "uid",
            "UID",
            Kind::Integer,
            "User id of that process.",
            |row| uint(owner(row).map(|owner| owner.uid)),
        )
    };
    pub(super) const OWNER: Column<Row<E>> = Column {
        width: 7,
        ..column(
            "owner",
            "OWNER",
            Kind::String,
            "How the process is known: it called connect or accept, or held an fd; none.",
            |row| Value::Text(owner(row).map_or("none", |owner| owner.by.name())),
        )
    };
    pub(super) const IP: Column<Row<E>> = Column {
        width: 2,
        align: Align::Left,
        ..column(
            "ip",
            "IP",
            Kind::Integer,
            "IP version as shown: 4 or 6.",
            |row| Value::Uint(if flow(row).laddr.is_ipv4() { 4 } else { 6 }),
        )
    };
    pub(super) const MAPPED: Column<Row<E>> = column(
        "mapped",
        "MAPPED",
        Kind::Boolean,
        "True for an IPv6 socket that talks IPv4 (IPv4-mapped addresses).",
        |row| {
            if flow(row).mapped {
                Value::Bool(true)
            } else {
                Value::Null
            }
        },
    );
    pub(super) const LADDR: Column<Row<E>> = address("laddr", "LADDR", "Local address.", |row| {
        Value::Ip(flow(row).laddr)
    });
    pub(super) const LPORT: Column<Row<E>> = port("lport", "LPORT", "Local port.", |row| {
        Value::Uint(flow(row).lport.into())
    });
    pub(super) const RADDR: Column<Row<E>> = address("raddr", "RADDR", "Remote address.", |row| {
        Value::Ip(flow(row).raddr)
    });
    pub(super) const RPORT: Column<Row<E>> = port("rport", "RPORT", "Remote port.", |row| {
        Value::Uint(flow(row).rport.into())
    });
    pub(super) const NETNS: Column<Row<E>> = Column {
        width: 10,
        ..column(
            "netns",
            "NETNS",
            Kind::Integer,
            "Network namespace, by inode number.",
            |row| Value::Uint(flow(row).netns.into()),
        )
    };
    pub(super) const CGROUP_ID: Column<Row<E>> = Column {
        width: 9,
        ..column(
            "cgroup_id",
            "CGROUP_ID",
            Kind::Integer,
            "cgroup v2 id of the process.",
            |row| uint(owner(row).and_then(|owner| owner.cgroup_id)),
        )
    };
}

const fn address<R>(
    name: &'static str,
    header: &'static str,
    doc: &'static str,
    get: for<'a> fn(&'a R) -> Value<'a>,
) -> Column<R> {
    // Room for the longest: "255.255.255.255" and, if wide, 39 characters of IPv6.
    Column {
        width: 15,
        wide: Some(39),
        ..column(name, header, Kind::String, doc, get)
    }
}

const fn port<R>(
    name: &'static str,
    header: &'static str,
    doc: &'static str,
    get: for<'a> fn(&'a R) -> Value<'a>,
) -> Column<R> {
    Column {
        align: Align::Left,
        ..column(name, header, Kind::Integer, doc, get)
    }
}
