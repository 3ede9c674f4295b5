//! cgroups of the tests' own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup. It goes with this value, if its processes have gone before.
#[derive(Debug)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
}

impl Cgroup {
    /// Makes one below the root, with a name that is not in use; none without cgroup2.
    pub fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tcp-tools-test-{}-{number}", std::process::id());
        Some(Self::make(&mount()?.join(name)))
    }

    /// Makes one below this one.
    pub fn child(&self, name: &str) -> Self {
        Self::make(&self.path.join(name))
    }

    fn make(path: &Path) -> Self {
        fs::create_dir(path).unwrap();
        Self { path: path.into() }
    }

    /// Its id: the inode number of its directory.
    pub fn id(&self) -> u64 {
        fs::metadata(&self.path).unwrap().ino()
    }

    /// Moves a process into it.
    pub fn take(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A test that failed may have left something in it.
        drop(fs::remove_dir(&self.path));
    }
}

fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    mount.split(' ').nth(4).map(PathBuf::from)
}
