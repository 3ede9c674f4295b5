//! The bytes of a BTF blob: its sections, and its types by id.
//!
//! The format is in the kernel's `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h`.

use std::fmt;
use std::ops::{Deref, Range};

use memmap2::Mmap;

use super::Fault;

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// The header with the place of the layout section, since Linux 7.1.
const HEADER_WITH_LAYOUT: usize = 32;
const TYPE: usize = 12;

/// Every how many types the offset is noted. Following an id then steps over at most 31 types,
/// and the index takes 16 kB instead of 500 kB.
const STRIDE: u32 = 32;

pub(super) enum Data {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// `BTF_KIND_*`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(u8);

impl Kind {
    pub(super) const INT: Self = Self(1);
    pub(super) const PTR: Self = Self(2);
    pub(super) const ARRAY: Self = Self(3);
    pub(super) const STRUCT: Self = Self(4);
    pub(super) const UNION: Self = Self(5);
    pub(super) const ENUM: Self = Self(6);
    pub(super) const TYPEDEF: Self = Self(8);
    pub(super) const VOLATILE: Self = Self(9);
    pub(super) const CONST: Self = Self(10);
    pub(super) const RESTRICT: Self = Self(11);
    pub(super) const FUNC: Self = Self(12);
    pub(super) const FUNC_PROTO: Self = Self(13);
    pub(super) const FLOAT: Self = Self(16);
    pub(super) const TYPE_TAG: Self = Self(18);
    pub(super) const ENUM64: Self = Self(19);
}

/// Bytes behind a type's header: once, and for each of its `vlen` elements.
#[derive(Clone, Copy)]
struct Layout {
    once: u8,
    each: u8,
}

const LAYOUTS: [Layout; 20] = {
    const fn layout(once: u8, each: u8) -> Layout {
        Layout { once, each }
    }
    [
        layout(0, 0),  // no type has kind 0, which stands for void
        layout(4, 0),  // INT
        layout(0, 0),  // PTR
        layout(12, 0), // ARRAY
        layout(0, 12), // STRUCT
        layout(0, 12), // UNION
        layout(0, 8),  // ENUM
        layout(0, 0),  // FWD
        layout(0, 0),  // TYPEDEF
        layout(0, 0),  // VOLATILE
        layout(0, 0),  // CONST
        layout(0, 0),  // RESTRICT
        layout(0, 0),  // FUNC
        layout(0, 8),  // FUNC_PROTO
        layout(4, 0),  // VAR
        layout(0, 12), // DATASEC
        layout(0, 0),  // FLOAT
        layout(4, 0),  // DECL_TAG
        layout(0, 0),  // TYPE_TAG
        layout(0, 12), // ENUM64
    ]
};

/// One type's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Type {
    pub(super) id: u32,
    pub(super) kind: Kind,
    /// Members carry the size of a bitfield in the upper byte of their offset.
    pub(super) kind_flag: bool,
    /// Number of elements.
    pub(super) vlen: u32,
    /// Bytes, or the type referred to, as the kind has it.
    pub(super) size_or_type: u32,
    name: u32,
    offset: usize,
}

