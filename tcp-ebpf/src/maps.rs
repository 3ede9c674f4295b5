//! All state of the programs.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{HashMap, LpmTrie, LruHashMap, RingBuf, lpm_trie::Key},
};
use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
};
use tcp_ebpf::{
    config::event::SESSION,
    wire::{Owner, Progress, counter, owner},
};

use crate::{
    globals::{config, count, wants},
    mem,
    sock::Sock,
};

/// An owner, how it is known, and what the filters think of it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Claim {
    pub(crate) owner: Owner,
    /// See [`owner`].
    pub(crate) by: u8,
    /// 1 if the filters by process let it through. Decided once, when the socket gets its owner: the
    /// process may be gone when there is something to report.
    pub(crate) wanted: u8,
    pub(crate) pad16: u16,
    pub(crate) pad32: u32,
}

impl Claim {
    /// accept() knows better than nobody, and than a look at the descriptors.
    #[inline(always)]
    pub(crate) fn is_weak(&self) -> bool {
        self.by == owner::NONE || self.by == owner::FD
    }

    /// Whether the filters by process let its events through.
    #[inline(always)]
    pub(crate) fn is_wanted(&self) -> bool {
        !has_filter() || self.wanted != 0
    }
}

/// What is remembered of a socket.
#[repr(C)]
pub(crate) struct Conn {
    pub(crate) opened_ns: u64,
    pub(crate) syn_ns: u64,
    pub(crate) established_ns: u64,
    /// [`Sock::moved`] when a snapshot showed it last; 0 if none has.
    pub(crate) shown: u64,
    pub(crate) claim: Claim,
    /// When the process began that holds it, in ns; 0 unless it was found by its descriptor.
    pub(crate) held_since: u64,
    pub(crate) base: Progress,
    pub(crate) handshake_us8: u32,
    pub(crate) role: u8,
    pub(crate) partial: u8,
    /// Bits of [`tcp_ebpf::wire::connect_flag`].
    pub(crate) connect_flags: u8,
    /// 1 once the attempt has been reported.
    pub(crate) attempted: u8,
    /// Processes that held a descriptor when the trace began.
    pub(crate) holders: u32,
    /// The last of them that was found.
    pub(crate) last_holder: u32,
    /// What it had received at a moment that something later is compared with: of a client that connects,
    /// [`Sock::segments_received`] when it was opened, as connect() may not be the first on this socket; later
    /// [`Sock::data_segments`] when its FIN was queued.
    pub(crate) segments_before: u32,
    /// Of a client, [`Sock::soft_error`] when it was opened.
    pub(crate) soft_before: u16,
    /// 1 once it has sent a RST.
    pub(crate) reset: u8,
    /// 1 once the first of the two programs for the state has reported its end, and the second has not run yet.
    pub(crate) ended: u8,
}

// With more, the kernel's allocator takes 256 bytes for an entry instead of 192 (kernel/bpf/memalloc.c, 6.1).
const _: () = assert!(size_of::<Conn>() <= 128);

impl Conn {
    /// What `fill` makes of a blank, in place.
    #[inline(always)]
    pub(crate) fn blank(at: &mut MaybeUninit<Self>, fill: impl FnOnce(&mut Self)) -> &mut Self {
        mem::zero(at.as_mut_ptr());
        // SAFETY: made of integers, all zero now.
        let conn = unsafe { at.assume_init_mut() };
        fill(conn);
        conn
    }

    /// Whether it is a session that began during the trace, and that somebody wants to hear of. What is older
    /// may have ended while it was being entered.
    #[inline(always)]
    fn is_seen_session(&self) -> bool {
        wants(SESSION) && self.established_ns != 0 && self.partial == 0
    }
}

/// A connect() in progress.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) sock: u64,
    /// The caller's `struct sockaddr`.
    pub(crate) address: u64,
    pub(crate) since_ns: u64,
    /// 1 once the state of the socket tells what becomes of it.
    pub(crate) under_way: u64,
    /// 1 if the caller waits for the outcome.
    pub(crate) waits: u64,
}

