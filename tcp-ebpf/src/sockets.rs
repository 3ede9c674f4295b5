//! Probe points `sockets` and `holders`: every TCP socket as it is now, and every descriptor of one.
//!
//! User space puts the two together. It can count the holders of a socket, which a program that sees one
//! descriptor after another cannot.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_jiffies64;
use tcp_ebpf::{
    config::event::LISTENERS,
    offsets,
    tcp::{
        AF_INET, AF_INET6, IPPROTO_MPTCP, IPPROTO_TCP, LISTEN, NEW_SYN_RECV, SYN_RECV, State,
        TIME_WAIT,
    },
    wire::{Holder, Socket, form, kind, owner, timer},
};

use crate::{
    emit,
    filter::Subject,
    globals::{self, config, wants},
    iter::{TaskFileContext, TcpContext, load, write},
    mem, owner as process,
    sock::Sock,
};

/// Writes the record of every socket that the filters let through.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
fn list_sockets(ctx: *const TcpContext) -> i32 {
    let (meta, sk) = (load!(ctx, meta), load!(ctx, sk));
    if sk.is_null() {
        return 0;
    }
    let sock = Sock::new(sk as u64);
    let (form, state) = form_and_state(sock);
    let subject = Subject::of_common(sock);
    let selected = subject.is_wanted_flow() && is_wanted_state(state);
    if !(selected || wants(LISTENERS) && state == LISTEN) {
        globals::count(tcp_ebpf::wire::counter::FILTERED);
        return 0;
    }
    let mut record = MaybeUninit::<Socket>::uninit();
    let to = record.as_mut_ptr();
    mem::zero(to);
    emit::ownerless(to.cast(), kind::SOCKET, &subject);
    // SAFETY: made of integers, all written by now.
    let to = unsafe { record.assume_init_mut() };
    to.form = form;
    to.selected = selected as u8;
    to.now.state = state;
    to.cookie = sock.cookie();
    match form {
        form::FULL => {
            to.uid = load!(ctx, uid);
            fill_full(to, sock, state);
        }
        form::REQUEST => {
            to.uid = load!(ctx, uid);
            let retransmits = mem::read(sock.key(), offsets::req_retransmits);
            let expires = mem::read(sock.key(), offsets::req_expires);
            set_timer(to, timer::ON, expires, retransmits);
        }
        _ => {
            let expires = mem::read(sock.key(), offsets::tw_expires);
            set_timer(to, timer::TIME_WAIT, expires, 0);
        }
    }
    write(meta, &record);
    0
}

/// The state as sock_diag and /proc/net/tcp show it (`inet_twsk_diag_fill`, `inet_req_diag_fill`,
/// net/ipv4/inet_diag.c).
#[inline(always)]
fn form_and_state(sock: Sock) -> (u8, State) {
    match sock.state() {
        TIME_WAIT => (form::TIME_WAIT, mem::read(sock.key(), offsets::tw_substate)),
        NEW_SYN_RECV => (form::REQUEST, SYN_RECV),
        state => (form::FULL, state),
    }
}

#[inline(always)]
fn is_wanted_state(state: State) -> bool {
    config!(states) == 0 || config!(states) >> (state & 31) & 1 != 0
}

#[inline(never)]
fn fill_full(to: &mut Socket, sock: Sock, state: State) {
    to.inode = sock.inode();
    let cgroup = sock.cgroup();
    if cgroup != 0 {
        to.cgroup_id = process::cgroup_id(cgroup);
    }
    if state == LISTEN {
        (to.recv_q, to.send_q) = sock.backlog();
        return;
    }
    (to.recv_q, to.send_q) = sock.queues();
    to.now = sock.progress(state);
    to.bytes_sent = sock.bytes_sent();
    to.bytes_retrans = sock.bytes_retrans();
    to.unacked = sock.unacked();
    to.srtt_us8 = sock.srtt_us8();
    to.mdev_us4 = sock.mdev_us4();
    to.min_rtt_us = sock.min_rtt_us();
    to.cwnd = sock.cwnd();
    to.retransmits = sock.retransmits();
    to.mss = sock.mss();
    let (kind, expires, retransmits) = sock.timer();
    if kind != timer::OFF {
        set_timer(to, kind, expires, retransmits);
    }
}

/// `expires` is in jiffies.
#[inline(always)]
fn set_timer(to: &mut Socket, kind: u8, expires: u64, retransmits: u8) {
    // SAFETY: no preconditions.
    let now = unsafe { bpf_jiffies64() };
    let left = expires.wrapping_sub(now);
    to.timer = kind;
    to.timer_retransmits = retransmits;
    // One that is due, and has not struck yet, is negative.
    if (left as i64) > 0 {
        to.timer_us = left * u64::from(config!(tick_ns)) / 1000;
    }
}

/// Writes the record of every descriptor of a TCP socket, of whatever process: the filters only mark it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn list_holders(ctx: *const TaskFileContext) -> i32 {
    let (task, file) = (load!(ctx, task), load!(ctx, file));
    if task.is_null() || file.is_null() {
        return 0;
    }
    let Some(sock) = Sock::of_file(file as u64) else {
        return 0;
    };
    if !is_tcp_or_mptcp(sock) {
        return 0;
    }
    let task = task as u64;
    let claim = process::of_task(task, owner::FD);
    let record = MaybeUninit::new(Holder {
        kind: kind::HOLDER,
        wanted: claim.wanted,
        pad: 0,
        fd: load!(ctx, fd),
        inode: sock.inode(),
        started_ns: process::started_ns(task),
        process: claim.owner,
    });
    write(load!(ctx, meta), &record);
    0
}

/// The subflows of Multipath TCP have the inode of the socket that they are of.
#[inline(always)]
fn is_tcp_or_mptcp(sock: Sock) -> bool {
    matches!(sock.family(), AF_INET | AF_INET6)
        && matches!(sock.protocol(), IPPROTO_TCP | IPPROTO_MPTCP)
}
