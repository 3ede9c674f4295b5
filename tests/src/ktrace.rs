//! The kernel's own trace of the TCP events of a test's namespace, which the views are compared with.
//!
//! It needs no BPF program, and so it also has the events for which the kernel runs none. The events carry no namespace:
//! the test's sockets have [own addresses](Netns::addresses), and the kernel keeps out other ports.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use crate::PATIENCE;
use crate::netns::{Netns, set_port_range};
use crate::sock::Ends;

/// Ports of the sockets of a namespace that is traced, other than those of all other tests.
const PORTS: [u16; 2] = [31_000, 32_766];

/// A port within the range of traced ports on which no socket ever listens.
pub const CLOSED_PORT: u16 = 32_767;

const STATE: &str = "inet_sock_set_state";
const RETRANSMIT: &str = "tcp_retransmit_skb";
const SYNACK: &str = "tcp_retransmit_synack";

/// What is recorded, with the category of each.
const EVENTS: [(&str, &str); 3] = [("sock", STATE), ("tcp", RETRANSMIT), ("tcp", SYNACK)];

/// Beginning of the names of all instances; the process id of the test follows.
const PREFIX: &str = "tcp-tools-test-";

/// kB per processor: some 10,000 events.
const BUFFER: &str = "2048";

/// A running trace. It ends with this value.
#[derive(Debug)]
pub struct KernelTrace {
    instance: PathBuf,
    addresses: [IpAddr; 2],
    init: BTreeSet<u32>,
    // tracefs, mounted nowhere.
    _mount: OwnedFd,
}

/// What a line of the trace reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A socket has changed its state.
    State {
        /// The state before, without the prefix `TCP_`.
        old: String,
        /// The state after.
        new: String,
    },
    /// A segment was sent again by a socket in this state.
    Retransmit {
        /// Without the prefix `TCP_`.
        state: String,
    },
    /// A SYN-ACK was sent again.
    SynAck,
}

/// An event of a socket of the test.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub what: What,
    /// Addresses and ports, as the socket sees them.
    pub ends: Ends,
    /// The kernel may have run no BPF program: it happened in a softirq that interrupted a thread of the machine's init.
    /// Some sandboxes hide their own init from tracing.
    pub hidden: bool,
}

impl KernelTrace {
    /// Begins to trace `netns`, which the calling thread must be in, and restricts its ports to those that are traced.
    pub fn start(netns: &Netns) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        set_port_range(PORTS);
        let mount = mount_tracefs().expect("tracefs can be mounted");
        let instances = PathBuf::from(format!("/proc/self/fd/{}/instances", mount.as_raw_fd()));
        remove_leftovers(&instances);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let instance = instances.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&instance).unwrap();
        let trace = Self {
            instance,
            addresses: netns.addresses(),
            init: threads_of_init(),
            _mount: mount,
        };
        trace.write("buffer_size_kb", BUFFER);
        let [first, _] = PORTS;
        let is_ours = |port| format!("{port} >= {first} && {port} <= {CLOSED_PORT}");
        let filter = format!("{} && {}", is_ours("sport"), is_ours("dport"));
        for (category, event) in EVENTS {
            trace.write(&format!("events/{category}/{event}/filter"), &filter);
            trace.write(&format!("events/{category}/{event}/enable"), "1");
        }
        trace
    }

    fn write(&self, file: &str, value: &str) {
        fs::write(self.instance.join(file), value)
            .unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// The name of its instance of tracefs.
    pub fn name(&self) -> &str {
        self.instance.file_name().unwrap().to_str().unwrap()
    }

    /// Whether there is an instance of this name.
    pub fn sees(&self, name: &str) -> bool {
        self.instance.with_file_name(name).exists()
    }

    /// All events so far.
    ///
    /// # Panics
    /// When the kernel has lost any, or a line is not understood.
    pub fn events(&self) -> Vec<Event> {
        // Threads may have come since.
        let init = &self.init | &threads_of_init();
        // A name of a process need not be UTF-8.
        let text = fs::read(self.instance.join("trace")).unwrap();
        let text = String::from_utf8_lossy(&text);
        self.assert_complete();
        let events = text.lines().filter_map(Line::parse);
        let events = events.map(|line| line.event(&init));
        // The source of a connection to the first is 127.0.0.1.
        let is_ours = |end: SocketAddr| self.addresses.contains(&end.ip());
        events
            .filter(|event| is_ours(event.ends.local) || is_ours(event.ends.remote))
            .collect()
    }

    fn assert_complete(&self) {
        for processor in fs::read_dir(self.instance.join("per_cpu")).unwrap() {
            let stats = fs::read_to_string(processor.unwrap().path().join("stats")).unwrap();
            for lost in ["overrun", "commit overrun", "dropped events"] {
                assert!(stats.contains(&format!("\n{lost}: 0\n")), "{stats}");
            }
        }
    }
}

