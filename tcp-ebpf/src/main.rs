//! The kernel programs: one file per probe point.
//!
//! A probe point's file holds thin entry points, one per mechanism (raw tracepoint, fentry, kprobe, …),
//! and the one body that they share. `sock` is the only place that reads a socket, `maps` the only place
//! that holds state.
#![no_std]
#![no_main]

mod accept;
mod connect;
mod emit;
mod filter;
mod globals;
mod iter;
mod maps;
mod mem;
mod owner;
mod process;
mod reset;
mod retransmit;
mod session;
mod sock;
mod sockets;
mod state;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