pub(super) struct Raw {
    data: Data,
    types: Range<usize>,
    strings: Range<usize>,
    layouts: Vec<Layout>,
    /// Offsets of the types 1, 1 + STRIDE, 1 + 2 * STRIDE, ...
    index: Vec<u32>,
    count: u32,
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Raw {
    /// Goes through all types once and shows each to `visit`: its id, kind and name.
    pub(super) fn scan(
        data: Data,
        mut visit: impl FnMut(&Self, u32, Kind, u32) -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        let mut raw = Self::open(data)?;
        let length = raw.types.len();
        let mut index = Vec::with_capacity(length / 24 / STRIDE as usize);
        let (types, layouts) = (raw.types(), raw.layouts.as_slice());
        let (mut offset, mut id) = (0, 1);
        while offset < length {
            if (id - 1) % STRIDE == 0 {
                index.push(offset as u32);
            }
            let (header, end) = type_at(types, layouts, id, offset)?;
            if end > length {
                return Err(malformed("a type reaches beyond the type section", id));
            }
            visit(&raw, id, header.kind, header.name)?;
            offset = end;
            id += 1;
        }
        raw.index = index;
        raw.count = id - 1;
        Ok(raw)
    }

    fn open(data: Data) -> Result<Self, Fault> {
        match *data {
            [] => return Err(Fault::Empty),
            [0x7f, b'E', b'L', b'F', ..] => return Err(Fault::Elf),
            [a, b, ..] if u16::from_ne_bytes([a, b]) == MAGIC => {}
            [a, b, ..] if u16::from_ne_bytes([b, a]) == MAGIC => return Err(Fault::ByteOrder),
            _ => return Err(Fault::Magic),
        }
        let actual = data.len() as u64;
        let truncated = |expected| Fault::Truncated { expected, actual };
        if data.len() < HEADER {
            return Err(truncated(HEADER as u64));
        }
        if data[2] != 1 {
            return Err(Fault::Version(data[2]));
        }
        let word = |at| word(&data, at).ok_or(truncated(HEADER as u64));
        let header = word(4)?;
        // Offsets count from the end of the header, whose length tells its version.
        let section = |at| -> Result<Range<usize>, Fault> {
            let start = u64::from(header) + u64::from(word(at)?);
            let end = start + u64::from(word(at + 4)?);
            if end > actual {
                Err(truncated(end))
            } else {
                Ok(start as usize..end as usize)
            }
        };
        if (header as usize) < HEADER {
            return Err(malformed("the header is too short", 0));
        }
        let (types, strings) = (section(8)?, section(16)?);
        if data[strings.clone()].last() != Some(&0) {
            return Err(malformed("the string section does not end with NUL", 0));
        }
        let mut layouts = LAYOUTS.to_vec();
        if header as usize >= HEADER_WITH_LAYOUT {
            // Kinds that this code has never heard of can be stepped over.
            let known = data[section(24)?].chunks_exact(4).take(128);
            layouts.extend(known.skip(LAYOUTS.len()).map(|l| Layout {
                once: l[0],
                each: l[1],
            }));
        }
        Ok(Self {
            data,
            types,
            strings,
            layouts,
            index: Vec::new(),
            count: 0,
        })
    }

    fn types(&self) -> &[u8] {
        &self.data[self.types.clone()]
    }

    /// The type `id`; void, which is no type, is malformed wherever it is followed.
    pub(super) fn get(&self, id: u32) -> Result<Type, Fault> {
        if id == 0 || id > self.count {
            return Err(malformed("a reference to a type that does not exist", id));
        }
        let (mut at, steps) = ((id - 1) / STRIDE, (id - 1) % STRIDE);
        let mut offset = self.index[at as usize] as usize;
        at = id - steps;
        for passed in at..id {
            offset = type_at(self.types(), &self.layouts, passed, offset)?.1;
        }
        Ok(type_at(self.types(), &self.layouts, id, offset)?.0)
    }

    /// The `at`th word behind the header of `header`.
    pub(super) fn word(&self, header: &Type, at: usize) -> Result<u32, Fault> {
        word(
            &self.data[self.types.clone()],
            header.offset + TYPE + 4 * at,
        )
        .ok_or_else(|| malformed("the type section ends inside a type", header.id))
    }

    /// The first two bytes of the name at `offset` in the string section.
    #[inline]
    pub(super) fn name_start(&self, offset: u32) -> Option<[u8; 2]> {
        self.data[self.strings.clone()]
            .get(offset as usize..)?
            .first_chunk()
            .copied()
    }

    /// Whether the name at `offset` is `name`. The whole of the other name is never measured, so
    /// its length does not matter.
    pub(super) fn name_is(&self, offset: u32, name: &str) -> bool {
        self.data[self.strings.clone()]
            .get(offset as usize..)
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Anything that contradicts the format, at type `id`.
pub(super) fn malformed(what: &'static str, id: u32) -> Fault {
    Fault::Malformed { what, id }
}

/// The header of the type at `offset` in the type section, and where the next type starts.
#[inline]
fn type_at(
    types: &[u8],
    layouts: &[Layout],
    id: u32,
    offset: usize,
) -> Result<(Type, usize), Fault> {
    let header = types
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<TYPE>())
        .ok_or_else(|| malformed("the type section ends inside a type", id))?;
    let word = |at: usize| {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let info = word(4);
    // Linux 7.1 widened both, vlen from 16 bits and kind from 5, by bits that were zero before.
    let vlen = info & 0xff_ffff;
    let kind = (info >> 24 & 0x7f) as u8;
    let layout = match layouts.get(usize::from(kind)) {
        Some(layout) if kind != 0 => layout,
        _ => return Err(malformed("a kind of type that is not known", id)),
    };
    let end = offset + TYPE + usize::from(layout.once) + usize::from(layout.each) * vlen as usize;
    let header = Type {
        id,
        kind: Kind(kind),
        kind_flag: info >> 31 != 0,
        vlen,
        size_or_type: word(8),
        name: word(0),
        offset,
    };
    Ok((header, end))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|word| u32::from_ne_bytes(*word))
}
