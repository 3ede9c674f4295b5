//! Finds the kernel to boot: a file, an unpacked package, or Debian's cloud kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::programs;
use crate::workspace::{output, target_dir};

/// A kernel image, and the directory of its modules where there is one.
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    pub(crate) modules: Option<PathBuf>,
}

/// The kernel that `--kernel` names: `6.1`, `6.12`, or a path.
///
/// # Errors
/// When the path holds no kernel, or Debian's package cannot be fetched.
pub(crate) fn find(name: &str) -> Result<Kernel> {
    match name {
        "6.1" => unpacked(&fetched("linux-image-cloud-amd64")?),
        "6.12" => unpacked(&fetched("linux-image-6.12-cloud-amd64")?),
        path if Path::new(path).is_dir() => unpacked(Path::new(path)),
        path if Path::new(path).is_file() => Ok(beside(Path::new(path))),
        _ => bail!("--kernel {name}: neither 6.1, 6.12, nor a file or directory"),
    }
}

/// An image by itself; its modules are where its package puts them, if they are anywhere.
fn beside(image: &Path) -> Kernel {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let modules = name.strip_prefix("vmlinuz-").and_then(|version| {
        let top = image.parent()?.parent()?;
        let modules = top.join("lib/modules").join(version);
        modules.is_dir().then_some(modules)
    });
    Kernel {
        image: image.to_path_buf(),
        modules,
    }
}

/// The kernel in a directory laid out like a root file system.
fn unpacked(root: &Path) -> Result<Kernel> {
    let boot = root.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))?;
    let mut images: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
        .collect();
    match (images.pop(), images.is_empty()) {
        (Some(image), true) => Ok(beside(&image)),
        (None, _) => bail!("{} holds no vmlinuz-*", boot.display()),
        (Some(_), false) => bail!("{} holds several kernels: name one of them", boot.display()),
    }
}

/// The directory with the unpacked package that `meta` depends on, fetched once.
fn fetched(meta: &str) -> Result<PathBuf> {
    programs::require(&[("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg", "dpkg")])
        .context("Debian's kernels are fetched with apt; elsewhere give --kernel a path")?;
    let package = package_behind(meta)?;
    let kernels = target_dir().join("vm/kernels");
    let directory = kernels.join(&package);
    if directory.is_dir() {
        return Ok(directory);
    }
    eprintln!("fetching {package}");
    // Unpacked aside and then renamed: an interrupted run leaves no half of a kernel behind.
    let partial = kernels.join(format!("{package}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    output(
        Command::new("apt-get")
            .args(["download", &package])
            .current_dir(&partial),
    )
    .context("cannot fetch the kernel; is the list of packages new? (apt-get update)")?;
    for entry in fs::read_dir(&partial)? {
        let archive = entry?.path();
        output(Command::new("dpkg").arg("-x").args([&archive, &partial]))?;
        fs::remove_file(archive)?;
    }
    fs::rename(&partial, &directory)?;
    Ok(directory)
}

/// The kernel package of the day behind one of Debian's meta packages.
fn package_behind(meta: &str) -> Result<String> {
    let depends = output(Command::new("apt-cache").args(["depends", meta])).unwrap_or_default();
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image"));
    let rest = package.with_context(|| {
        format!(
            "apt knows no package {meta}; on Debian 12: apt-get update; elsewhere give --kernel a path"
        )
    })?;
    Ok(format!("linux-image{rest}"))
}
