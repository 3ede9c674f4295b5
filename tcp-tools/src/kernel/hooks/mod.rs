//! The hook table: what each probe point can attach by, best first.
//!
//! What really loads and attaches decides, never the kernel's version. Every refusal is kept with its
//! reason, for `doctor` and for the message when nothing is left.

mod table;

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use aya_obj::generated::{bpf_attach_type, bpf_prog_type};

use self::table::{How, Mechanism, mechanisms};
pub use self::table::{Point, Tier};
use super::{Error, btf::Btf, object::Object, pseudo::is_in_sysfs, sys, tracefs};

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

    /// Why a trace that asks for this point cannot run, with `tier` if one is forced.
    #[must_use]
    pub fn obstacle(&self, tier: Option<Tier>) -> Option<Error> {
        if self.chosen.is_some() {
            return None;
        }
        let (point, reasons) = (self.point, reasons(&self.refused));
        match tier {
            Some(tier) if !self.refused.is_empty() && point.has_tiers() => Some(Error::Tier {
                tier,
                point,
                reasons,
            }),
            _ if point.loss().is_none() => Some(Error::Point { point, reasons }),
            _ => None,
        }
    }

    /// The program stays loaded, so that its counters can be read still.
    pub(super) fn detach(&mut self) {
        self.links.clear();
    }

    pub(super) fn link(&self) -> Option<BorrowedFd<'_>> {
        self.links.first().map(|fd| fd.as_fd())
    }
}

/// Attaches each of `points`, in their order, by the first mechanism that works, among those of `tier` if one is
/// forced.
pub(super) fn attach(
    object: &Object,
    btf: &Btf,
    points: &[Point],
    tier: Option<Tier>,
) -> Vec<Attached> {
    let ahead = load_ahead(object, btf, points, tier);
    let each = points.iter().zip(ahead);
    each.map(|(point, ahead)| attach_point(object, btf, *point, tier, ahead))
        .collect()
}

fn candidates(point: Point, tier: Option<Tier>) -> impl Iterator<Item = &'static Mechanism> {
    let fits = move |own: Option<Tier>| tier.is_none() || own.is_none() || own == tier;
    let all = mechanisms(point).iter();
    all.filter(move |mechanism| fits(mechanism.tier))
}

/// What a program is loaded into; nothing if it is another point's. Or why it is not.
type Loaded = Result<Option<OwnedFd>, String>;

/// Loads what each point tries first, on several processors: most of a start is the kernel's verifier.
fn load_ahead(
    object: &Object,
    btf: &Btf,
    points: &[Point],
    tier: Option<Tier>,
) -> Vec<Option<Loaded>> {
    const AT_MOST: usize = 4;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut loaded = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(point) = points.get(at) else {
                return loaded;
            };
            let first = candidates(*point, tier).next();
            loaded.extend(first.map(|mechanism| (at, mechanism.load(object, btf))));
        }
    };
    let workers = thread::available_parallelism().map_or(1, |count| count.get().min(AT_MOST));
    let mut ahead: Vec<_> = points.iter().map(|_| None).collect();
    thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let mine = work();
        // What one that panicked has not loaded is loaded when it is attached.
        let theirs = others
            .into_iter()
            .flat_map(|it| it.join().unwrap_or_default());
        for (at, loaded) in mine.into_iter().chain(theirs) {
            ahead[at] = Some(loaded);
        }
    });
    ahead
}

/// `ahead` is what came of loading the first candidate.
fn attach_point(
    object: &Object,
    btf: &Btf,
    point: Point,
    tier: Option<Tier>,
    mut ahead: Option<Loaded>,
) -> Attached {
    let mut attached = Attached {
        point,
        chosen: None,
        tier: None,
        refused: Vec::new(),
        program: None,
        links: Vec::new(),
    };
    for mechanism in candidates(point, tier) {
        let loaded = ahead.take().unwrap_or_else(|| mechanism.load(object, btf));
        match loaded.and_then(|program| Ok((mechanism.link_all(program.as_ref())?, program))) {
            Ok((links, program)) => {
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
        return String::from("not available on this tier");
    }
    let each: Vec<_> = refused
        .iter()
        .map(|it| format!("{}: {}", it.mechanism, it.reason))
        .collect();
    each.join("; ")
}

/// Named in the environment by tests: targets that this kernel shall seem not to have. Only builds that the tests
/// run read it, never a release.
const REFUSE: &str = "TCP_TOOLS_REFUSE";

fn is_refused(target: &str) -> bool {
    cfg!(debug_assertions)
        && std::env::var(REFUSE).is_ok_and(|list| list.split(',').any(|refused| refused == target))
}

impl Mechanism {
    fn load(&self, object: &Object, btf: &Btf) -> Loaded {
        if let Some(target) = self.targets.iter().find(|target| is_refused(target)) {
            return Err(format!("{REFUSE} names {target}"));
        }
        let (kind, attach_type) = match self.how {
            How::With(_) => return Ok(None),
            How::RawTracepoint => (bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT, None),
            How::Kprobe | How::Kretprobe => {
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
        let program = object.load(self.program, kind, target);
        program.map(Some).map_err(|error| error.to_string())
    }

    fn link_all(&self, program: Option<&OwnedFd>) -> Result<Vec<OwnedFd>, String> {
        let targets = program.into_iter().flat_map(|program| {
            let targets = self.targets.iter();
            targets.map(|target| self.link(target, program.as_fd()))
        });
        targets.collect()
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
            How::Kprobe | How::Kretprobe => {
                let config = if self.how == How::Kretprobe {
                    kretprobe_config()?
                } else {
                    0
                };
                let event = sys::perf_kprobe(kprobe_pmu()?, config, target).map_err(failed)?;
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(String::from(if is_in_sysfs(Path::new(PATH)) {
                "this kernel has no kprobes (CONFIG_KPROBE_EVENTS)"
            } else {
                "kprobes cannot be found: sysfs is not mounted on /sys here, or is covered"
            }))
        }
        Err(error) => Err(format!("{PATH}: {error}")),
    }
}

/// `perf_event_attr.config` of a return probe: a bit that the PMU names, like `config:0`.
fn kretprobe_config() -> Result<u64, String> {
    const PATH: &str = "/sys/bus/event_source/devices/kprobe/format/retprobe";
    let text = fs::read_to_string(PATH).map_err(|error| format!("{PATH}: {error}"))?;
    let bit = text.trim().strip_prefix("config:");
    let bit: Option<u32> = bit.and_then(|bit| bit.parse().ok());
    bit.and_then(|bit| 1_u64.checked_shl(bit))
        .ok_or_else(|| format!("{PATH} holds {text:?}"))
}
