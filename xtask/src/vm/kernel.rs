//! Finds the kernel to boot: a file, an unpacked package, or one of Debian's cloud kernels.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::debian;

/// A kernel image, and the directory of its modules where there is one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    pub(crate) modules: Option<PathBuf>,
}

/// The kernel that `--kernel` names: a series of Debian's kernels, or a path.
///
/// # Errors
/// When the path holds no kernel, or Debian's package cannot be fetched.
pub(crate) fn find(name: &str) -> Result<Kernel> {
    let path = Path::new(name);
    if debian::is_series(name) {
        unpacked(&debian::fetched(name)?)
    } else if path.is_dir() {
        unpacked(path)
    } else if path.is_file() {
        Ok(beside(path))
    } else {
        bail!("--kernel {name}: neither a series like 6.12, nor a file or directory")
    }
}

impl Kernel {
    /// The version, as far as the image's path has it.
    pub(crate) fn name(&self) -> String {
        version(&self.image).unwrap_or_else(|| file_name(&self.image))
    }
}

/// By `vmlinuz-VERSION`, or by `modules/VERSION/vmlinuz`.
fn version(image: &Path) -> Option<String> {
    let name = file_name(image);
    match name.strip_prefix("vmlinuz-") {
        Some(version) => Some(version.to_owned()),
        None if name == "vmlinuz" => {
            let directory = image.parent()?;
            (file_name(directory.parent()?) == "modules").then(|| file_name(directory))
        }
        None => None,
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Where packages put modules. The first is a link to the second on a merged root, and is missing in a package of
/// Debian since Linux 6.19.
const MODULES: [&str; 2] = ["lib/modules", "usr/lib/modules"];

/// An image by itself; its modules are where its package puts them, if they are anywhere.
fn beside(image: &Path) -> Kernel {
    let modules = version(image).and_then(|version| {
        let directory = image.parent()?;
        if file_name(image) == "vmlinuz" {
            return Some(directory.to_path_buf());
        }
        let top = directory.parent()?;
        let places = MODULES.map(|place| top.join(place).join(&version));
        places.into_iter().find(|place| place.is_dir())
    });
    Kernel {
        image: image.to_path_buf(),
        modules,
    }
}

/// The kernel in a directory laid out like a root file system.
fn unpacked(root: &Path) -> Result<Kernel> {
    let mut images = images_in_boot(root);
    // Debian, since Linux 7.2.
    for place in MODULES.map(|place| root.join(place)) {
        if images.is_empty() {
            let versions = entries(&place).into_iter();
            images = versions.map(|version| version.join("vmlinuz")).collect();
            images.retain(|image| image.is_file());
        }
    }
    match images.as_slice() {
        [image] => Ok(beside(image)),
        [] => bail!(
            "{} holds neither boot/vmlinuz-* nor {{,usr/}}lib/modules/*/vmlinuz",
            root.display()
        ),
        [..] => bail!("{} holds several kernels: name one of them", root.display()),
    }
}

fn images_in_boot(root: &Path) -> Vec<PathBuf> {
    let mut images = entries(&root.join("boot"));
    images.retain(|path| file_name(path).starts_with("vmlinuz-"));
    images
}

/// What a directory holds; nothing if it cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "7.3.4+deb13-cloud-amd64";

    /// A directory with these files.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let file = root.path().join(file.replace('V', VERSION));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        root
    }

    /// Image and modules below the root, and the name.
    fn found(files: &[&str]) -> (String, Option<String>, String) {
        let root = tree(files);
        let kernel = unpacked(root.path()).unwrap();
        let below = |path: &Path| {
            let path = path.strip_prefix(root.path()).unwrap();
            path.to_string_lossy().replace(VERSION, "V")
        };
        (
            below(&kernel.image),
            kernel.modules.as_deref().map(below),
            kernel.name().replace(VERSION, "V"),
        )
    }

    fn expected(image: &str, modules: Option<&str>) -> (String, Option<String>, String) {
        (image.into(), modules.map(String::from), "V".into())
    }

    #[test]
    fn each_layout_of_a_package_is_understood() {
        assert_eq!(
            found(&[
                "boot/vmlinuz-V",
                "boot/config-V",
                "lib/modules/V/kernel/a.ko"
            ]),
            expected("boot/vmlinuz-V", Some("lib/modules/V"))
        );
        assert_eq!(
            found(&["boot/vmlinuz-V", "usr/lib/modules/V/kernel/a.ko"]),
            expected("boot/vmlinuz-V", Some("usr/lib/modules/V"))
        );
        assert_eq!(
            found(&["boot/vmlinuz-V", "usr/share/doc/linux-binary-V/copyright"]),
            expected("boot/vmlinuz-V", None)
        );
        assert_eq!(
            found(&["usr/lib/modules/V/vmlinuz", "usr/lib/modules/V/kernel/a.ko"]),
            expected("usr/lib/modules/V/vmlinuz", Some("usr/lib/modules/V"))
        );
        assert_eq!(
            found(&["lib/modules/V/vmlinuz"]),
            expected("lib/modules/V/vmlinuz", Some("lib/modules/V"))
        );
    }

    #[test]
    fn merged_root_holds_a_kernel_once() {
        let root = tree(&["usr/lib/modules/V/vmlinuz"]);
        std::os::unix::fs::symlink("usr/lib", root.path().join("lib")).unwrap();
        let kernel = unpacked(root.path()).unwrap();
        assert_eq!(kernel.name(), VERSION);
    }

    #[test]
    fn none_and_several_kernels_are_errors() {
        let message = |files: &[&str]| unpacked(tree(files).path()).unwrap_err().to_string();
        assert!(message(&["boot/config-V", "usr/lib/modules/V/kernel/a.ko"]).contains("neither"));
        assert!(message(&[]).contains("neither"));
        assert!(message(&["boot/vmlinuz-V", "boot/vmlinuz-6.1"]).contains("several kernels"));
        assert!(
            message(&["lib/modules/V/vmlinuz", "lib/modules/6.1/vmlinuz"])
                .contains("several kernels")
        );
    }

    #[test]
    fn image_by_itself_finds_its_modules() {
        let root = tree(&[
            "boot/vmlinuz-V",
            "usr/lib/modules/V/a.ko",
            "bzImage",
            "vmlinuz",
        ]);
        let at = |path: &str| beside(&root.path().join(path.replace('V', VERSION)));
        let modules = root.path().join("usr/lib/modules").join(VERSION);
        assert_eq!(at("boot/vmlinuz-V").modules, Some(modules));
        for image in ["bzImage", "vmlinuz"] {
            assert_eq!(at(image).modules, None);
            assert_eq!(at(image).name(), image);
        }
    }
}
