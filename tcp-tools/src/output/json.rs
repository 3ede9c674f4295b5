//! JSON, one object a line.

use super::time::Times;
use super::{Value, escape, text};

/// Appends an object of the fields that are known, in their order, and a line feed.
pub(super) fn object<'a>(
    out: &mut Vec<u8>,
    fields: impl IntoIterator<Item = (&'static str, Value<'a>)>,
    times: &mut Times,
) {
    let mut separator = b"{\"".as_slice();
    out.reserve(512);
    let start = out.len();
    for (name, value) in fields {
        if matches!(value, Value::Null | Value::Flag(false)) {
            continue;
        }
        out.extend(separator);
        out.extend(name.as_bytes());
        out.extend(b"\":");
        member(out, &value, times);
        separator = b",\"";
    }
    if out.len() == start {
        out.push(b'{');
    }
    out.extend(b"}\n");
}

fn member(out: &mut Vec<u8>, value: &Value, times: &mut Times) {
    match *value {
        Value::Text(string) => escape::json(out, string.as_bytes()),
        Value::Untrusted(bytes) => escape::json(out, bytes),
        Value::Ip(_)
        | Value::Endpoint(_)
        | Value::NamedEndpoint(..)
        | Value::Clock(_)
        | Value::Rfc3339(_) => {
            out.push(b'"');
            text::value(out, value, times);
            out.push(b'"');
        }
        _ => text::value(out, value, times),
    }
}
