//! What a process has in the kernel: programs, maps, links.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread;
use std::time::Instant;

use aya::maps::{MapInfo, loaded_maps};
use aya::programs::{ProgramInfo, loaded_links, loaded_programs};

use crate::PATIENCE;

/// Objects in the kernel, by their ids, which it does not give away again soon.
#[derive(Debug)]
pub struct Objects {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// Links.
    pub links: BTreeSet<u32>,
}

impl Objects {
    /// What process `pid` holds, and the maps that its programs use.
    pub fn of(pid: libc::pid_t) -> Self {
        let entries: Vec<_> = fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .unwrap()
            .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
            .collect();
        let ids = |field: &str| -> BTreeSet<u32> {
            let lines = entries.iter().flat_map(|text| text.lines());
            lines
                .filter_map(|line| line.strip_prefix(field)?.trim().parse().ok())
                .collect()
        };
        let programs = ids("prog_id:");
        let mut maps = ids("map_id:");
        for program in programs_with(&programs) {
            maps.extend(program.map_ids().unwrap().unwrap_or_default());
        }
        Self {
            programs,
            maps,
            links: ids("link_id:"),
        }
    }

    /// Waits until none of them is left: the kernel frees them some time after their last user has gone.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub fn wait_gone(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left in the kernel: {left:?}");
            thread::yield_now();
        }
    }

    fn left(&self) -> Vec<String> {
        let programs = programs_with(&self.programs).map(|it| format!("program {}", it.id()));
        let maps = loaded_maps().filter_map(Result::ok).map(|it| it.id());
        let maps = maps.filter(|id| self.maps.contains(id));
        let links = loaded_links().filter_map(Result::ok).map(|it| it.id());
        let links = links.filter(|id| self.links.contains(id));
        programs
            .chain(maps.map(|id| format!("map {id}")))
            .chain(links.map(|id| format!("link {id}")))
            .collect()
    }

    /// The programs, with what the kernel knows of them.
    pub fn programs(&self) -> Vec<ProgramInfo> {
        programs_with(&self.programs).collect()
    }

    /// Entries of its hash map of this name, whose keys have eight bytes.
    pub fn entries(&self, map: &str) -> usize {
        let infos = self.maps.iter().map(|id| MapInfo::from_id(*id).unwrap());
        let mut infos = infos.filter(|info| info.name_as_str() == Some(map));
        let fd = infos.next().expect(map).fd().unwrap();
        count(fd.as_fd())
    }

    /// Waits until that map has less than `bound` entries: other tests' sockets have some as well.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub fn wait_entries_below(&self, map: &str, bound: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let entries = self.entries(map);
            if entries < bound {
                return;
            }
            assert!(Instant::now() < deadline, "{map} has {entries} entries");
            thread::yield_now();
        }
    }
}

fn programs_with(ids: &BTreeSet<u32>) -> impl Iterator<Item = ProgramInfo> {
    let all = loaded_programs().filter_map(Result::ok);
    all.filter(|program| ids.contains(&program.id()))
}

/// Goes from key to key, as `BPF_MAP_GET_NEXT_KEY` does; `union bpf_attr` of include/uapi/linux/bpf.h.
fn count(map: BorrowedFd<'_>) -> usize {
    const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
    #[repr(C)]
    struct Attr {
        map_fd: u32,
        key: u64,
        next_key: u64,
    }
    let mut next = 0_u64;
    let mut key;
    let mut attr = Attr {
        map_fd: map.as_raw_fd() as u32,
        key: 0,
        next_key: &raw mut next as u64,
    };
    let mut seen = BTreeSet::new();
    // SAFETY: `attr` and what it points to outlive the call, which writes eight bytes.
    while unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_GET_NEXT_KEY,
            &attr,
            size_of::<Attr>(),
        )
    } == 0
    {
        // After a key that was removed meanwhile the kernel begins anew.
        seen.insert(next);
        key = next;
        attr.key = &raw const key as u64;
    }
    seen.len()
}
