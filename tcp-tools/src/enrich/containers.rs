//! The containers of this machine: which one an event comes from, and which one a person means.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
    time::Instant,
};

use super::{
    cgroup::{Cgroup, Hierarchy},
    container::{Container, Runtime, container_of, is_hex},
};

/// The containers of cgroups, remembered.
///
/// A cgroup that is not known makes the hierarchy be looked through anew, which takes some ten microseconds
/// for each cgroup. So one look takes in a limited number of cgroups, no more than a twentieth of the
/// time goes into it, and what is not found is not looked for again. A container that was gone before
/// its first event got here stays unknown.
#[derive(Debug)]
pub struct Containers {
    hierarchy: Option<Hierarchy>,
    known: HashMap<u64, Option<Rc<str>>>,
    next_look: Instant,
    look_limit: usize,
}

impl Containers {
    const LOOK_LIMIT: usize = 4096;
    /// Pause after a look, in units of the time that it took.
    const PAUSE: u32 = 20;

    /// Knows the containers that exist now; without a hierarchy there are none.
    #[must_use]
    pub fn new(hierarchy: Option<Hierarchy>) -> Self {
        Self::with_limit(hierarchy, Self::LOOK_LIMIT)
    }

    fn with_limit(hierarchy: Option<Hierarchy>, look_limit: usize) -> Self {
        let mut containers = Self {
            hierarchy,
            known: HashMap::new(),
            next_look: Instant::now(),
            look_limit,
        };
        containers.look();
        containers
    }

    /// Id or name of the container of the cgroup with this id, as in [`Container::id`]; `None` if it is in
    /// no container, or not known.
    pub fn get(&mut self, cgroup_id: u64) -> Option<Rc<str>> {
        if let Some(known) = self.known.get(&cgroup_id) {
            return known.clone();
        }
        if Instant::now() < self.next_look {
            return None;
        }
        self.look();
        // The cgroup was there before its event. If it is not found now, it never will be.
        self.known.entry(cgroup_id).or_default().clone()
    }

    fn look(&mut self) {
        let start = Instant::now();
        // Cgroups that have gone are remembered, as events of theirs may still come.
        if self.known.len() >= 2 * self.look_limit {
            self.known.clear();
        }
        for cgroup in self
            .hierarchy
            .iter()
            .flat_map(Hierarchy::walk)
            .take(self.look_limit)
        {
            self.known.entry(cgroup.id).or_insert_with(|| {
                let path = cgroup.path.to_string_lossy();
                container_of(&path).map(|container| container.id.into())
            });
        }
        let end = Instant::now();
        self.next_look = end + (end - start) * Self::PAUSE;
    }
}

/// Why no container is meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// There is no such container.
    #[error(
        "no running container has the id or name {0:?}. An id needs its first 4 digits or more. The kernel \
         does not know the names of Docker and Kubernetes containers, only what is in the path of the \
         cgroup: take the id from `docker ps` or `crictl ps`"
    )]
    Unknown(String),
    /// There are several.
    #[error("{text:?} begins the ids of several containers: {}; give more digits", .candidates.join(", "))]
    Ambiguous {
        /// As it was asked for.
        text: String,
        /// Runtime and id of each.
        candidates: Vec<String>,
    },
}

/// The cgroups of the container that a person means by `text`: its id, at least the first four digits of
/// it, or its name, if the path of its cgroup has that. Of cgroups within each other, only the outermost.
///
/// # Errors
///
/// When there is no such container, or more than one.
pub fn find_container(hierarchy: &Hierarchy, text: &str) -> Result<Vec<Cgroup>, ContainerError> {
    let mut found: BTreeMap<String, (Runtime, Vec<Cgroup>)> = BTreeMap::new();
    for cgroup in hierarchy.walk() {
        let path = cgroup.path.to_string_lossy();
        let Some(container) = container_of(&path).filter(|container| is_meant(container, text))
        else {
            continue;
        };
        let (_, cgroups) = found
            .entry(container.id.into_owned())
            .or_insert((container.runtime, Vec::new()));
        if !cgroups
            .iter()
            .any(|outer| cgroup.path.starts_with(&outer.path))
        {
            cgroups.push(cgroup);
        }
    }
    if let Some((_, cgroups)) = found.remove(text) {
        return Ok(cgroups);
    }
    let candidates = found
        .iter()
        .map(|(id, (runtime, _))| format!("{runtime} {}", id.escape_debug()))
        .collect();
    let mut all = found.into_values();
    match (all.next(), all.next()) {
        (None, _) => Err(ContainerError::Unknown(text.to_owned())),
        (Some((_, cgroups)), None) => Ok(cgroups),
        (Some(_), Some(_)) => Err(ContainerError::Ambiguous {
            text: text.to_owned(),
            candidates,
        }),
    }
}

