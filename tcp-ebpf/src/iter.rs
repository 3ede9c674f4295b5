//! Snapshots: sockets and descriptors that exist at this moment.
//!
//! aya-ebpf has no macro for iterators; the section name is the whole declaration. The contexts are
//! `struct bpf_iter__tcp` (net/ipv4/tcp_ipv4.c) and `struct bpf_iter__task_file` (kernel/bpf/task_iter.c).

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_seq_write};
use tcp_ebpf::{
    config::event::{ATTEMPT, RETRANSMIT, SESSION},
    offsets,
    tcp::{CLOSE, LISTEN, NEW_SYN_RECV, SYN_SENT, State, TIME_WAIT},
    wire::{Connect, Idle, Session, kind, owner, role},
};

use crate::{
    connect, emit,
    filter::Subject,
    globals::wants,
    maps::{self, Conn},
    mem, owner as process, session,
    sock::Sock,
};

/// Fields of a context are pointers that may be null, each padded to eight bytes.
#[repr(C)]
pub(crate) struct TcpContext {
    pub(crate) meta: *const Meta,
    pub(crate) sk: *const c_void,
    pub(crate) uid: u32,
}

#[repr(C)]
pub(crate) struct TaskFileContext {
    pub(crate) meta: *const Meta,
    pub(crate) task: *const c_void,
    pub(crate) fd: u32,
    pub(crate) file: *mut c_void,
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
pub(crate) use load;

/// Remembers every session that is open, unless it is known already; and listeners, where somebody asks for
/// retransmitted SYN-ACKs.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
fn seed_sockets(ctx: *const TcpContext) -> i32 {
    let sk = load!(ctx, sk);
    if sk.is_null() {
        return 0;
    }
    let sock = Sock::new(sk as u64);
    if sock.state() == LISTEN
        && wants(RETRANSMIT)
        && sock.is_tcp()
        && !maps::remember_if_new(sock, |_| {})
    {
        maps::leave_out_listed(sock);
    }
    if in_session(sock) && !seed(sock) {
        maps::leave_out_listed(sock);
    }
    0
}

/// Remembers a session that is older than the trace; false if there is no room.
#[inline(never)]
fn seed(sock: Sock) -> bool {
    let state = sock.state();
    let connecting = state == SYN_SENT;
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    maps::remember_if_new(sock, |conn| {
        if connecting {
            conn.opened_ns = now;
            conn.role = role::CLIENT;
            // Its SYN has left before the trace.
            conn.attempted = 1;
        } else {
            conn.established_ns = now;
        }
        conn.base = sock.progress(state);
        conn.partial = 1;
    })
}

/// Gives the sockets that nobody claimed to the oldest process that holds a descriptor, counts how many do, and
/// remembers those of other network namespaces. The oldest and not the first: once process ids have wrapped
/// around, a child's may be less than its parent's.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn seed_owners(ctx: *const TaskFileContext) -> i32 {
    let (task, file) = (load!(ctx, task), load!(ctx, file));
    if task.is_null() || file.is_null() {
        return 0;
    }
    let Some(sock) = Sock::of_file(file as u64) else {
        return 0;
    };
    // In a network namespace that could not be entered.
    if maps::conn(sock).is_none() && in_session(sock) {
        if !seed(sock) {
            maps::leave_out_held(sock);
        }
        // Nothing holds the socket's state here: if it was closed meanwhile, nobody would tell again.
        if sock.state() == CLOSE {
            maps::forget(sock);
        }
    }
    if let Some(conn) = maps::conn(sock) {
        let task = task as u64;
        // All descriptors of a process come in a row.
        let holder = mem::read(task, offsets::tgid);
        if conn.last_holder == holder {
            return 0;
        }
        conn.last_holder = holder;
        conn.holders += 1;
        let since = process::started_ns(task);
        let is_older = conn.claim.by == owner::FD && since < conn.held_since;
        if conn.claim.by == owner::NONE || is_older {
            conn.claim = process::of_task(task, owner::FD);
            conn.held_since = since;
        }
    }
    0
}

/// Writes the record of every session that is open, known and wanted, a short one if nothing has moved since
/// that was done last; or, where active opens are asked for, of those whose SYN has left and that have not been
/// reported: without a hook on tcp_connect() they would be only when their state changes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
fn dump_sockets(ctx: *const TcpContext) -> i32 {
    let (meta, sk) = (load!(ctx, meta), load!(ctx, sk));
    if sk.is_null() {
        return 0;
    }
    let sock = Sock::new(sk as u64);
    // What is remembered is TCP's.
    if !is_session_state(sock.state()) {
        return 0;
    }
    let Some(conn) = maps::conn(sock) else {
        return 0;
    };
    // Before all else: what moves from now on is shown next time.
    let moved = sock.moved();
    if conn.shown == moved {
        write(meta, &idle(sock, conn));
        return 0;
    }
    let subject = Subject::of(sock);
    if !subject.is_wanted(&conn.claim) {
        return 0;
    }
    if wants(SESSION) {
        let mut record = MaybeUninit::<Session>::uninit();
        emit::head(
            record.as_mut_ptr().cast(),
            kind::OPEN,
            &subject,
            &conn.claim,
        );
        let now = sock.progress(sock.state());
        session::fill(record.as_mut_ptr(), sock, now, conn);
        // If there was no room left, the kernel shows the socket again.
        if write(meta, &record) {
            conn.shown = moved;
        }
    } else if wants(ATTEMPT) && conn.attempted == 0 && sock.state() == SYN_SENT {
        let mut record = MaybeUninit::<Connect>::uninit();
        emit::head(
            record.as_mut_ptr().cast(),
            kind::ATTEMPT,
            &subject,
            &conn.claim,
        );
        connect::fill(record.as_mut_ptr(), sock, conn, false);
        write(meta, &record);
    }
    0
}

#[inline(always)]
fn idle(sock: Sock, conn: &Conn) -> MaybeUninit<Idle> {
    MaybeUninit::new(Idle {
        kind: kind::IDLE,
        pad: [0; 7],
        id: sock.key(),
        born_ns: match conn.opened_ns {
            0 => conn.established_ns,
            opened_ns => opened_ns,
        },
    })
}

/// Every byte of `record` must have been written, which the verifier checks. False if there was no room.
#[inline(always)]
pub(crate) fn write<T>(meta: *const Meta, record: &MaybeUninit<T>) -> bool {
    // SAFETY: the kernel passes a valid `meta`, and reads no more than the record.
    let error = unsafe {
        bpf_seq_write(
            (*meta).seq.cast(),
            record.as_ptr().cast(),
            size_of::<T>() as u32,
        )
    };
    error == 0
}

#[inline(always)]
fn in_session(sock: Sock) -> bool {
    is_session_state(sock.state()) && sock.is_tcp()
}

/// The iterator also shows listeners, and minisockets that are no `struct tcp_sock`.
#[inline(always)]
fn is_session_state(state: State) -> bool {
    !matches!(state, TIME_WAIT | NEW_SYN_RECV | LISTEN | CLOSE)
}
