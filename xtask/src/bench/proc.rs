//! What the kernel tells of another process: its memory, its processor time, its BPF programs and maps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::maps::MapInfo;

/// The lines `NAME: VALUE...` of a file of /proc; of a name that comes again, the first.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Self {
        let lines = text.lines().rev().filter_map(|line| line.split_once(':'));
        Self(
            lines
                .map(|(name, rest)| (name.trim(), rest.trim()))
                .collect(),
        )
    }

    /// The number before the unit, if there is one.
    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.split_whitespace().next()?.parse().ok()
    }
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Memory {
    /// The most that was resident so far.
    pub(super) peak: u64,
    /// Resident now; what is shared with other processes counts in proportion.
    pub(super) pss: u64,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let read = |file| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        Self::parse(&read("status")?, &read("smaps_rollup")?)
            .context("the kernel does not tell a process's memory as VmHWM and Pss")
    }

    fn parse(status: &str, smaps: &str) -> Option<Self> {
        Some(Self {
            peak: Fields::parse(status).number("VmHWM")? << 10,
            pss: Fields::parse(smaps).number("Pss")? << 10,
        })
    }
}

/// Processor time of a process so far, user and system, all threads.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let mut clock = 0;
    // SAFETY: an all-zero timespec is valid; both calls only write to what they are given.
    let (status, now) = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        let status = match libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) {
            0 => libc::clock_gettime(clock, &raw mut now),
            error => error,
        };
        (status, now)
    };
    if status != 0 {
        bail!("process {pid} has no processor time: has it ended?");
    }
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or_default();
    Ok(Duration::new(now.tv_sec.cast_unsigned(), nanoseconds))
}

/// The BPF programs of a process, together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Programs {
    /// Of how many the process holds a descriptor.
    pub(super) count: usize,
    /// Time in them, while statistics are kept (see [`aya::sys::enable_stats`]); ns.
    pub(super) run_ns: u64,
    /// Runs, likewise.
    pub(super) runs: u64,
}

impl Programs {
    /// Those that the process holds descriptors of. None if it has ended.
    pub(super) fn of(pid: u32) -> Self {
        Self::parse(&descriptors(pid))
    }

    fn parse(descriptors: &[String]) -> Self {
        let mut seen = BTreeSet::new();
        let mut all = Self::default();
        for fields in descriptors.iter().map(|text| Fields::parse(text)) {
            // Links also name their program; only the program's own descriptor has the time.
            let (Some(id), Some(run_ns)) = (fields.number("prog_id"), fields.number("run_time_ns"))
            else {
                continue;
            };
            if seen.insert(id) {
                all.count += 1;
                all.run_ns += run_ns;
                all.runs += fields.number("run_cnt").unwrap_or_default();
            }
        }
        all
    }
}

/// Kernel memory of all maps that the programs of a process use, ring buffers included, in bytes.
pub(super) fn map_memory(pid: u32) -> Result<u64> {
    let mut ids = BTreeSet::new();
    let mut programs = BTreeSet::new();
    for text in descriptors(pid) {
        let fields = Fields::parse(&text);
        programs.extend(fields.number("prog_id"));
        // Some tools keep maps that no program uses.
        ids.extend(
            fields
                .number("map_id")
                .and_then(|id| u32::try_from(id).ok()),
        );
    }
    for program in aya::programs::loaded_programs().filter_map(Result::ok) {
        if programs.contains(&program.id().into()) {
            ids.extend(program.map_ids()?.unwrap_or_default());
        }
    }
    ids.into_iter().try_fold(0, |sum, id| {
        let map = MapInfo::from_id(id)?.fd()?;
        let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
        let memory = Fields::parse(&fs::read_to_string(path)?).number("memlock");
        Ok(sum + memory.context("the kernel does not tell the memory of maps")?)
    })
}

/// What the kernel says of each descriptor that the process has open.
fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .into_iter()
        .flatten();
    entries
        .filter_map(|entry: io::Result<fs::DirEntry>| fs::read_to_string(entry.ok()?.path()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_bytes() {
        let status = "Name:\ttool\nVmPeak:\t   99999 kB\nVmHWM:\t    4000 kB\n";
        let smaps = "5581-7ffe ---p 00000000 00:00 0    [rollup]\nRss:  3000 kB\nPss:     2048 kB\nPss_Dirty: 7 kB\n";
        let memory = Memory::parse(status, smaps).unwrap();
        assert_eq!(memory.peak, 4000 << 10);
        assert_eq!(memory.pss, 2048 << 10);
        assert_eq!(Memory::parse(status, ""), None);
    }

    #[test]
    fn a_program_counts_once_however_often_it_is_held() {
        let program = |id, ns| {
            format!("pos:\t0\nprog_type:\t17\nprog_id:\t{id}\nrun_time_ns:\t{ns}\nrun_cnt:\t3\n")
        };
        let link = "pos:\t0\nlink_type:\traw_tracepoint\nlink_id:\t4\nprog_id:\t8\n".to_owned();
        let file = "pos:\t0\nflags:\t02\n".to_owned();
        let all = [program(8, 100), program(8, 100), link, program(9, 7), file];
        assert_eq!(
            Programs::parse(&all),
            Programs {
                count: 2,
                run_ns: 107,
                runs: 6
            }
        );
    }

    #[test]
    fn this_process_has_used_time() {
        assert!(cpu(std::process::id()).unwrap() > Duration::ZERO);
        const BEYOND_ALL_PIDS: u32 = (1 << 22) + 1;
        cpu(BEYOND_ALL_PIDS).unwrap_err();
    }
}
