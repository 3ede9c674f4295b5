//! Reading kernel memory.
//!
//! Every program reads through `bpf_probe_read_kernel`, also where the verifier would allow plain loads
//! (fentry, iterators): one way serves all mechanisms, it needs no types, a bad pointer is a counted fault,
//! and it was measured no slower than plain loads.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use tcp_ebpf::{
    offsets::{ABSENT, Field},
    wire::counter,
};

use crate::maps;

/// The value of `field` in the kernel structure at `base`; zero if it cannot be read.
#[inline(always)]
pub(crate) fn read<T: Copy>(base: u64, field: Field<T>) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    read_into(base, field, value.as_mut_ptr());
    // SAFETY: `read_into` has filled it, and every `T` of the table is made of integers.
    unsafe { value.assume_init() }
}

/// Like [`read`], but straight to where the value is wanted.
#[inline(always)]
pub(crate) fn read_into<T>(base: u64, field: Field<T>, to: *mut T) {
    let offset = maps::offset(field.index);
    if offset == ABSENT as usize {
        // SAFETY: `to` is valid for writes of a `T`.
        unsafe { to.write_bytes(0, 1) };
        return;
    }
    probe(base.wrapping_add(offset as u64), to);
}

/// The word at an address that was computed, not looked up.
#[inline(always)]
pub(crate) fn read_word(address: u64) -> u64 {
    let mut word = 0;
    probe(address, &raw mut word);
    word
}

#[inline(always)]
fn probe<T>(from: u64, to: *mut T) {
    // SAFETY: `to` is valid for writes of a `T`; the helper checks `from`, and on a fault it zeroes `to`.
    let failed = unsafe {
        bpf_probe_read_kernel(
            to.cast::<c_void>(),
            size_of::<T>() as u32,
            from as *const c_void,
        )
    };
    if failed != 0 {
        maps::count(counter::READ_FAULT);
    }
}
