//! A process that does with sockets what it is told, with a pid and a name of its own.
//!
//! One command a line on standard input, one answer a line on standard output: `ok [VALUE]` or
//! `error MESSAGE`. Commands on the command line are obeyed instead, without a word. Sockets are called by the
//! names that the commands give them. `thread` and `fork` run the rest of their line, commands separated by `;`,
//! in a thread or in a child process, and answer when that has ended. `exec` starts the program anew with the rest
//! of its line.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::str::FromStr;
use std::thread;

use socket2::Socket;
use tcp_tools_tests::sock::{self, Ends};

#[derive(Default)]
struct Actor {
    sockets: HashMap<String, Socket>,
}

fn main() -> io::Result<()> {
    let mut actor = Actor::default();
    if std::env::args().len() > 1 {
        return std::env::args()
            .skip(1)
            .try_for_each(|line| actor.obey(&line).map(drop));
    }
    for line in io::stdin().lines() {
        let answer = match actor.obey(&line?) {
            Ok(value) => format!("ok {value}"),
            Err(error) => format!("error {error}"),
        };
        println!("{}", answer.trim_end());
        io::stdout().flush()?;
    }
    Ok(())
}

impl Actor {
    fn obey(&mut self, line: &str) -> io::Result<String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "thread" => return self.in_thread(rest),
            "hold" => return hold(),
            "exec" => return Err(Command::new(std::env::current_exe()?).arg(rest).exec()),
            "outlive" => return self.in_last_thread(rest),
            "fork" => return self.in_child(rest, None),
            "fork_as" => {
                let (pid, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                return self.in_child(rest, Some(parse(pid)?));
            }
            "comm" => return set_comm(rest.as_bytes()),
            _ => {}
        }
        let words: Vec<&str> = rest.split(' ').collect();
        match (verb, words.as_slice()) {
            ("listen", [name, address]) => {
                let socket = sock::listen(parse(address)?, 64)?;
                let address = sock::local(&socket)?;
                self.sockets.insert((*name).into(), socket);
                Ok(address.to_string())
            }
            ("connect", [name, address]) => self.add(name, sock::connect(parse(address)?)?),
            ("start", [name, address]) => {
                let socket = sock::start_connect(parse(address)?)?;
                self.sockets.insert((*name).into(), socket);
                Ok(String::new())
            }
            ("fd", [name]) => Ok(self.get(name)?.as_raw_fd().to_string()),
            ("take", [name, pid, fd]) => {
                let socket = sock::take(parse(pid)?, parse(fd)?)?;
                self.sockets.insert((*name).into(), socket);
                Ok(String::new())
            }
            ("accept", [listener, name]) => self.add(name, sock::accept(self.get(listener)?)?),
            ("send", [name, count]) => done(sock::send(self.get(name)?, parse(count)?)),
            ("recv", [name, count]) => done(sock::recv(self.get(name)?, parse(count)?)),
            ("drain", [name]) => Ok(sock::drain(self.get(name)?)?.to_string()),
            ("acked", [name]) => done(sock::wait_acked(self.get(name)?)),
            ("close", [name]) => self.take(name).map(|_| String::new()),
            ("comm_hex", [digits]) => set_comm(&unhex(digits)?),
            ("uid", [id]) => set_uid(parse(id)?),
            ("exit", [""]) => std::process::exit(0),
            ("exit", [status]) => std::process::exit(parse(status)?),
            _ => Err(io::Error::other(format!("unknown command: {line}"))),
        }
    }

    fn obey_all(&mut self, lines: &str) -> io::Result<String> {
        lines
            .split(';')
            .try_fold(String::new(), |_, line| self.obey(line.trim()))
    }

    /// `thread NAME COMMANDS`
    fn in_thread(&mut self, rest: &str) -> io::Result<String> {
        let (name, lines) = rest.split_once(' ').unwrap_or((rest, ""));
        thread::scope(|scope| {
            let thread = thread::Builder::new().name(name.into());
            let thread = thread.spawn_scoped(scope, || self.obey_all(lines))?;
            thread
                .join()
                .map_err(|_| io::Error::other("the thread panicked"))?
        })
    }

    /// `outlive COMMANDS`: in a thread, once the main thread has ended; the process ends with them.
    fn in_last_thread(&mut self, lines: &str) -> io::Result<String> {
        thread::scope(|scope| {
            scope.spawn(|| {
                let failed = wait_main_ended()
                    .and_then(|()| self.obey_all(lines))
                    .is_err();
                // SAFETY: ends the process without running what the main thread has registered.
                unsafe { libc::_exit(failed.into()) }
            });
            // SAFETY: ends this thread and leaves its stack as it is.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
            unreachable!("the thread has ended")
        })
    }

    /// `fork COMMANDS`, or `fork_as PID COMMANDS`; answers with the pid of the child that has obeyed them.
    fn in_child(&mut self, lines: &str, wanted: Option<libc::pid_t>) -> io::Result<String> {
        let pid = match wanted {
            // SAFETY: no other thread is running, so that the child finds every lock free.
            None => unsafe { libc::fork() },
            Some(wanted) => fork_as(wanted),
        };
        if pid == 0 {
            let failed = self.obey_all(lines).is_err();
            // SAFETY: ends the child without running what the parent has registered.
            unsafe { libc::_exit(failed.into()) }
        }
        let mut status = 0;
        // SAFETY: waits for the child just made; `status` outlives the call.
        if pid < 0 || unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
            return Err(io::Error::last_os_error());
        }
        match status {
            0 => Ok(pid.to_string()),
            _ => Err(io::Error::other(format!("the child failed at: {lines}"))),
        }
    }

    /// Keeps an established socket; answers with its two addresses.
    fn add(&mut self, name: &str, socket: Socket) -> io::Result<String> {
        let Ends { local, remote } = Ends::of(&socket)?;
        self.sockets.insert(name.into(), socket);
        Ok(format!("{local} {remote}"))
    }

    fn get(&self, name: &str) -> io::Result<&Socket> {
        self.sockets
            .get(name)
            .ok_or_else(|| io::Error::other(format!("no socket {name}")))
    }

    fn take(&mut self, name: &str) -> io::Result<Socket> {
        self.sockets
            .remove(name)
            .ok_or_else(|| io::Error::other(format!("no socket {name}")))
    }
}