/// `insert` has found an entry and was asked to leave it.
const EEXIST: i32 = -17;

// The loader gives those maps their size that are declared with one entry here.

/// Records for user space.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Open sockets, by the address of their `struct sock`.
#[map]
static CONNS: HashMap<u64, Conn> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
/// Sockets that are not remembered, and whose end the first of two programs has reported and the second has not seen
/// yet: [`Sock::write_seq`] of each.
#[map]
static CLOSED: HashMap<u64, u32> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);
/// Sockets that found no room there, between the program that counted them and the one that looks after it; and the
/// last of those that were counted by their descriptors.
#[map]
static LEFT_OUT: LruHashMap<u64, u8> = LruHashMap::with_max_entries(1024, 0);
/// Network namespaces in which sockets that are older than the trace found no room.
#[map]
static COUNTED_NETNS: HashMap<u32, u8> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);
/// Calls of connect() in progress, by thread.
#[map]
static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static UIDS: HashMap<u32, u8> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static CGROUPS: HashMap<u64, u8> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static LOCAL_NETS: LpmTrie<[u32; 4], u8> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static REMOTE_NETS: LpmTrie<[u32; 4], u8> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[inline(always)]
pub(crate) fn is_local_net(address: [u32; 4]) -> bool {
    LOCAL_NETS
        .get(Key::new(128, address))
        .is_some_and(|is_in| *is_in != 0)
}

#[inline(always)]
pub(crate) fn is_remote_net(address: [u32; 4]) -> bool {
    REMOTE_NETS
        .get(Key::new(128, address))
        .is_some_and(|is_in| *is_in != 0)
}

#[inline(always)]
pub(crate) fn is_traced_pid(pid: u32) -> bool {
    PIDS.get_ptr(pid).is_some()
}

#[inline(always)]
pub(crate) fn is_traced_uid(uid: u32) -> bool {
    UIDS.get_ptr(uid).is_some()
}

#[inline(always)]
pub(crate) fn is_traced_cgroup(id: u64) -> bool {
    CGROUPS.get_ptr(id).is_some()
}

#[inline(always)]
pub(crate) fn trace_pid(pid: u32) {
    if PIDS.insert(pid, 1, 0).is_err() {
        count(counter::MAP_FULL);
    }
}

#[inline(always)]
pub(crate) fn untrace_pid(pid: u32) {
    let _ = PIDS.remove(pid);
}

/// What is remembered of a socket that has not ended.
#[inline(always)]
pub(crate) fn conn(sock: Sock) -> Option<&'static mut Conn> {
    entry(sock).filter(|conn| conn.ended == 0)
}

#[inline(always)]
fn entry(sock: Sock) -> Option<&'static mut Conn> {
    // SAFETY: a value of the map stays valid for the run of the program (RCU); the fields are plain
    // integers, and the socket's own lock orders most writers.
    CONNS
        .get_ptr_mut(sock.key())
        .map(|conn| unsafe { &mut *conn })
}

/// Whether it is in another network namespace than the one that is traced: it needs no room, because all that happens
/// to it is filtered out.
#[inline(always)]
pub(crate) fn is_elsewhere(sock: Sock) -> bool {
    let netns = config!(netns);
    netns != 0 && netns != sock.netns()
}

/// Remembers what `fill` makes of a blank; false if there is no room. What is there already is another socket's that
/// had this address: had its end been seen, it would be gone.
#[inline(always)]
pub(crate) fn remember(sock: Sock, fill: impl FnOnce(&mut Conn)) -> bool {
    if is_elsewhere(sock) {
        count(counter::FILTERED);
        return true;
    }
    let mut conn = MaybeUninit::uninit();
    let conn = &*Conn::blank(&mut conn, fill);
    let mut inserted = CONNS.insert(sock.key(), conn, u64::from(BPF_NOEXIST));
    if inserted == Err(EEXIST) {
        if self::conn(sock).is_some_and(|left| left.is_seen_session()) {
            count(counter::UNSEEN);
        }
        inserted = CONNS.insert(sock.key(), conn, 0);
    }
    inserted.is_ok()
}

