//! Debian's cloud kernels, by series. They are fetched with apt, in a state of our own: what apt has configured and
//! knows of this machine stays as it is. Only the mirrors are those of the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::programs;
use crate::workspace::{output, target_dir};

/// Which release has which series. Later ones come to the last.
const RELEASES: [(&str, &[&str]); 3] = [
    ("bullseye-security", &["5.10"]),
    ("bookworm-security", &["6.1", "6.12"]),
    ("trixie-backports", &[]),
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What the names of packages end in.
const FLAVOUR: &str = "-cloud-amd64";

/// Like `6.12`: two numbers.
pub(crate) fn is_series(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once('.')
        .is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}

/// The directory with the unpacked packages of the newest kernel of `series`. It is fetched once: remove the directory
/// to fetch a newer one.
///
/// # Errors
/// When this is no Debian, or the archive has no such kernel.
pub(crate) fn fetched(series: &str) -> Result<PathBuf> {
    let kernels = target_dir().join("vm/kernels");
    let directory = kernels.join(series);
    if directory.is_dir() {
        return Ok(directory);
    }
    programs::require(&[("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg", "dpkg")])
        .context("Debian's kernels are fetched with apt; elsewhere give --kernel a path")?;
    let release = release_of(series);
    let apt = Apt::new(&target_dir().join("vm/apt").join(series), release)?;
    let names = output(apt.command("apt-cache").args(["pkgnames", "linux-"]))?;
    let names: Vec<_> = names.lines().collect();
    let packages = packages(&names, series).with_context(|| {
        format!(
            "{release} has no kernel of the series {series}; series that can be fetched: {}",
            all_series(&names).join(", ")
        )
    })?;
    // Unpacked aside and then renamed: an interrupted run leaves no half of a kernel behind.
    let partial = kernels.join(format!("{series}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    for package in packages {
        eprintln!("fetching {package}");
        let mut download = apt.command("apt-get");
        output(download.args(["download", &package]).current_dir(&partial))?;
    }
    for entry in fs::read_dir(&partial)? {
        let archive = entry?.path();
        output(Command::new("dpkg").arg("-x").args([&archive, &partial]))?;
        fs::remove_file(archive)?;
    }
    fs::rename(&partial, &directory)?;
    Ok(directory)
}

fn release_of(series: &str) -> &'static str {
    let known = RELEASES.iter().find(|(_, all)| all.contains(&series));
    let [.., (last, _)] = RELEASES;
    known.map_or(last, |(release, _)| release)
}

/// The packages of the newest kernel of `series`. Since Linux 6.19 `linux-image-*` is empty: the kernel is in
/// `linux-binary-*`, and its modules, as long as the archive keeps them, in `linux-modules-*`.
fn packages(names: &[&str], series: &str) -> Option<Vec<String>> {
    let (_, version) = versions(names)
        .filter(|(own, _)| own == series)
        .max_by_key(|(_, version)| numbers(version))?;
    let package = |kind| format!("linux-{kind}-{version}{FLAVOUR}");
    let split = ["binary", "modules"].map(package);
    let is_there = |package: &String| names.contains(&package.as_str());
    if is_there(&split[0]) {
        return Some(split.into_iter().filter(is_there).collect());
    }
    Some(vec![package("image")])
}

/// Each kernel among the packages: its series and its version, like `6.12.117+deb12` or `5.10.0-46`.
fn versions<'a>(names: &[&'a str]) -> impl Iterator<Item = (String, &'a str)> {
    names.iter().filter_map(|name| {
        let version = name.strip_suffix(FLAVOUR)?;
        let version = version.strip_prefix("linux-image-")?;
        let mut parts = version.splitn(3, '.');
        let series = format!("{}.{}", parts.next()?, parts.next()?);
        // Not `linux-image-6.12-cloud-amd64`, which has no content.
        parts.next()?;
        is_series(&series).then_some((series, version))
    })
}

