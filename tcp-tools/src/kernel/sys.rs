//! bpf(2) and perf_event_open(2), as thin as they are.
//!
//! aya 0.14 parses the kernel's whole BTF twice before it loads anything (25 MB and 30 ms); these few
//! calls over aya-obj are what remains without it. The descriptors go to aya's typed maps.

use std::{
    ffi::{CStr, CString, c_long},
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_info, bpf_prog_type, perf_event_attr,
    perf_type_id,
};

/// A program, ready to load.
pub(super) struct Program<'a> {
    pub(super) name: &'a str,
    pub(super) license: &'a CStr,
    pub(super) instructions: &'a [bpf_insn],
    pub(super) kind: bpf_prog_type,
    /// For tracing programs: what they attach to, by its id in the kernel's BTF.
    pub(super) target: Option<(bpf_attach_type, u32)>,
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<c_long> {
    // SAFETY: `attr` is valid for its whole size, and whoever filled it in keeps what it points to alive.
    checked(unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<bpf_attr>()) })
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(named(io::Error::last_os_error()))
    } else {
        Ok(result)
    }
}

/// Gives a reason to the number that is the kernel's own, and has no text in libc. An architecture without
/// trampolines refuses with it: arm64 loads fentry programs and attaches none with Linux 5.10
/// (`arch_prepare_bpf_trampoline`, kernel/bpf/trampoline.c) and 6.1 (`register_fentry`, in the same file).
fn named(error: io::Error) -> io::Error {
    // include/linux/errno.h (6.18)
    const ENOTSUPP: i32 = 524;
    match error.raw_os_error() {
        Some(ENOTSUPP) => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel cannot hook functions of this kind (ENOTSUPP)",
        ),
        _ => error,
    }
}

fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    bpf(command, attr).and_then(owned)
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us (close-on-exec, as all of bpf's are).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn no_attr() -> bpf_attr {
    // SAFETY: every member of the union is made of integers.
    unsafe { std::mem::zeroed() }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// The kernel keeps 15 bytes of a name, of letters, digits, `_` and `.`.
fn object_name(name: &str) -> [std::ffi::c_char; 16] {
    let mut to = [0; 16];
    let allowed = name.bytes().map(|b| {
        if b.is_ascii_alphanumeric() || b == b'_' {
            b
        } else {
            b'.'
        }
    });
    for (to, from) in to[..15].iter_mut().zip(allowed) {
        *to = std::ffi::c_char::from_ne_bytes([from]);
    }
    to
}

pub(super) fn map_create(name: &str, map: &aya_obj::Map) -> io::Result<OwnedFd> {
    let mut attr = no_attr();
    // SAFETY: writes to members that are made of integers.
    let it = unsafe { &mut attr.__bindgen_anon_1 };
    it.map_type = map.map_type();
    it.key_size = map.key_size();
    it.value_size = map.value_size();
    it.max_entries = map.max_entries();
    it.map_flags = map.map_flags();
    it.map_name = object_name(name);
    bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr)
}

/// Sets one element; `key` and `value` must have the sizes that the map was made with.
pub(super) fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = no_attr();
    // SAFETY: writes to members that are made of integers.
    let it = unsafe { &mut attr.__bindgen_anon_2 };
    it.map_fd = raw(map);
    it.key = key.as_ptr() as u64;
    it.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// From here on user space cannot change it, and the verifier takes its contents as constants.
pub(super) fn map_freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = no_attr();
    attr.__bindgen_anon_2.map_fd = raw(map);
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr).map(drop)
}

