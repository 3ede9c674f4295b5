//! All state of the programs.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{HashMap, PerCpuArray, RingBuf},
};
use aya_log_ebpf::debug;
use tcp_ebpf::{
    config::{Config, PortSet},
    offsets::{ABSENT, FIELDS, Offsets},
    wire::{Owner, Progress, counter},
};

use crate::sock::Sock;

/// What is remembered of an open socket.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Conn {
    pub(crate) opened_ns: u64,
    pub(crate) syn_ns: u64,
    pub(crate) established_ns: u64,
    pub(crate) owner: Owner,
    pub(crate) base: Progress,
    pub(crate) handshake_us8: u32,
    pub(crate) owner_by: u8,
    pub(crate) role: u8,
    pub(crate) partial: u8,
    pub(crate) pad: u8,
}

#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> = Global::new(Offsets([ABSENT; FIELDS.len()]));
#[unsafe(no_mangle)]
static CONFIG: Global<Config> = Global::new(Config {
    ip: 0,
    netns: 0,
    by_pid: 0,
    by_local_port: 0,
    by_remote_port: 0,
    new_only: 0,
});
#[unsafe(no_mangle)]
static LOCAL_PORTS: Global<PortSet> = Global::new([0; 1024]);
#[unsafe(no_mangle)]
static REMOTE_PORTS: Global<PortSet> = Global::new([0; 1024]);

/// Records for user space; sized at load time.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Open sockets, by the address of their `struct sock`; sized at load time.
#[map]
static CONNS: HashMap<u64, Conn> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
/// Processes to trace, when `Config::by_pid` is set; sized at load time.
#[map]
static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// One word of a global. `Global::load` would copy all of it to the stack.
///
/// # Safety
///
/// `T` must be made of `W`s, at least `index + 1` of them.
#[inline(always)]
unsafe fn word<T, W: Copy>(global: &Global<T>, index: usize) -> W {
    // SAFETY: in bounds by the contract; volatile, because the loader replaces the value.
    unsafe {
        core::ptr::from_ref(global)
            .cast::<W>()
            .add(index)
            .read_volatile()
    }
}

#[inline(always)]
pub(crate) fn offset(index: usize) -> usize {
    // SAFETY: `index` comes from the table that gives the array its length.
    unsafe { word::<_, u32>(&OFFSETS, index) as usize }
}

/// One field of the configuration, by name.
macro_rules! config {
    ($field:ident) => {
        $crate::maps::config_word(core::mem::offset_of!(tcp_ebpf::config::Config, $field) / 4)
    };
}
pub(crate) use config;

#[inline(always)]
pub(crate) fn config_word(index: usize) -> u32 {
    // SAFETY: `index` comes from the offset of a member, all of which are u32.
    unsafe { word(&CONFIG, index) }
}

#[inline(always)]
pub(crate) fn is_local_port(port: u16) -> bool {
    is_in(&LOCAL_PORTS, port)
}

#[inline(always)]
pub(crate) fn is_remote_port(port: u16) -> bool {
    is_in(&REMOTE_PORTS, port)
}

#[inline(always)]
fn is_in(ports: &Global<PortSet>, port: u16) -> bool {
    // SAFETY: a u16 divided by 64 is below 1024.
    let bits: u64 = unsafe { word(ports, port as usize / 64) };
    bits >> (port % 64) & 1 != 0
}

#[inline(always)]
pub(crate) fn is_traced_pid(pid: u32) -> bool {
    PIDS.get_ptr(pid).is_some()
}

#[inline(always)]
pub(crate) fn count(which: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(which) {
        // SAFETY: a slot of a per-CPU array; an interrupt between load and store can lose one count at
        // most on kernels that let programs nest, which the verifier accepts.
        unsafe { *counter += 1 }
    }
}

#[inline(always)]
pub(crate) fn conn(sock: Sock) -> Option<&'static mut Conn> {
    // SAFETY: a value of the map stays valid for the run of the program (RCU); the fields are plain
    // integers, and the socket's own lock orders most writers.
    CONNS
        .get_ptr_mut(sock.key())
        .map(|conn| unsafe { &mut *conn })
}

#[inline(always)]
pub(crate) fn remember(sock: Sock, conn: &Conn) {
    if CONNS.insert(sock.key(), conn, 0).is_err() {
        count(counter::MAP_FULL);
        debug!((), "no room to remember socket {:x}", sock.key());
    }
}

/// Like [`remember`], but leaves what is there.
#[inline(always)]
pub(crate) fn remember_if_new(sock: Sock, conn: &Conn) {
    const EEXIST: i32 = -17;
    match CONNS.insert(sock.key(), conn, u64::from(BPF_NOEXIST)) {
        Ok(()) | Err(EEXIST) => {}
        Err(_) => count(counter::MAP_FULL),
    }
}

#[inline(always)]
pub(crate) fn forget(sock: Sock) {
    let _ = CONNS.remove(sock.key());
}
