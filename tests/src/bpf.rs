//! What a process has in the kernel: programs, maps, links.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Instant;

use aya::maps::{MapFd, MapInfo};
use aya::programs::{ProgramInfo, loaded_programs};

use crate::PATIENCE;

const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
const BPF_MAP_GET_NEXT_ID: libc::c_long = 12;
const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;

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
        let left = |kind: &'static str, command, ids: &BTreeSet<u32>| {
            let ids = ids.iter().filter(move |id| exists(command, **id));
            ids.map(|id| format!("{kind} {id}")).collect::<Vec<_>>()
        };
        [
            left("program", BPF_PROG_GET_NEXT_ID, &self.programs),
            left("map", BPF_MAP_GET_NEXT_ID, &self.maps),
            left("link", BPF_LINK_GET_NEXT_ID, &self.links),
        ]
        .concat()
    }

    /// The programs, with what the kernel knows of them.
    pub fn programs(&self) -> Vec<ProgramInfo> {
        programs_with(&self.programs).collect()
    }

    /// Entries of its hash map of this name that were there at one moment, however many came and went meanwhile.
    pub fn entries(&self, map: &str) -> usize {
        let map = self.map(map);
        let (before, after) = (map.keys(), map.keys());
        before.intersection(&after).count()
    }

    /// Its hash map of this name, whose keys have eight bytes.
    pub fn map(&self, name: &str) -> HashMap {
        let infos = self.maps.iter().map(|id| MapInfo::from_id(*id).unwrap());
        let mut infos = infos.filter(|info| info.name_as_str() == Some(name));
        let info = infos.next().expect(name);
        HashMap {
            fd: info.fd().unwrap(),
            value_size: info.value_size() as usize,
        }
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

/// Whether an object has this id, without opening it: the kernel leaks an array of programs that is opened and
/// closed while it clears it (`prog_array_map_clear` holds on to it once more than its work lets go,
/// kernel/bpf/arraymap.c, Linux 6.18).
fn exists(next_id: libc::c_long, id: u32) -> bool {
    // `start_id`, `next_id` and `open_flags` of `union bpf_attr`.
    let mut attr = [id - 1, 0, 0];
    let size = size_of_val(&attr);
    // SAFETY: `attr` outlives the call, which reads and writes no more than its size.
    let done = unsafe { libc::syscall(libc::SYS_bpf, next_id, &mut attr, size) };
    done == 0 && attr[1] == id
}

fn programs_with(ids: &BTreeSet<u32>) -> impl Iterator<Item = ProgramInfo> {
    let all = loaded_programs().filter_map(Result::ok);
    all.filter(|program| ids.contains(&program.id()))
}

/// A map in the kernel with keys of eight bytes.
#[derive(Debug)]
pub struct HashMap {
    fd: MapFd,
    value_size: usize,
}

impl HashMap {
    /// Each that was there at some time of the scan. Where entries come and go that can be more than fit at once.
    pub fn keys(&self) -> BTreeSet<u64> {
        const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
        let (mut key, mut next) = (None, 0_u64);
        let mut seen = BTreeSet::new();
        // After a key that was removed meanwhile the kernel begins anew.
        while self.call(BPF_MAP_GET_NEXT_KEY, key.as_ref(), (&raw mut next).cast()) {
            seen.insert(next);
            key = Some(next);
        }
        seen
    }

    /// The value of this key.
    pub fn get(&self, key: u64) -> Option<Vec<u8>> {
        const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
        let mut value = vec![0; self.value_size];
        self.call(BPF_MAP_LOOKUP_ELEM, Some(&key), value.as_mut_ptr())
            .then_some(value)
    }

    /// Gives this key this value.
    ///
    /// # Panics
    /// If the kernel refuses, or the value has another size.
    pub fn insert(&self, key: u64, value: &mut [u8]) {
        const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
        assert_eq!(value.len(), self.value_size);
        assert!(self.call(BPF_MAP_UPDATE_ELEM, Some(&key), value.as_mut_ptr()));
    }

    /// Whether it is done. `value` has room for a value, or for a key where that is asked for.
    fn call(&self, command: libc::c_long, key: Option<&u64>, value: *mut u8) -> bool {
        /// `union bpf_attr` of include/uapi/linux/bpf.h.
        #[repr(C)]
        struct Attr {
            map_fd: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let attr = Attr {
            map_fd: self.fd.as_fd().as_raw_fd() as u32,
            key: key.map_or(0, |key| &raw const *key as u64),
            value: value as u64,
            flags: 0,
        };
        // SAFETY: `attr` and what it points to outlive the call, which knows their sizes.
        unsafe { libc::syscall(libc::SYS_bpf, command, &attr, size_of::<Attr>()) == 0 }
    }
}
