//! cgroups, by id and by path.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::OsStringExt as _,
        fs::{DirEntryExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

/// One cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its id, as the kernel programs report it: the inode number of its directory. They are the same
    /// on 64-bit kernels since 5.5 (`kernfs_ino`, include/linux/kernfs.h).
    pub id: u64,
    /// Its directory below the root of the hierarchy; empty for the root itself.
    pub path: PathBuf,
}

/// The cgroup v2 hierarchy, as far as this process sees it: in a cgroup namespace, what is below its root.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mount: PathBuf,
}

/// Why there is no such cgroup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// The list of mounts cannot be read.
    #[error("cannot read /proc/self/mountinfo, to find the cgroup v2 hierarchy: {0}")]
    Mounts(io::Error),
    /// There is no cgroup v2 here.
    #[error(
        "no cgroup v2 hierarchy is mounted, so no cgroup can be found: mount one, for example with \
         `mount -t cgroup2 none DIRECTORY`"
    )]
    NotMounted,
    /// The path leads nowhere.
    #[error("no cgroup {path:?} in {}: {source}", mount.display())]
    Path {
        /// As it was asked for.
        path: String,
        /// Where the hierarchy is mounted.
        mount: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path leads out of the hierarchy.
    #[error("{path:?} is no cgroup: it is not below {}", mount.display())]
    Outside {
        /// As it was asked for.
        path: String,
        /// Where the hierarchy is mounted.
        mount: PathBuf,
    },
    /// No cgroup has this id.
    #[error("no cgroup in {} has the id (inode number) {id}", mount.display())]
    Id {
        /// As it was asked for.
        id: u64,
        /// Where the hierarchy is mounted.
        mount: PathBuf,
    },
}

impl Hierarchy {
    /// Finds where the hierarchy is mounted.
    ///
    /// # Errors
    ///
    /// When it is not mounted, or the list of mounts cannot be read.
    pub fn find() -> Result<Self, CgroupError> {
        let mountinfo = fs::read("/proc/self/mountinfo").map_err(CgroupError::Mounts)?;
        Self::in_mounts(&mountinfo).ok_or(CgroupError::NotMounted)
    }

    /// Finds where the hierarchy is mounted in the text of a `mountinfo` file.
    #[must_use]
    pub fn in_mounts(mountinfo: &[u8]) -> Option<Self> {
        let mount = cgroup2_mount(mountinfo)?;
        Some(Self { mount })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    #[cfg(test)]
    pub(super) fn at(mount: &Path) -> Self {
        Self {
            mount: mount.to_path_buf(),
        }
    }

    /// The cgroup that a person means: its id, its path below the mount point, or its path from the
    /// root of the hierarchy, with or without a slash before it. A number is an id; a cgroup whose name
    /// is a number is reached with a slash.
    ///
    /// # Errors
    ///
    /// When there is no such cgroup.
    pub fn cgroup(&self, text: &str) -> Result<Cgroup, CgroupError> {
        match text.parse() {
            Ok(id) => self.by_id(id).ok_or_else(|| CgroupError::Id {
                id,
                mount: self.mount.clone(),
            }),
            Err(_) => self.by_path(text),
        }
    }

    fn by_id(&self, id: u64) -> Option<Cgroup> {
        self.walk().find(|cgroup| cgroup.id == id)
    }

    fn by_path(&self, text: &str) -> Result<Cgroup, CgroupError> {
        let no_path = |source| CgroupError::Path {
            path: text.to_owned(),
            mount: self.mount.clone(),
            source,
        };
        // An empty variable in somebody's script is not meant to be the root.
        if text.is_empty() {
            return Err(no_path(io::ErrorKind::NotFound.into()));
        }
        let asked = Path::new(text);
        let below = asked
            .strip_prefix(&self.mount)
            .or_else(|_| asked.strip_prefix("/"))
            .unwrap_or(asked);
        let mount = self.mount.canonicalize().map_err(no_path)?;
        let directory = mount.join(below).canonicalize().map_err(no_path)?;
        let Ok(path) = directory.strip_prefix(&mount) else {
            return Err(CgroupError::Outside {
                path: text.to_owned(),
                mount: self.mount.clone(),
            });
        };
        let metadata = directory.metadata().map_err(no_path)?;
        if !metadata.is_dir() {
            return Err(no_path(io::ErrorKind::NotADirectory.into()));
        }
        Ok(Cgroup {
            id: metadata.ino(),
            path: path.to_path_buf(),
        })
    }

    /// All cgroups at this moment, those near the root first.
    pub fn walk(&self) -> impl Iterator<Item = Cgroup> {
        let root = fs::metadata(&self.mount).map(|metadata| Cgroup {
            id: metadata.ino(),
            path: PathBuf::new(),
        });
        self.walk_from(root.ok())
    }

    /// `cgroup` and all below it at this moment, those near it first.
    pub fn below(&self, cgroup: Cgroup) -> impl Iterator<Item = Cgroup> {
        self.walk_from(Some(cgroup))
    }

    fn walk_from(&self, first: Option<Cgroup>) -> impl Iterator<Item = Cgroup> {
        let mut waiting = VecDeque::from_iter(first);
        std::iter::from_fn(move || {
            let cgroup = waiting.pop_front()?;
            waiting.extend(self.children(&cgroup));
            Some(cgroup)
        })
    }

    /// None for a cgroup that has gone meanwhile.
    fn children(&self, parent: &Cgroup) -> impl Iterator<Item = Cgroup> {
        let entries = fs::read_dir(self.mount.join(&parent.path));
        // kernfs gives type and inode number with the name, so this costs no system call per entry.
        entries
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| Cgroup {
                id: entry.ino(),
                path: parent.path.join(entry.file_name()),
            })
    }
}

/// The mount point of the cgroup v2 hierarchy: of its root, if some mount shows that.
///
/// A line is `31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw`
/// (`show_mountinfo`, fs/proc_namespace.c).
fn cgroup2_mount(mountinfo: &[u8]) -> Option<PathBuf> {
    let mut other = None;
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let (root, mount) = (fields.nth(3), fields.next());
        let kind = fields.skip_while(|field| *field != b"-").nth(1);
        let (Some(root), Some(mount), Some(b"cgroup2")) = (root, mount, kind) else {
            continue;
        };
        let mount = PathBuf::from(OsString::from_vec(unescaped(mount)));
        if root == b"/" {
            return Some(mount);
        }
        other.get_or_insert(mount);
    }
    other
}

/// Blanks and backslashes are octal there (`mangle_path`, fs/seq_file.c).
fn unescaped(mut field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    while let [first, rest @ ..] = field {
        if let [
            b'\\',
            a @ b'0'..=b'3',
            b @ b'0'..=b'7',
            c @ b'0'..=b'7',
            rest @ ..,
        ] = field
        {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            field = rest;
        } else {
            bytes.push(*first);
            field = rest;
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
