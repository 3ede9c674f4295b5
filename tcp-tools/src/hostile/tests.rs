//! Samples, damaged; and what they cost.

use allocation_counter::measure;
use proptest::{collection::vec, prelude::*};

use super::*;

/// Memory that an input may take at a time, beside so many times its own size: tables of fixed size, such as
/// those of a histogram.
const FIXED: u64 = 16 << 20;
const TIMES: u64 = 16;

/// Feeds `bytes` to `door`, and weighs what is allocated meanwhile.
fn try_on(door: fn(&[u8]), bytes: &[u8]) {
    let most = measure(|| door(bytes)).bytes_max;
    let allowed = FIXED + TIMES * bytes.len() as u64;
    assert!(
        most <= allowed,
        "{} bytes of input take {most}",
        bytes.len()
    );
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..2000)
}

/// Text that is nearly right.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9./:,a-f-]{0,40}",
        "[0-9]{1,30}[kmgs]?(-[0-9]{1,30})?",
        "(pid|comm|laddr|raddr|event|\\.|,){0,9}",
        ".{0,40}",
    ]
}

fn cgroup_path() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "(docker-|cri-containerd-|x:y:|)[0-9a-f]{64}(\\.scope|)",
        "(machine-|systemd-nspawn@|lxc\\.payload\\.)[a-z\\\\x0-9]{0,9}(\\.scope|\\.service|)",
        "kubepods-(burstable-)?pod[0-9a-f_]{36}\\.slice",
        ".{0,9}",
    ];
    vec(name, 0..9).prop_map(|names| names.join("/"))
}

/// A list of mounts with holes.
fn mounts() -> impl Strategy<Value = String> {
    "([0-9/:. -]{0,9}|cgroup2| - cgroup2 |/sys/fs/cgroup|\\\\0[0-9]{2}|\n){0,30}"
}

proptest! {
    #[test]
    fn any_records_are_decoded_or_refused(bytes in bytes()) {
        try_on(records, &bytes);
    }

    #[test]
    fn any_ring_is_replayed(bytes in bytes()) {
        try_on(ring, &bytes);
    }

    #[test]
    fn any_type_section_is_scanned(bytes in bytes()) {
        try_on(btf, &bytes);
    }

    #[test]
    fn any_option_is_taken_or_refused(which in any::<u8>(), value in value()) {
        try_on(options, &[&[which], value.as_bytes()].concat());
    }

    #[test]
    fn any_cgroup_is_named_or_not(path in cgroup_path(), mounts in mounts()) {
        try_on(cgroups, path.as_bytes());
        try_on(cgroups, mounts.as_bytes());
    }
}

proptest! {
    // Each goes through all of the kernel's types.
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn damaged_btf_of_a_whole_kernel_is_resolved_or_refused(
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..64),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let Ok(mut bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("skipped: this kernel has no BTF");
            return Ok(());
        };
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        try_on(btf, &bytes);
    }
}