/// The kernel tells nobody but the parent, and only when all threads have ended.
fn wait_main_ended() -> io::Result<()> {
    let stat = format!("/proc/self/task/{}/stat", std::process::id());
    while !std::fs::read_to_string(&stat)?.contains(") Z ") {
        thread::yield_now();
    }
    Ok(())
}

/// `hold`: a child with a lower number has all that this process has open, until this one ends.
fn hold() -> io::Result<String> {
    let me = std::process::id().cast_signed();
    for wanted in (2..me).rev() {
        match fork_as(wanted) {
            0 => loop {
                // SAFETY: takes integers, and waits for the signal.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::pause();
                }
            },
            pid if pid > 0 => return Ok(pid.to_string()),
            // Somebody has that number.
            _ => {}
        }
    }
    Err(io::Error::last_os_error())
}

/// fork(), with a number for the child that is free (clone3(2), Linux 5.5).
fn fork_as(wanted: libc::pid_t) -> libc::pid_t {
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    args.set_tid = &raw const wanted as u64;
    args.set_tid_size = 1;
    // SAFETY: as for fork(); `args` and what it points to outlive the call.
    unsafe { libc::syscall(libc::SYS_clone3, &args, size_of_val(&args)) as libc::pid_t }
}

/// Of the calling thread: the process's name when that is the main thread.
fn set_comm(name: &[u8]) -> io::Result<String> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: PR_SET_NAME reads a C string that outlives the call.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) })
}

fn unhex(digits: &str) -> io::Result<Vec<u8>> {
    let bytes = digits.as_bytes().chunks(2).map(|pair| {
        let pair = str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes: Option<_> = bytes.collect();
    bytes.ok_or_else(|| io::Error::other(format!("not hexadecimal: {digits}")))
}

fn set_uid(uid: libc::uid_t) -> io::Result<String> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setuid(uid) })
}

fn check(result: libc::c_int) -> io::Result<String> {
    if result == 0 {
        Ok(String::new())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn done(result: io::Result<()>) -> io::Result<String> {
    result.map(|()| String::new())
}

fn parse<T: FromStr>(word: &str) -> io::Result<T> {
    word.parse()
        .map_err(|_| io::Error::other(format!("cannot read {word:?}")))
}
