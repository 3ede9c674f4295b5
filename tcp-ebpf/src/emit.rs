//! Puts records into the ring.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tcp_ebpf::wire::{Head, counter};

use crate::{
    filter::Subject,
    globals,
    maps::{Claim, EVENTS},
};

/// A record; it begins with a [`Head`].
///
/// # Safety
///
/// `#[repr(C)]`, made of integers without implicit padding, and `Head` is the first member.
pub(crate) unsafe trait Record: 'static {}

// SAFETY: so they are declared, and their sizes are asserted there.
unsafe impl Record for tcp_ebpf::wire::Session {}
// SAFETY: likewise.
unsafe impl Record for tcp_ebpf::wire::Connect {}
// SAFETY: likewise.
unsafe impl Record for tcp_ebpf::wire::Accept {}
// SAFETY: likewise.
unsafe impl Record for tcp_ebpf::wire::Retransmit {}

/// Hands a record to user space if it is wanted; `fill` must write all that is behind the head.
#[inline(always)]
pub(crate) fn emit<T: Record>(
    kind: u8,
    subject: &Subject,
    claim: &Claim,
    fill: impl FnOnce(*mut T),
) {
    if !subject.is_wanted(claim) {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        globals::count(counter::RING_FULL);
        return;
    };
    let record = entry.as_mut_ptr();
    head(record.cast(), kind, subject, claim);
    fill(record);
    entry.submit(0);
    globals::count(counter::SUBMITTED);
}

/// Field by field, so that nothing is built on the stack and copied.
#[inline(always)]
pub(crate) fn head(to: *mut Head, kind: u8, subject: &Subject, claim: &Claim) {
    ownerless(to, kind, subject);
    // SAFETY: `to` is valid for writes of a `Head`.
    unsafe {
        (&raw mut (*to).owner_by).write(claim.by);
        (&raw mut (*to).owner).write(claim.owner);
    }
}

/// All of a head but the owner.
#[inline(always)]
pub(crate) fn ownerless(to: *mut Head, kind: u8, subject: &Subject) {
    // SAFETY: `to` is valid for writes of a `Head`.
    unsafe {
        (&raw mut (*to).kind).write(kind);
        (&raw mut (*to).family).write(subject.family);
        (&raw mut (*to).lport).write(subject.lport);
        (&raw mut (*to).rport).write(subject.rport);
        (&raw mut (*to).netns).write(subject.netns);
        (&raw mut (*to).pad).write(0);
        (&raw mut (*to).laddr).write(subject.laddr);
        (&raw mut (*to).raddr).write(subject.raddr);
        (&raw mut (*to).ts_ns).write(bpf_ktime_get_ns());
    }
}
