//! Where the kernel keeps what the programs read: one table, stated once.
//!
//! rustc emits no CO-RE relocations. User space therefore looks every field up in the running kernel's
//! BTF, checks its size, and hands the offsets over as the `.rodata` global `OFFSETS` before loading;
//! the verifier then sees constants.

use core::marker::PhantomData;

/// An offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// What happens when a kernel lacks a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing can run without it.
    Required,
    /// Only what the text names is switched off.
    Optional(&'static str),
}

/// One row of the table: a member of a kernel structure.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// The structure that `path` starts in.
    pub strukt: &'static str,
    /// Members, separated by dots. `name:N` is a bitfield of `N` bits within a byte ([`Bits`]). Of several
    /// paths, separated by `|`, the first that a kernel has.
    pub path: &'static str,
    /// Size that the programs read, in bytes.
    pub size: u32,
    /// Whether the kernel must have it.
    pub need: Need,
}

/// A field of the kernel's that holds a `T`; its offset is only known at run time.
pub struct Field<T> {
    /// Index into [`Offsets`] and [`FIELDS`].
    pub index: usize,
    value: PhantomData<T>,
}

/// A bitfield of `N` bits within one byte. Its offset is `bytes | shift << BIT_SHIFT`.
#[repr(transparent)]
pub struct Bits<const N: u32>(u8);

/// Where [`Bits`] keep how far they are from the lowest bit of their byte.
pub const BIT_SHIFT: u32 = 24;

// Derived ones would ask the same of `T`.
impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Field<T> {}

impl<T> Field<T> {
    const fn new(index: usize) -> Self {
        Self {
            index,
            value: PhantomData,
        }
    }
}

