//! What can be wrong with BTF.

use std::path::PathBuf;

/// Why type information cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The running kernel has none.
    #[error(
        "this kernel was built without BTF (CONFIG_DEBUG_INFO_BTF): {} does not exist; \
         give the BTF of this very kernel with --btf FILE",
        super::KERNEL_BTF
    )]
    NotInKernel,
    /// Whether the running kernel has any cannot be seen.
    #[error(
        "cannot read the kernel's BTF, {}: sysfs is not mounted on /sys here, or is covered; mount it \
         (mount -t sysfs sysfs /sys), or give the BTF of this very kernel with --btf FILE",
        super::KERNEL_BTF
    )]
    NoSysfs,
    /// The file that was asked for does not exist.
    #[error("the BTF file {file:?} does not exist")]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("cannot read BTF from {file:?}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file does not hold valid BTF.
    #[error("{file:?}: {fault}")]
    Invalid {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A member that no byte offset can describe.
    #[error("{member} is a bitfield of {size} bits at bit {offset}, not made of whole bytes")]
    Bitfield {
        /// Struct and path of the member.
        member: String,
        /// Bits.
        size: u64,
        /// Bits from the start of the struct.
        offset: u64,
    },
}

/// What is wrong with bytes that should be BTF.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There are none.
    #[error("the file is empty")]
    Empty,
    /// An ELF file, which may hold BTF as a section.
    #[error(
        "this is an ELF file, not raw BTF; extract its section with \
         `objcopy -O binary --only-section=.BTF --set-section-flags .BTF=alloc ELF FILE`"
    )]
    Elf,
    /// BTF of a machine with the other byte order.
    #[error("this is BTF of a machine with the other byte order")]
    ByteOrder,
    /// Not BTF at all.
    #[error("this is not BTF (bad magic)")]
    Magic,
    /// A format that does not exist yet.
    #[error("BTF version {0} is not known, only 1")]
    Version(u8),
    /// The header announces more than there is.
    #[error("truncated: the BTF needs {expected} bytes and the file has {actual}")]
    Truncated {
        /// Bytes, as the header has it.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// Something inside contradicts the format.
    #[error("malformed BTF: {what} (type {id})")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// The id of the type that is wrong; 0 for the whole.
        id: u32,
    },
}
