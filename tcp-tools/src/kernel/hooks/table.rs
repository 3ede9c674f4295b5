//! The table: each probe point, and what it can attach by, best first.

use std::fmt;

use How::{Fentry, Fexit, Iterator, Kprobe, Kretprobe, RawTracepoint, Tracepoint, With};

/// Something that happens in the kernel, whichever way it is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// A socket changes its state.
    State,
    /// A socket changes its state, and the kernel has skipped the program of [`Point::State`].
    StateAgain,
    /// A SYN is about to be sent.
    Connect,
    /// connect() is called.
    ConnectCall,
    /// connect() returns.
    ConnectReturn,
    /// A socket sends a RST.
    Reset,
    /// A connection is handed to a process.
    Accept,
    /// A socket begins to listen.
    Listen,
    /// A segment is sent again.
    Retransmit,
    /// A SYN-ACK is sent again.
    SynAck,
    /// A tail loss probe is about to be sent.
    LossProbe,
    /// A tail loss probe has been sent, or has not.
    LossProbeReturn,
    /// A process is born.
    Fork,
    /// A process ends.
    Exit,
    /// Remembers the sockets that are open already.
    SeedSockets,
    /// Finds out who holds them.
    SeedOwners,
    /// Lists what is open.
    OpenSockets,
    /// Lists all sockets, in whatever state.
    Sockets,
    /// Lists the descriptors of sockets, and whose they are.
    Holders,
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
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    RawTracepoint,
    Fentry,
    Fexit,
    Kprobe,
    Kretprobe,
    /// Targets are `category/name`.
    Tracepoint,
    Iterator,
    /// Another point's program does the work.
    With(Point),
}

pub(super) struct Mechanism {
    /// `None`: belongs to every tier.
    pub(super) tier: Option<Tier>,
    pub(super) how: How,
    pub(super) program: &'static str,
    pub(super) targets: &'static [&'static str],
}

type Targets = &'static [&'static str];

const fn tracepoint(how: How, program: &'static str, targets: Targets) -> Mechanism {
    Mechanism {
        tier: Some(Tier::Tracepoint),
        how,
        program,
        targets,
    }
}

const fn fentry(how: How, program: &'static str, targets: Targets) -> Mechanism {
    Mechanism {
        tier: Some(Tier::Fentry),
        how,
        program,
        targets,
    }
}

const fn kprobe(how: How, program: &'static str, targets: Targets) -> Mechanism {
    Mechanism {
        tier: Some(Tier::Kprobe),
        how,
        program,
        targets,
    }
}

const fn any(how: How, program: &'static str, targets: Targets) -> Mechanism {
    Mechanism {
        tier: None,
        how,
        program,
        targets,
    }
}

pub(super) const HOOKS: &[(Point, &[Mechanism])] = &[
    (
        Point::State,
        &[
            tracepoint(RawTracepoint, "state_raw_tp", &["inet_sock_set_state"]),
            fentry(Fentry, "state_fentry", &["tcp_set_state"]),
            kprobe(Kprobe, "state_kprobe", &["tcp_set_state"]),
        ],
    ),
    (
        Point::StateAgain,
        &[any(
            RawTracepoint,
            "state_again_raw_tp",
            &["inet_sock_set_state"],
        )],
    ),
    (
        Point::Reset,
        &[any(RawTracepoint, "reset_raw_tp", &["tcp_send_reset"])],
    ),
    (
        Point::Connect,
        &[
            fentry(Fentry, "connect_fentry", &["tcp_connect"]),
            kprobe(Kprobe, "connect_kprobe", &["tcp_connect"]),
            tracepoint(With(Point::State), "", &["SYN_SENT"]),
        ],
    ),
    (
        Point::ConnectCall,
        &[any(
            Tracepoint,
            "connect_enter_tp",
            &["syscalls/sys_enter_connect"],
        )],
    ),
    (
        Point::ConnectReturn,
        &[any(
            Tracepoint,
            "connect_exit_tp",
            &["syscalls/sys_exit_connect"],
        )],
    ),
    (
        Point::Accept,
        &[
            fentry(Fentry, "accept_fentry", &["security_sock_graft"]),
            kprobe(Kprobe, "accept_kprobe", &["security_sock_graft"]),
            tracepoint(
                Tracepoint,
                "accept_tp",
                &["syscalls/sys_exit_accept4", "syscalls/sys_exit_accept"],
            ),
            // Last: it may miss calls and not know, see there.
            fentry(Fexit, "accept_fexit", &["inet_csk_accept"]),
        ],
    ),
    (
        Point::Listen,
        &[any(
            RawTracepoint,
            "listen_raw_tp",
            &["inet_sock_set_state"],
        )],
    ),
    (
        Point::Retransmit,
        &[any(
            RawTracepoint,
            "retransmit_raw_tp",
            &["tcp_retransmit_skb"],
        )],
    ),
    (
        Point::SynAck,
        &[any(
            RawTracepoint,
            "synack_raw_tp",
            &["tcp_retransmit_synack"],
        )],
    ),
    (
        Point::LossProbe,
        &[
            fentry(Fentry, "loss_probe_fentry", &["tcp_send_loss_probe"]),
            kprobe(Kprobe, "loss_probe_kprobe", &["tcp_send_loss_probe"]),
        ],
    ),
    (
        Point::LossProbeReturn,
        &[
            fentry(Fexit, "loss_probe_fexit", &["tcp_send_loss_probe"]),
            kprobe(Kretprobe, "loss_probe_kretprobe", &["tcp_send_loss_probe"]),
        ],
    ),
    (
        Point::Fork,
        &[any(RawTracepoint, "fork_raw_tp", &["sched_process_fork"])],
    ),
    (
        Point::Exit,
        &[any(RawTracepoint, "exit_raw_tp", &["sched_process_exit"])],
    ),
    (
        Point::SeedSockets,
        &[any(Iterator, "seed_sockets", &["bpf_iter_tcp"])],
    ),
    (
        Point::SeedOwners,
        &[any(Iterator, "seed_owners", &["bpf_iter_task_file"])],
    ),
    (
        Point::OpenSockets,
        &[any(Iterator, "dump_sockets", &["bpf_iter_tcp"])],
    ),
    (
        Point::Sockets,
        &[any(Iterator, "list_sockets", &["bpf_iter_tcp"])],
    ),
    (
        Point::Holders,
        &[any(Iterator, "list_holders", &["bpf_iter_task_file"])],
    ),
];

