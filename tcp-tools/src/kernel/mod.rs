//! The border to the kernel: finds fields, loads and attaches programs, reads what they write.
//!
//! This is the only module that names aya. It knows no view: it hands over records as bytes.

pub mod btf;
mod error;
mod filter;
mod hooks;
mod loss;
pub mod namespace;
mod object;
mod offsets;
pub mod privilege;
pub mod pseudo;
mod ring;
mod snapshot;
mod sys;
mod tracefs;

use std::{
    cell::Cell,
    collections::HashSet,
    io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use aya_log::EbpfLogger;
use log::LevelFilter;
use tcp_ebpf::{config::event, wire::counter};

use self::{
    btf::Btf,
    loss::Counters,
    object::{Object, Settings},
};
pub use self::{
    error::Error,
    filter::Filter,
    hooks::{Attached, Point, Refusal, Tier},
    loss::{CAUSES, Losses},
    offsets::MissingField,
    ring::Ring,
    snapshot::netns_exists,
};

/// How to trace.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to attach.
    pub points: Vec<Point>,
    /// Only mechanisms of this tier.
    pub tier: Option<Tier>,
    /// Kernel type information; `None` for the running kernel's own.
    pub btf: Option<PathBuf>,
    /// Size of the ring buffer in bytes; a power of two, and a multiple of the page size.
    pub buffer_bytes: u32,
    /// How many open sockets can be remembered.
    pub max_sockets: u32,
    /// Which records are wanted: bits of [`tcp_ebpf::config::event`].
    pub events: u32,
    /// What is wanted of them.
    pub filter: Filter,
    /// How much the programs log.
    pub log: LevelFilter,
}

/// What a kernel offers: programs that can be attached, and what is missing.
pub struct Kernel {
    object: Object,
    btf: Btf,
    /// Fields that this kernel lacks, and what that switches off.
    pub missing_fields: Vec<MissingField>,
}

impl Kernel {
    /// Reads the kernel's type information and makes the maps. Nothing is attached yet.
    ///
    /// # Errors
    ///
    /// When privilege or type information is missing, or this is no kernel that the programs fit.
    pub fn prepare(options: &Options) -> Result<Self, Error> {
        let missing = privilege::missing();
        if !missing.is_empty() {
            return Err(Error::Privilege(missing));
        }
        let btf = offsets::scan(options.btf.as_deref())?;
        let offsets = offsets::resolve(&btf)?;
        let mut globals = options.filter.globals(options.events);
        globals.push(("OFFSETS", offsets.bytes));
        globals.extend(offsets::arg_counts(&btf)?);
        globals.push(("AYA_LOG_LEVEL", vec![options.log as u8]));
        let sets = options.filter.sets();
        let mut sizes = vec![
            ("EVENTS", options.buffer_bytes),
            ("CONNS", options.max_sockets),
        ];
        sizes.extend(sets.iter().map(|set| (set.map, set.size)));
        let object = Object::prepare(&Settings {
            globals,
            sizes,
            unreached: unreached(options),
        })?;
        for set in &sets {
            object.fill(set)?;
        }
        Ok(Self {
            object,
            btf,
            missing_fields: offsets.missing,
        })
    }

    /// Attaches each point, in this order, by the best mechanism that works; they stay attached until they are
    /// dropped.
    #[must_use]
    pub fn attach(&self, points: &[Point], tier: Option<Tier>) -> Vec<Attached> {
        hooks::attach(&self.object, &self.btf, points, tier)
    }
}

/// What the programs do not get to where nobody asks for these records, or for what they log.
fn unreached(options: &Options) -> Vec<(&'static str, &'static str)> {
    let wants = |events| options.events & events != 0;
    let functions = [
        (wants(event::SESSION), "session", "ended"),
        (wants(event::ACCEPT), "accept", "report"),
        (wants(event::ATTEMPT | event::OUTCOME), "connect", "report"),
        (options.log >= LevelFilter::Debug, "maps", "log_no_room"),
        (options.log >= LevelFilter::Trace, "state", "log_change"),
    ];
    let unreached = functions.into_iter().filter(|(is_reached, ..)| !is_reached);
    unreached.map(|(_, module, name)| (module, name)).collect()
}

