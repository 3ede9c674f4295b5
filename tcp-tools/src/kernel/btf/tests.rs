//! A builder of tiny BTF, and what becomes of it when it is damaged.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::testing::skip;

const NAMES: Names = Names {
    structs: &["sock", "loop", "s"],
    functions: &["connect", "accept", "close"],
    typedefs: &["btf_trace_a", "btf_trace_b"],
};

/// Appends types; each method returns the id of its type.
#[derive(Clone)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    layouts: Vec<u8>,
    count: u32,
}

/// Name, type, and bits from the start of the struct.
type Members<'a> = &'a [(&'a str, u32, u32)];

impl Builder {
    fn new() -> Self {
        Self {
            types: vec![],
            strings: vec![0],
            layouts: vec![],
            count: 0,
        }
    }

    fn words(&mut self, words: &[u32]) {
        self.types
            .extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let offset = self.strings.len() as u32;
        self.strings.extend(name.bytes().chain([0]));
        offset
    }

    fn add(&mut self, kind: u32, name: &str, vlen: u32, size_or_type: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        self.words(&[name, kind << 24 | vlen, size_or_type]);
        self.words(rest);
        self.count += 1;
        self.count
    }

    fn int(&mut self, bytes: u32) -> u32 {
        self.add(1, "int", 0, bytes, &[8 * bytes])
    }

    fn array(&mut self, element: u32, length: u32) -> u32 {
        self.add(3, "", 0, 0, &[element, element, length])
    }

    /// A struct, or with `kind` 5 a union; with 0x80 a struct whose members may be bitfields.
    fn composite(&mut self, kind: u32, name: &str, bytes: u32, members: Members) -> u32 {
        let words: Vec<_> = members
            .iter()
            .flat_map(|&(name, ty, at)| [self.name(name), ty, at])
            .collect();
        self.add(kind, name, members.len() as u32, bytes, &words)
    }

    fn typedef(&mut self, name: &str, ty: u32) -> u32 {
        self.add(8, name, 0, ty, &[])
    }

    fn pointer(&mut self, ty: u32) -> u32 {
        self.add(2, "", 0, ty, &[])
    }

    /// A function that returns nothing.
    fn prototype(&mut self, arguments: &[u32]) -> u32 {
        let words: Vec<_> = arguments.iter().flat_map(|&ty| [0, ty]).collect();
        self.add(13, "", arguments.len() as u32, 0, &words)
    }

    fn bytes(&self) -> Vec<u8> {
        let sections = [&self.types, &self.strings, &self.layouts];
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(32_u32.to_ne_bytes());
        let mut offset = 0;
        for section in sections {
            bytes.extend((offset as u32).to_ne_bytes());
            bytes.extend((section.len() as u32).to_ne_bytes());
            offset += section.len();
        }
        sections.iter().for_each(|section| bytes.extend(*section));
        bytes
    }

    fn scan(&self) -> Btf {
        scan(self.bytes()).unwrap()
    }
}

fn scan(bytes: Vec<u8>) -> Result<Btf, BtfError> {
    Btf::from_bytes(bytes, Path::new("test.btf"), &NAMES)
}

fn fault(result: Result<impl std::fmt::Debug, BtfError>) -> Fault {
    match result.unwrap_err() {
        BtfError::Invalid { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

/// One of everything that the kernel's `struct sock` has.
fn sample() -> Builder {
    let mut b = Builder::new();
    let [byte, short, int, long] = [1, 2, 4, 8].map(|bytes| b.int(bytes));
    let pointer = b.add(2, "", 0, int, &[]);
    let common = b.composite(
        4,
        "sock_common",
        8,
        &[("family", short, 0), ("state", byte, 16)],
    );
    let volatile = b.add(9, "", 0, long, &[]);
    let tagged = b.add(18, "user", 0, volatile, &[]);
    let typedef = b.add(8, "u64_t", 0, tagged, &[]);
    let sample = b.composite(4, "", 8, &[("t", int, 0), ("v", int, 32)]);
    let sample_typedef = b.add(8, "sample_t", 0, sample, &[]);
    let samples = b.array(sample_typedef, 3);
    let inner = b.composite(4, "", 8, &[("deep", int, 32)]);
    let union = b.composite(5, "", 8, &[("", inner, 0), ("whole", long, 0)]);
    b.composite(4, "sock", 1, &[("other", int, 0)]);
    b.composite(
        0x84,
        "sock",
        72,
        &[
            ("common", common, 0),
            ("bytes", typedef, 64),
            ("", union, 128),
            ("samples", samples, 192),
            ("pointer", pointer, 384),
            ("flag", int, 1 << 24 | 448),
            ("inner", int, 2 << 24 | 451),
            ("astride", int, 3 << 24 | 454),
            ("bits", int, 8 << 24 | 456),
        ],
    );
    let prototype = b.add(13, "", 3, int, &[0, pointer, 0, pointer, 0, int]);
    b.add(12, "connect", 0, prototype, &[]);
    b.add(8, "connect", 0, int, &[]);
    b.add(8, "btf_trace_x", 0, pointer, &[]);
    b
}

#[test]
fn members_are_found_by_path() {
    let btf = sample().scan();
    let at = |path| {
        btf.field("sock", path)
            .unwrap()
            .map(|field| (field.offset, field.size))
    };
    assert_eq!(at("common"), Some((0, 8)));
    assert_eq!(at("common.state"), Some((2, 1)));
    assert_eq!(
        at("bytes"),
        Some((8, 8)),
        "through typedef, type tag and volatile"
    );
    assert_eq!(at("deep"), Some((20, 4)), "inside two anonymous members");
    assert_eq!(at("whole"), Some((16, 8)));
    assert_eq!(at("samples"), Some((24, 24)));
    assert_eq!(at("samples.v"), Some((28, 4)), "in the first element");
    assert_eq!(at("pointer"), Some((48, 8)));
    assert_eq!(at("bits"), Some((57, 1)), "a bitfield of a whole byte");
    assert_eq!(at("other"), Some((0, 4)), "in the other struct of the name");
    for absent in [
        "",
        ".",
        "nothing",
        "stat",
        "common.",
        "common.stat",
        "pointer.x",
        "bytes.x",
    ] {
        assert_eq!(at(absent), None, "{absent:?}");
    }
    assert_eq!(
        btf.field("sock_common", "family").unwrap(),
        None,
        "not among the names"
    );
}

#[test]
fn bitfields_are_refused() {
    let btf = sample().scan();
    assert_eq!(
        btf.field("sock", "flag:1").unwrap(),
        Some(Field {
            offset: 56,
            size: 1,
            shift: 0
        }),
        "as described"
    );
    assert_eq!(
        btf.field("sock", "inner:2").unwrap(),
        Some(Field {
            offset: 56,
            size: 1,
            shift: 3
        })
    );
    assert!(btf.field("sock", "flag:2").is_err(), "other than described");
    assert!(btf.field("sock", "astride:3").is_err(), "in two bytes");
    let error = btf.field("sock", "flag").unwrap_err();
    insta::assert_snapshot!(error, @"sock.flag is a bitfield of 1 bits at bit 448, not made of whole bytes");

    let mut b = Builder::new();
    let old_style = b.add(1, "int", 0, 4, &[2 << 16 | 3]);
    b.composite(4, "s", 4, &[("flag", old_style, 0)]);
    let error = b.scan().field("s", "flag").unwrap_err();
    insta::assert_snapshot!(error, @"s.flag is a bitfield of 3 bits at bit 2, not made of whole bytes");
}

#[test]
fn ids_are_found_by_name_and_kind() {
    let btf = sample().scan();
    assert_eq!(btf.func_id("connect"), Some(18));
    assert_eq!(btf.func_id("accept"), None);
}

#[test]
fn arguments_are_counted() {
    let mut b = sample();
    assert_eq!(b.scan().arg_count("connect").unwrap(), Some(3));
    assert_eq!(b.scan().arg_count("accept").unwrap(), None);
    b.add(12, "accept", 0, 1, &[]);
    b.add(12, "close", 0, 9999, &[]);
    let btf = b.scan();
    assert!(btf.arg_count("accept").is_err(), "its type is no prototype");
    assert!(btf.arg_count("close").is_err(), "its type does not exist");
}

#[test]
fn ids_are_followed_over_the_whole_index() {
    let mut b = Builder::new();
    let ints: Vec<_> = (1..=200).map(|bytes| b.int(bytes % 16 + 1)).collect();
    let names: Vec<_> = ints.iter().map(|id| format!("m{id}")).collect();
    let members: Vec<_> = ints
        .iter()
        .map(|&id| (names[id as usize - 1].as_str(), id, 0))
        .collect();
    b.composite(4, "s", 16, &members);
    let btf = b.scan();
    for id in ints {
        let size = btf.field("s", &format!("m{id}")).unwrap().unwrap().size;
        assert_eq!(size, id % 16 + 1);
    }
}

#[test]
fn kinds_of_later_kernels_are_stepped_over() {
    let mut b = sample();
    b.add(20, "future", 3, 0, &[1, 2, 3, 4]);
    let int = b.int(4);
    b.composite(4, "s", 4, &[("x", int, 0)]);
    let unknown = fault(scan(b.bytes()));
    assert_eq!(
        unknown,
        Fault::Malformed {
            what: "a kind of type that is not known",
            id: 21
        }
    );

    b.layouts = vec![0; 4 * 20];
    b.layouts.extend([4, 4, 0, 0]);
    assert_eq!(
        b.scan().field("s", "x").unwrap(),
        Some(Field {
            offset: 0,
            size: 4,
            shift: 0
        })
    );
}

#[test]
fn types_without_end_are_malformed() {
    let mut b = Builder::new();
    let own_id = b.count + 1;
    b.composite(4, "loop", 8, &[("", own_id, 0), ("", own_id, 0)]);
    let typedef = b.add(8, "t", 0, b.count + 1, &[]);
    let array = b.array(b.count + 1, 9);
    let void = b.add(10, "", 0, 0, &[]);
    let missing = b.add(10, "", 0, 9999, &[]);
    let members = [
        ("typedef", typedef, 0),
        ("array", array, 0),
        ("void", void, 0),
        ("missing", missing, 0),
    ];
    b.composite(4, "s", 8, &members);
    let btf = b.scan();
    assert!(btf.field("loop", "x").is_err());
    for (member, ..) in members {
        assert!(btf.field("s", member).is_err(), "{member}");
        assert!(btf.field("s", &format!("{member}.x")).is_err(), "{member}");
    }
}

#[test]
fn structs_of_one_name_share_a_budget() {
    let mut b = Builder::new();
    let int = b.int(4);
    let members: Vec<_> = (0..1000).map(|_| ("m", int, 0)).collect();
    let large = b.composite(4, "", 8, &members);
    for _ in 0..MAX_FOUND {
        b.composite(4, "s", 8, &[("", large, 0)]);
    }
    let fault = fault(b.scan().field("s", "none"));
    assert!(matches!(fault, Fault::Malformed { .. }), "{fault}");
    b.composite(4, "s", 8, &[("x", int, 0)]);
    let too_many = self::fault(scan(b.bytes()));
    assert!(matches!(too_many, Fault::Malformed { .. }), "{too_many}");
}

#[test]
fn names_of_100_megabytes_take_no_memory() {
    let mut b = sample();
    let name = b.strings.len() as u32;
    b.strings.resize(b.strings.len() + 100_000_000, b's');
    b.strings.push(0);
    for _ in 0..1000 {
        b.words(&[name, 4 << 24, 0]);
        b.words(&[name, 12 << 24, 0]);
    }
    let bytes = b.bytes();
    let taken = allocation_counter::measure(|| {
        let btf = scan(bytes).unwrap();
        assert_eq!(btf.field("sock", "common.state").unwrap().unwrap().size, 1);
        assert_eq!(btf.field("s", "x").unwrap(), None);
    });
    assert!(taken.bytes_max < 1 << 20, "{}", taken.bytes_max);
}

#[test]
fn what_is_not_btf_is_named() {
    let good = sample().bytes();
    let changed = |at: usize, bytes: &[u8]| {
        let mut data = good.clone();
        data[at..at + bytes.len()].copy_from_slice(bytes);
        fault(scan(data))
    };
    assert_eq!(fault(scan(vec![])), Fault::Empty);
    assert_eq!(fault(scan(b"\x7fELF\x02".to_vec())), Fault::Elf);
    assert_eq!(fault(scan(b"#!/bin/sh".to_vec())), Fault::Magic);
    assert_eq!(fault(scan(vec![0])), Fault::Magic);
    assert_eq!(changed(0, &[good[1], good[0]]), Fault::ByteOrder);
    assert_eq!(changed(2, &[9]), Fault::Version(9));
    assert!(matches!(changed(4, &[8, 0, 0, 0]), Fault::Malformed { .. }));
    assert!(matches!(changed(4, &[0xff; 4]), Fault::Truncated { .. }));
    let mut unterminated = sample();
    unterminated.strings.push(b'x');
    assert!(matches!(
        fault(scan(unterminated.bytes())),
        Fault::Malformed { .. }
    ));

    let expected = good.len() as u64;
    for length in 2..good.len() {
        // The header's sections all end inside the file, the last one (empty) at its end.
        let actual = length as u64;
        match fault(scan(good[..length].to_vec())) {
            Fault::Truncated {
                expected: e,
                actual: a,
            } => assert!(a == actual && e <= expected),
            other => panic!("{length} bytes: {other}"),
        }
    }
}

#[test]
fn files_that_cannot_be_had_are_named() {
    let missing = Path::new("/nonexistent/vmlinux.btf");
    let error = Btf::load(Some(missing), &NAMES).unwrap_err();
    insta::assert_snapshot!(error, @r#"the BTF file "/nonexistent/vmlinux.btf" does not exist"#);

    let error = Btf::load(Some(Path::new("/")), &NAMES).unwrap_err();
    insta::assert_snapshot!(error, @r#"cannot read BTF from "/""#);

    let mut file = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(fault(Btf::load(Some(file.path()), &NAMES)), Fault::Empty);
    file.write_all(&sample().bytes()).unwrap();
    let btf = Btf::load(Some(file.path()), &NAMES).unwrap();
    assert_eq!(btf.func_id("connect"), Some(18));
    // A file without an end is read no further than the bound.
    assert_eq!(
        fault(Btf::load(Some(Path::new("/dev/null")), &NAMES)),
        Fault::Empty
    );
}

#[test]
fn the_running_kernel_is_understood() {
    if !Path::new(KERNEL_BTF).exists() {
        return skip("BTF of the running kernel");
    }
    let names = Names {
        structs: &["sock", "tcp_sock", "net", "task_struct"],
        functions: &["tcp_connect", "bpf_iter_tcp"],
        typedefs: &["btf_trace_tcp_retransmit_skb"],
    };
    // Mapped, and read.
    for path in [None, Some(Path::new(KERNEL_BTF))] {
        let btf = Btf::load(path, &names).unwrap();
        let field = |strukt, path| btf.field(strukt, path).unwrap().unwrap();
        assert_eq!(
            field("sock", "__sk_common.skc_family"),
            Field {
                offset: 16,
                size: 2,
                shift: 0
            }
        );
        assert_eq!(field("tcp_sock", "bytes_acked").size, 8);
        assert_eq!(field("tcp_sock", "rtt_min.s.v").size, 4);
        assert_eq!(field("net", "ns.inum").size, 4);
        assert_eq!(field("task_struct", "comm").size, 16);
        assert!(btf.func_id("tcp_connect").is_some());
        assert!(btf.func_id("bpf_iter_tcp").is_some());
        assert_eq!(btf.arg_count("tcp_connect").unwrap(), Some(1));
    }
}

/// Everything a caller can ask; only that it returns matters.
fn ask(bytes: Vec<u8>) {
    let Ok(btf) = scan(bytes) else { return };
    for path in [
        "common.state",
        "bytes",
        "deep",
        "samples.v",
        "pointer.x",
        "bits",
        "flag",
        "none",
    ] {
        let _ = btf.field("sock", path);
    }
    let _ = btf.func_id("connect");
    let _ = btf.arg_count("connect");
}

proptest! {
    #[test]
    fn any_bytes_return(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        ask(bytes);
    }

    #[test]
    fn any_types_return(types in prop::collection::vec(any::<u8>(), 0..512)) {
        let strings = b"\0sock\0connect\0btf_trace_x\0".to_vec();
        ask(Builder { types, strings, layouts: vec![], count: 0 }.bytes());
    }

    #[test]
    fn damaged_btf_returns(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = sample().bytes();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        ask(bytes);
    }
}

#[test]
fn arguments_of_what_a_tracepoint_calls_are_counted() {
    let mut builder = Builder::new();
    let int = builder.int(4);
    let function = builder.prototype(&[int, int, int]);
    let pointer = builder.pointer(function);
    builder.typedef("btf_trace_a", pointer);
    builder.typedef("btf_trace_b", int);
    let btf = Btf::from_bytes(builder.bytes(), Path::new("test"), &NAMES).unwrap();
    assert_eq!(btf.pointer_arg_count("btf_trace_a").unwrap(), Some(3));
    assert!(btf.pointer_arg_count("btf_trace_b").is_err());
    assert_eq!(btf.pointer_arg_count("btf_trace_c").unwrap(), None);
}
