//! Finding a member by its path.

use super::Fault;
use super::raw::{Kind, Raw, Type, malformed};

/// Types and members that one look-up may touch, in all structs of the name together. The kernel's largest
/// structs have some hundreds; types that refer to themselves would have no end.
const BUDGET: u32 = 100_000;

/// Only 64-bit kernels can load the programs.
const POINTER: u64 = 8;

/// A stretch of a struct, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bits {
    pub(super) offset: u64,
    pub(super) size: u64,
}

struct Member {
    /// Bits from the start of the struct that was searched.
    offset: u64,
    /// Bits, when the member itself says that it is a bitfield.
    bitfield: Option<u64>,
    type_id: u32,
}

/// One look-up.
pub(super) struct Walk<'a> {
    raw: &'a Raw,
    budget: u32,
}

impl<'a> Walk<'a> {
    pub(super) fn new(raw: &'a Raw) -> Self {
        Self {
            raw,
            budget: BUDGET,
        }
    }

    /// Follows `path` from the struct `id`.
    pub(super) fn path(&mut self, mut id: u32, path: &str) -> Result<Option<Bits>, Fault> {
        let mut start = 0;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let Some(member) = self.member(id, name)? else {
                return Ok(None);
            };
            start += member.offset;
            if names.peek().is_none() {
                let value = self.extent(member.type_id)?;
                return Ok(Some(match member.bitfield {
                    Some(size) => Bits {
                        offset: start,
                        size,
                    },
                    None => Bits {
                        offset: start + value.offset,
                        size: value.size,
                    },
                }));
            }
            id = member.type_id;
        }
        Ok(None)
    }

    /// The member `name` of the struct, union or array of such `id`; of any other type, none.
    fn member(&mut self, id: u32, name: &str) -> Result<Option<Member>, Fault> {
        // A list, not a recursion: no nesting can exhaust the stack, only the budget.
        let mut open = vec![(self.element(id)?, 0)];
        while let Some((composite, start)) = open.pop() {
            for at in 0..composite.vlen as usize {
                self.spend(&composite)?;
                let member_name = self.raw.word(&composite, 3 * at)?;
                let type_id = self.raw.word(&composite, 3 * at + 1)?;
                let place = self.raw.word(&composite, 3 * at + 2)?;
                let (offset, bits) = match composite.kind_flag {
                    true => (place & 0xff_ffff, place >> 24),
                    false => (place, 0),
                };
                let offset = start + u64::from(offset);
                if self.raw.name_is(member_name, "") {
                    let anonymous = self.resolve(type_id)?;
                    if matches!(anonymous.kind, Kind::STRUCT | Kind::UNION) {
                        open.push((anonymous, offset));
                    }
                } else if self.raw.name_is(member_name, name) {
                    let bitfield = (bits != 0).then_some(u64::from(bits));
                    return Ok(Some(Member {
                        offset,
                        bitfield,
                        type_id,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The struct or union `id`, or that of an array's elements; anything else without elements.
    fn element(&mut self, id: u32) -> Result<Type, Fault> {
        let mut found = self.resolve(id)?;
        while found.kind == Kind::ARRAY {
            found = self.resolve(self.raw.word(&found, 0)?)?;
        }
        if !matches!(found.kind, Kind::STRUCT | Kind::UNION) {
            found.vlen = 0;
        }
        Ok(found)
    }

    /// The type behind type definitions and qualifiers.
    fn resolve(&mut self, mut id: u32) -> Result<Type, Fault> {
        loop {
            let found = self.raw.get(id)?;
            self.spend(&found)?;
            match found.kind {
                Kind::TYPEDEF | Kind::VOLATILE | Kind::CONST | Kind::RESTRICT | Kind::TYPE_TAG => {
                    id = found.size_or_type;
                }
                _ => return Ok(found),
            }
        }
    }

    /// What a value of the type `id` takes, and where that begins in its storage, which is not at
    /// 0 only for bitfields described by their integer type (before `kind_flag`, Linux 5.0).
    fn extent(&mut self, id: u32) -> Result<Bits, Fault> {
        let mut elements = 1_u64;
        let mut found = self.resolve(id)?;
        while found.kind == Kind::ARRAY {
            elements = elements.saturating_mul(u64::from(self.raw.word(&found, 2)?));
            found = self.resolve(self.raw.word(&found, 0)?)?;
        }
        let (offset, size) = match found.kind {
            Kind::INT => {
                let encoding = self.raw.word(&found, 0)?;
                (u64::from(encoding >> 16 & 0xff), u64::from(encoding & 0xff))
            }
            Kind::PTR => (0, 8 * POINTER),
            Kind::STRUCT | Kind::UNION | Kind::ENUM | Kind::ENUM64 | Kind::FLOAT => {
                (0, 8 * u64::from(found.size_or_type))
            }
            _ => {
                return Err(malformed("a member of a type without a size", found.id));
            }
        };
        Ok(Bits {
            offset,
            size: elements.saturating_mul(size),
        })
    }

    fn spend(&mut self, at: &Type) -> Result<(), Fault> {
        self.budget = self
            .budget
            .checked_sub(1)
            .ok_or_else(|| malformed("types nested without end", at.id))?;
        Ok(())
    }
}
