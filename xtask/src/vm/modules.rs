//! The few kernel modules that the tests use, in the order in which they must be loaded.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

/// What the tests use: devices between namespaces, ways to lose and delay packets, and what `ss` asks.
const WANTED: [&str; 5] = [
    "veth",
    "sch_netem",
    "nf_tables",
    "nft_reject_inet",
    "tcp_diag",
];

/// A module, uncompressed.
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
}

/// The wanted modules below `directory` after the ones that they depend on. What is not there is
/// built in, or the tests that use it will say so.
///
/// # Errors
/// When a module cannot be read or uncompressed.
pub(crate) fn wanted(directory: &Path) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    index(directory, &mut files)?;
    let mut modules = Vec::new();
    for name in WANTED {
        add(name, &files, &mut modules)?;
    }
    Ok(modules)
}

/// Module files by module name, which has `_` where the file name may have `-`.
fn index(directory: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            index(&entry.path(), files)?;
        } else if let Some((stem, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(stem.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn add(name: &str, files: &HashMap<String, PathBuf>, modules: &mut Vec<Module>) -> Result<()> {
    let Some(file) = files
        .get(name)
        .filter(|_| modules.iter().all(|module| module.name != name))
    else {
        return Ok(());
    };
    let data = uncompressed(file)?;
    for dependency in dependencies(&data)? {
        add(&dependency, files, modules)?;
    }
    modules.push(Module {
        name: name.to_owned(),
        data,
    });
    Ok(())
}

fn uncompressed(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return Ok(fs::read(file)?),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => bail!("{}: compressed in an unknown way", file.display()),
    };
    let output = Command::new(program)
        .arg("-dc")
        .arg(file)
        .output()
        .with_context(|| format!("cannot start {program} to read {}", file.display()))?;
    if !output.status.success() {
        bail!("{program} cannot read {}", file.display());
    }
    Ok(output.stdout)
}

/// The `depends=` entry of the module's `.modinfo`, which is a list of NUL-ended strings.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let Some(info) = file.section_by_name(".modinfo") else {
        return Ok(Vec::new());
    };
    let info = String::from_utf8_lossy(info.data()?).into_owned();
    let depends = info
        .split('\0')
        .find_map(|entry| entry.strip_prefix("depends="));
    let names = depends
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty());
    Ok(names.map(|name| name.replace('-', "_")).collect())
}
