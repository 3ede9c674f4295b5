//! Columns that all views of events share, and how a view's columns are chosen.

use std::net::{IpAddr, SocketAddr};

use crate::{
    event::{Flow, Owner, errno_name},
    output::{Align, Column, Fixed, Format, Kind, Value, Writer},
};

use super::{Row, Subject, time::Time};

/// The columns of a view, and which of them are shown when nobody chooses.
pub struct Layout<E: 'static> {
    /// Its own, beside those that all views have. One that has the name of a common one stands for that.
    pub own: &'static [&'static Column<Row<E>>],
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
        Ok(Writer::new(format, self.columns(format, fields)?))
    }

    /// The columns of such a writer.
    pub(super) fn columns(
        &self,
        format: Format,
        fields: Option<&[String]>,
    ) -> Result<Vec<&'static Column<Row<E>>>, UnknownField> {
        match (fields, format) {
            (Some(names), _) => names
                .iter()
                .map(|name| self.find(name).ok_or_else(|| self.unknown(name)))
                .collect(),
            (None, Format::Json) => Ok(self.json().collect()),
            (None, _) => Ok(self
                .table
                .iter()
                .filter_map(|name| self.find(name))
                .collect()),
        }
    }

    /// The columns of a JSON object, in their order.
    pub fn json(&self) -> impl Iterator<Item = &'static Column<Row<E>>> {
        self.all().filter(|column| {
            !TABLE_ONLY.contains(&column.name) && !self.table_only.contains(&column.name)
        })
    }

    fn all(&self) -> impl Iterator<Item = &'static Column<Row<E>>> {
        let is_common = |name| Common::<E>::ALL.iter().any(|column| column.name == name);
        let own = self
            .own
            .iter()
            .filter(move |column| !is_common(column.name));
        let common = Common::<E>::ALL.iter().map(|common| {
            let of_that_name = |own: &&&Column<_>| own.name == common.name;
            self.own.iter().find(of_that_name).unwrap_or(common)
        });
        common.chain(own).copied()
    }

    fn find(&self, name: &str) -> Option<&'static Column<Row<E>>> {
        self.all().find(|column| column.name == name)
    }

    fn unknown(&self, name: &str) -> UnknownField {
        let known = self.all().map(|column| column.name).collect();
        UnknownField {
            name: name.to_owned(),
            known,
        }
    }
}

/// Common columns that are only for tables and CSV.
const TABLE_ONLY: &[&str] = &["time", "time_s", "lhost", "rhost"];

/// Columns about the flow of any event.
pub(super) struct Common<E>(std::marker::PhantomData<E>);

fn owner<E: Subject>(row: &Row<E>) -> Option<&Owner> {
    row.event.flow().owner.as_ref()
}

fn flow<E: Subject>(row: &Row<E>) -> &Flow {
    row.event.flow()
}

/// A connect() that found no way has no local address yet.
fn laddr(flow: &Flow) -> Value<'static> {
    if flow.laddr.is_unspecified() {
        Value::Null
    } else {
        Value::Ip(flow.laddr)
    }
}

/// Where sockets are counted together they may have no remote address in common.
fn raddr<E: Subject>(row: &Row<E>) -> Option<IpAddr> {
    Some(flow(row).raddr).filter(|address| row.event.is_one() || !address.is_unspecified())
}

/// An address, or its name, with a port.
pub(super) fn endpoint(name: Option<&[u8]>, address: IpAddr, port: u16) -> Value<'_> {
    match name {
        Some(name) => Value::NamedEndpoint(name, port),
        None => Value::Endpoint(SocketAddr::new(address, port)),
    }
}

/// An optional number.
pub(super) fn uint(value: Option<impl Into<u64>>) -> Value<'static> {
    value.map_or(Value::Null, |value| Value::Uint(value.into()))
}

/// An optional word of our own.
pub(super) fn text(value: Option<&'static str>) -> Value<'static> {
    value.map_or(Value::Null, Value::Text)
}

/// An errno by its name.
pub(super) fn errno(errno: u16) -> Value<'static> {
    match errno {
        0 => Value::Null,
        known => Value::Text(errno_name(known).unwrap_or("unknown")),
    }
}

