//! Compares two kernel objects by what the kernel would see of them: programs, maps, globals and
//! the licence. Symbol order, string tables and section offsets do not count.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind};

/// Bytes of one eBPF instruction.
const INSTRUCTION_SIZE: usize = 8;

/// An object, part by part: what the part is called (`program tcp_connect`, `map EVENTS`), and
/// each thing in it that must be equal (`instruction 7`, `max_entries`) with its value.
type Parts = BTreeMap<String, Vec<(String, String)>>;

/// What differs between the `committed` object and the one `built` now: a line for each part,
/// with the first thing that differs in it.
///
/// # Errors
/// When one of them cannot be parsed.
pub(crate) fn differences(committed: &[u8], built: &[u8]) -> Result<Vec<String>> {
    let committed = parts(committed).context("cannot parse the committed object")?;
    let built = parts(built).context("cannot parse the object built now")?;
    Ok(different_parts(&committed, &built))
}

fn different_parts(committed: &Parts, built: &Parts) -> Vec<String> {
    let names: BTreeSet<_> = committed.keys().chain(built.keys()).collect();
    let differences = names.into_iter().filter_map(|name| {
        let difference = match (committed.get(name), built.get(name)) {
            (Some(old), Some(new)) => first_difference(old, new)?,
            (Some(_), None) => "committed, but no longer built".to_owned(),
            (None, _) => "built, but not committed".to_owned(),
        };
        Some(format!("{name}: {difference}"))
    });
    differences.collect()
}

fn first_difference(old: &[(String, String)], new: &[(String, String)]) -> Option<String> {
    let at = (0..old.len().max(new.len())).find(|&at| old.get(at) != new.get(at))?;
    let (name, _) = old.get(at).or(new.get(at))?;
    let value = |things: &[(String, String)]| {
        things
            .get(at)
            .map_or("absent".to_owned(), |(_, value)| value.clone())
    };
    Some(format!(
        "{name} is {} in the committed object, and {} as built now",
        value(old),
        value(new)
    ))
}

fn parts(data: &[u8]) -> Result<Parts> {
    let mut parts = maps_and_licence(data)?;
    let file = object::File::parse(data)?;
    for symbol in file
        .symbols()
        .filter(|symbol| symbol.kind() != SymbolKind::Section)
    {
        let Some(section) = symbol.section_index() else {
            continue;
        };
        let (section, name) = (file.section_by_index(section)?, symbol.name()?);
        match section.kind() {
            SectionKind::Text => {
                parts.insert(
                    format!("program {name}"),
                    instructions(&file, &section, &symbol)?,
                );
            }
            SectionKind::ReadOnlyData | SectionKind::UninitializedData => {
                parts.insert(format!("global {name}"), place(&section, &symbol)?);
            }
            _ => {}
        }
    }
    Ok(parts)
}

/// The maps as aya's own parser sees them; `.rodata` and `.bss` are maps too, with contents.
fn maps_and_licence(data: &[u8]) -> Result<Parts> {
    let object = aya_obj::Object::parse(data)?;
    let licence = object.license.to_string_lossy().into_owned();
    let mut parts = Parts::from([("licence".to_owned(), vec![("text".to_owned(), licence)])]);
    for (name, map) in &object.maps {
        let definition = [
            ("type", map.map_type()),
            ("key_size", map.key_size()),
            ("value_size", map.value_size()),
            ("max_entries", map.max_entries()),
            ("flags", map.map_flags()),
        ];
        let definition = definition.map(|(name, value)| (name.to_owned(), value.to_string()));
        let contents = map.data().iter().enumerate();
        let contents = contents.map(|(at, byte)| (format!("byte {at}"), format!("{byte:#04x}")));
        parts.insert(
            format!("map {name}"),
            definition.into_iter().chain(contents).collect(),
        );
    }
    Ok(parts)
}

