//! The kernel's numbers for TCP, as far as both sides need them.
//!
//! All of these are user-space ABI (`include/net/tcp_states.h`, `include/linux/socket.h`), so they are
//! constants here and not looked up in the kernel's BTF.

/// `sk_state` of a socket.
pub type State = u8;

/// `TCP_ESTABLISHED`
pub const ESTABLISHED: State = 1;
/// `TCP_SYN_SENT`
pub const SYN_SENT: State = 2;
/// `TCP_SYN_RECV`
pub const SYN_RECV: State = 3;
/// `TCP_FIN_WAIT1`
pub const FIN_WAIT1: State = 4;
/// `TCP_FIN_WAIT2`
pub const FIN_WAIT2: State = 5;
/// `TCP_TIME_WAIT`
pub const TIME_WAIT: State = 6;
/// `TCP_CLOSE`
pub const CLOSE: State = 7;
/// `TCP_CLOSE_WAIT`
pub const CLOSE_WAIT: State = 8;
/// `TCP_LAST_ACK`
pub const LAST_ACK: State = 9;
/// `TCP_LISTEN`
pub const LISTEN: State = 10;
/// `TCP_CLOSING`
pub const CLOSING: State = 11;
/// `TCP_NEW_SYN_RECV`
pub const NEW_SYN_RECV: State = 12;

/// `AF_INET`
pub const AF_INET: u16 = 2;
/// `AF_INET6`
pub const AF_INET6: u16 = 10;
/// `IPPROTO_MPTCP`: a socket of Multipath TCP, which has subflows.
pub const IPPROTO_MPTCP: u16 = 262;
/// `IPPROTO_TCP`; Multipath TCP's own sockets have 262 and their subflows 6.
pub const IPPROTO_TCP: u16 = 6;
