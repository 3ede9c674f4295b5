//! The kernel's numbers, by the names that people know.

use tcp_ebpf::tcp::{CLOSING, ESTABLISHED, State};

/// A socket's state as `ss` and bcc call it; `None` for a number that is no state.
#[must_use]
pub fn state_name(state: u8) -> Option<&'static str> {
    const NAMES: [&str; 13] = [
        "",
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "CLOSING",
        "NEW_SYN_RECV",
    ];
    NAMES
        .get(usize::from(state))
        .copied()
        .filter(|name| !name.is_empty())
}

/// The state that people call by this name: `ESTABLISHED`, `syn-sent`, and what `ss` has of its own, such as
/// `estab` or `listening`.
#[must_use]
pub fn state_named(name: &str) -> Option<State> {
    let name = name.to_ascii_uppercase().replace('-', "_");
    let name = match name.as_str() {
        "ESTAB" => "ESTABLISHED",
        "LISTENING" => "LISTEN",
        "CLOSED" | "UNCONN" => "CLOSE",
        "FIN_WAIT_1" => "FIN_WAIT1",
        "FIN_WAIT_2" => "FIN_WAIT2",
        other => other,
    };
    (ESTABLISHED..=CLOSING).find(|state| state_name(*state) == Some(name))
}

/// The symbol of an errno that TCP leaves in a socket; `None` for others.
#[must_use]
pub fn errno_name(errno: u16) -> Option<&'static str> {
    Some(match i32::from(errno) {
        libc::EACCES => "EACCES",
        libc::EAGAIN => "EAGAIN",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::EBUSY => "EBUSY",
        libc::ECONNABORTED => "ECONNABORTED",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ECONNRESET => "ECONNRESET",
        libc::EHOSTDOWN => "EHOSTDOWN",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::EINVAL => "EINVAL",
        libc::EIO => "EIO",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::ENETDOWN => "ENETDOWN",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ENOBUFS => "ENOBUFS",
        libc::ENOMEM => "ENOMEM",
        libc::ENONET => "ENONET",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        libc::EPERM => "EPERM",
        libc::EPIPE => "EPIPE",
        libc::EPROTO => "EPROTO",
        libc::ETIMEDOUT => "ETIMEDOUT",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_names_of_ss_and_of_bcc() {
        for (name, state) in [
            ("ESTABLISHED", 1),
            ("established", 1),
            ("ESTAB", 1),
            ("syn-sent", 2),
            ("SYN_RECV", 3),
            ("FIN-WAIT-1", 4),
            ("fin_wait2", 5),
            ("time-wait", 6),
            ("closed", 7),
            ("CLOSE-WAIT", 8),
            ("last-ack", 9),
            ("listening", 10),
            ("closing", 11),
        ] {
            assert_eq!(state_named(name), Some(state), "{name}");
        }
        for wrong in ["", "NEW_SYN_RECV", "open", "1"] {
            assert_eq!(state_named(wrong), None, "{wrong}");
        }
    }
}
