//! How far the byte streams of a socket have come, as an application counts.

use tcp_ebpf::{
    tcp::{CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK, State, TIME_WAIT},
    wire::{Progress, flag},
};

use super::Role;

pub(super) fn fin_was_sent(state: State) -> bool {
    matches!(
        state,
        FIN_WAIT1 | FIN_WAIT2 | CLOSING | TIME_WAIT | LAST_ACK
    )
}

pub(super) fn fin_is_acked(progress: &Progress) -> bool {
    fin_was_sent(progress.state) && progress.flags & flag::ALL_ACKED != 0
}

/// Application bytes acknowledged; `syn` is how many of the kernel's count are our SYN.
pub(super) fn tx(progress: &Progress, syn: u64) -> u64 {
    progress
        .bytes_acked
        .saturating_sub(syn)
        .saturating_sub(u64::from(fin_is_acked(progress)))
}

/// Application bytes received: the kernel counts the peer's FIN too, but not its SYN.
pub(super) fn rx(progress: &Progress) -> u64 {
    let fin = progress.flags & flag::FIN_RECEIVED != 0;
    progress.bytes_received.saturating_sub(u64::from(fin))
}

/// Which end of a session this is, and how many of `bytes_acked` are its SYN, where its birth was not seen: of the
/// payload that was sent, each byte once, and of that in flight.
///
/// The active end's SYN counts as one byte acknowledged (`tcp_snd_una_update`, net/ipv4/tcp_input.c); the
/// passive end's SYN-ACK was another socket's. So the payload that must have been acknowledged tells the role.
pub(super) fn inferred_role(
    now: &Progress,
    sent_once: Option<u64>,
    in_flight: Option<u32>,
) -> Option<(Role, u64)> {
    let payload_acked = sent_once?.checked_sub(u64::from(in_flight?))?;
    let syn = now
        .bytes_acked
        .checked_sub(u64::from(fin_is_acked(now)))?
        .checked_sub(payload_acked)?;
    match syn {
        0 => Some((Role::Server, 0)),
        1 => Some((Role::Client, 1)),
        _ => None,
    }
}
