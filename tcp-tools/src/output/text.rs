//! Values as plain text, the same in every format.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::time::Times;
use super::{Fixed, Value, escape};

/// Appends `value` as text, at full precision; nothing for null.
pub(super) fn value(out: &mut Vec<u8>, value: &Value, times: &mut Times) {
    match *value {
        Value::Null => {}
        Value::Bool(true) | Value::Flag(true) => out.extend(b"true"),
        Value::Bool(false) | Value::Flag(false) => out.extend(b"false"),
        Value::Uint(number) => uint(out, number),
        Value::Fixed(number) | Value::AtLeast(number) => fixed(out, number),
        Value::Text(text) => out.extend(text.as_bytes()),
        Value::Untrusted(bytes) => escape::terminal(out, bytes),
        Value::Ip(address) => ip(out, address),
        Value::Endpoint(SocketAddr::V4(v4)) => {
            ip(out, (*v4.ip()).into());
            port(out, v4.port());
        }
        Value::Endpoint(SocketAddr::V6(v6)) => {
            out.push(b'[');
            ip(out, (*v6.ip()).into());
            out.push(b']');
            port(out, v6.port());
        }
        Value::NamedEndpoint(name, number) => {
            escape::terminal(out, name);
            port(out, number);
        }
        Value::Clock(ns) => out.extend(times.clock(ns)),
        Value::Rfc3339(ns) => times.rfc3339(out, ns),
    }
}

fn port(out: &mut Vec<u8>, number: u16) {
    out.push(b':');
    out.extend(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends all decimals of `number`.
pub(super) fn fixed(out: &mut Vec<u8>, number: Fixed) {
    let unit = 10_u64.saturating_pow(number.scale.into());
    uint(out, number.units / unit);
    if number.scale > 0 {
        let _ = write!(
            out,
            ".{:0width$}",
            number.units % unit,
            width = number.scale.into()
        );
    }
}

/// `number` with no more decimals than a table shows.
pub(super) fn rounded(number: Fixed) -> Fixed {
    let dropped = number.scale.saturating_sub(number.shown);
    let unit = 10_u64.saturating_pow(dropped.into());
    let up = number.units % unit >= unit.div_ceil(2) && dropped > 0;
    Fixed {
        units: number.units / unit + u64::from(up),
        scale: number.scale - dropped,
        shown: number.shown,
    }
}

fn uint(out: &mut Vec<u8>, number: u64) {
    out.extend(itoa::Buffer::new().format(number).as_bytes());
}

// Writing into a `Vec` cannot fail, here and above.
fn ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                out.extend(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(address) => {
            let _ = write!(out, "{address}");
        }
    }
}
