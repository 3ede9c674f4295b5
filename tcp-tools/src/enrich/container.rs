//! The container that a cgroup belongs to, by its path: that is where runtimes leave the id.

use std::{borrow::Cow, fmt};

/// A container, or what is as good as one: a machine, a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container<'a> {
    /// The runtime's id; the name, for the runtimes that have only names; the uid of a pod. From
    /// outside: any characters.
    pub id: Cow<'a, str>,
    /// What runs it, as far as the path tells.
    pub runtime: Runtime,
}

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd, also under Kubernetes and nerdctl.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
    /// LXC, LXD, Incus: named, not numbered.
    Lxc,
    /// A machine of systemd-machined, such as those of systemd-nspawn: named, not numbered.
    Machine,
    /// A Kubernetes pod itself, outside any of its containers.
    Pod,
    /// The path does not tell.
    Other,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Machine => "machine",
            Self::Pod => "pod",
            Self::Other => "container",
        })
    }
}

/// The container of the cgroup with this path; of nested containers the innermost.
#[must_use]
pub fn container_of(path: &str) -> Option<Container<'_>> {
    let mut path = path;
    while !path.is_empty() {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let found = numbered(parents, name)
            .or_else(|| machine(name))
            .or_else(|| lxc(parents, name))
            .or_else(|| pod(parents, name));
        if found.is_some() {
            return found;
        }
        path = parents;
    }
    None
}

/// `ID`, `RUNTIME-ID.scope` (systemd driver), `RUNTIME-ID`, and `SLICE:RUNTIME:ID`, which is how a runtime
/// with the cgroupfs driver understands a path meant for the systemd driver.
fn numbered<'a>(parents: &str, name: &'a str) -> Option<Container<'a>> {
    const DIGITS: usize = 64;
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (before, id) = name.split_at_checked(name.len().checked_sub(DIGITS)?)?;
    if !is_hex(id) {
        return None;
    }
    let runtime = if before.is_empty() {
        runtime_of_parents(parents)
    } else {
        let label = before.strip_suffix(['-', ':'])?;
        match label.rsplit(':').next()? {
            // The monitor of a container runs outside of it, under the same id.
            label if label.ends_with("conmon") => return None,
            "docker" => Runtime::Docker,
            "cri-containerd" | "containerd" | "nerdctl" => Runtime::Containerd,
            "crio" => Runtime::CriO,
            label if label.starts_with("libpod") => Runtime::Podman,
            _ => Runtime::Other,
        }
    };
    let id = Cow::Borrowed(id);
    Some(Container { id, runtime })
}

/// Under Kubernetes with the cgroupfs driver, the path does not tell Docker from containerd.
fn runtime_of_parents(parents: &str) -> Runtime {
    match parents.rsplit('/').next() {
        Some("docker") => Runtime::Docker,
        Some("libpod_parent") => Runtime::Podman,
        _ => Runtime::Other,
    }
}

/// `machine-NAME.scope` (systemd-machined), `systemd-nspawn@NAME.service`.
fn machine(name: &str) -> Option<Container<'_>> {
    let between = |before, after| name.strip_prefix(before)?.strip_suffix(after);
    let escaped =
        between("machine-", ".scope").or_else(|| between("systemd-nspawn@", ".service"))?;
    named(unit_unescaped(escaped), Runtime::Machine)
}

/// `lxc.payload.NAME` (LXC 4), `lxc.payload/NAME`, `lxc/NAME` (before).
fn lxc<'a>(parents: &str, name: &'a str) -> Option<Container<'a>> {
    let below = matches!(parents.rsplit('/').next(), Some("lxc" | "lxc.payload"));
    let name = name
        .strip_prefix("lxc.payload.")
        .or(below.then_some(name))?;
    named(Cow::Borrowed(name), Runtime::Lxc)
}

fn named(id: Cow<'_, str>, runtime: Runtime) -> Option<Container<'_>> {
    (!id.is_empty()).then_some(Container { id, runtime })
}

/// `kubepods-burstable-podUID.slice` with underscores in the uid (systemd driver), `podUID` below `kubepods`
/// (cgroupfs driver). The uid of a static pod is a hash without dashes.
fn pod<'a>(parents: &str, name: &'a str) -> Option<Container<'a>> {
    let uid = match name.strip_suffix(".slice") {
        Some(slice) if slice.contains("kubepods-") => slice.rsplit_once("-pod")?.1,
        Some(_) => return None,
        None => name.strip_prefix("pod")?,
    };
    let is_uid = matches!(uid.len(), 32 | 36)
        && uid
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_'));
    let is_kubernetes =
        name.ends_with(".slice") || parents.split('/').any(|parent| parent == "kubepods");
    let id = if uid.contains('_') {
        Cow::Owned(uid.replace('_', "-"))
    } else {
        Cow::Borrowed(uid)
    };
    let runtime = Runtime::Pod;
    (is_uid && is_kubernetes).then_some(Container { id, runtime })
}

pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Undoes `\x2d` for `-` and the like in the name of a systemd unit (`unit_name_escape`).
fn unit_unescaped(name: &str) -> Cow<'_, str> {
    if !name.contains("\\x") {
        return Cow::Borrowed(name);
    }
    let mut parts = name.split("\\x");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part
            .split_at_checked(2)
            .filter(|(digits, _)| is_hex(digits))
            .and_then(|(digits, rest)| Some((u8::from_str_radix(digits, 16).ok()?, rest)))
            .filter(|(byte, _)| byte.is_ascii());
        match byte {
            Some((byte, rest)) => {
                plain.push(char::from(byte));
                plain.push_str(rest);
            }
            None => {
                plain.push_str("\\x");
                plain.push_str(part);
            }
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests;
