//! Member offsets and type ids from the kernel's own type information (BTF).
//!
//! The kernel's BTF is some 5 MB and 150,000 types, of which the programs need a dozen. So it is
//! not parsed into objects: one pass notes where the wanted names are, and a look-up follows type
//! ids through the raw bytes. Nothing in the bytes is trusted, since `--btf` takes any file:
//! every read is checked, and every walk has a budget.

mod error;
mod raw;
#[cfg(test)]
mod tests;
mod walk;

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use memmap2::MmapOptions;

pub use error::{BtfError, Fault};
use raw::{Data, Kind, Raw, malformed};
use walk::Walk;

use super::pseudo::is_in_sysfs;

/// Where the running kernel shows its BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// No kernel comes near; a bound for `--btf /dev/zero`.
const MAX_FILE: u64 = 256 << 20;

/// Types of wanted names that are remembered. A real kernel has a handful of doubles.
const MAX_FOUND: usize = 4096;

/// The names that one scan looks for; no others can be asked for afterwards.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// Structs whose members will be asked for with [`Btf::field`].
    pub structs: &'a [&'static str],
    /// Functions for [`Btf::func_id`] and [`Btf::arg_count`].
    pub functions: &'a [&'static str],
    /// Type definitions for [`Btf::pointer_arg_count`].
    pub typedefs: &'a [&'static str],
}

/// Where a member lies in its struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the struct.
    pub offset: u32,
    /// Bytes; of an array, all its elements.
    pub size: u32,
    /// Bits of the first byte below the member: not 0 only for bitfields.
    pub shift: u32,
}

impl Field {
    /// `width` is that of a bitfield, which must lie within one byte.
    fn of(bits: &walk::Bits, width: Option<u64>) -> Option<Self> {
        let shift = bits.offset % 8;
        let is_whole = match width {
            Some(width) => bits.size == width && shift + width <= 8,
            None => bits.size.is_multiple_of(8) && shift == 0,
        };
        is_whole.then_some(())?;
        Some(Self {
            offset: (bits.offset / 8).try_into().ok()?,
            size: bits.size.div_ceil(8).try_into().ok()?,
            shift: shift.try_into().ok()?,
        })
    }
}