/// A function's instructions, each with the symbol that its relocation names.
fn instructions<'data>(
    file: &object::File<'data>,
    section: &object::Section<'data, '_>,
    function: &object::Symbol<'data, '_>,
) -> Result<Vec<(String, String)>> {
    let mut targets = BTreeMap::new();
    for (offset, relocation) in section.relocations() {
        if let RelocationTarget::Symbol(target) = relocation.target() {
            targets.insert(offset, symbol_name(file, target)?);
        }
    }
    let code = section
        .data_range(function.address(), function.size())?
        .context("a function reaches beyond the end of its section")?;
    let mut things = vec![("section".to_owned(), section.name()?.to_owned())];
    let addresses = (function.address()..).step_by(INSTRUCTION_SIZE);
    for (number, (address, bytes)) in addresses.zip(code.chunks(INSTRUCTION_SIZE)).enumerate() {
        let target = targets
            .get(&address)
            .map_or(String::new(), |name| format!(" -> {name}"));
        things.push((
            format!("instruction {number}"),
            format!("{bytes:02x?}{target}"),
        ));
    }
    Ok(things)
}

/// A symbol's name; a section's symbol has none of its own and stands for the section.
fn symbol_name(file: &object::File<'_>, index: object::SymbolIndex) -> Result<String> {
    let symbol = file.symbol_by_index(index)?;
    let name = match (symbol.kind(), symbol.section_index()) {
        (SymbolKind::Section, Some(section)) => file.section_by_index(section)?.name()?.to_owned(),
        _ => symbol.name()?.to_owned(),
    };
    Ok(name)
}

/// Where a global is and how large; its contents are compared with its section's.
fn place<'data>(
    section: &object::Section<'data, '_>,
    global: &object::Symbol<'data, '_>,
) -> Result<Vec<(String, String)>> {
    Ok(vec![
        ("section".to_owned(), section.name()?.to_owned()),
        ("offset".to_owned(), global.address().to_string()),
        ("size".to_owned(), global.size().to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build_ebpf::committed_object;

    fn committed() -> Vec<u8> {
        std::fs::read(committed_object()).expect("the kernel object is committed")
    }

    /// The committed object with one byte of a section changed.
    fn altered(section: impl Fn(&str, SectionKind) -> bool, at: u64) -> Vec<u8> {
        let mut data = committed();
        let file = object::File::parse(&*data).unwrap();
        let section = file
            .sections()
            .find(|found| section(found.name().unwrap(), found.kind()))
            .unwrap();
        let (offset, size) = section.file_range().unwrap();
        assert!(at < size);
        data[(offset + at) as usize] ^= 1;
        data
    }

    #[test]
    fn an_object_equals_itself() {
        assert_eq!(
            differences(&committed(), &committed()).unwrap(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_changed_instruction_is_named() {
        // The immediate of the second instruction of the first program.
        let program = |name: &str, kind| kind == SectionKind::Text && name != ".text";
        let found = differences(&committed(), &altered(program, 12)).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("program "), "{found:?}");
        assert!(found[0].contains(": instruction 1 is "), "{found:?}");
    }

    #[test]
    fn a_changed_map_definition_is_named() {
        // The flags are the fifth word of a definition.
        let found = differences(&committed(), &altered(|name, _| name == "maps", 16)).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("map "), "{found:?}");
        assert!(found[0].contains(": flags is "), "{found:?}");
    }

    #[test]
    fn a_changed_constant_is_named() {
        let found = differences(&committed(), &altered(|name, _| name == ".rodata", 3)).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("map .rodata: byte 3 is "), "{found:?}");
    }

    #[test]
    fn a_changed_licence_is_named() {
        let found = differences(&committed(), &altered(|name, _| name == "license", 0)).unwrap();
        assert!(
            found.iter().any(|line| line.starts_with("licence: ")),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_in_one_object_only_is_named() {
        let [mut old, mut new] = [Parts::new(), Parts::new()];
        old.insert("map A".to_owned(), Vec::new());
        new.insert("program b".to_owned(), Vec::new());
        let found = different_parts(&old, &new);
        assert_eq!(
            found,
            [
                "map A: committed, but no longer built",
                "program b: built, but not committed"
            ]
        );
    }

    #[test]
    fn what_is_not_an_object_is_an_error() {
        let error = differences(b"garbage", &committed()).unwrap_err();
        assert_eq!(error.to_string(), "cannot parse the committed object");
    }
}
