//! Probe point `accept`: a connection is handed to a process.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_current_task,
    macros::{fexit, kprobe, tracepoint},
    programs::{FExitContext, ProbeContext, TracePointContext},
};
use tcp_ebpf::{
    offsets,
    tcp::SYN_RECV,
    wire::{owner, role},
};

use crate::{
    maps::{self, Conn},
    mem,
    owner::current,
    sock::Sock,
};

/// `struct sock *inet_csk_accept(..)`, net/ipv4/inet_connection_sock.c. Its arguments changed in v6.10; the
/// return value did not.
#[fexit(function = "inet_csk_accept")]
fn accept_fexit(ctx: FExitContext) -> i32 {
    if let Ok(sock) = ctx.ret::<u64>() {
        accepted(Sock::new(sock));
    }
    0
}

/// `security_sock_graft(sk, parent)`: accept() ties the new socket to its file, right after
/// `inet_csk_accept` (`__inet_accept`, net/ipv4/af_inet.c). A kretprobe on that function would have one
/// instance per call in progress, and a few processes blocked in accept() would starve it.
#[kprobe]
fn accept_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg(0) {
        accepted(Sock::new(sock));
    }
    0
}

/// `sys_exit_accept` and `sys_exit_accept4`: from the new descriptor to its socket.
#[tracepoint]
fn accept_tp(ctx: TracePointContext) -> u32 {
    // struct syscall_trace_exit: struct trace_entry (8 bytes), int nr, long ret (kernel/trace/trace.h).
    const RET: usize = 16;
    // SAFETY: within the context of this tracepoint.
    let fd = unsafe { ctx.as_ptr().add(RET).cast::<i64>().read() };
    if fd >= 0 {
        accepted(Sock::new(socket_of(fd as u64)));
    }
    0
}

/// `current->files->fdt->fd[fd]->private_data->sk`
#[inline(always)]
fn socket_of(fd: u64) -> u64 {
    // SAFETY: no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let fdt = mem::read(mem::read(task, offsets::files), offsets::fdt);
    let file = mem::read_word(mem::read(fdt, offsets::fd).wrapping_add(fd * 8));
    mem::read(mem::read(file, offsets::private_data), offsets::socket_sk)
}

#[inline(always)]
fn accepted(sock: Sock) {
    if let Some(conn) = maps::conn(sock) {
        if conn.owner_by == owner::NONE || conn.owner_by == owner::FD {
            conn.owner = current();
            conn.owner_by = owner::ACCEPT;
        }
    } else if sock.key() != 0 && sock.is_tcp() && sock.state() == SYN_RECV {
        // Fast Open hands a socket over before its handshake has ended.
        maps::remember(
            sock,
            &Conn {
                owner: current(),
                owner_by: owner::ACCEPT,
                role: role::SERVER,
                ..Conn::default()
            },
        );
    }
}