/// A scanned BTF blob.
#[derive(Debug)]
pub struct Btf {
    raw: Raw,
    file: PathBuf,
    structs: Vec<(&'static str, u32)>,
    functions: Vec<(&'static str, u32)>,
    typedefs: Vec<(&'static str, u32)>,
}

impl Btf {
    /// Scans the BTF in the file `path`, or the running kernel's for `None`.
    ///
    /// # Errors
    ///
    /// When there is no such file, it cannot be read, or does not hold valid BTF.
    pub fn load(path: Option<&Path>, names: &Names) -> Result<Self, BtfError> {
        let file = path.unwrap_or(Path::new(KERNEL_BTF));
        let data = read(file, path.is_none()).map_err(|source| match (source.kind(), path) {
            (ErrorKind::NotFound, None) if is_in_sysfs(file) => BtfError::NotInKernel,
            (ErrorKind::NotFound, None) => BtfError::NoSysfs,
            (ErrorKind::NotFound, Some(_)) => BtfError::Missing {
                file: file.to_owned(),
            },
            _ => BtfError::Unreadable {
                file: file.to_owned(),
                source,
            },
        })?;
        Self::scan(data, file, names)
    }

    /// Scans BTF that is in memory already; `file` is what errors call it.
    ///
    /// # Errors
    ///
    /// When the bytes are not valid BTF.
    pub fn from_bytes(bytes: Vec<u8>, file: &Path, names: &Names) -> Result<Self, BtfError> {
        Self::scan(Data::Owned(bytes), file, names)
    }

    fn scan(data: Data, file: &Path, names: &Names) -> Result<Self, BtfError> {
        let mut structs = Wanted::new(names.structs);
        let mut functions = Wanted::new(names.functions);
        let mut typedefs = Wanted::new(names.typedefs);
        let raw = Raw::scan(data, |raw, id, kind, name| match kind {
            Kind::STRUCT => structs.visit(raw, id, name),
            Kind::FUNC => functions.visit(raw, id, name),
            Kind::TYPEDEF => typedefs.visit(raw, id, name),
            _ => Ok(()),
        })
        .map_err(|fault| BtfError::Invalid {
            file: file.to_owned(),
            fault,
        })?;
        let file = file.to_owned();
        Ok(Self {
            raw,
            file,
            structs: structs.found,
            functions: functions.found,
            typedefs: typedefs.found,
        })
    }

    /// Where the member `path` of the struct `strukt` lies; `None` when there is no such struct or
    /// member.
    ///
    /// Anonymous members are descended into. A dot goes on inside the member before it, and inside
    /// the first element of an array: `"__sk_common.skc_family"`, `"rtt_min.s.v"`. `"name:5"` is a
    /// bitfield of five bits within one byte.
    ///
    /// # Errors
    ///
    /// When the member is a bitfield, and not the one that `path` describes, or the BTF is malformed.
    pub fn field(&self, strukt: &str, path: &str) -> Result<Option<Field>, BtfError> {
        let (path, width) = match path.split_once(':') {
            Some((path, bits)) => (path, bits.parse::<u64>().ok()),
            None => (path, None),
        };
        let mut walk = Walk::new(&self.raw);
        // Different structs may share a name (a driver's private one, say): the member decides.
        for &(_, id) in self.structs.iter().filter(|(name, _)| *name == strukt) {
            let found = walk.path(id, path).map_err(|fault| BtfError::Invalid {
                file: self.file.clone(),
                fault,
            })?;
            if let Some(bits) = found {
                return Field::of(&bits, width)
                    .map(Some)
                    .ok_or_else(|| BtfError::Bitfield {
                        member: format!("{strukt}.{path}"),
                        size: bits.size,
                        offset: bits.offset,
                    });
            }
        }
        Ok(None)
    }

    /// The type id of the function `name`, which fentry programs and iterators attach to.
    #[must_use]
    pub fn func_id(&self, name: &str) -> Option<u32> {
        id_of(&self.functions, name)
    }

    /// How many arguments the function `name` has; `None` when there is no such function.
    ///
    /// # Errors
    ///
    /// When the BTF is malformed.
    pub fn arg_count(&self, name: &str) -> Result<Option<u32>, BtfError> {
        self.count_args(self.func_id(name), |function| Ok(function.size_or_type))
    }

    /// How many arguments a function has that a pointer of the type definition `name` points to; `None` when there is
    /// no such type definition.
    ///
    /// # Errors
    ///
    /// When the BTF is malformed.
    pub fn pointer_arg_count(&self, name: &str) -> Result<Option<u32>, BtfError> {
        self.count_args(id_of(&self.typedefs, name), |definition| {
            Ok(self.raw.get(definition.size_or_type)?.size_or_type)
        })
    }

    /// `prototype` gives the id of the prototype that the type `id` refers to.
    fn count_args(
        &self,
        id: Option<u32>,
        prototype: impl Fn(&raw::Type) -> Result<u32, Fault>,
    ) -> Result<Option<u32>, BtfError> {
        let count = |id| {
            let prototype = self.raw.get(prototype(&self.raw.get(id)?)?)?;
            match prototype.kind {
                Kind::FUNC_PROTO => Ok(prototype.vlen),
                _ => Err(malformed("a function without a prototype", id)),
            }
        };
        id.map(count)
            .transpose()
            .map_err(|fault| BtfError::Invalid {
                file: self.file.clone(),
                fault,
            })
    }
}

fn id_of(found: &[(&str, u32)], name: &str) -> Option<u32> {
    found
        .iter()
        .find(|(found, _)| *found == name)
        .map(|&(_, id)| id)
}

fn read(path: &Path, running_kernel: bool) -> std::io::Result<Data> {
    let file = File::open(path)?;
    if running_kernel {
        // SAFETY: the mapping is private and read-only, and behind it is the running kernel's own
        // BTF, which neither changes nor shrinks. Only for that file: any other may be truncated
        // by someone else, and the next access would be a SIGBUS.
        let mapped = unsafe { MmapOptions::new().map_copy_read_only(&file) };
        // Before Linux 6.16 (kernel/bpf/sysfs_btf.c) it can only be read.
        if let Ok(mapped) = mapped {
            return Ok(Data::Mapped(mapped));
        }
    }
    let size = file.metadata()?.len().min(MAX_FILE);
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(Data::Owned(bytes))
}

/// The names wanted of one kind of type, and the types found so far.
struct Wanted<'a> {
    names: &'a [&'static str],
    /// A bit per hash of a name's first two bytes. It spares nearly all of the 60,000 functions
    /// the comparison with each name.
    filter: [u64; 16],
    found: Vec<(&'static str, u32)>,
}

impl<'a> Wanted<'a> {
    fn new(names: &'a [&'static str]) -> Self {
        let mut filter = [0; 16];
        for name in names {
            let mut bytes = name.bytes().chain([0, 0]);
            if let (Some(first), Some(second)) = (bytes.next(), bytes.next()) {
                let (word, bit) = Self::slot(first, second);
                filter[word] |= bit;
            }
        }
        Self {
            names,
            filter,
            found: Vec::new(),
        }
    }

    fn slot(first: u8, second: u8) -> (usize, u64) {
        let hash = (usize::from(first) << 5) ^ usize::from(second);
        (hash / 64 % 16, 1 << (hash % 64))
    }

    fn visit(&mut self, raw: &Raw, id: u32, name: u32) -> Result<(), Fault> {
        // A name has at least one byte and a NUL, so there are two bytes to look at.
        let Some([first, second]) = raw.name_start(name) else {
            return Ok(());
        };
        let (word, bit) = Self::slot(first, second);
        if self.filter[word] & bit == 0 {
            return Ok(());
        }
        if let Some(wanted) = self.names.iter().find(|wanted| raw.name_is(name, wanted)) {
            if self.found.len() == MAX_FOUND {
                return Err(malformed("too many types of one name", id));
            }
            self.found.push((wanted, id));
        }
        Ok(())
    }
}
