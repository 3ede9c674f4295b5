//! What can go wrong between here and the kernel.

use std::{error::Error as StdError, io};

use super::{Point, Tier, btf::BtfError, pseudo::NO_PROC};

/// Why a trace cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Capabilities are missing.
    #[error(
        "tracing needs {} (or CAP_SYS_ADMIN), which this process lacks: run it as root, with sudo; \
         root of a user namespace (a rootless container) is not enough",
        .0.join(" and ")
    )]
    Privilege(Vec<&'static str>),
    /// The kernel's type information is of no use.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The kernel lacks a field that nothing works without.
    #[error(
        "this kernel's BTF has no {field}, which is needed: tcp-tools does not know this kernel yet, \
         please report it with the output of `uname -r`"
    )]
    MissingField {
        /// Like `tcp_sock.bytes_acked`.
        field: String,
    },
    /// A field is not what it is on other kernels.
    #[error(
        "in this kernel's BTF {field} has {found} bytes instead of {expected}: tcp-tools does not know \
         this kernel yet, please report it with the output of `uname -r`"
    )]
    FieldSize {
        /// Like `tcp_sock.bytes_acked`.
        field: String,
        /// Bytes in this kernel.
        found: u32,
        /// Bytes that the programs read.
        expected: u32,
    },
    /// The kernel is older than the programs need.
    #[error("this kernel has no BPF ring buffer: tcp-tools needs Linux 5.8 or newer")]
    NoRingBuffer,
    /// A map could not be made.
    #[error("cannot set up the BPF map {name}")]
    Map {
        /// Its name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An essential probe point could not be attached.
    #[error("cannot attach to {point}: {reasons}")]
    Point {
        /// Which one.
        point: Point,
        /// Each mechanism and why it was refused.
        reasons: String,
    },
    /// `--hooks` asks for what this kernel does not give.
    #[error("--hooks {tier} is not possible on this kernel: {point}: {reasons}")]
    Tier {
        /// What was asked for.
        tier: Tier,
        /// The first point that it fails at.
        point: Point,
        /// Each mechanism and why it was refused.
        reasons: String,
    },
    /// The ring buffer cannot be waited on.
    #[error("cannot wait for the ring buffer: {0}")]
    Ring(io::Error),
    /// Network namespaces cannot be found.
    #[error(
        "cannot list the open sockets: processes and their network namespaces are found in /proc, and {NO_PROC}"
    )]
    NoProc,
    /// An iterator failed.
    #[error("cannot take a snapshot of the open sockets: {0}")]
    Snapshot(io::Error),
    /// The kernel does not give a program's counters.
    #[error("cannot read the loss counters: {0}")]
    Counters(io::Error),
    /// The kernel object does not fit this program: a defect.
    #[error("the kernel object is unusable: {0}")]
    Object(Box<dyn StdError + Send + Sync>),
}

impl Error {
    pub(super) fn object(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Object(error.into())
    }
}
