//! Resolves the table of fields that the programs read against a kernel's BTF.

use std::path::Path;

use tcp_ebpf::offsets::{ABSENT, BIT_SHIFT, FIELDS, FieldSpec, Need};

use super::{
    Error,
    btf::{Btf, Field, Names},
};

/// The offsets, as the bytes of the programs' `.rodata` global.
pub(super) struct Offsets {
    pub(super) bytes: Vec<u8>,
    /// What this kernel lacks, and what that switches off.
    pub(super) missing: Vec<MissingField>,
}

/// A field that this kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingField {
    /// Like `sock.__sk_common.skc_v6_daddr`.
    pub field: String,
    /// What is switched off.
    pub loss: &'static str,
}

/// Functions that programs of this crate attach to by their id in the kernel's BTF, and helpers that only
/// newer kernels have.
const FUNCTIONS: &[&str] = &[
    "bpf_iter_task_file",
    "bpf_iter_tcp",
    TASK_REGISTERS,
    ACCEPT,
    "security_sock_graft",
    "tcp_connect",
    "tcp_send_loss_probe",
    "tcp_set_state",
];

const ACCEPT: &str = "inet_csk_accept";

/// The type of what is called at the tracepoint `tcp_retransmit_skb`.
const RETRANSMIT_TRACEPOINT: &str = "btf_trace_tcp_retransmit_skb";

/// Linux 5.15.
const TASK_REGISTERS: &str = "bpf_task_pt_regs";

/// Reads the type information of a kernel, and finds what will be asked of it.
pub(super) fn scan(file: Option<&Path>) -> Result<Btf, Error> {
    let mut structs: Vec<_> = FIELDS.iter().map(|field| field.strukt).collect();
    structs.sort_unstable();
    structs.dedup();
    let names = Names {
        structs: &structs,
        functions: FUNCTIONS,
        typedefs: &[RETRANSMIT_TRACEPOINT],
    };
    Ok(Btf::load(file, &names)?)
}

/// How many arguments functions have, as the programs' `.rodata` globals. A count is 0 where there is no such
/// function: no program attaches to it then, or none reads the argument in question.
pub(super) fn arg_counts(btf: &Btf) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    let accept = btf.arg_count(ACCEPT)?.unwrap_or(0);
    // The first is the private data of what is called (`DECLARE_TRACE`, include/linux/tracepoint.h).
    let retransmit = btf.pointer_arg_count(RETRANSMIT_TRACEPOINT)?;
    let retransmit = retransmit.map_or(0, |count| count.saturating_sub(1));
    let counts = [("ACCEPT_ARGS", accept), ("RETRANSMIT_ARGS", retransmit)];
    let bytes = counts.map(|(name, count)| (name, count.to_ne_bytes().to_vec()));
    Ok(bytes.to_vec())
}

/// By the first of its paths that this kernel has.
fn first_of(btf: &Btf, spec: &FieldSpec) -> Result<Option<Field>, Error> {
    for path in spec.path.split('|') {
        if let Some(found) = btf.field(spec.strukt, path)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Finds every field, and checks that it has the size that the programs read.
pub(super) fn resolve(btf: &Btf) -> Result<Offsets, Error> {
    let mut offsets = Offsets {
        bytes: Vec::with_capacity(FIELDS.len() * 4),
        missing: Vec::new(),
    };
    for spec in FIELDS {
        let name = || format!("{}.{}", spec.strukt, spec.path);
        // A user's registers are of no use to a kernel that does not hand them out.
        let reachable = spec.strukt != "pt_regs" || btf.func_id(TASK_REGISTERS).is_some();
        let found = if reachable {
            first_of(btf, spec)?
        } else {
            None
        };
        let offset = match (found, spec.need) {
            (Some(found), _) if found.size == spec.size => found.offset | found.shift << BIT_SHIFT,
            (Some(found), _) => {
                return Err(Error::FieldSize {
                    field: name(),
                    found: found.size,
                    expected: spec.size,
                });
            }
            (None, Need::Required) => return Err(Error::MissingField { field: name() }),
            (None, Need::Optional(loss)) => {
                offsets.missing.push(MissingField {
                    field: name(),
                    loss,
                });
                ABSENT
            }
        };
        offsets.bytes.extend_from_slice(&offset.to_ne_bytes());
    }
    Ok(offsets)
}
