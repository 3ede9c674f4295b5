//! Snapshots: sockets and descriptors that exist at this moment.
//!
//! aya-ebpf has no macro for iterators; the section name is the whole declaration. The contexts are
//! `struct bpf_iter__tcp` (net/ipv4/tcp_ipv4.c) and `struct bpf_iter__task_file` (kernel/bpf/task_iter.c).

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::{
    bpf_ktime_get_ns,
    generated::{bpf_seq_write, bpf_sock_from_file},
};
use tcp_ebpf::{
    offsets,
    tcp::{CLOSE, LISTEN, NEW_SYN_RECV, SYN_SENT, TIME_WAIT},
    wire::{Session, kind, owner, role},
};

use crate::{
    filter::Subject,
    maps::{self, Conn},
    mem, owner as process, session,
    sock::Sock,
};

/// Fields of a context are pointers that may be null, each padded to eight bytes.
#[repr(C)]
pub(crate) struct TcpContext {
    meta: *const Meta,
    sk: *const c_void,
}

#[repr(C)]
pub(crate) struct TaskFileContext {
    meta: *const Meta,
    task: *const c_void,
    fd: u64,
    file: *mut c_void,
}

#[repr(C)]
pub(crate) struct Meta {
    seq: *mut c_void,
}

/// Loads a field of the context once: a second load would be a new, unchecked pointer to the verifier.
macro_rules! load {
    ($ctx:ident, $field:ident) => {
        // SAFETY: the kernel passes a valid context.
        unsafe { (&raw const (*$ctx).$field).read_volatile() }
    };
}

/// Remembers every session that is open, unless it is known already.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
fn seed_sockets(ctx: *const TcpContext) -> i32 {
    let Some(sock) = open_session(load!(ctx, sk)) else {
        return 0;
    };
    let state = sock.state();
    let connecting = state == SYN_SENT;
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    maps::remember_if_new(
        sock,
        &Conn {
            opened_ns: if connecting { now } else { 0 },
            established_ns: if connecting { 0 } else { now },
            base: sock.progress(state),
            role: if connecting {
                role::CLIENT
            } else {
                role::UNKNOWN
            },
            partial: 1,
            ..Conn::default()
        },
    );
    0
}

/// Gives the sockets that nobody claimed to the first process that holds a descriptor.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn seed_owners(ctx: *const TaskFileContext) -> i32 {
    let (task, file) = (load!(ctx, task), load!(ctx, file));
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: `file` is a valid `struct file *`.
    let socket = unsafe { bpf_sock_from_file(file.cast()) };
    if socket.is_null() {
        return 0;
    }
    let sock = Sock::new(mem::read(socket as u64, offsets::socket_sk));
    if let Some(conn) = maps::conn(sock)
        && conn.owner_by == owner::NONE
    {
        conn.owner = process::of_task(task as u64);
        conn.owner_by = owner::FD;
    }
    0
}

/// Writes the record of every session that is open, known and wanted.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
fn dump_sockets(ctx: *const TcpContext) -> i32 {
    let meta = load!(ctx, meta);
    let Some(sock) = open_session(load!(ctx, sk)) else {
        return 0;
    };
    let Some(conn) = maps::conn(sock) else {
        return 0;
    };
    let subject = Subject::new(sock, conn.owner.pid);
    if subject.is_wanted() {
        let mut record = MaybeUninit::<Session>::uninit();
        session::fill(
            record.as_mut_ptr(),
            kind::OPEN,
            &subject,
            sock.state(),
            conn,
        );
        // SAFETY: `fill` has written every byte of the record; `meta` is never null.
        unsafe {
            bpf_seq_write(
                (*meta).seq.cast(),
                record.as_ptr().cast(),
                size_of::<Session>() as u32,
            )
        };
    }
    0
}

/// The iterator also shows listeners, and minisockets that are no `struct tcp_sock`.
#[inline(always)]
fn open_session(sk: *const c_void) -> Option<Sock> {
    if sk.is_null() {
        return None;
    }
    let sock = Sock::new(sk as u64);
    let in_session = !matches!(sock.state(), TIME_WAIT | NEW_SYN_RECV | LISTEN | CLOSE);
    (in_session && sock.is_tcp()).then_some(sock)
}
