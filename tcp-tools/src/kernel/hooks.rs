//! The hook table: what each probe point can attach by, best first.
//!
//! What really loads and attaches decides, never the kernel's version. Every refusal is kept with its
//! reason, for `doctor` and for the message when nothing is left.

use std::{
    fmt, fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::{btf::Btf, object::Object, sys, tracefs};
use aya_obj::generated::{bpf_attach_type, bpf_prog_type};

/// Something that happens in the kernel, whichever way it is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// A socket changes its state.
    State,
    /// A SYN is about to be sent.
    Connect,
    /// A connection is handed to a process.
    Accept,
    /// Remembers the sockets that are open already.
    SeedSockets,
    /// Finds out who holds them.
    SeedOwners,
    /// Lists the sessions that are open at the end.
    OpenSockets,
}

/// A family of mechanisms, as `--hooks` forces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// BPF trampolines: fentry and fexit
    Fentry,
    /// Kernel probes
    Kprobe,
    /// Tracepoints only, no function is hooked
    Tracepoint,
}

/// How a program is attached.
#[derive(Clone, Copy)]
enum How {
    RawTracepoint,
    Fentry,
    Fexit,
    Kprobe,
    /// Targets are `category/name`.
    Tracepoint,
    Iterator,
    /// Another point's program does the work.
    With(Point),
}

struct Mechanism {
    /// `None`: belongs to every tier.
    tier: Option<Tier>,
    how: How,
    program: &'static str,
    targets: &'static [&'static str],
}

const fn by(
    tier: Tier,
    how: How,
    program: &'static str,
    targets: &'static [&'static str],
) -> Mechanism {
    Mechanism {
        tier: Some(tier),
        how,
        program,
        targets,
    }
}

const fn iterator(program: &'static str, target: &'static [&'static str]) -> Mechanism {
    Mechanism {
        tier: None,
        how: How::Iterator,
        program,
        targets: target,
    }
}

/// Accept by kprobe: see `accept_kprobe` in tcp-ebpf for why it is not a kretprobe.
const HOOKS: &[(Point, &[Mechanism])] = &[
    (
        Point::State,
        &[
            by(
                Tier::Tracepoint,
                How::RawTracepoint,
                "state_raw_tp",
                &["inet_sock_set_state"],
            ),
            by(
                Tier::Fentry,
                How::Fentry,
                "state_fentry",
                &["tcp_set_state"],
            ),
            by(
                Tier::Kprobe,
                How::Kprobe,
                "state_kprobe",
                &["tcp_set_state"],
            ),
        ],
    ),
    (
        Point::Connect,
        &[
            by(
                Tier::Fentry,
                How::Fentry,
                "connect_fentry",
                &["tcp_connect"],
            ),
            by(
                Tier::Kprobe,
                How::Kprobe,
                "connect_kprobe",
                &["tcp_connect"],
            ),
            by(Tier::Tracepoint, How::With(Point::State), "", &["SYN_SENT"]),
        ],
    ),
    (
        Point::Accept,
        &[
            by(
                Tier::Fentry,
                How::Fexit,
                "accept_fexit",
                &["inet_csk_accept"],
            ),
            by(
                Tier::Kprobe,
                How::Kprobe,
                "accept_kprobe",
                &["security_sock_graft"],
            ),
            by(
                Tier::Tracepoint,
                How::Tracepoint,
                "accept_tp",
                &["syscalls/sys_exit_accept4", "syscalls/sys_exit_accept"],
            ),
        ],
    ),
    (
        Point::SeedSockets,
        &[iterator("seed_sockets", &["bpf_iter_tcp"])],
    ),
    (
        Point::SeedOwners,
        &[iterator("seed_owners", &["bpf_iter_task_file"])],
    ),
    (
        Point::OpenSockets,
        &[iterator("dump_sockets", &["bpf_iter_tcp"])],
    ),
];

impl Point {
    /// All points, in the order in which they attach.
    pub fn all() -> impl Iterator<Item = Self> {
        HOOKS.iter().map(|(point, _)| *point)
    }

    /// Whether it has mechanisms of different tiers to choose from.
    #[must_use]
    pub fn has_tiers(self) -> bool {
        mechanisms(self)
            .iter()
            .any(|mechanism| mechanism.tier.is_some())
    }

    /// What is missing without it; `None` if nothing works then.
    #[must_use]
    pub fn loss(self) -> Option<&'static str> {
        match self {
            Self::State => None,
            Self::Connect => Some("handshake times include the choice of a local port"),
            Self::Accept => Some("owners of accepted connections are not known"),
            Self::SeedSockets => {
                Some("sessions opened before the trace show no bytes since it began")
            }
            Self::SeedOwners => Some("owners of sessions opened before the trace are not known"),
            Self::OpenSockets => Some("open sessions cannot be listed"),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::State => "state",
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::SeedSockets => "seed_sockets",
            Self::SeedOwners => "seed_owners",
            Self::OpenSockets => "open_sockets",
        })
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        })
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            How::RawTracepoint => "raw_tracepoint",
            How::Fentry => "fentry",
            How::Fexit => "fexit",
            How::Kprobe => "kprobe",
            How::Tracepoint => "tracepoint",
            How::Iterator => "iterator",
            How::With(point) => return write!(f, "{point} at {}", self.targets.join(", ")),
        };
        write!(f, "{how} {}", self.targets.join(", "))
    }
}

/// A mechanism that this kernel did not give.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Like `fentry tcp_connect`.
    pub mechanism: String,
    /// Why.
    pub reason: String,
}