pub(super) fn mechanisms(point: Point) -> &'static [Mechanism] {
    HOOKS
        .iter()
        .find(|(known, _)| *known == point)
        .map_or(&[], |(_, all)| all)
}

impl Point {
    /// All points, in the order in which they attach.
    pub fn all() -> impl std::iter::Iterator<Item = Self> {
        HOOKS.iter().map(|(point, _)| *point)
    }

    /// Whether it has mechanisms of different tiers to choose from.
    #[must_use]
    pub fn has_tiers(self) -> bool {
        mechanisms(self)
            .iter()
            .any(|mechanism| mechanism.tier.is_some())
    }

    /// Whether no view needs it to run: not every tier has it.
    #[must_use]
    pub fn is_optional(self) -> bool {
        matches!(self, Self::LossProbe | Self::LossProbeReturn)
    }

    /// Whether it is used once everything is attached: a snapshot of what is there then.
    #[must_use]
    pub fn is_for_later(self) -> bool {
        matches!(self, Self::OpenSockets | Self::Sockets | Self::Holders)
    }

    /// Whether it is read once in every network namespace.
    #[must_use]
    pub fn is_by_namespace(self) -> bool {
        matches!(self, Self::SeedSockets | Self::OpenSockets | Self::Sockets)
    }

    /// What is missing without it; `None` if nothing works then.
    #[must_use]
    pub fn loss(self) -> Option<&'static str> {
        match self {
            Self::State | Self::Retransmit | Self::Sockets => None,
            Self::StateAgain => {
                Some("sessions may be missed if an interrupt arrives while the program runs")
            }
            Self::Reset => Some(
                "resets that the kernel sends on its own are not seen: such a session shows fin, aborted or rst_received",
            ),
            Self::Connect => Some("handshake times include the choice of a local port"),
            Self::ConnectCall | Self::ConnectReturn => {
                Some("attempts that fail before a SYN is sent are not seen")
            }
            Self::Accept => Some("owners of accepted connections are not known"),
            Self::Listen => Some("owners of listeners made during the trace are not known"),
            Self::SynAck => Some("retransmitted SYN-ACKs are not seen"),
            Self::LossProbe | Self::LossProbeReturn => {
                Some("tail loss probes that carry new data are not seen")
            }
            Self::Fork => Some("children of traced processes are not followed"),
            Self::Exit => Some("the PID of a traced process may be reused"),
            Self::SeedSockets => {
                Some("sessions opened before the trace show no bytes since it began")
            }
            Self::SeedOwners => Some("owners of sessions opened before the trace are not known"),
            Self::OpenSockets => {
                Some("what is open cannot be listed, nor its bytes counted before it is closed")
            }
            Self::Holders => Some("owners of sockets are not known"),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::State => "state",
            Self::StateAgain => "state_again",
            Self::Reset => "reset",
            Self::Connect => "connect",
            Self::ConnectCall => "connect_call",
            Self::ConnectReturn => "connect_return",
            Self::Accept => "accept",
            Self::Listen => "listen",
            Self::Retransmit => "retransmit",
            Self::SynAck => "synack",
            Self::LossProbe => "loss_probe",
            Self::LossProbeReturn => "loss_probe_return",
            Self::Fork => "fork",
            Self::Exit => "exit",
            Self::SeedSockets => "seed_sockets",
            Self::SeedOwners => "seed_owners",
            Self::OpenSockets => "open_sockets",
            Self::Sockets => "sockets",
            Self::Holders => "holders",
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
            RawTracepoint => "raw_tracepoint",
            Fentry => "fentry",
            Fexit => "fexit",
            Kprobe => "kprobe",
            Kretprobe => "kretprobe",
            Tracepoint => "tracepoint",
            Iterator => "iterator",
            With(point) => return write!(f, "{point}: {}", self.targets.join(", ")),
        };
        write!(f, "{how} {}", self.targets.join(", "))?;
        if self.program == "accept_fexit" {
            f.write_str(" (misses calls that were blocked before the trace)")?;
        }
        Ok(())
    }
}