/// Loads a program. With a `log`, the verifier writes there what it thinks.
pub(super) fn prog_load(program: &Program<'_>, log: Option<&mut [u8]>) -> io::Result<OwnedFd> {
    let mut attr = no_attr();
    // SAFETY: writes to members that are made of integers.
    let it = unsafe { &mut attr.__bindgen_anon_3 };
    it.prog_type = program.kind as u32;
    it.insn_cnt = u32::try_from(program.instructions.len()).map_err(io::Error::other)?;
    it.insns = program.instructions.as_ptr() as u64;
    it.license = program.license.as_ptr() as u64;
    it.prog_name = object_name(program.name);
    if let Some((attach_type, id)) = program.target {
        it.expected_attach_type = attach_type as u32;
        it.attach_btf_id = id;
    }
    if let Some(log) = log {
        it.log_level = 1;
        it.log_size = u32::try_from(log.len()).map_err(io::Error::other)?;
        it.log_buf = log.as_mut_ptr() as u64;
    }
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// Attaches a raw tracepoint program by name; fentry and fexit programs know their target already.
pub(super) fn raw_tracepoint_open(
    name: Option<&CStr>,
    program: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let mut attr = no_attr();
    attr.raw_tracepoint.name = name.map_or(0, |name| name.as_ptr() as u64);
    attr.raw_tracepoint.prog_fd = raw(program);
    bpf_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}

pub(super) fn iter_link(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = no_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = raw(program);
    attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_ITER as u32;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// A file that runs the iterator as it is read, in the network namespace of the calling thread.
pub(super) fn iter_create(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = no_attr();
    attr.iter_create.link_fd = raw(link);
    bpf_fd(bpf_cmd::BPF_ITER_CREATE, &mut attr)
}

/// An event that fires when the kernel enters `function`, or with the `config` of a return probe leaves it; `pmu` is
/// the type number of the kprobe PMU.
pub(super) fn perf_kprobe(pmu: u32, config: u64, function: &str) -> io::Result<OwnedFd> {
    let function = CString::new(function)?;
    let mut attr = perf_attr();
    attr.type_ = pmu;
    attr.config = config;
    attr.__bindgen_anon_3.kprobe_func = function.as_ptr() as u64;
    perf_event_open(&mut attr)
}

/// An event that fires at the tracepoint with this id.
pub(super) fn perf_tracepoint(id: u64) -> io::Result<OwnedFd> {
    let mut attr = perf_attr();
    attr.type_ = perf_type_id::PERF_TYPE_TRACEPOINT as u32;
    attr.config = id;
    perf_event_open(&mut attr)
}

fn perf_attr() -> perf_event_attr {
    // SAFETY: a structure of integers.
    let mut attr: perf_event_attr = unsafe { std::mem::zeroed() };
    attr.size = size_of::<perf_event_attr>() as u32;
    attr
}

fn perf_event_open(attr: &mut perf_event_attr) -> io::Result<OwnedFd> {
    const ANY_PROCESS: i32 = -1;
    const NO_GROUP: i32 = -1;
    const PERF_FLAG_FD_CLOEXEC: u32 = 8;
    // The processor only says where the event is kept: tracepoints and probes fire on all of them.
    const CPU: i32 = 0;
    // SAFETY: `attr` is valid for the size that it states; the probe's name outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attr,
            ANY_PROCESS,
            CPU,
            NO_GROUP,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    checked(fd).and_then(owned).map_err(restricted)
}

/// Names the setting with which kernels of Debian and Ubuntu refuse perf events to whoever lacks
/// CAP_SYS_ADMIN, whatever CAP_PERFMON allows (their patch to `kernel/events/core.c`, "perf: Allow
/// further restriction of `perf_event_open`").
fn restricted(error: io::Error) -> io::Error {
    const MAINLINE_HIGHEST: i32 = 2;
    let level = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    match level.as_deref().map(|it| it.trim().parse::<i32>()) {
        Ok(Ok(level))
            if level > MAINLINE_HIGHEST && error.kind() == io::ErrorKind::PermissionDenied =>
        {
            let said =
                format!("{error}: with kernel.perf_event_paranoid {level} it takes CAP_SYS_ADMIN");
            io::Error::new(error.kind(), said)
        }
        _ => error,
    }
}

/// Runs the program each time that the event fires, until the event is closed.
pub(super) fn perf_attach(event: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
    const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
    for (request, argument) in [
        (PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()),
        (PERF_EVENT_IOC_ENABLE, 0),
    ] {
        // SAFETY: both requests take an integer.
        checked(unsafe { libc::ioctl(event.as_raw_fd(), request, argument) }.into())?;
    }
    Ok(())
}

/// What the kernel knows of a program that was loaded.
pub(super) fn prog_info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: a structure of integers.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attr = no_attr();
    attr.info.bpf_fd = raw(program);
    attr.info.info_len = size_of_val(&info) as u32;
    attr.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// Moves the calling thread to a network namespace.
pub(super) fn enter_netns(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes two integers.
    checked(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }.into()).map(drop)
}

/// Mounts a file system where nobody sees it; it is gone when the descriptor is closed (Linux 5.2).
pub(super) fn private_mount(kind: &CStr) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const FSMOUNT_CLOEXEC: u32 = 1;
    const NO_KEY: *const std::ffi::c_char = std::ptr::null();
    // SAFETY: takes a valid string.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    let context = checked(context).and_then(owned)?;
    // SAFETY: this command takes neither key nor value.
    checked(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            NO_KEY,
            NO_KEY,
            0,
        )
    })?;
    // SAFETY: takes integers.
    let mount =
        unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) };
    checked(mount).and_then(owned)
}

/// Opens a file below a directory, to read it.
pub(super) fn open_at(directory: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: takes a valid string.
    let fd = unsafe { libc::openat(directory.as_raw_fd(), path.as_ptr(), flags) };
    checked(fd.into()).and_then(owned)
}

/// Before Linux 5.11 maps count as locked memory, of which the default limit allows 64 kB.
pub(super) fn lift_memlock_limit() {
    let all = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: takes a valid pointer. A refusal shows when the maps are made.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const all) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_number_has_a_reason() {
        let text = |errno| named(io::Error::from_raw_os_error(errno)).to_string();
        assert_eq!(
            text(524),
            "this kernel cannot hook functions of this kind (ENOTSUPP)"
        );
        assert_eq!(text(libc::EBUSY), "Device or resource busy (os error 16)");
        // What decides on the error sees it still.
        let other = named(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(other.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn it_is_named_where_a_call_fails() {
        // SAFETY: writes this thread's own errno.
        unsafe { *libc::__errno_location() = 524 };
        let error = checked(-1).unwrap_err();
        assert!(error.to_string().contains("ENOTSUPP"), "{error}");
    }
}