impl Drop for KernelTrace {
    fn drop(&mut self) {
        drop(remove(&self.instance));
    }
}

impl Event {
    /// Whether the socket has left `state`.
    pub fn leaves(&self, state: &str) -> bool {
        matches!(&self.what, What::State { old, .. } if old == state)
    }

    /// Whether the socket has entered `state`.
    pub fn enters(&self, state: &str) -> bool {
        matches!(&self.what, What::State { new, .. } if new == state)
    }
}

/// `COMM-PID [CPU] FLAGS TIME: EVENT: NAME=VALUE …`. Only the name of a process can hold anything else, but it is too
/// short for `: EVENT: `. One with a line break leaves its first part in another line.
struct Line<'a> {
    pid: u32,
    event: &'static str,
    values: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (event, head, values) = EVENTS.iter().find_map(|(_, event)| {
            let (head, values) = line.split_once(&format!(": {event}: "))?;
            Some((*event, head, values))
        })?;
        let (task, _) = head.rsplit_once(" [").expect(line);
        let (_, pid) = task.trim_end().rsplit_once('-').expect(line);
        let pid = pid.parse().expect(line);
        Some(Self { pid, event, values })
    }

    fn value(&self, name: &str) -> &'a str {
        let mut values = self
            .values
            .split(' ')
            .filter_map(|value| value.split_once('='));
        let value = values.find(|(key, _)| *key == name);
        value
            .unwrap_or_else(|| panic!("no {name}: {}", self.values))
            .1
    }

    fn state(&self, name: &str) -> String {
        let state = self.value(name);
        state.strip_prefix("TCP_").expect(state).into()
    }

    /// Also of IPv4, which is IPv4-mapped there.
    fn end(&self, address: &str, port: &str) -> SocketAddr {
        let ip: IpAddr = self.value(address).parse().unwrap();
        SocketAddr::new(ip.to_canonical(), self.value(port).parse().unwrap())
    }

    fn event(&self, init: &BTreeSet<u32>) -> Event {
        Event {
            what: match self.event {
                STATE => What::State {
                    old: self.state("oldstate"),
                    new: self.state("newstate"),
                },
                RETRANSMIT => What::Retransmit {
                    state: self.state("state"),
                },
                SYNACK => What::SynAck,
                other => unreachable!("{other} is not enabled"),
            },
            ends: Ends {
                local: self.end("saddrv6", "sport"),
                remote: self.end("daddrv6", "dport"),
            },
            hidden: init.contains(&self.pid),
        }
    }
}

/// A mount that no mount namespace has, as the tool itself makes it.
fn mount_tracefs() -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const FSMOUNT_CLOEXEC: u32 = 1;
    const TRACEFS: &CStr = c"tracefs";
    const NO_KEY: *const libc::c_char = std::ptr::null();
    let owned = |fd: libc::c_long| match fd {
        // SAFETY: a new descriptor that has no other owner.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: takes a valid string.
    let context =
        owned(unsafe { libc::syscall(libc::SYS_fsopen, TRACEFS.as_ptr(), FSOPEN_CLOEXEC) })?;
    // SAFETY: this command takes neither key nor value.
    let created = unsafe {
        let (context, command) = (context.as_raw_fd(), FSCONFIG_CMD_CREATE);
        libc::syscall(libc::SYS_fsconfig, context, command, NO_KEY, NO_KEY, 0)
    };
    if created != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes integers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

/// Instances of tests that were killed.
fn remove_leftovers(instances: &Path) {
    for entry in fs::read_dir(instances).unwrap().filter_map(Result::ok) {
        let name = entry.file_name().into_string().unwrap_or_default();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test may be doing the same.
            drop(remove(&entry.path()));
        }
    }
}

/// A process that another test starts has the instance's files open between fork and exec.
fn remove(instance: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    fs::write(instance.join("events/enable"), "0")?;
    loop {
        match fs::remove_dir(instance) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::yield_now();
            }
            result => return result,
        }
    }
}

fn threads_of_init() -> BTreeSet<u32> {
    let threads = fs::read_dir("/proc/1/task").unwrap().filter_map(Result::ok);
    threads
        .filter_map(|thread| thread.file_name().to_str()?.parse().ok())
        .collect()
}
