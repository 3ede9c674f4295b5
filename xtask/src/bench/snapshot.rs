//! What tcptop's look at every socket costs, once an interval.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;

use anyhow::{Context, Result};

use super::load::{self, PORT};
use super::report::{Measure, Numbers, Report, Target};
use super::running::Running;
use super::{Bench, alternate, proc};

const IDLE: Measure = Measure {
    name: "snapshot, idle sockets",
    unit: "ms",
    meaning: "processor time of tcptop per interval, with as many open sockets as the note says",
    target: Some(Target::Value(50.0)),
};

const BUSY: Measure = Measure {
    name: "snapshot, busy sockets",
    unit: "ms",
    meaning: "likewise, while bytes go over one connection after another, and again",
    target: None,
};

/// Connections of this process to itself; two sockets each.
const CONNECTIONS: u64 = 10_000;

/// Descriptors for all else.
const SPARE: u64 = 200;

/// Processor time per interval, of which each takes a second.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let tool = bench.ours(&["tcptop", "--json", "--rows", "1", "1"]);
    let room = descriptors().context("cannot raise the number of open files")?;
    let count = (room.saturating_sub(SPARE) / 2).min(CONNECTIONS);
    let connections = connections(count.min(bench.sessions)).context("cannot connect")?;
    let measures = [IDLE, BUSY];
    let mut times = [Vec::new(), Vec::new()];
    alternate(bench.rounds, measures.len(), |at| {
        let mut cost = || {
            let tracer = Running::start(&tool, bench.directory.path())?;
            let before = proc::cpu(tracer.pid())?;
            thread::sleep(bench.time);
            let used = proc::cpu(tracer.pid())?.saturating_sub(before);
            tracer.stop()?;
            times[at].push(used.as_secs_f64() * 1e3 / bench.time.as_secs_f64());
            Ok(())
        };
        if at == 0 {
            return cost();
        }
        let mut next = connections.iter().cycle();
        let pass = || {
            if let Some([client, server]) = next.next() {
                (&*client).write_all(b"x")?;
                (&*server).read_exact(&mut [0])?;
            }
            Ok(())
        };
        load::meanwhile(pass, cost)
    })?;
    for (measure, values) in measures.iter().zip(&times) {
        let tool = &tool.name;
        report.row(measure, &Numbers { tool, values }, None);
    }
    report.note(format!("snapshot: of {} sockets", 2 * connections.len()));
    Ok(())
}

/// Both ends of as many connections.
fn connections(count: u64) -> io::Result<Vec<[TcpStream; 2]>> {
    let listener = load::listener()?;
    (0..count)
        .map(|_| {
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
            Ok([client, listener.accept()?.0])
        })
        .collect()
}

/// Raises the number of descriptors that this process may have to the most that it is allowed, and returns it.
fn descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both only read and write the structure that they are given.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if done {
        Ok(limit.rlim_cur)
    } else {
        Err(io::Error::last_os_error())
    }
}
