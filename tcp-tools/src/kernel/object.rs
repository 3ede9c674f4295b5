//! The kernel object: its maps are made at once, its programs are loaded one by one as they are needed.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya_obj::generated::{
    BPF_ALU64, BPF_EXIT, BPF_JMP, BPF_MOV, BPF_X, bpf_attach_type, bpf_insn, bpf_prog_type,
};

use super::{Error, filter::Set, sys};

#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

/// Built by `cargo xtask build-ebpf`.
static ELF: &Aligned<[u8]> = &Aligned(*include_bytes!("../../bpf/tcp.bpf.o"));

/// The key of maps with one entry.
const FIRST_AND_ONLY: [u8; 4] = [0; 4];

/// What user space decides about the object before it is loaded.
pub(super) struct Settings<'a> {
    /// `.rodata` globals, by name.
    pub(super) globals: Vec<(&'a str, Vec<u8>)>,
    /// Entries of maps (bytes, for ring buffers), by name.
    pub(super) sizes: Vec<(&'a str, u32)>,
    /// Functions that the programs do not get to with these globals, by module and name.
    pub(super) unreached: Vec<(&'a str, &'a str)>,
}

pub(super) struct Object {
    parsed: aya_obj::Object,
    maps: HashMap<String, OwnedFd>,
}

/// The kernel did not take a program.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("the kernel does not permit it (EPERM)")]
    NotPermitted,
    #[error("the verifier refuses it: {0}")]
    Refused(String),
    #[error("cannot load it: {0}")]
    Other(io::Error),
    #[error("the kernel object has no such program")]
    Unknown,
}

impl Object {
    /// Parses the object, makes its maps and ties the programs to them.
    pub(super) fn prepare(settings: &Settings<'_>) -> Result<Self, Error> {
        let mut parsed = aya_obj::Object::parse(&ELF.0).map_err(Error::object)?;
        let globals = settings
            .globals
            .iter()
            .map(|(name, bytes)| (*name, (bytes.as_slice(), true)))
            .collect();
        parsed.patch_map_data(globals).map_err(Error::object)?;
        for (name, size) in &settings.sizes {
            if let Some(map) = parsed.maps.get_mut(*name) {
                map.set_max_entries(*size);
            }
        }
        sys::lift_memlock_limit();
        let maps = parsed
            .maps
            .iter()
            .map(|(name, map)| Ok((name.clone(), create(name, map)?)))
            .collect::<Result<HashMap<_, _>, Error>>()?;
        relocate(&mut parsed, &maps, &settings.unreached)?;
        Ok(Self { parsed, maps })
    }

    /// A map, as one of aya's typed ones.
    pub(super) fn take_map(&mut self, name: &str) -> Result<aya::maps::MapData, Error> {
        let fd = self
            .maps
            .remove(name)
            .ok_or_else(|| Error::object(format!("the kernel object has no map {name}")))?;
        aya::maps::MapData::from_fd(fd).map_err(Error::object)
    }

    /// Puts its keys into a map that is used as a set.
    pub(super) fn fill(&self, set: &Set) -> Result<(), Error> {
        let name = set.map;
        let Some(map) = self.maps.get(name) else {
            return Err(Error::object(format!(
                "the kernel object has no map {name}"
            )));
        };
        for (key, value) in &set.entries {
            sys::map_update(map.as_fd(), key, &[*value]).map_err(|source| Error::Map {
                name: name.to_owned(),
                source,
            })?;
        }
        Ok(())
    }

    /// Loads a program.
    pub(super) fn load(
        &self,
        name: &str,
        kind: bpf_prog_type,
        target: Option<(bpf_attach_type, u32)>,
    ) -> Result<OwnedFd, LoadError> {
        let program = self.parsed.programs.get(name).ok_or(LoadError::Unknown)?;
        let function = self
            .parsed
            .functions
            .get(&program.function_key())
            .ok_or(LoadError::Unknown)?;
        let program = sys::Program {
            name,
            license: &program.license,
            instructions: &function.instructions,
            kind,
            target,
        };
        sys::prog_load(&program, None).map_err(|error| explain(&program, error))
    }
}

fn create(name: &str, map: &aya_obj::Map) -> Result<OwnedFd, Error> {
    use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
    let failed = |source: io::Error| match source.raw_os_error() {
        Some(libc::EINVAL) if map.map_type() == BPF_MAP_TYPE_RINGBUF as u32 => Error::NoRingBuffer,
        _ => Error::Map {
            name: name.to_owned(),
            source,
        },
    };
    let fd = sys::map_create(name, map).map_err(failed)?;
    if !map.data().is_empty() {
        sys::map_update(fd.as_fd(), &FIRST_AND_ONLY, map.data()).map_err(failed)?;
        if name.starts_with(".rodata") {
            sys::map_freeze(fd.as_fd()).map_err(failed)?;
        }
    }
    Ok(fd)
}

/// Makes a function short that is not reached: the verifier looks at dead code more than once before it throws it
/// away. What is left is no way out for whoever gets there all the same: it reads a register that nobody has
/// written, and the verifier refuses that.
fn cut(parsed: &mut aya_obj::Object, (module, name): &(&str, &str)) -> Result<(), Error> {
    let instruction = |code, source| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, source),
        off: 0,
        imm: 0,
    };
    let r0_is_r6 = instruction((BPF_ALU64 | BPF_MOV | BPF_X) as u8, 6);
    let exit = instruction((BPF_JMP | BPF_EXIT) as u8, 0);
    // Both ways of Rust to mangle a name have this in it.
    let mangled = format!("{}{module}{}{name}", module.len(), name.len());
    let function = parsed
        .functions
        .values_mut()
        .find(|function| function.name.contains(&mangled))
        .ok_or_else(|| {
            Error::object(format!(
                "the kernel object has no function {module}::{name}"
            ))
        })?;
    function.instructions = vec![r0_is_r6, exit];
    Ok(())
}

fn relocate(
    parsed: &mut aya_obj::Object,
    maps: &HashMap<String, OwnedFd>,
    unreached: &[(&str, &str)],
) -> Result<(), Error> {
    let text: HashSet<usize> = parsed
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    let definitions = parsed.maps.clone();
    let all = definitions
        .iter()
        .filter_map(|(name, map)| Some((name.as_str(), maps.get(name)?.as_raw_fd(), map)));
    parsed.relocate_maps(all, &text).map_err(Error::object)?;
    for path in unreached {
        cut(parsed, path)?;
    }
    parsed.relocate_calls(&text).map_err(Error::object)
}

/// The verifier only says why when it is asked to write a log, which costs time and a megabyte: ask again,
/// unless the program never came before it.
fn explain(program: &sys::Program<'_>, error: io::Error) -> LoadError {
    if error.raw_os_error() == Some(libc::EPERM) {
        return LoadError::NotPermitted;
    }
    verifier_log(program).map_or(LoadError::Other(error), LoadError::Refused)
}

/// The verifier's last words, before its statistics.
fn verifier_log(program: &sys::Program<'_>) -> Option<String> {
    let mut log = vec![0; 1 << 20];
    // Only the log is of interest here; the call fails as before.
    let _ = sys::prog_load(program, Some(&mut log));
    let length = log.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8_lossy(&log[..length]);
    log::debug!("verifier, program {}:\n{text}", program.name);
    let last = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty() && !line.starts_with("processed "))?;
    Some(last.trim().to_owned())
}
