//! The columns of `sockets`.

use crate::{
    event::{Role, Socket, Stream, state_name},
    output::{Align, Column, Fixed, Kind, Value},
    views::{
        Row,
        columns::{address, column, kib, port, text, uint},
    },
};

/// A listener has no other end.
fn raddr(row: &Row<Socket>) -> Value<'static> {
    if row.event.has_remote() {
        Value::Ip(row.event.flow.raddr)
    } else {
        Value::Null
    }
}

fn of_stream<N: Into<u64>>(row: &Row<Socket>, get: fn(&Stream) -> Option<N>) -> Value<'static> {
    uint(row.event.stream.as_ref().and_then(get))
}

fn milliseconds(us: Option<u64>) -> Value<'static> {
    us.map_or(Value::Null, |units| {
        Value::Fixed(Fixed {
            units,
            scale: 3,
            shown: 2,
        })
    })
}

/// Beside those that all views have, or in place of them.
pub(super) const OWN: &[&Column<Row<Socket>>] = &[
    &column(
        "ip",
        "IP",
        Kind::Integer,
        "IP version as shown: 4 or 6.",
        |row| Value::Uint(if row.event.flow.laddr.is_ipv4() { 4 } else { 6 }),
    ),
    // Of a listener, no address is one: any.
    &address(
        "laddr",
        "LADDR",
        "Local address; 0.0.0.0 or :: for any.",
        |row| Value::Ip(row.event.flow.laddr),
    ),
    &address(
        "raddr",
        "RADDR",
        "Remote address; a listener has none.",
        raddr,
    ),
    &port(
        "rport",
        "RPORT",
        "Remote port; a listener has none.",
        |row| uint(Some(row.event.flow.rport).filter(|port| *port != 0)),
    ),
    &address("lhost", "LADDR", "Local name, or address.", |row| {
        let address = Value::Ip(row.event.flow.laddr);
        row.lname.as_deref().map_or(address, Value::Untrusted)
    }),
    &address("rhost", "RADDR", "Remote name, or address.", |row| {
        let name = row.rname.as_deref().filter(|_| row.event.has_remote());
        name.map_or(raddr(row), Value::Untrusted)
    }),
    &Column {
        width: 11,
        ..column(
            "state",
            "STATE",
            Kind::String,
            "State of the socket, such as ESTABLISHED.",
            |row| text(state_name(row.event.state)),
        )
    },
    &column(
        "recv_q",
        "RECV-Q",
        Kind::Integer,
        "Bytes received and not read; of a listener, connections that wait to be accepted.",
        |row| Value::Uint(row.event.recv_q.into()),
    ),
    &column(
        "send_q",
        "SEND-Q",
        Kind::Integer,
        "Bytes not acknowledged, a FIN included; of a listener, connections that may wait.",
        |row| Value::Uint(row.event.send_q.into()),
    ),
    &column(
        "others",
        "OTHERS",
        Kind::Integer,
        "Processes beside the owner that hold descriptors of the socket.",
        |row| uint(row.event.others),
    ),
    &column(
        "fd",
        "FD",
        Kind::Integer,
        "The owner's lowest descriptor of the socket.",
        |row| uint(row.event.fd),
    ),
    &Column {
        width: 9,
        ..column(
            "timer",
            "TIMER",
            Kind::String,
            "The timer that is set, as ss calls it: on (retransmission, loss probe, reordering), keepalive, \
             timewait, persist.",
            |row| text(row.event.timer.map(|timer| timer.name)),
        )
    },
    &Column {
        width: 10,
        ..column(
            "timer_ms",
            "TIMER_MS",
            Kind::Number,
            "timer_us in ms.",
            |row| milliseconds(row.event.timer.map(|timer| timer.left_us)),
        )
    },
    &column(
        "timer_us",
        "TIMER_US",
        Kind::Integer,
        "Time until the timer strikes.",
        |row| uint(row.event.timer.map(|timer| timer.left_us)),
    ),
    &column(
        "timer_retransmits",
        "TRIES",
        Kind::Integer,
        "How often the timer has struck in a row.",
        |row| uint(row.event.timer.map(|timer| timer.retransmits)),
    ),
    &Column {
        width: 6,
        align: Align::Left,
        ..column(
            "role",
            "ROLE",
            Kind::String,
            "Which end of the connection this is: client or server.",
            |row| text(row.event.stream.and_then(|it| it.role).map(Role::name)),
        )
    },
    &Column {
        width: 8,
        ..column("rtt_ms", "RTT_MS", Kind::Number, "srtt_us in ms.", |row| {
            milliseconds(row.event.stream.and_then(|it| it.srtt_us).map(u64::from))
        })
    },
    &column(
        "srtt_us",
        "SRTT_US",
        Kind::Integer,
        "Smoothed round trip.",
        |row| of_stream(row, |it| it.srtt_us),
    ),
    &column(
        "rttvar_us",
        "RTTVAR_US",
        Kind::Integer,
        "Mean deviation of the round trip.",
        |row| of_stream(row, |it| it.rttvar_us),
    ),
    &column(
        "min_rtt_us",
        "MIN_RTT_US",
        Kind::Integer,
        "Least round trip.",
        |row| of_stream(row, |it| it.min_rtt_us),
    ),
    &Column {
        width: 5,
        ..column(
            "cwnd",
            "CWND",
            Kind::Integer,
            "Congestion window in segments.",
            |row| of_stream(row, |it| Some(it.cwnd)),
        )
    },
    &column(
        "mss_bytes",
        "MSS_BYTES",
        Kind::Integer,
        "Largest segment.",
        |row| of_stream(row, |it| Some(it.mss_bytes)),
    ),
    &Column {
        width: 7,
        ..column(
            "retransmits",
            "RETRANS",
            Kind::Integer,
            "Segments retransmitted over the life of the socket.",
            |row| of_stream(row, |it| Some(it.retransmits)),
        )
    },
    &Column {
        width: 8,
        ..column("tx_kb", "TX_KB", Kind::Number, "tx_bytes in KiB.", |row| {
            kib(row.event.stream.and_then(|it| it.tx_bytes))
        })
    },
    &Column {
        width: 8,
        ..column("rx_kb", "RX_KB", Kind::Number, "rx_bytes in KiB.", |row| {
            kib(row.event.stream.map(|it| it.rx_bytes))
        })
    },
    &column(
        "tx_bytes",
        "TX_BYTES",
        Kind::Integer,
        "Application bytes that the peer acknowledged, over the life of the socket.",
        |row| of_stream(row, |it| it.tx_bytes),
    ),
    &column(
        "rx_bytes",
        "RX_BYTES",
        Kind::Integer,
        "Application bytes received, over the life of the socket.",
        |row| of_stream(row, |it| Some(it.rx_bytes)),
    ),
    &column(
        "sent_bytes",
        "SENT_BYTES",
        Kind::Integer,
        "Payload bytes sent, those sent again included.",
        |row| of_stream(row, |it| Some(it.sent_bytes)),
    ),
    &column(
        "retrans_bytes",
        "RETRANS_BYTES",
        Kind::Integer,
        "Payload bytes sent again.",
        |row| of_stream(row, |it| Some(it.retrans_bytes)),
    ),
    &column(
        "socket_uid",
        "SOCKET_UID",
        Kind::Integer,
        "User that the socket belongs to; uid is that of the process.",
        |row| uint(row.event.uid),
    ),
    &column(
        "socket_cgroup_id",
        "SOCKET_CGROUP_ID",
        Kind::Integer,
        "cgroup v2 id of the socket itself; cgroup_id is that of the process.",
        |row| uint(row.event.cgroup_id),
    ),
    &column(
        "inode",
        "INODE",
        Kind::Integer,
        "Inode number, as in /proc/PID/fd.",
        |row| uint(row.event.inode),
    ),
    &column(
        "cookie",
        "COOKIE",
        Kind::Integer,
        "The kernel's own number of the socket, once somebody has asked for it.",
        |row| uint(row.event.cookie),
    ),
];
