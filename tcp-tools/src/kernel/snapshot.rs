//! Runs iterators: once where they see the whole machine, once per network namespace where they see one.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::PathBuf,
};

use super::{privilege, sys};

/// Runs the iterator behind `link` once, in the network namespace of the calling thread, and hands over
/// what it writes, in pieces of any size.
pub(super) fn run(link: BorrowedFd<'_>, each: impl FnMut(&[u8])) -> io::Result<()> {
    run_with(&mut buffer(), link, each)
}

/// What the kernel gives at a time (`bpf_seq_read`, kernel/bpf/bpf_iter.c).
fn buffer() -> Vec<u8> {
    vec![0; 32 << 10]
}

fn run_with(
    buffer: &mut [u8],
    link: BorrowedFd<'_>,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut file = File::from(sys::iter_create(link)?);
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => each(&buffer[..length]),
            // The kernel asks to read on.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Runs the iterator in every network namespace that has a process or a name, or only in `only`.
///
/// Returns the namespaces that could not be entered, or not even be looked at.
pub(super) fn run_everywhere(
    link: BorrowedFd<'_>,
    only: Option<u32>,
    mut each: impl FnMut(&[u8]) + Send,
) -> io::Result<Vec<(PathBuf, io::Error)>> {
    // A thread of its own: it wanders through the namespaces, and the caller stays where it is.
    std::thread::scope(|scope| {
        let wanderer = scope.spawn(|| {
            let (mut refused, mut buffer, mut found) = (Vec::new(), buffer(), false);
            let home = fs::metadata(OWN)?.ino();
            for (path, namespace) in namespaces(only) {
                match namespace.and_then(|namespace| enter(&namespace, home)) {
                    Ok(()) => {
                        found = true;
                        run_with(&mut buffer, link, &mut each)?;
                    }
                    Err(error) => refused.push((path, error)),
                }
            }
            if only.is_some() && found {
                refused.clear();
            }
            Ok(refused)
        });
        wanderer
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the snapshot thread panicked")))
    })
}

/// Where a thread has nothing to enter, it needs no privilege: it is there.
fn enter(namespace: &File, home: u64) -> io::Result<()> {
    if namespace.metadata()?.ino() == home {
        return Ok(());
    }
    sys::enter_netns(namespace.as_fd())
}

/// Whether a process, or a name, is in a network namespace of this inode number.
pub fn netns_exists(inode: u32) -> bool {
    namespaces(Some(inode)).any(|(_, file)| file.is_ok())
}

const OWN: &str = "/proc/thread-self/ns/net";

/// This thread's namespace first: the tool sees it even where it may not enter others. Those of processes that
/// this one lacks the privilege to look at (`ptrace_may_access`, kernel/ptrace.c) are errors, as they may be any.
/// One is opened at a time: there may be more than a process may have descriptors.
fn namespaces(only: Option<u32>) -> impl Iterator<Item = (PathBuf, io::Result<File>)> {
    let mut seen = HashSet::new();
    let may_look = privilege::may_look();
    std::iter::once(PathBuf::from(OWN))
        .chain(of_processes())
        .chain(named())
        .filter_map(move |path| {
            let inode = match fs::metadata(&path) {
                Ok(metadata) => metadata.ino(),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !may_look => {
                    return Some((path, Err(error)));
                }
                // Processes come and go.
                Err(_) => return None,
            };
            let wanted = only.is_none_or(|only| u64::from(only) == inode);
            if wanted && seen.insert(inode) {
                let file = File::open(&path).ok()?;
                return Some((path, Ok(file)));
            }
            None
        })
}

fn of_processes() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let is_pid = entry
                .file_name()
                .to_str()?
                .bytes()
                .all(|byte| byte.is_ascii_digit());
            is_pid.then(|| entry.path().join("ns/net"))
        })
}

/// Made by `ip netns add`.
fn named() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}
