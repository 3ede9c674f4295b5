//! Reading kernel memory.
//!
//! Every program reads through `bpf_probe_read_kernel`, also where the verifier would allow plain loads
//! (fentry, iterators): one way serves all mechanisms, it needs no types, a bad pointer is a counted fault,
//! and it was measured no slower than plain loads.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use tcp_ebpf::{
    offsets::{ABSENT, BIT_SHIFT, Bits, Field},
    wire::counter,
};

use crate::globals;

/// The value of `field` in the kernel structure at `base`; zero if it cannot be read.
#[inline(always)]
pub(crate) fn read<T: Copy>(base: u64, field: Field<T>) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    read_into(base, field, value.as_mut_ptr());
    // SAFETY: `read_into` has filled it, and every `T` of the table is made of integers.
    unsafe { value.assume_init() }
}

/// What is at `base`, at once; zeros if it cannot be read.
#[inline(always)]
pub(crate) fn read_words<const N: usize>(base: u64) -> [u64; N] {
    let mut words = MaybeUninit::<[u64; N]>::uninit();
    if !probe(base, words.as_mut_ptr()) {
        count_fault();
    }
    // SAFETY: `probe` has filled it.
    unsafe { words.assume_init() }
}

/// The value of `field` in what [`read_words`] has read; none if it is not among that.
#[inline(always)]
pub(crate) fn of_words<T: Copy, const N: usize>(words: &[u64; N], field: Field<T>) -> Option<T> {
    let offset = globals::offset(field.index);
    let is_among = has(field) && offset <= N * 8 - size_of::<T>();
    // SAFETY: within the words, and the kernel aligns its fields; every `T` of the table is made of integers.
    is_among.then(|| unsafe { words.as_ptr().byte_add(offset).cast::<T>().read() })
}

/// The value of a bitfield; zero if it cannot be read.
#[inline(always)]
pub(crate) fn read_bits<const N: u32>(base: u64, field: Field<Bits<N>>) -> u8 {
    let mut byte = 0_u8;
    if has(field) {
        let offset = globals::offset(field.index);
        let shift = offset >> BIT_SHIFT;
        let at = base.wrapping_add((offset & ((1 << BIT_SHIFT) - 1)) as u64);
        if !probe(at, &raw mut byte) {
            count_fault();
        }
        byte = byte >> shift & ((1 << N) - 1);
    }
    byte
}

/// Zeroes what is made of integers, word by word: LLVM makes a call of memset of anything else, and that
/// goes byte by byte.
#[inline(always)]
pub(crate) fn zero<T>(to: *mut T) {
    let mut at = 0;
    while at < size_of::<T>() {
        // SAFETY: `to` is valid for writes of a `T`, whose size is a multiple of its alignment.
        unsafe {
            if align_of::<T>() >= 8 {
                to.byte_add(at).cast::<u64>().write_volatile(0);
                at += 8;
            } else {
                to.byte_add(at).cast::<u8>().write_volatile(0);
                at += 1;
            }
        }
    }
}

/// Whether this kernel has the field; a constant to the verifier.
#[inline(always)]
pub(crate) fn has<T>(field: Field<T>) -> bool {
    globals::offset(field.index) != ABSENT as usize
}

/// Where the field is.
#[inline(always)]
pub(crate) fn address<T>(base: u64, field: Field<T>) -> u64 {
    base.wrapping_add(globals::offset(field.index) as u64)
}

#[inline(always)]
fn read_into<T>(base: u64, field: Field<T>, to: *mut T) {
    if !has(field) {
        zero(to);
    } else if !probe(address(base, field), to) {
        count_fault();
    }
}

/// Out of line: there are many reads, and faults are rare. What the kernel's verifier takes grows with the
/// square of a program's size.
#[inline(never)]
fn count_fault() {
    globals::count(counter::READ_FAULT);
}

/// Like [`read`], where a fault is no loss.
#[inline(always)]
pub(crate) fn peek<T: Copy + Default>(base: u64, field: Field<T>) -> T {
    let mut value = T::default();
    if has(field) {
        probe(address(base, field), &raw mut value);
    }
    value
}

/// False if it cannot be read; then `to` is zeroed.
#[inline(always)]
pub(crate) fn probe<T>(from: u64, to: *mut T) -> bool {
    // SAFETY: `to` is valid for writes of a `T`; the helper checks `from`, and on a fault it zeroes `to`.
    unsafe {
        bpf_probe_read_kernel(
            to.cast::<c_void>(),
            size_of::<T>() as u32,
            from as *const c_void,
        ) == 0
    }
}
