//! The contract between the kernel programs and user space.
//!
//! Everything here is `no_std`, `#[repr(C)]` and made of integers with explicit padding, so that both
//! sides agree on every byte without trusting each other: user space parses these records, it never
//! casts to them.
#![no_std]

pub mod config;
pub mod offsets;
pub mod tcp;
pub mod wire;