/// Checks what these points need besides the kernel's programs.
///
/// # Errors
///
/// When there is no /proc in which network namespaces could be found.
pub fn check_surroundings(points: &[Point]) -> Result<(), Error> {
    if points.iter().any(|point| point.is_by_namespace()) && !pseudo::has_proc() {
        return Err(Error::NoProc);
    }
    Ok(())
}

/// A running trace. Everything detaches when it is dropped.
pub struct Tracer {
    /// Where the records come from.
    pub ring: Ring,
    attached: Vec<Attached>,
    counters: Counters,
    netns: Option<u32>,
    /// It has been said that there is something that cannot be seen.
    told_refused: Cell<bool>,
}

impl Tracer {
    /// Attaches all that `options` ask for, and takes stock of the sockets that are open already.
    ///
    /// What cannot be had but is not essential is logged as a warning that names the loss.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`Kernel::prepare`]; and when an essential point cannot be attached, or a tier was asked for that
    /// this kernel does not give.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let mut kernel = Kernel::prepare(options)?;
        check_surroundings(&options.points)?;
        let mut points = options.points.clone();
        if let Some(at) = points.iter().position(|point| *point == Point::State) {
            points.insert(at + 1, Point::StateAgain);
        }
        if options.filter.follow {
            points.extend([Point::Fork, Point::Exit]);
        }
        let attached = kernel.attach(&points, options.tier);
        let mut warned = HashSet::new();
        for it in &attached {
            if let Some(error) = it.obstacle(options.tier) {
                return Err(error);
            }
            // Two points may be needed for one thing: entry and return of a function.
            if let (None, Some(loss)) = (&it.chosen, it.point.loss())
                && warned.insert(loss)
            {
                let reasons = hooks::reasons(&it.refused);
                log::warn!("{loss}: {} cannot be attached ({reasons})", it.point);
            }
        }
        let tracer = Self {
            ring: Ring::new(kernel.object.take_map("EVENTS")?)?,
            counters: Counters::new(kernel.object.take_map("COUNTERS")?)?,
            attached,
            netns: options.filter.netns,
            told_refused: Cell::new(false),
        };
        tracer.seed()?;
        Ok(tracer)
    }

    /// Sockets first, then who holds them: an owner is only noted for a socket that is known.
    fn seed(&self) -> Result<(), Error> {
        if let Some(link) = self.link(Point::SeedSockets) {
            self.everywhere(link, |_| {})?;
        }
        if let Some(link) = self.link(Point::SeedOwners) {
            snapshot::run(link, |_| {}).map_err(Error::Snapshot)?;
        }
        Ok(())
    }

    /// Appends records of all that is open now, one after another; none if the point
    /// [`Point::OpenSockets`] is not attached.
    ///
    /// # Errors
    ///
    /// When the kernel's iterator fails.
    pub fn open_sockets(&self, records: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(link) = self.link(Point::OpenSockets) {
            self.everywhere(link, |bytes| records.extend_from_slice(bytes))?;
        }
        Ok(())
    }

    /// Appends the records of all sockets. None if the point [`Point::Sockets`] is not attached.
    ///
    /// # Errors
    ///
    /// When the kernel's iterator fails.
    pub fn sockets(&self, records: &mut Vec<u8>) -> Result<(), Error> {
        self.link(Point::Sockets).map_or(Ok(()), |link| {
            self.everywhere(link, |bytes| records.extend_from_slice(bytes))
        })
    }

    /// Appends the records of all holders of sockets. None if the point [`Point::Holders`] is not attached.
    ///
    /// # Errors
    ///
    /// When the kernel's iterator fails.
    pub fn holders(&self, records: &mut Vec<u8>) -> Result<(), Error> {
        self.link(Point::Holders).map_or(Ok(()), |link| {
            snapshot::run(link, |bytes| records.extend_from_slice(bytes)).map_err(Error::Snapshot)
        })
    }

    fn everywhere(
        &self,
        link: BorrowedFd<'_>,
        each: impl FnMut(&[u8]) + Send,
    ) -> Result<(), Error> {
        let refused = snapshot::run_everywhere(link, self.netns, each).map_err(Error::Snapshot)?;
        for (path, error) in &refused {
            log::debug!(
                "cannot enter the network namespace {}: {error}",
                path.display()
            );
        }
        if !refused.is_empty() && !self.told_refused.replace(true) {
            log::warn!(
                "sockets that no process holds (such as connections that wait to be accepted) in other \
                 network namespaces are not known: entering them takes CAP_SYS_ADMIN and CAP_SYS_PTRACE"
            );
        }
        Ok(())
    }

    /// Detaches everything but what lists open sessions; records that wait stay.
    pub fn detach(&mut self) {
        for attached in self
            .attached
            .iter_mut()
            .filter(|it| it.point != Point::OpenSockets)
        {
            attached.detach();
        }
    }

    fn link(&self, point: Point) -> Option<BorrowedFd<'_>> {
        self.attached(point)?.link()
    }

    fn attached(&self, point: Point) -> Option<&Attached> {
        self.attached.iter().find(|it| it.point == point)
    }

    /// Whether the point is attached.
    #[must_use]
    pub fn has(&self, point: Point) -> bool {
        self.attached(point).is_some_and(|it| it.chosen.is_some())
    }

    /// What was lost so far.
    ///
    /// # Errors
    ///
    /// When the kernel does not give its counters.
    pub fn losses(&self) -> Result<Losses, Error> {
        let mut losses = self.counters.losses()?;
        for program in self.attached.iter().filter_map(|it| self.is_alone(it)) {
            losses.missed += skipped(program)?;
        }
        // Nothing shows that both programs were skipped at the end of a session that found no room: that is as
        // often as the one that was skipped less, at most.
        if losses.map_full > 0
            && let Some(programs) = self.doubles()
        {
            let [first, second] = programs.map(skipped);
            losses.missed += first?.min(second?);
        }
        Ok(losses)
    }

    /// The two programs that see each change of a state, if both are attached.
    fn doubles(&self) -> Option<[BorrowedFd<'_>; 2]> {
        let program = |point| self.attached(point)?.program();
        Some([program(Point::State)?, program(Point::StateAgain)?])
    }

    /// The program of a point, unless another one handles what the kernel skips it for.
    fn is_alone<'a>(&self, attached: &'a Attached) -> Option<BorrowedFd<'a>> {
        let is_doubled =
            matches!(attached.point, Point::State | Point::StateAgain) && self.doubles().is_some();
        attached.program().filter(|_| !is_doubled)
    }

    /// Records that the programs have put into the ring so far, and those that filters kept out of it.
    ///
    /// # Errors
    ///
    /// When the kernel does not give its counters.
    pub fn submitted_and_filtered(&self) -> Result<(u64, u64), Error> {
        Ok((
            self.counters.get(counter::SUBMITTED)?,
            self.counters.get(counter::FILTERED)?,
        ))
    }

    /// Reads what the programs log; `None` if there is nothing to read it from.
    #[must_use]
    pub fn logger(&self) -> Option<EbpfLogger<&'static dyn log::Log>> {
        let program = self.attached.iter().find_map(Attached::program)?;
        let id = sys::prog_info(program).ok()?.id;
        EbpfLogger::init_from_id(id)
            .inspect_err(|error| log::warn!("cannot read the programs' log: {error}"))
            .ok()
    }
}

/// How often the kernel did not run a program.
fn skipped(program: BorrowedFd<'_>) -> Result<u64, Error> {
    let info = sys::prog_info(program).map_err(Error::Counters)?;
    Ok(info.recursion_misses)
}

/// The inode number that a network namespace is known by.
///
/// # Errors
///
/// When `path` does not exist or is no file of a namespace.
pub fn netns_inode(path: &Path) -> io::Result<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let inode = std::fs::metadata(path)?.ino();
    u32::try_from(inode).map_err(|_| io::Error::other("not a network namespace"))
}