/// A socket that has just been born found no room: counts that, and notes it for the program that looks after this
/// one, see [`was_left_out`].
#[inline(always)]
pub(crate) fn leave_out(sock: Sock) {
    count(counter::MAP_FULL);
    let _ = LEFT_OUT.insert(sock.key(), 1, 0);
    if level_enabled(Level::Debug) {
        log_no_room(sock.lport());
    }
}

/// Whether [`leave_out`] was called for this socket. It answers so once: the address may become another socket's.
#[inline(always)]
pub(crate) fn was_left_out(sock: Sock) -> bool {
    LEFT_OUT.remove(sock.key()).is_ok()
}

/// A socket that is older than the trace found no room, when all sockets of its namespace were listed.
#[inline(always)]
pub(crate) fn leave_out_listed(sock: Sock) {
    count(counter::MAP_FULL);
    let _ = COUNTED_NETNS.insert(sock.netns(), 1, 0);
}

/// A socket that is older than the trace found no room, when a descriptor of it was seen. There may be several, and
/// its namespace may have been listed before.
#[inline(always)]
pub(crate) fn leave_out_held(sock: Sock) {
    if COUNTED_NETNS.get_ptr(sock.netns()).is_none()
        && LEFT_OUT
            .insert(sock.key(), 1, u64::from(BPF_NOEXIST))
            .is_ok()
    {
        count(counter::MAP_FULL);
    }
}

/// Out of line: aya-log's code is long.
#[inline(never)]
fn log_no_room(lport: u16) {
    debug!((), "no room to remember a socket, local port {}", lport);
}

/// Like [`remember`], but leaves what is there.
#[inline(always)]
pub(crate) fn remember_if_new(sock: Sock, fill: impl FnOnce(&mut Conn)) -> bool {
    if is_elsewhere(sock) {
        count(counter::FILTERED);
        return true;
    }
    let mut conn = MaybeUninit::uninit();
    let inserted = CONNS.insert(
        sock.key(),
        Conn::blank(&mut conn, fill),
        u64::from(BPF_NOEXIST),
    );
    matches!(inserted, Ok(()) | Err(EEXIST))
}

#[inline(always)]
pub(crate) fn forget(sock: Sock) {
    let _ = CONNS.remove(sock.key());
}

/// Shows the second program that the first has reported the end of a session that is not remembered; false if there is
/// no room.
#[inline(always)]
pub(crate) fn mark_closed(sock: Sock) -> bool {
    CLOSED.insert(sock.key(), sock.write_seq(), 0).is_ok()
}

/// Whether the first program has reported the end of this session. If so, the socket is forgotten. A mark that a skipped
/// second program left behind at this address is not this socket's; an entry is, as its birth has replaced what was there.
#[inline(always)]
pub(crate) fn take_end(sock: Sock) -> bool {
    if let Some(conn) = entry(sock) {
        let is_reported = conn.ended != 0;
        if is_reported {
            forget(sock);
        }
        return is_reported;
    }
    let key = sock.key();
    let Some(mark) = CLOSED.get_ptr(key) else {
        return false;
    };
    // SAFETY: as for `entry`.
    let is_marked = unsafe { *mark } == sock.write_seq();
    let _ = CLOSED.remove(key);
    is_marked
}

#[inline(always)]
pub(crate) fn call(thread: u64) -> Option<&'static mut Call> {
    // SAFETY: as for `entry`; only the thread itself writes.
    CALLS.get_ptr_mut(thread).map(|call| unsafe { &mut *call })
}

#[inline(always)]
pub(crate) fn begin_call(thread: u64, call: &Call) {
    if CALLS.insert(thread, call, 0).is_err() {
        count(counter::MAP_FULL);
    }
}

#[inline(always)]
pub(crate) fn end_call(thread: u64) {
    let _ = CALLS.remove(thread);
}

#[inline(always)]
fn has_filter() -> bool {
    config!(by_pid) | config!(by_uid) | config!(by_cgroup) != 0
}
