//! `build-ebpf`: compiles the programs of tcp-ebpf into the one object that tcp-tools embeds.
//!
//! The object is committed, so that user space needs only stable Rust. Nothing of the machine
//! that built it may be in it: the same sources and toolchain must give the same object anywhere.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::compare;
use crate::toolchain::Toolchain;
use crate::workspace::{check, root, target_dir};

const TARGET: &str = "bpfel-unknown-none";

/// Options of `build-ebpf`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build aside and compare with the committed object instead of replacing it
    #[arg(long)]
    check: bool,
}

/// Builds the object, and then replaces the committed one or compares with it.
///
/// # Errors
/// When there is no toolchain, the build fails, or (with `--check`) the objects differ.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let toolchain = Toolchain::find()?;
    let built = build(&toolchain)?;
    if options.check {
        check_committed(&toolchain, &built)?;
    } else {
        commit(&toolchain, &built)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let target_dir = target_dir().join("ebpf");
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(root())
        .args([
            "build",
            "--package=tcp-ebpf",
            "--bin=tcp-ebpf",
            "--features=programs",
        ])
        .args([
            "--release",
            "--locked",
            "-Zbuild-std=core",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain)?);
    check(&mut cargo).with_context(|| {
        format!(
            "building the kernel object with {}; if bpf-linker refused the input, \
             its LLVM is older than rustc's, {}",
            toolchain.rustc().display(),
            toolchain.llvm()
        )
    })?;
    Ok(target_dir.join(TARGET).join("release/tcp-ebpf"))
}

/// The flags in `CARGO_ENCODED_RUSTFLAGS`' form, separated by 0x1f.
fn rustflags(toolchain: &Toolchain) -> Result<OsString> {
    // aya-ebpf reads probe arguments from `pt_regs`, whose layout is the host's.
    let mut flags = OsString::from(format!(
        "--cfg=bpf_target_arch=\"{}\"\x1f-Cdebuginfo=0\x1f-Clinker=bpf-linker",
        std::env::consts::ARCH
    ));
    for (from, to) in remapped_paths(toolchain)? {
        flags.push("\x1f--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

/// Paths of this machine that panic locations would otherwise put into `.rodata`.
fn remapped_paths(toolchain: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    // Debian's library source is a symbolic link, and cargo passes the path as resolved.
    let library = toolchain.sysroot().join("lib/rustlib/src/rust");
    let library = fs::canonicalize(&library)
        .with_context(|| format!("cannot resolve {}", library.display()))?;
    let mut paths = vec![(root(), "."), (library, "/rust")];

    // Below registry/src is a directory for each registry or mirror, named by its host.
    let registries = cargo_home()?.join("registry/src");
    for registry in fs::read_dir(registries).into_iter().flatten() {
        paths.push((registry?.path(), "/registry"));
    }
    Ok(paths)
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(dir));
    }
    let home = std::env::home_dir().context("neither CARGO_HOME nor HOME is set")?;
    Ok(home.join(".cargo"))
}

fn commit(toolchain: &Toolchain, built: &Path) -> Result<()> {
    let object = committed_object();
    if let Some(dir) = object.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::copy(built, &object).with_context(|| format!("cannot write {}", object.display()))?;
    let record = recorded_toolchain();
    fs::write(&record, toolchain.to_string())
        .with_context(|| format!("cannot write {}", record.display()))?;
    let size = fs::metadata(&object)?.len();
    eprintln!("wrote {} ({size} bytes)", object.display());
    Ok(())
}

fn check_committed(toolchain: &Toolchain, built: &Path) -> Result<()> {
    let committed = read(&committed_object())?;
    let differences = compare::differences(&committed, &read(built)?)?;
    if differences.is_empty() {
        eprintln!("{} is up to date", committed_object().display());
        return Ok(());
    }
    for difference in &differences {
        eprintln!("{difference}");
    }
    let recorded = fs::read_to_string(recorded_toolchain()).unwrap_or_default();
    if recorded != toolchain.to_string() {
        eprintln!(
            "note: the committed object was built by\n{recorded}and this one by\n{toolchain}"
        );
    }
    bail!(
        "{} is not what the sources give; run `cargo xtask build-ebpf` and commit the result",
        committed_object().display()
    )
}

/// The object that tcp-tools embeds.
pub(crate) fn committed_object() -> PathBuf {
    root().join("tcp-tools/bpf/tcp.bpf.o")
}

fn recorded_toolchain() -> PathBuf {
    root().join("tcp-tools/bpf/TOOLCHAIN")
}

fn read(object: &Path) -> Result<Vec<u8>> {
    fs::read(object).with_context(|| {
        format!(
            "cannot read {}; run `cargo xtask build-ebpf` to make it",
            object.display()
        )
    })
}
