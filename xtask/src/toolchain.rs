//! Finds the compiler and the linker that can build for the BPF target.
//!
//! The target has no prebuilt `core`, so the compiler must come with the library's source and
//! accept `-Zbuild-std`: a nightly, or any release with `RUSTC_BOOTSTRAP=1`.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::output;

const NO_TOOLCHAIN: &str = "\
no Rust toolchain that can build for the BPF target was found; it needs the library's source.
Install one of:
  rustup:  rustup toolchain install nightly --component rust-src
  Debian:  apt-get install rustc-web rust-web-src cargo-web
or name one with TCP_EBPF_RUSTC and TCP_EBPF_CARGO.";

const NO_LINKER: &str = "\
bpf-linker was not found on PATH. Its LLVM must be at least as new as rustc's. Install one of:
  rustup:  cargo install bpf-linker --locked
           (needs development files of the LLVM that it names; a ready-made one:
           cargo binstall bpf-linker)
  Debian:  apt-get install llvm-22-dev libpolly-22-dev
           LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 \\
               --locked --no-default-features --features llvm-22";

/// A compiler, its cargo, and the linker beside them.
pub(crate) struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    sysroot: PathBuf,
    /// A release compiler takes unstable options only with `RUSTC_BOOTSTRAP=1`.
    bootstrap: bool,
    versions: String,
    llvm: String,
}

impl Toolchain {
    /// The first that is there: `TCP_EBPF_RUSTC`/`TCP_EBPF_CARGO`, a rustup nightly with
    /// `rust-src`, Debian's `rustc-web` with `rust-web-src`.
    ///
    /// # Errors
    /// When there is none, or no `bpf-linker`: the message says what to install.
    pub(crate) fn find() -> Result<Self> {
        let linker = ask("bpf-linker", &["--version"]).ok().context(NO_LINKER)?;
        let (rustc, cargo) = match named_by_environment()? {
            Some(named) => named,
            None => rustup_nightly().or_else(debian).context(NO_TOOLCHAIN)?,
        };
        Self::describe(rustc, cargo, &linker)
    }

    fn describe(rustc: PathBuf, cargo: PathBuf, linker: &str) -> Result<Self> {
        let about = ask(&rustc, &["-vV"])?;
        let sysroot = sysroot(&rustc)?;
        let version = about.lines().next().unwrap_or_default();
        let llvm = about
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))
            .unwrap_or("unknown")
            .to_owned();
        Ok(Self {
            bootstrap: !version.contains("-nightly") && !version.contains("-dev"),
            versions: format!("{version}\n{linker}\nLLVM {llvm}\n"),
            rustc,
            cargo,
            sysroot,
            llvm,
        })
    }

    /// A command of this toolchain's cargo, in an environment of its own.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        forget_other_toolchain(&mut command);
        command.env("RUSTC", &self.rustc);
        if self.bootstrap {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }

    /// The compiler's path.
    pub(crate) fn rustc(&self) -> &Path {
        &self.rustc
    }

    /// Where the compiler keeps its libraries and their source.
    pub(crate) fn sysroot(&self) -> &Path {
        &self.sysroot
    }

    /// The version of LLVM in the compiler.
    pub(crate) fn llvm(&self) -> &str {
        &self.llvm
    }
}

/// The versions that shape the object, as recorded beside it.
impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.versions)
    }
}

fn named_by_environment() -> Result<Option<(PathBuf, PathBuf)>> {
    let rustc = env::var_os("TCP_EBPF_RUSTC").map(PathBuf::from);
    let cargo = env::var_os("TCP_EBPF_CARGO").map(PathBuf::from);
    let (rustc, cargo) = match (rustc, cargo) {
        (None, None) => return Ok(None),
        (Some(rustc), Some(cargo)) => (rustc, cargo),
        _ => bail!("TCP_EBPF_RUSTC and TCP_EBPF_CARGO go together: set both or none"),
    };
    if !has_library_source(&sysroot(&rustc)?) {
        bail!(
            "TCP_EBPF_RUSTC is {}, whose sysroot has no library source (rust-src)",
            rustc.display()
        );
    }
    Ok(Some((rustc, cargo)))
}

/// A nightly may be installed without `rust-src`, so each one's sysroot is looked at.
fn rustup_nightly() -> Option<(PathBuf, PathBuf)> {
    let list = ask("rustup", &["toolchain", "list"]).ok()?;
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .find_map(|name| {
            let rustc = ask("rustup", &["which", "--toolchain", name, "rustc"]).ok()?;
            usable(PathBuf::from(rustc))
        })
}

fn debian() -> Option<(PathBuf, PathBuf)> {
    usable(PathBuf::from("/usr/bin/rustc"))
}

/// The compiler with the cargo beside it, if it is new enough and has its library's source.
fn usable(rustc: PathBuf) -> Option<(PathBuf, PathBuf)> {
    let cargo = rustc.with_file_name("cargo");
    let minor = minor_version(&ask(&rustc, &["--version"]).ok()?)?;
    let usable = minor >= minor_version(concat!("rustc ", env!("CARGO_PKG_RUST_VERSION")))?
        && has_library_source(&sysroot(&rustc).ok()?)
        && cargo.exists();
    usable.then_some((rustc, cargo))
}

/// The 95 of `rustc 1.95.0 (...)`.
fn minor_version(version: &str) -> Option<u32> {
    version
        .strip_prefix("rustc 1.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    ask(rustc, &["--print", "sysroot"]).map(PathBuf::from)
}

fn has_library_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
}

fn ask(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    forget_other_toolchain(&mut command);
    output(command.args(arguments))
}

/// Removes what the cargo that runs xtask, and rustup in front of it, put into the environment:
/// they name their own toolchain, its libraries and its flags.
fn forget_other_toolchain(command: &mut Command) {
    const NAMES: [&str; 9] = [
        "CARGO",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "RUST_RECURSION_COUNT",
    ];
    const PREFIXES: [&str; 5] = [
        "CARGO_BUILD_",
        "CARGO_ENCODED_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
    ];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if NAMES.contains(&&*text) || PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions_are_read() {
        assert_eq!(
            minor_version("rustc 1.96.0 (ac68faa20 2026-05-25)"),
            Some(96)
        );
        assert_eq!(
            minor_version("rustc 1.99.0-nightly (0123456 2026-11-20)"),
            Some(99)
        );
        assert_eq!(minor_version("rustc 1.95"), Some(95));
        assert_eq!(minor_version("something else"), None);
    }
}
