//! What a processor is in the middle of.
//!
//! The kernel does not run a program that an interrupt finds busy on its processor (`recursion_misses`,
//! Linux 5.12). Interrupts do not nest as far as TCP is concerned, so whatever runs on top of a busy
//! program can tell for which events that one is skipped, and stand in for it.

use aya_ebpf::{macros::map, maps::PerCpuArray};

/// Programs of which the kernel runs one at a time on each processor.
#[derive(Clone, Copy)]
pub(crate) enum Class {
    /// The one that handles changes of state by a raw tracepoint or a trampoline.
    State,
    /// All kprobe and tracepoint programs together (`bpf_prog_active`, `trace_call_bpf`,
    /// kernel/trace/bpf_trace.c).
    Kprobes,
}

#[map]
static BUSY: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// Runs `body`, and lets interrupts know.
#[inline(always)]
pub(crate) fn during(class: Class, body: impl FnOnce()) {
    let Some(busy) = BUSY.get_ptr_mut(class as u32) else {
        return;
    };
    // SAFETY: a slot of a per-CPU array. An interrupt leaves it as it was; volatile, because it looks.
    let before = unsafe {
        let before = busy.read_volatile();
        busy.write_volatile(1);
        before
    };
    body();
    // SAFETY: as above.
    unsafe { busy.write_volatile(before) };
}

/// Whether this processor was interrupted within such a program.
#[inline(always)]
pub(crate) fn is_busy(class: Class) -> bool {
    BUSY.get_ptr(class as u32).is_some_and(|busy| {
        // SAFETY: as above.
        unsafe { busy.read_volatile() != 0 }
    })
}