macro_rules! fields {
    ($($name:ident: $type:ty = $strukt:literal, $path:literal, $need:expr;)*) => {
        /// Every field, in the order of [`Offsets`].
        pub const FIELDS: &[FieldSpec] = &[$(FieldSpec {
            strukt: $strukt,
            path: $path,
            size: size_of::<$type>() as u32,
            need: $need,
        }),*];

        #[repr(usize)]
        enum Index { $(#[expect(non_camel_case_types, reason = "the kernel's names")] $name),* }

        $(
            #[doc = concat!("`", $strukt, "`: `", $path, "`")]
            #[expect(non_upper_case_globals, reason = "the kernel's names")]
            pub const $name: Field<$type> = Field::new(Index::$name as usize);
        )*
    };
}

use Need::{Optional, Required};

const IPV6: Need = Optional("IPv6 addresses");
/// Only the accept tracepoints walk from a descriptor to its socket.
const FD_WALK: Need = Optional("accept by tracepoint");
const CGROUP: Need = Optional("cgroup filter, and cgroup of sockets opened before the trace");
const BACKLOG: Need = Optional("backlog of listeners");
const FAST_OPEN: Need = Optional("marks of TCP Fast Open");
const ICMP: Need = Optional("ICMP errors of attempts that a program has read and given up");
const REASON: Need = Optional("reason of retransmits");
const RESETS: Need = Optional("resets sent for data that arrives after the end of a session");
const TIMERS: Need = Optional("timers of sockets");

fields! {
    // include/net/sock.h
    skc_family: u16 = "sock", "__sk_common.skc_family", Required;
    skc_state: u8 = "sock", "__sk_common.skc_state", Required;
    skc_dport: u16 = "sock", "__sk_common.skc_dport", Required;
    skc_rcv_saddr: u32 = "sock", "__sk_common.skc_rcv_saddr", Required;
    skc_daddr: u32 = "sock", "__sk_common.skc_daddr", Required;
    skc_v6_rcv_saddr: [u64; 2] = "sock", "__sk_common.skc_v6_rcv_saddr", IPV6;
    skc_v6_daddr: [u64; 2] = "sock", "__sk_common.skc_v6_daddr", IPV6;
    skc_net: u64 = "sock", "__sk_common.skc_net.net", Required;
    skc_flags: u64 = "sock", "__sk_common.skc_flags", Required;
    sk_protocol: u16 = "sock", "sk_protocol", Required;
    sk_err: i32 = "sock", "sk_err", Required;
    sk_err_soft: i32 = "sock", "sk_err_soft", Required;
    error_queue_len: u32 = "sock", "sk_error_queue.qlen", ICMP;
    error_queue_last: u64 = "sock", "sk_error_queue.prev", ICMP;
    sk_ack_backlog: u32 = "sock", "sk_ack_backlog", BACKLOG;
    sk_max_ack_backlog: u32 = "sock", "sk_max_ack_backlog", BACKLOG;
    skc_num: u16 = "sock", "__sk_common.skc_num", Required;
    skc_cookie: u64 = "sock", "__sk_common.skc_cookie.counter", Required;
    sk_socket: u64 = "sock", "sk_socket", Required;
    sk_cgroup: u64 = "sock", "sk_cgrp_data.cgroup", Optional("cgroup of a socket itself");
    // include/net/net_namespace.h
    net_inum: u32 = "net", "ns.inum", Required;
    // include/net/inet_sock.h
    inet_sport: u16 = "inet_sock", "inet_sport", Required;
    // include/linux/tcp.h
    bytes_acked: u64 = "tcp_sock", "bytes_acked", Required;
    bytes_received: u64 = "tcp_sock", "bytes_received", Required;
    bytes_sent: u64 = "tcp_sock", "bytes_sent", Required;
    bytes_retrans: u64 = "tcp_sock", "bytes_retrans", Required;
    rcv_nxt: u32 = "tcp_sock", "rcv_nxt", Required;
    copied_seq: u32 = "tcp_sock", "copied_seq", Required;
    snd_una: u32 = "tcp_sock", "snd_una", Required;
    snd_nxt: u32 = "tcp_sock", "snd_nxt", Required;
    write_seq: u32 = "tcp_sock", "write_seq", Required;
    srtt_us: u32 = "tcp_sock", "srtt_us", Required;
    mdev_us: u32 = "tcp_sock", "mdev_us", Required;
    rtt_min: u32 = "tcp_sock", "rtt_min.s.v", Required;
    segs_in: u32 = "tcp_sock", "segs_in", Required;
    total_retrans: u32 = "tcp_sock", "total_retrans", Required;
    snd_cwnd: u32 = "tcp_sock", "snd_cwnd", Required;
    mss_cache: u32 = "tcp_sock", "mss_cache", Required;
    data_segs_in: u32 = "tcp_sock", "data_segs_in", RESETS;
    linger2: i32 = "tcp_sock", "linger2", RESETS;
    snd_wnd: u32 = "tcp_sock", "snd_wnd", REASON;
    undo_marker: u32 = "tcp_sock", "undo_marker", REASON;
    mtu_info: u32 = "tcp_sock", "mtu_info", REASON;
    retransmit_skb_hint: u64 = "tcp_sock", "retransmit_skb_hint", REASON;
    is_mptcp: u8 = "tcp_sock", "is_mptcp", Optional("marks of Multipath TCP");
    fastopen_req: u64 = "tcp_sock", "fastopen_req", FAST_OPEN;
    syn_fastopen: Bits<1> = "tcp_sock", "syn_fastopen:1", FAST_OPEN;
    // include/net/inet_connection_sock.h
    ca_state: Bits<5> = "inet_connection_sock", "icsk_ca_state:5", REASON;
    icsk_pending: u8 = "inet_connection_sock", "icsk_pending", REASON;
    icsk_retransmits: u8 = "inet_connection_sock", "icsk_retransmits", TIMERS;
    icsk_probes_out: u8 = "inet_connection_sock", "icsk_probes_out", TIMERS;
    // Moved in v6.19, and in the stable versions of older kernels.
    icsk_expires: u64 = "inet_connection_sock",
        "icsk_retransmit_timer.expires|icsk_inet.sk.tcp_retransmit_timer.expires", TIMERS;
    keepalive_pprev: u64 = "inet_connection_sock",
        "icsk_keepalive_timer.entry.pprev|icsk_inet.sk.sk_timer.entry.pprev", TIMERS;
    keepalive_expires: u64 = "inet_connection_sock",
        "icsk_keepalive_timer.expires|icsk_inet.sk.sk_timer.expires", TIMERS;
    // include/net/inet_timewait_sock.h, request_sock.h
    tw_substate: u8 = "inet_timewait_sock", "tw_substate", Required;
    tw_expires: u64 = "inet_timewait_sock", "tw_timer.expires", TIMERS;
    req_retransmits: u8 = "request_sock", "num_retrans", TIMERS;
    req_expires: u64 = "request_sock", "rsk_timer.expires", TIMERS;
    req_timer_pprev: u64 = "request_sock", "rsk_timer.entry.pprev", REASON;
    // include/linux/skbuff.h, include/net/tcp.h
    skb_len: u32 = "sk_buff", "len", Required;
    skb_cb: [u8; 48] = "sk_buff", "cb", Required;
    ee_errno: u32 = "sock_exterr_skb", "ee.ee_errno", ICMP;
    ee_origin: u8 = "sock_exterr_skb", "ee.ee_origin", ICMP;
    skb_seq: u32 = "tcp_skb_cb", "seq", Required;
    skb_sacked: u8 = "tcp_skb_cb", "sacked", REASON;
    skb_gso_segs: u16 = "tcp_skb_cb", "tcp_gso_segs", Optional("segments of retransmits");
    // arch/x86/include/asm/ptrace.h
    regs_di: u64 = "pt_regs", "di", BACKLOG;
    regs_orig_ax: u64 = "pt_regs", "orig_ax", BACKLOG;
    // include/linux/sched.h, sched/signal.h, cred.h
    group_leader: u64 = "task_struct", "group_leader", Required;
    task_flags: u32 = "task_struct", "flags", Required;
    tgid: u32 = "task_struct", "tgid", Required;
    signal: u64 = "task_struct", "signal", Required;
    signal_live: u32 = "signal_struct", "live.counter", Required;
    start_time: u64 = "task_struct", "start_time", Required;
    comm: [u64; 2] = "task_struct", "comm", Required;
    cred: u64 = "task_struct", "cred", Required;
    cred_uid: u32 = "cred", "uid.val", Required;
    // include/linux/cgroup-defs.h, kernfs.h
    cgroups: u64 = "task_struct", "cgroups", CGROUP;
    dfl_cgrp: u64 = "css_set", "dfl_cgrp", CGROUP;
    cgroup_kn: u64 = "cgroup", "kn", CGROUP;
    kn_id: u64 = "kernfs_node", "id", CGROUP;
    cgroup_parent: u64 = "cgroup", "self.parent", CGROUP;
    css_cgroup: u64 = "cgroup_subsys_state", "cgroup", CGROUP;
    // include/linux/fdtable.h, fs.h, net.h
    files: u64 = "task_struct", "files", FD_WALK;
    fdt: u64 = "files_struct", "fdt", FD_WALK;
    fd: u64 = "fdtable", "fd", FD_WALK;
    private_data: u64 = "file", "private_data", Required;
    f_flags: u32 = "file", "f_flags", Optional("connect() that ended by SO_SNDTIMEO");
    f_inode: u64 = "file", "f_inode", Required;
    i_mode: u16 = "inode", "i_mode", Required;
    socket_sk: u64 = "socket", "sk", Required;
    socket_inode: u64 = "socket_alloc", "vfs_inode.i_ino", Required;
}

/// Offsets in bytes, in the order of [`FIELDS`]; [`ABSENT`] where the kernel has no such field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Offsets(pub [u32; FIELDS.len()]);
