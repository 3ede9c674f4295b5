//! The `actor` helper, seen from a test: a process with its own pid, name and sockets.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Instant;

use socket2::Socket;

use crate::row::{Process, Row};
use crate::sock::{Ends, V4};
use crate::{PATIENCE, actor_binary, wait_readable};

/// A helper process. It lives in the network namespace of the thread that started it, and ends
/// with this value.
#[derive(Debug)]
pub struct Actor {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    comm: String,
    uid: u32,
}

impl Actor {
    /// Starts one that calls itself `comm`.
    pub fn start(comm: &str) -> Self {
        let mut child = Command::new(actor_binary())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the actor starts");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut actor = Self {
            child,
            stdin,
            stdout,
            comm: comm.into(),
            uid: 0,
        };
        actor.ask(&format!("comm {comm}"));
        actor
    }

    /// Who it is.
    pub fn process(&self) -> Process {
        Process {
            pid: self.child.id(),
            comm: self.comm.clone(),
            uid: self.uid,
        }
    }

    /// Has it become another user.
    pub fn set_uid(&mut self, uid: u32) {
        self.ask(&format!("uid {uid}"));
        self.uid = uid;
    }

    /// Gives a command without waiting for the answer; [`Actor::answer`] must follow.
    pub fn tell(&mut self, command: &str) {
        writeln!(self.stdin.as_ref().unwrap(), "{command}").expect("the actor listens");
    }

    /// The answer to the last command.
    ///
    /// # Panics
    /// When the actor could not do as it was told.
    pub fn answer(&mut self) -> String {
        self.answer_of("ok")
    }

    /// Why the actor could not do as it was told.
    ///
    /// # Panics
    /// When it could.
    pub fn failure(&mut self) -> String {
        self.answer_of("error")
    }

    fn answer_of(&mut self, kind: &str) -> String {
        wait_readable(self.stdout.get_ref().as_fd(), "the actor");
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let value = line
            .strip_prefix(kind)
            .unwrap_or_else(|| panic!("actor: {line:?}"));
        value.trim().into()
    }

    /// Gives a command and waits for the answer.
    pub fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    /// Has it listen on a loopback address under `name`.
    pub fn listen(&mut self, name: &str, address: SocketAddr) -> SocketAddr {
        self.ask(&format!("listen {name} {address}"))
            .parse()
            .unwrap()
    }

    /// Has it connect to `address` under `name`.
    pub fn connect(&mut self, name: &str, address: SocketAddr) -> Ends {
        ends(&self.ask(&format!("connect {name} {address}")))
    }

    /// Has it begin to connect to `address` under `name`, without waiting for the outcome.
    pub fn start_connect(&mut self, name: &str, address: SocketAddr) {
        self.ask(&format!("start {name} {address}"));
    }

    /// Gives it a socket of this process under `name`.
    pub fn give(&mut self, name: &str, socket: &Socket) {
        self.take(name, std::process::id(), &socket.as_raw_fd().to_string());
    }

    /// Has it give `heir` its socket `name`, under the name `as_name`. A socket that an actor has made is held by
    /// those that it was given to, and no other. One of this process is held for a moment by whatever another
    /// test starts, between fork and exec.
    pub fn share(&mut self, name: &str, heir: &mut Self, as_name: &str) {
        let fd = self.ask(&format!("fd {name}"));
        heir.take(as_name, self.child.id(), &fd);
    }

    fn take(&mut self, name: &str, pid: u32, fd: &str) {
        self.ask(&format!("take {name} {pid} {fd}"));
    }

    /// Has it accept from `listener` under `name`.
    pub fn accept(&mut self, listener: &str, name: &str) -> Ends {
        ends(&self.ask(&format!("accept {listener} {name}")))
    }

    /// Has it open and close a session with itself. Gives the two rows of `tcplife`.
    pub fn talk_to_itself(&mut self) -> [Row; 2] {
        let at_client = self.talk();
        let me = self.process();
        [
            Row::client(at_client).of(&me).close("fin", "local"),
            Row::server(at_client.swapped())
                .of(&me)
                .close("fin", "remote"),
        ]
    }

    /// Has it open a session with itself, between `c` and `s`, as the client sees it.
    pub fn open(&mut self) -> Ends {
        let address = self.listen("l", V4);
        let at_client = self.connect("c", address);
        self.accept("l", "s");
        self.ask("close l");
        at_client
    }

    /// Has it open and close a session with itself, as the client sees it.
    pub(crate) fn talk(&mut self) -> Ends {
        let at_client = self.open();
        for command in ["close c", "drain s", "close s"] {
            self.ask(command);
        }
        at_client
    }

    /// Ends the process, with its sockets as they are, and waits until it is gone.
    pub fn exit(mut self) {
        self.tell("exit");
        self.child.wait().unwrap();
    }

    /// Kills the process, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until its main thread sleeps in system call `number`.
    pub fn wait_blocked_in(&self, number: libc::c_long) {
        let deadline = Instant::now() + PATIENCE;
        let path = format!("/proc/{}/syscall", self.child.id());
        let wanted = format!("{number} ");
        while !fs::read_to_string(&path).unwrap().starts_with(&wanted) {
            assert!(
                Instant::now() < deadline,
                "the actor never blocked in system call {number}"
            );
            thread::yield_now();
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // At the end of its commands it goes; a test that failed must not wait for one in the middle.
        self.stdin = None;
        if thread::panicking() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

/// Reads the answer of `connect` and `accept`.
pub fn ends(answer: &str) -> Ends {
    let (local, remote) = answer.split_once(' ').expect("two addresses");
    Ends {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
    }
}