/// All numbers of a version, for comparison.
fn numbers(version: &str) -> Vec<u64> {
    let parts = version.split(|char: char| !char.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

/// What the table names, and what this release has.
fn all_series(names: &[&str]) -> Vec<String> {
    let named = RELEASES.iter().flat_map(|(_, all)| all.iter());
    let mut all: Vec<String> = named.map(|series| (*series).to_owned()).collect();
    all.extend(versions(names).map(|(series, _)| series));
    all.sort_by_key(|series| numbers(series));
    all.dedup();
    all
}

/// apt with a state of its own, that knows one release.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// Makes the state in `directory`, and fetches the list of packages.
    fn new(directory: &Path, release: &str) -> Result<Self> {
        for part in ["state", "lists/partial", "cache/archives/partial"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let (status, sources) = (directory.join("status"), directory.join("sources.list"));
        fs::write(&status, "")?;
        let mirror = mirror(release.ends_with(SECURITY))?;
        let source = format!("deb [signed-by={KEYRING}] {mirror} {release} main\n");
        fs::write(&sources, source)?;
        let paths = [
            ("Dir::State", directory.join("state")),
            ("Dir::State::status", status),
            ("Dir::State::Lists", directory.join("lists")),
            ("Dir::Cache", directory.join("cache")),
            ("Dir::Etc::sourcelist", sources),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
        ];
        let mut options: Vec<_> = paths
            .iter()
            .map(|(name, path)| format!("-o{name}={}", path.display()))
            .collect();
        for setting in ["Architecture", "Architectures"] {
            options.push(format!("-oAPT::{setting}=amd64"));
        }
        // The user _apt may not be able to enter the directory.
        options.push(String::from("-oAPT::Sandbox::User=root"));
        let apt = Self { options };
        output(apt.command("apt-get").args(["update", "-qq"]))
            .with_context(|| format!("cannot fetch the list of packages of {release}"))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }
}

/// What the names of releases with security updates end in; they have a mirror of their own.
const SECURITY: &str = "-security";

/// The address that this machine gets Debian from.
fn mirror(security: bool) -> Result<String> {
    let format = [
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(ORIGIN)",
    ];
    let targets = output(Command::new("apt-get").args(format))?;
    mirror_of(&targets, security).context(
        "apt on this machine has no source of Debian, or has not read it (apt-get update); give --kernel a path",
    )
}

fn mirror_of(targets: &str, security: bool) -> Option<String> {
    targets.lines().find_map(|target| {
        let mut words = target.split(' ');
        let (address, release, origin) = (words.next()?, words.next()?, words.next()?);
        let fits = origin == "Debian" && release.ends_with(SECURITY) == security;
        fits.then(|| address.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 14] = [
        "linux-image-cloud-amd64",
        "linux-image-6.12-cloud-amd64",
        "linux-image-6.12.9+deb12-cloud-amd64",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-6.12.117+deb12-amd64",
        "linux-image-6.12.118+deb12-cloud-amd64-unsigned",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-7.1.13+deb13-cloud-amd64",
        "linux-binary-7.1.13+deb13-cloud-amd64",
        "linux-image-7.3.4+deb13-cloud-amd64",
        "linux-binary-7.3.4+deb13-cloud-amd64",
        "linux-modules-7.3.4+deb13-cloud-amd64",
        "linux-headers-7.4.1+deb13-cloud-amd64",
    ];

    #[test]
    fn newest_kernel_of_a_series_is_fetched_with_its_modules() {
        let fetched = |series| packages(&NAMES, series).unwrap_or_default();
        assert_eq!(fetched("6.12"), ["linux-image-6.12.117+deb12-cloud-amd64"]);
        assert_eq!(fetched("6.1"), ["linux-image-6.1.0-56-cloud-amd64"]);
        assert_eq!(fetched("7.1"), ["linux-binary-7.1.13+deb13-cloud-amd64"]);
        assert_eq!(
            fetched("7.3"),
            [
                "linux-binary-7.3.4+deb13-cloud-amd64",
                "linux-modules-7.3.4+deb13-cloud-amd64"
            ]
        );
        assert!(fetched("7.4").is_empty());
        assert!(fetched("6").is_empty());
    }

    #[test]
    fn series_are_two_numbers() {
        for series in ["5.10", "7.3"] {
            assert!(is_series(series), "{series}");
        }
        for other in ["", "6", "6.", ".1", "6.1.0", "6.x", "./6.1", "bzImage"] {
            assert!(!is_series(other), "{other}");
        }
    }

    #[test]
    fn series_are_listed_oldest_first() {
        assert_eq!(all_series(&NAMES), ["5.10", "6.1", "6.12", "7.1", "7.3"]);
    }

    #[test]
    fn mirrors_are_those_of_debian_itself() {
        let targets = "https://a.example/ stable Other\nhttp://b.example/debian/ bookworm Debian\n\
                       http://b.example/security/ bookworm-security Debian\n";
        let found = |security| mirror_of(targets, security);
        assert_eq!(found(false).as_deref(), Some("http://b.example/debian/"));
        assert_eq!(found(true).as_deref(), Some("http://b.example/security/"));
        assert_eq!(mirror_of("https://a.example/ stable Other", false), None);
    }
}
