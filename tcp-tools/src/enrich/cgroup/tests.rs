use proptest::prelude::*;

use super::*;

const HYBRID: &[u8] = b"\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn the_mount_is_found() {
    let found = |text: &[u8]| cgroup2_mount(text).map(|path| path.display().to_string());
    assert_eq!(found(HYBRID).unwrap(), "/sys/fs/cgroup/unified");
    assert_eq!(
        found(b"35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 master:4 - cgroup2 cgroup2 rw")
            .unwrap(),
        "/sys/fs/cgroup"
    );
    assert_eq!(
        found(
            b"1 2 0:30 /a /part rw - cgroup2 x rw\n2 2 0:30 / /my\\040cg\\134 rw - cgroup2 x rw\n"
        )
        .unwrap(),
        "/my cg\\"
    );
    assert_eq!(
        found(b"1 2 0:30 /a /part rw - cgroup2 x rw\n").unwrap(),
        "/part"
    );
    assert_eq!(
        found(b"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup2 rw"),
        None
    );
    assert_eq!(found(b""), None);
}

/// `/`, `/a.slice`, `/a.slice/b.service`, `/a.slice/7`, each with a file.
fn hierarchy() -> (tempfile::TempDir, Hierarchy) {
    let root = tempfile::tempdir().unwrap();
    for path in ["", "a.slice", "a.slice/b.service", "a.slice/7"] {
        let directory = root.path().join(path);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("cgroup.procs"), "").unwrap();
    }
    let hierarchy = Hierarchy::at(root.path());
    (root, hierarchy)
}

#[test]
fn a_cgroup_has_an_id_and_several_paths() {
    let (root, hierarchy) = hierarchy();
    let full = root.path().join("a.slice/b.service");
    let expected = Cgroup {
        id: full.metadata().unwrap().ino(),
        path: "a.slice/b.service".into(),
    };
    for text in [
        "a.slice/b.service",
        "/a.slice/b.service/",
        full.to_str().unwrap(),
        &expected.id.to_string(),
    ] {
        assert_eq!(hierarchy.cgroup(text).unwrap(), expected, "{text}");
    }
    assert_eq!(hierarchy.cgroup("/").unwrap().path, Path::new(""));
    assert_eq!(
        hierarchy.cgroup("a.slice/7").unwrap().path,
        Path::new("a.slice/7")
    );
}

#[test]
fn a_missing_cgroup_is_an_error_that_says_so() {
    let (root, hierarchy) = hierarchy();
    let error = |text: &str| {
        let message = hierarchy.cgroup(text).unwrap_err().to_string();
        message.replace(root.path().to_str().unwrap(), "MOUNT")
    };
    assert_eq!(
        error("/c.slice"),
        "no cgroup \"/c.slice\" in MOUNT: No such file or directory (os error 2)"
    );
    assert_eq!(
        error("a.slice/cgroup.procs"),
        "no cgroup \"a.slice/cgroup.procs\" in MOUNT: not a directory"
    );
    assert_eq!(error(".."), "\"..\" is no cgroup: it is not below MOUNT");
    assert_eq!(error(""), "no cgroup \"\" in MOUNT: entity not found");
    assert_eq!(
        error(&u64::MAX.to_string()),
        "no cgroup in MOUNT has the id (inode number) 18446744073709551615"
    );
}

#[test]
fn a_walk_meets_every_cgroup_once_and_no_file() {
    let (_root, hierarchy) = hierarchy();
    let paths = |walk: &mut dyn Iterator<Item = Cgroup>| {
        let mut paths: Vec<_> = walk.map(|cgroup| cgroup.path).collect();
        paths.sort();
        paths
    };
    assert_eq!(
        paths(&mut hierarchy.walk()),
        ["", "a.slice", "a.slice/7", "a.slice/b.service"].map(PathBuf::from)
    );
    assert_eq!(
        paths(&mut hierarchy.below(hierarchy.cgroup("a.slice/7").unwrap())),
        ["a.slice/7"].map(PathBuf::from)
    );
}

proptest! {
    #[test]
    fn any_mountinfo_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        cgroup2_mount(&bytes);
    }

    #[test]
    fn a_mount_point_reads_back(name in "[ -~]{1,20}") {
        let mangled = name.replace('\\', "\\134").replace(' ', "\\040");
        prop_assert_eq!(unescaped(mangled.as_bytes()), name.as_bytes());
    }
}
