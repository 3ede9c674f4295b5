//! The hook table: what each probe point can attach by, best first.
//!
//! What really loads and attaches decides, never the kernel's version. Every refusal is kept with its
//! reason, for `doctor` and for the message when nothing is left.

mod table;

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::generated::{bpf_attach_type, bpf_prog_type};

use self::table::{How, Mechanism, mechanisms};
pub use self::table::{Point, Tier};
use super::{btf::Btf, object::Object, sys, tracefs};

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
    if refused.is_empty() {
        return String::from("that tier has no way to");
    }
    let each: Vec<_> = refused
        .iter()
        .map(|it| format!("{}: {}", it.mechanism, it.reason))
        .collect();
    each.join("; ")
}

/// Named in the environment by tests: targets that this kernel shall seem not to have.
const REFUSE: &str = "TCP_TOOLS_REFUSE";

fn is_refused(target: &str) -> bool {
    std::env::var(REFUSE).is_ok_and(|list| list.split(',').any(|refused| refused == target))
}

type Links = (Option<OwnedFd>, Vec<OwnedFd>);

impl Mechanism {
    fn attach(&self, object: &Object, btf: &Btf) -> Result<Links, String> {
        if let Some(target) = self.targets.iter().find(|target| is_refused(target)) {
            return Err(format!("{REFUSE} names {target}"));
        }
        let (kind, attach_type) = match self.how {
            How::With(_) => return Ok((None, Vec::new())),
            How::RawTracepoint => (bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT, None),
            How::Kprobe => {
                // Loading takes longer than to see that it would be in vain.
                kprobe_pmu()?;
                (bpf_prog_type::BPF_PROG_TYPE_KPROBE, None)
            }
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
            .collect::<Result<Vec<_>, _>>()?;
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