fn is_meant(container: &Container<'_>, text: &str) -> bool {
    let has_name = matches!(container.runtime, Runtime::Lxc | Runtime::Machine);
    let is_prefix = text.get(..4).is_some_and(is_hex) && container.id.starts_with(text);
    container.id == text || (is_prefix && !has_name)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use tempfile::TempDir;

    use super::*;

    const A: &str = "4bf92a5b0c1e7f3a9d8c6b5a493827160f1e2d3c4b5a69788796a5b4c3d2e1f0";
    const B: &str = "4bf92a5c0c1e7f3a9d8c6b5a493827160f1e2d3c4b5a69788796a5b4c3d2e1f0";
    const UID: &str = "6ad24d9d-7b0a-4c3e-9d7c-2f4e2b8a1c55";

    fn tree(paths: &[&str]) -> (TempDir, Hierarchy) {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        let hierarchy = Hierarchy::at(root.path());
        (root, hierarchy)
    }

    fn tree_of_all() -> (TempDir, Hierarchy) {
        let pod = format!("kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
        tree(&[
            "system.slice/nginx.service",
            &format!("system.slice/docker-{A}.scope/init.scope"),
            &format!("{pod}/cri-containerd-{B}.scope"),
            "lxc.payload.web/init.scope",
            "machine.slice/machine-4bf92a.scope",
            "lxc.payload.4bf92",
        ])
    }

    fn paths(hierarchy: &Hierarchy, text: &str) -> Vec<PathBuf> {
        let cgroups = find_container(hierarchy, text).unwrap();
        cgroups.into_iter().map(|cgroup| cgroup.path).collect()
    }

    #[test]
    fn a_container_is_found_by_id_and_by_name() {
        let (_root, hierarchy) = tree_of_all();
        let docker = PathBuf::from(format!("system.slice/docker-{A}.scope"));
        for text in [A, &A[..12], &A[..8]] {
            assert_eq!(paths(&hierarchy, text), [docker.as_path()], "{text}");
        }
        assert_eq!(paths(&hierarchy, "web"), [PathBuf::from("lxc.payload.web")]);
        // A name stands for itself even if it looks like the beginning of ids.
        assert_eq!(
            paths(&hierarchy, "4bf92"),
            [PathBuf::from("lxc.payload.4bf92")]
        );
        let pod = paths(&hierarchy, &UID[..9]);
        assert_eq!(pod.len(), 1);
        assert!(pod[0].to_str().unwrap().ends_with(".slice"), "{pod:?}");
    }

    #[test]
    fn a_container_in_several_places_is_all_of_them() {
        let (first, second) = (format!("a/docker/{A}"), format!("b/docker/{A}"));
        let (_root, hierarchy) = tree(&[&format!("{first}/x"), &second]);
        let mut found = paths(&hierarchy, A);
        found.sort();
        assert_eq!(found, [PathBuf::from(first), PathBuf::from(second)]);
    }

    #[test]
    fn no_container_and_several_are_errors() {
        let (_root, hierarchy) = tree_of_all();
        for text in ["", "4bf", "nginx", "we", "webs", "c4bf9", "0000", "aéé"] {
            let error = find_container(&hierarchy, text).unwrap_err();
            assert!(
                matches!(&error, ContainerError::Unknown(asked) if asked == text),
                "{text}: {error}"
            );
        }
        assert_eq!(
            find_container(&hierarchy, "4bf9").unwrap_err().to_string(),
            format!(
                "\"4bf9\" begins the ids of several containers: docker {A}, containerd {B}; give more digits"
            )
        );
    }

    fn id(hierarchy: &Hierarchy, path: &str) -> u64 {
        hierarchy.cgroup(path).unwrap().id
    }

    #[test]
    fn containers_of_cgroups_are_known_and_learned() {
        let (root, hierarchy) = tree_of_all();
        let inner = id(
            &hierarchy,
            &format!("system.slice/docker-{A}.scope/init.scope"),
        );
        let plain = id(&hierarchy, "system.slice/nginx.service");
        let mut containers = Containers::new(Some(hierarchy.clone()));
        assert_eq!(containers.get(inner).as_deref(), Some(A));
        assert_eq!(containers.get(plain), None);

        fs::create_dir_all(root.path().join("docker").join(B)).unwrap();
        let new = id(&hierarchy, &format!("docker/{B}"));
        containers.next_look = Instant::now();
        assert_eq!(containers.get(new).as_deref(), Some(B));

        fs::remove_dir(root.path().join("docker").join(B)).unwrap();
        containers.look();
        assert_eq!(containers.get(new).as_deref(), Some(B), "remembered");
    }

    #[test]
    fn a_cgroup_that_cannot_be_found_is_looked_for_once() {
        // No inode has such a number.
        const GONE: u64 = u64::MAX;
        let (root, hierarchy) = tree(&["docker"]);
        let mut containers = Containers::new(Some(hierarchy));
        containers.next_look = Instant::now() + std::time::Duration::from_secs(3600);
        assert_eq!(containers.get(GONE), None);
        assert!(!containers.known.contains_key(&GONE), "not now, but later");
        containers.next_look = Instant::now();
        assert_eq!(containers.get(GONE), None);
        assert!(containers.known.contains_key(&GONE));
        drop(root);
        assert_eq!(containers.get(GONE - 1), None, "the hierarchy has gone");
        assert_eq!(Containers::new(None).get(GONE), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (_root, hierarchy) = tree(&["a", "b", "c", "d", "e", "f"]);
        let mut containers = Containers::with_limit(Some(hierarchy), 4);
        assert_eq!(containers.known.len(), 4, "of seven");
        for unknown in 1..100 {
            containers.next_look = Instant::now();
            containers.get(unknown);
            assert!(containers.known.len() <= 13);
        }
    }
}
