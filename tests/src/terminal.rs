//! The tool at a terminal, as somebody sees it who sits there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use crate::PATIENCE;
use crate::netns::Netns;
use crate::trace::{default_signals, run_view};

/// A terminal with a program that runs in it, and ends with this value.
pub struct Terminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    modes: Modes,
}

/// What `stty -g` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Modes {
    flags: [libc::tcflag_t; 4],
    characters: [libc::cc_t; libc::NCCS],
}

impl Modes {
    fn of(terminal: &OwnedFd) -> io::Result<Self> {
        // SAFETY: a structure of integers.
        let mut it: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: writes one termios.
        if unsafe { libc::tcgetattr(terminal.as_raw_fd(), &mut it) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            flags: [it.c_iflag, it.c_oflag, it.c_cflag, it.c_lflag],
            characters: it.c_cc,
        })
    }
}

impl Terminal {
    /// `VIEW ARGS`, of which `--netns` keeps what other tests do out, at a terminal of this size.
    pub fn view(view: &str, netns: &Netns, args: &[&str], (columns, lines): (u16, u16)) -> Self {
        let inode = netns.inode.to_string();
        let args = [&["--netns", &inode], args].concat();
        Self::run(run_view(view, &args), (columns, lines))
    }

    /// Runs a command at a terminal of this size.
    pub fn run(mut command: Command, (columns, lines): (u16, u16)) -> Self {
        let (master, slave) = open().unwrap();
        resize(&master, columns, lines).unwrap();
        let modes = Modes::of(&slave).unwrap();
        let stream = || slave.try_clone().unwrap();
        command.stdin(stream()).stdout(stream()).stderr(stream());
        command.env("TERM", "xterm");
        default_signals(&mut command);
        // SAFETY: both calls are async-signal-safe. The terminal becomes that of a session of its own, so that
        // it can tell the program of its size.
        unsafe {
            command.pre_exec(|| {
                let done = libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0;
                done.then_some(()).ok_or_else(io::Error::last_os_error)
            });
        }
        let child = command.spawn().unwrap();
        let output = read_all(master.try_clone().unwrap());
        Self {
            child,
            master,
            slave,
            output,
            screen: vt100::Parser::new(cells(lines), cells(columns), 0),
            modes,
        }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: the child has not been waited for, so the pid is its own.
        let done = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        assert!(done == 0, "kill: {}", io::Error::last_os_error());
    }

    /// Changes its size.
    pub fn resize(&mut self, columns: u16, lines: u16) {
        self.screen
            .screen_mut()
            .set_size(cells(lines), cells(columns));
        resize(&self.master, columns, lines).unwrap();
    }

    /// What is to be seen.
    pub fn text(&self) -> String {
        self.screen.screen().contents()
    }

    /// Whether that is the screen that is thrown away afterwards.
    pub fn is_alternate(&self) -> bool {
        self.screen.screen().alternate_screen()
    }

    /// Waits until what is to be seen is as it should be.
    ///
    /// # Panics
    /// After [`PATIENCE`], or when the program ends before.
    pub fn wait(&mut self, what: &str, is_so: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.text()) {
            self.look(what, deadline);
        }
    }

    /// As [`Terminal::wait`]; does something again and again, whenever there is something new to be seen.
    pub fn wait_doing(&mut self, what: &str, mut act: impl FnMut(), is_so: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.text()) {
            act();
            self.look(what, deadline);
        }
    }

    /// Waits for the next output.
    fn look(&mut self, what: &str, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.output.recv_timeout(left) {
            Ok(bytes) if !left.is_zero() => self.screen.process(&bytes),
            failed => panic!("waited for {what} ({failed:?}):\n{}", self.text()),
        }
    }

    /// Waits for the end of the program; gives its exit code.
    ///
    /// # Panics
    /// Unless the terminal is as it was found: its modes, its cursor, its screen.
    pub fn wait_end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            // Whatever it writes must be read, or it would wait for that.
            while let Ok(bytes) = self.output.try_recv() {
                self.screen.process(&bytes);
            }
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("it does not end:\n{}", self.text()),
                None => thread::yield_now(),
            }
        };
        assert_eq!(Modes::of(&self.slave).unwrap(), self.modes);
        // A word of ours behind all that it has written.
        const END: &str = "the end\n";
        File::from(self.slave.try_clone().unwrap())
            .write_all(END.as_bytes())
            .unwrap();
        self.wait("the end", |text| text.contains("the end"));
        assert!(!self.is_alternate());
        assert!(!self.screen.screen().hide_cursor());
        (status.code(), self.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Gone already, unless the test has failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

fn open() -> io::Result<(File, OwnedFd)> {
    let (mut master, mut slave) = (0, 0);
    // SAFETY: writes two descriptors; null pointers ask for no name and no modes.
    let done = unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    for fd in [master, slave] {
        // SAFETY: no memory is involved. Other tests start programs, too.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    // SAFETY: new descriptors that have no other owner.
    unsafe { Ok((File::from_raw_fd(master), OwnedFd::from_raw_fd(slave))) }
}

fn resize(terminal: &File, columns: u16, lines: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: lines,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: reads one winsize.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn read_all(mut master: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        // An error is its end: nobody holds the other side any more.
        while let Ok(length @ 1..) = master.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}
