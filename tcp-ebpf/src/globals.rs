//! What user space has decided before loading, and what it reads back: constants and counters.

use aya_ebpf::{Global, macros::map, maps::PerCpuArray};
use tcp_ebpf::{
    config::{Config, PortSet},
    offsets::{ABSENT, FIELDS, Offsets},
    wire::counter,
};

#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> = Global::new(Offsets([ABSENT; FIELDS.len()]));
#[unsafe(no_mangle)]
static CONFIG: Global<[u32; size_of::<Config>() / 4]> = Global::new([0; size_of::<Config>() / 4]);
/// Number of arguments of `inet_csk_accept`.
#[unsafe(no_mangle)]
static ACCEPT_ARGS: Global<u32> = Global::new(0);
/// Arguments of the tracepoint `tcp_retransmit_skb`. A program that reads one too many does not attach.
#[unsafe(no_mangle)]
static RETRANSMIT_ARGS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static LOCAL_PORTS: Global<PortSet> = Global::new([0; 1024]);
#[unsafe(no_mangle)]
static REMOTE_PORTS: Global<PortSet> = Global::new([0; 1024]);

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
        $crate::globals::config_word(core::mem::offset_of!(tcp_ebpf::config::Config, $field) / 4)
    };
}
pub(crate) use config;

#[inline(always)]
pub(crate) fn config_word(index: usize) -> u32 {
    // SAFETY: `index` comes from the offset of a member, all of which are u32.
    unsafe { word(&CONFIG, index) }
}

/// Number of arguments of `inet_csk_accept` in this kernel; a constant to the verifier.
#[inline(always)]
pub(crate) fn accept_args() -> u32 {
    // SAFETY: a u32.
    unsafe { word(&ACCEPT_ARGS, 0) }
}

/// Whether the tracepoint `tcp_retransmit_skb` has the result of sending: `(sk, skb, err)`, Linux 6.17. A
/// constant to the verifier.
#[inline(always)]
pub(crate) fn has_retransmit_error() -> bool {
    // SAFETY: it is one word.
    let count: u32 = unsafe { word(&RETRANSMIT_ARGS, 0) };
    count >= 3
}

/// Whether any of these records are asked for; a constant to the verifier.
#[inline(always)]
pub(crate) fn wants(events: u32) -> bool {
    config!(events) & events != 0
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
pub(crate) fn count(which: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(which) {
        // SAFETY: a slot of a per-CPU array; an interrupt between load and store can lose one count at
        // most on kernels that let programs nest, which the verifier accepts.
        unsafe { *counter += 1 }
    }
}
