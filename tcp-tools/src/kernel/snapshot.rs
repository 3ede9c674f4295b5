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

use super::sys;

/// Runs the iterator behind `link` once, in the network namespace of the calling thread, and hands over
/// what it writes, in pieces of any size.
pub(super) fn run(link: BorrowedFd<'_>, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::from(sys::iter_create(link)?);
    let mut buffer = vec![0; 32 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => each(&buffer[..length]),
            // The kernel asks to read on (`bpf_seq_read`, kernel/bpf/bpf_iter.c).
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Runs the iterator in every network namespace that has a process or a name, or only in `only`.
///
/// Returns the namespaces that could not be entered.
pub(super) fn run_everywhere(
    link: BorrowedFd<'_>,
    only: Option<u32>,
    mut each: impl FnMut(&[u8]) + Send,
) -> io::Result<Vec<(PathBuf, io::Error)>> {
    // A thread of its own: it wanders through the namespaces, and the caller stays where it is.
    std::thread::scope(|scope| {
        let wanderer = scope.spawn(|| {
            let mut refused = Vec::new();
            for (path, namespace) in namespaces(only) {
                match sys::enter_netns(namespace.as_fd()) {
                    Ok(()) => run(link, &mut each)?,
                    Err(error) => refused.push((path, error)),
                }
            }
            Ok(refused)
        });
        wanderer
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the snapshot thread panicked")))
    })
}

/// Whether a process, or a name, is in a network namespace of this inode number.
pub fn netns_exists(inode: u32) -> bool {
    !namespaces(Some(inode)).is_empty()
}

/// This thread's namespace first: the tool sees it even where it may not enter others.
fn namespaces(only: Option<u32>) -> Vec<(PathBuf, File)> {
    let mut seen = HashSet::new();
    std::iter::once(PathBuf::from("/proc/thread-self/ns/net"))
        .chain(of_processes())
        .chain(named())
        .filter_map(|path| {
            // Processes come and go, and some namespaces are not ours to look at.
            let inode = fs::metadata(&path).ok()?.ino();
            let wanted = only.is_none_or(|only| u64::from(only) == inode);
            if wanted && seen.insert(inode) {
                let file = File::open(&path).ok()?;
                return Some((path, file));
            }
            None
        })
        .collect()
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