/// True, or nothing.
pub(super) fn flag(is: bool) -> Value<'static> {
    if is { Value::Bool(true) } else { Value::Null }
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
    const ALL: &'static [&'static Column<Row<E>>] = &[
        &Self::EVENT,
        &Time::<Row<E>>::TS,
        &Time::<Row<E>>::TS_NS,
        &Time::<Row<E>>::TIME,
        &Time::<Row<E>>::TIME_S,
        &Self::PID,
        &Self::COMM,
        &Self::UID,
        &Self::OWNER,
        &Self::IP,
        &Self::MAPPED,
        &Self::LADDR,
        &Self::LPORT,
        &Self::RADDR,
        &Self::RPORT,
        &Self::LHOST,
        &Self::RHOST,
        &Self::LNAME,
        &Self::RNAME,
        &Self::NETNS,
        &Self::CGROUP_ID,
        &Self::CONTAINER,
    ];

    const EVENT: Column<Row<E>> = Column {
        width: 8,
        ..column("event", "EVENT", Kind::String, "Name of the view.", |_| {
            Value::Text(E::VIEW)
        })
    };
    const PID: Column<Row<E>> = Column {
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
    const COMM: Column<Row<E>> = Column {
        width: 15,
        ..column(
            "comm",
            "COMM",
            Kind::String,
            "Name of that process (not of a thread).",
            |row| owner(row).map_or(Value::Null, |owner| Value::Untrusted(owner.comm())),
        )
    };
    const UID: Column<Row<E>> = Column {
        width: 6,
        ..column(
            "uid",
            "UID",
            Kind::Integer,
            "User id of that process.",
            |row| uint(owner(row).map(|owner| owner.uid)),
        )
    };
    const OWNER: Column<Row<E>> = Column {
        width: 7,
        ..column(
            "owner",
            "OWNER",
            Kind::String,
            "How the process is known: it called connect or accept, or held an fd; none.",
            |row| match owner(row) {
                Some(owner) => Value::Text(owner.by.name()),
                None => text(row.event.is_one().then_some("none")),
            },
        )
    };
    const IP: Column<Row<E>> = Column {
        width: 2,
        align: Align::Left,
        ..column(
            "ip",
            "IP",
            Kind::Integer,
            "IP version as shown: 4 or 6.",
            |row| uint(raddr(row).map(|address| if address.is_ipv4() { 4_u64 } else { 6 })),
        )
    };
    const MAPPED: Column<Row<E>> = column(
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
    pub(super) const LADDR: Column<Row<E>> =
        address("laddr", "LADDR", "Local address.", |row| laddr(flow(row)));
    pub(super) const LPORT: Column<Row<E>> = port("lport", "LPORT", "Local port.", |row| {
        uint(Some(flow(row).lport).filter(|port| *port != 0))
    });
    pub(super) const RADDR: Column<Row<E>> = address("raddr", "RADDR", "Remote address.", |row| {
        raddr(row).map_or(Value::Null, Value::Ip)
    });
    pub(super) const RPORT: Column<Row<E>> = port("rport", "RPORT", "Remote port.", |row| {
        uint(Some(flow(row).rport).filter(|port| row.event.is_one() || *port != 0))
    });
    const LHOST: Column<Row<E>> = address("lhost", "LADDR", "Local name, or address.", |row| {
        row.lname
            .as_deref()
            .map_or(laddr(flow(row)), Value::Untrusted)
    });
    const RHOST: Column<Row<E>> = address("rhost", "RADDR", "Remote name, or address.", |row| {
        row.rname
            .as_deref()
            .map_or(raddr(row).map_or(Value::Null, Value::Ip), Value::Untrusted)
    });
    const LNAME: Column<Row<E>> = name(
        "lname",
        "LNAME",
        "Name of the local address (--resolve), if it was known when the row was made.",
        |row| untrusted(row.lname.as_deref()),
    );
    const RNAME: Column<Row<E>> = name(
        "rname",
        "RNAME",
        "Name of the remote address (--resolve), if it was known when the row was made.",
        |row| untrusted(row.rname.as_deref()),
    );
    const NETNS: Column<Row<E>> = Column {
        width: 10,
        ..column(
            "netns",
            "NETNS",
            Kind::Integer,
            "Network namespace, by inode number.",
            |row| uint(Some(flow(row).netns).filter(|netns| *netns != 0)),
        )
    };
    const CGROUP_ID: Column<Row<E>> = Column {
        width: 9,
        ..column(
            "cgroup_id",
            "CGROUP_ID",
            Kind::Integer,
            "cgroup v2 id of the process.",
            |row| uint(owner(row).and_then(|owner| owner.cgroup_id)),
        )
    };
    const CONTAINER: Column<Row<E>> = Column {
        width: 12,
        ..column(
            "container",
            "CONTAINER",
            Kind::String,
            "Container of the process.",
            |row| untrusted(row.container.as_deref().map(str::as_bytes)),
        )
    };
}

fn untrusted(bytes: Option<&[u8]>) -> Value<'_> {
    bytes.map_or(Value::Null, Value::Untrusted)
}

const fn name<R>(
    name: &'static str,
    header: &'static str,
    doc: &'static str,
    get: for<'a> fn(&'a R) -> Value<'a>,
) -> Column<R> {
    Column {
        width: 24,
        ..column(name, header, Kind::String, doc, get)
    }
}

pub(super) const fn address<R>(
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

pub(super) const fn port<R>(
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

/// A number of bytes in KiB.
pub(super) fn kib(bytes: Option<u64>) -> Value<'static> {
    bytes.map_or(Value::Null, |bytes| {
        let thousandths = u128::from(bytes) * 1000 / 1024;
        let units = u64::try_from(thousandths).unwrap_or(u64::MAX);
        Value::Fixed(Fixed {
            units,
            scale: 3,
            shown: 1,
        })
    })
}