/// What became of a probe point.
#[derive(Debug)]
pub struct Attached {
    /// Which one.
    pub point: Point,
    /// The mechanism that attached, if any.
    pub chosen: Option<String>,
    /// Its tier; `None` if it belongs to all, or there is none.
    pub tier: Option<Tier>,
    /// Better ones that did not.
    pub refused: Vec<Refusal>,
    program: Option<OwnedFd>,
    /// Detaches when dropped.
    links: Vec<OwnedFd>,
}

impl Attached {
    /// The program that does the work, where it is this point's own.
    pub(super) fn program(&self) -> Option<BorrowedFd<'_>> {
        self.program.as_ref().map(|fd| fd.as_fd())
    }

    /// The program stays loaded, so that its counters can be read still.
    pub(super) fn detach(&mut self) {
        self.links.clear();
    }

    pub(super) fn link(&self) -> Option<BorrowedFd<'_>> {
        self.links.first().map(|fd| fd.as_fd())
    }
}

/// Attaches `point` by the first mechanism that works, among those of `tier` if one is forced.
pub(super) fn attach(object: &Object, btf: &Btf, point: Point, tier: Option<Tier>) -> Attached {
    let mut attached = Attached {
        point,
        chosen: None,
        tier: None,
        refused: Vec::new(),
        program: None,
        links: Vec::new(),
    };
    for mechanism in mechanisms(point) {
        if tier.is_some() && mechanism.tier.is_some() && mechanism.tier != tier {
            continue;
        }
        match mechanism.attach(object, btf) {
            Ok((program, links)) => {
                attached.chosen = Some(mechanism.to_string());
                attached.tier = mechanism.tier;
                attached.program = program;
                attached.links = links;
                break;
            }
            Err(reason) => {
                attached.refused.push(Refusal {
                    mechanism: mechanism.to_string(),
                    reason,
                });
            }
        }
    }
    attached
}

/// All refusals in one line.
pub(super) fn reasons(refused: &[Refusal]) -> String {
    let each: Vec<_> = refused
        .iter()
        .map(|it| format!("{}: {}", it.mechanism, it.reason))
        .collect();
    each.join("; ")
}

fn mechanisms(point: Point) -> &'static [Mechanism] {
    HOOKS
        .iter()
        .find(|(known, _)| *known == point)
        .map_or(&[], |(_, all)| all)
}

type Links = (Option<OwnedFd>, Vec<OwnedFd>);

impl Mechanism {
    fn attach(&self, object: &Object, btf: &Btf) -> Result<Links, String> {
        let (kind, attach_type) = match self.how {
            How::With(_) => return Ok((None, Vec::new())),
            How::RawTracepoint => (bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT, None),
            How::Kprobe => (bpf_prog_type::BPF_PROG_TYPE_KPROBE, None),
            How::Tracepoint => (bpf_prog_type::BPF_PROG_TYPE_TRACEPOINT, None),
            How::Fentry => tracing(bpf_attach_type::BPF_TRACE_FENTRY),
            How::Fexit => tracing(bpf_attach_type::BPF_TRACE_FEXIT),
            How::Iterator => tracing(bpf_attach_type::BPF_TRACE_ITER),
        };
        let target = match (attach_type, self.targets) {
            (Some(attach_type), [function, ..]) => {
                let id = btf
                    .func_id(function)
                    .ok_or_else(|| format!("this kernel's BTF has no function {function}"))?;
                Some((attach_type, id))
            }
            _ => None,
        };
        let program = object
            .load(self.program, kind, target)
            .map_err(|error| error.to_string())?;
        let links = self
            .targets
            .iter()
            .map(|name| self.link(name, program.as_fd()))
            .collect::<Result<_, _>>()?;
        Ok((Some(program), links))
    }

    fn link(&self, target: &str, program: BorrowedFd<'_>) -> Result<OwnedFd, String> {
        let failed = |error: io::Error| format!("cannot attach to {target}: {error}");
        match self.how {
            How::RawTracepoint => {
                let name = std::ffi::CString::new(target).map_err(|error| error.to_string())?;
                sys::raw_tracepoint_open(Some(&name), program).map_err(failed)
            }
            How::Fentry | How::Fexit => sys::raw_tracepoint_open(None, program).map_err(failed),
            How::Iterator => sys::iter_link(program).map_err(failed),
            How::Kprobe => {
                let event = sys::perf_kprobe(kprobe_pmu()?, target).map_err(failed)?;
                sys::perf_attach(event.as_fd(), program).map_err(failed)?;
                Ok(event)
            }
            How::Tracepoint => {
                let event =
                    sys::perf_tracepoint(tracefs::tracepoint_id(target)?).map_err(failed)?;
                sys::perf_attach(event.as_fd(), program).map_err(failed)?;
                Ok(event)
            }
            How::With(_) => Err(String::from("nothing to attach")),
        }
    }
}

fn tracing(attach_type: bpf_attach_type) -> (bpf_prog_type, Option<bpf_attach_type>) {
    (bpf_prog_type::BPF_PROG_TYPE_TRACING, Some(attach_type))
}

fn kprobe_pmu() -> Result<u32, String> {
    const PATH: &str = "/sys/bus/event_source/devices/kprobe/type";
    if cfg!(not(target_arch = "x86_64")) {
        return Err(String::from("the kprobe programs are built for x86_64"));
    }
    match fs::read_to_string(PATH) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|error| format!("{PATH}: {error}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(String::from(
            "this kernel has no kprobes (CONFIG_KPROBE_EVENTS)",
        )),
        Err(error) => Err(format!("{PATH}: {error}")),
    }
}
