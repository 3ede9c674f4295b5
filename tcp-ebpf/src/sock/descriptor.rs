//! From a descriptor or a file to its socket.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use tcp_ebpf::offsets;

use super::Sock;
use crate::mem;

impl Sock {
    /// The `struct sock *` behind a descriptor of the current process:
    /// `current->files->fdt->fd[fd]->private_data->sk`.
    ///
    /// Another thread may close it at the same time, and then anything may be there: a fault is no loss here, and the
    /// caller must look at what it gets.
    #[inline(always)]
    pub(crate) fn of_descriptor(fd: u64) -> Option<Self> {
        let file = Self::file_of_descriptor(fd);
        let sk = mem::peek(mem::peek(file, offsets::private_data), offsets::socket_sk);
        (sk != 0).then_some(Self(sk))
    }

    /// Whether system calls on a descriptor of the current process may wait. False where that is not known.
    #[inline(always)]
    pub(crate) fn is_blocking_descriptor(fd: u64) -> bool {
        // O_NONBLOCK, include/uapi/asm-generic/fcntl.h.
        const NONBLOCK: u32 = 0o4000;
        mem::has(offsets::f_flags)
            && mem::peek(Self::file_of_descriptor(fd), offsets::f_flags) & NONBLOCK == 0
    }

    /// The `struct file *` of a descriptor of the current process; see [`Sock::of_descriptor`].
    #[inline(always)]
    fn file_of_descriptor(fd: u64) -> u64 {
        // SAFETY: no preconditions.
        let task = unsafe { bpf_get_current_task() };
        let files = mem::peek(task, offsets::files);
        let fdt = mem::peek(files, offsets::fdt);
        let mut file = 0_u64;
        mem::probe(
            mem::peek(fdt, offsets::fd).wrapping_add((fd & 0xffff_ffff) * 8),
            &raw mut file,
        );
        file
    }

    /// The `struct sock *` behind a `struct file *`: what `bpf_sock_from_file()` finds, which Linux has from 5.11 on.
    /// A file whose inode is a socket's can only be one that `sock_alloc_file()` has made (net/socket.c, 5.10).
    #[inline(always)]
    pub(crate) fn of_file(file: u64) -> Option<Self> {
        // include/uapi/linux/stat.h
        const S_IFMT: u16 = 0o170_000;
        const S_IFSOCK: u16 = 0o140_000;
        let mode = mem::read(mem::read(file, offsets::f_inode), offsets::i_mode);
        if mode & S_IFMT != S_IFSOCK {
            return None;
        }
        let sk = mem::read(mem::read(file, offsets::private_data), offsets::socket_sk);
        (sk != 0).then_some(Self(sk))
    }
}
