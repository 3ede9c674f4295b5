//! Samples, damaged; and what they cost.

use allocation_counter::measure;
use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tcp_ebpf::wire;

use super::*;
use crate::testing::skip;

/// Memory that an input may take at a time, beside so many times its own size: tables of fixed size, such as
/// those of a histogram.
const FIXED: u64 = 16 << 20;
const TIMES: u64 = 16;

/// Feeds `bytes` to `door`, and weighs what is allocated meanwhile.
fn try_on(door: impl FnOnce(&[u8]), bytes: &[u8]) {
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

/// A ring of samples, some of them damaged.
fn damaged_samples() -> impl Strategy<Value = Vec<u8>> {
    let flips = vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let record = (0..SAMPLES.len(), flips).prop_map(|(which, flips)| {
        let mut record = vec![0; 1 + SAMPLES[which].len()];
        record[0] = which as u8;
        for (at, wrong) in flips {
            record[1 + at.index(SAMPLES[which].len())] ^= wrong;
        }
        record
    });
    vec(record, 0..30).prop_map(|records| records.concat())
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
    fn any_damaged_samples_are_replayed(
        view in 0..VIEWS.len(),
        format in any::<u8>(),
        samples in damaged_samples(),
    ) {
        try_on(ring, &[&[view as u8, format], &samples[..]].concat());
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

/// Every sample, and the same with another low byte in each of its words: a view may show only what has changed.
fn all_samples() -> Vec<u8> {
    let ring_of = |(which, sample): (usize, &Vec<u8>)| {
        let of_word = |word: Option<usize>| {
            let mut record = vec![0; 1 + sample.len()];
            record[0] = which as u8;
            if let Some(word) = word {
                record[1 + word] = 2;
            }
            record
        };
        let words = (8..sample.len()).step_by(8).map(Some);
        std::iter::once(None)
            .chain(words)
            .flat_map(of_word)
            .collect()
    };
    SAMPLES
        .iter()
        .enumerate()
        .flat_map::<Vec<u8>, _>(ring_of)
        .collect()
}

#[test]
fn each_kind_has_a_sample_of_its_size() {
    let length = |kind| {
        let samples = SAMPLES.iter().filter(|sample| sample[0] == kind);
        let lengths: BTreeSet<usize> = samples.map(Vec::len).collect();
        lengths.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(length(kind::SESSION), [size_of::<wire::Session>()]);
    assert_eq!(length(kind::HOLDER), [size_of::<wire::Holder>()]);
    assert_eq!(length(kind::IDLE), [size_of::<wire::Idle>()]);
    // Numbered without a gap: a kind that nothing decodes, or whose sample is not valid, would leave one.
    let kinds: BTreeSet<u8> = SAMPLES.iter().map(|sample| sample[0]).collect();
    assert_eq!(kinds, (1..=kinds.len() as u8).collect());
    assert!(kinds.contains(&kind::IDLE) && SAMPLES.len() == 2 * kinds.len());
}

#[test]
fn each_view_is_fuzzed() {
    let commands = crate::cli::definition();
    let commands: BTreeSet<&str> = commands.get_subcommands().map(Command::get_name).collect();
    let others = ["schema", "doctor"];
    let views: BTreeSet<&str> = VIEWS.iter().map(|(name, _)| *name).chain(others).collect();
    assert_eq!(commands, views);
}

/// Enough for the property tests to mean something: what is replayed is decoded, and shown.
#[test]
fn each_kind_is_decoded_and_each_view_makes_rows() {
    let kinds: BTreeSet<u8> = SAMPLES.iter().map(|sample| sample[0]).collect();
    let ring = all_samples();
    for (number, view) in VIEWS.iter().enumerate() {
        let formats = 0..FORMATS.len() as u8;
        let usable = formats.filter(|format| {
            if any_view(number, FORMATS[usize::from(*format)]).is_none() {
                return false;
            }
            let replayed = replay(&[&[number as u8, *format], &ring[..]].concat());
            assert_eq!(replayed.kinds, kinds, "{view:?} {format}");
            assert!(replayed.has_rows, "{view:?} {format}");
            true
        });
        assert!(usable.count() >= 4, "{view:?}");
    }
}

/// The same of what the property test makes: most of it is still decoded.
#[test]
fn damaged_samples_are_of_each_kind_and_in_each_view() {
    let mut runner = TestRunner::deterministic();
    let samples = damaged_samples();
    for (number, view) in VIEWS.iter().enumerate() {
        let mut replayed = Replayed::default();
        for format in 0..40 {
            let samples = samples.new_tree(&mut runner).unwrap().current();
            let Replayed { kinds, has_rows } =
                replay(&[&[number as u8, format], &samples[..]].concat());
            replayed.kinds.extend(kinds);
            replayed.has_rows |= has_rows;
        }
        let kinds: BTreeSet<u8> = SAMPLES.iter().map(|sample| sample[0]).collect();
        assert_eq!(replayed.kinds, kinds, "{view:?}");
        assert!(replayed.has_rows, "{view:?}");
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
            skip("BTF of the running kernel");
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
