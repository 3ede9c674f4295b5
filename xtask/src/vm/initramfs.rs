//! The guest's root file system: busybox, the built programs, and the libraries that they need.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::artifacts::EndToEnd;
use crate::programs;

use super::modules::Module;

/// The guest's first process: mounts, modules, then `/script`, then the verdict.
const INIT: &str = include_str!("init.sh");

/// Files that programs look names up in.
const ETC: [(&str, &str); 4] = [
    (
        "passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("group", "root:x:0:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    (
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
];

/// What goes into the guest besides busybox and init.
pub(crate) struct Contents {
    pub(crate) tcp_tools: PathBuf,
    pub(crate) end_to_end: EndToEnd,
    /// Programs of this machine's, each with its place in the guest.
    pub(crate) others: Vec<(PathBuf, String)>,
    pub(crate) modules: Vec<Module>,
    /// The shell script that the guest runs.
    pub(crate) script: String,
}

/// Writes the initramfs below `directory` and returns its path.
///
/// # Errors
/// When a file cannot be written, a library is missing, or cpio fails.
pub(crate) fn build(contents: &Contents, directory: &Path) -> Result<PathBuf> {
    let root = Root::new(directory.join("root"))?;
    let busybox = programs::find("busybox").context("busybox is not installed")?;
    root.program(&busybox, "bin/busybox")?;
    root.program(&contents.tcp_tools, "bin/tcp-tools")?;
    for name in ["nft", "ss"] {
        if let Some(program) = programs::find(name) {
            root.program(&program, &format!("bin/{name}"))?;
        }
    }
    for test in &contents.end_to_end.tests {
        // Cargo's names end in a hash: `e2e-0123456789abcdef`.
        let name = file_name(test)?;
        let name = name
            .rsplit_once('-')
            .map_or(name.as_str(), |(name, _)| name);
        root.program(test, &format!("tests/{name}"))?;
    }
    for helper in &contents.end_to_end.helpers {
        root.program(helper, &format!("helpers/{}", file_name(helper)?))?;
    }
    for (program, place) in &contents.others {
        root.program(program, place)?;
    }
    for (at, module) in contents.modules.iter().enumerate() {
        root.write(&format!("modules/{at:02}-{}.ko", module.name), &module.data)?;
    }
    for (name, text) in ETC {
        root.write(&format!("etc/{name}"), text.as_bytes())?;
    }
    root.write("script", contents.script.as_bytes())?;
    root.write("init", INIT.as_bytes())?;
    fs::set_permissions(root.path.join("init"), fs::Permissions::from_mode(0o755))?;
    root.pack(&directory.join("initramfs.cpio"))
}

/// The directory that becomes the guest's root.
struct Root {
    path: PathBuf,
}

impl Root {
    /// Makes an empty one in place of what an earlier run left.
    fn new(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    fn write(&self, name: &str, data: &[u8]) -> Result<()> {
        let file = self.place(name)?;
        fs::write(&file, data).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Copies an executable to `name`, and its libraries to where it looks for them.
    fn program(&self, file: &Path, name: &str) -> Result<()> {
        self.copy(file, name)?;
        for library in libraries(file)? {
            self.copy(&library, &library.to_string_lossy())?;
        }
        Ok(())
    }

    fn copy(&self, file: &Path, name: &str) -> Result<()> {
        let to = self.place(name)?;
        if !to.exists() {
            fs::copy(file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Result<PathBuf> {
        let file = self.path.join(name.trim_start_matches('/'));
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(file)
    }

    /// Packs everything, owned by root whoever made it. Not compressed: an emulated guest takes
    /// longer to uncompress it than to read it.
    fn pack(&self, archive: &Path) -> Result<PathBuf> {
        let pack = "find . | cpio --quiet -o -H newc -R 0:0";
        let status = Command::new("sh")
            .args(["-c", pack])
            .current_dir(&self.path)
            .stdout(fs::File::create(archive)?)
            .stdin(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("packing {} failed: {status}", archive.display());
        }
        Ok(archive.to_path_buf())
    }
}

/// The shared libraries and the loader that `program` needs, as `ldd` finds them.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot start ldd")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    if let Some(missing) = listed.lines().find(|line| line.contains("not found")) {
        bail!("{}: library missing: {}", program.display(), missing.trim());
    }
    // A static program has no lines with paths, and ldd fails.
    let path = |line: &str| {
        line.split_whitespace()
            .find(|word| word.starts_with('/'))
            .map(PathBuf::from)
    };
    Ok(listed.lines().filter_map(path).collect())
}

fn file_name(file: &Path) -> Result<String> {
    let name = file
        .file_name()
        .with_context(|| format!("{} has no name", file.display()))?;
    Ok(name.to_string_lossy().into_owned())
}
