//! Which of a trace and its `-- COMMAND` ends first, and what signals do to each.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use tcp_tools_tests::bpf::Objects;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::terminal::Terminal;
use tcp_tools_tests::trace::{Ended, Trace};
use tcp_tools_tests::{actor_binary, tool};

/// A shell command: one connect to this port, made and closed by the `actor`, whose path is `$0`.
fn attempt(port: u16) -> String {
    format!(r#""$0" "listen l 127.0.0.1:{port}" "connect c 127.0.0.1:{port}""#)
}

/// `-- sh -c SCRIPT`, after these options.
fn with_script<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let actor = actor_binary();
    let actor: &'static str = Box::leak(actor.to_str().unwrap().into());
    [options, &["--", "sh", "-c", script, actor]].concat()
}

/// A command that waits to be let go on.
struct Gate {
    file: File,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Gate {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gate");
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: takes a valid string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        // For both, which never blocks.
        let file = OpenOptions::new().read(true).write(true).open(&path);
        Self {
            file: file.unwrap(),
            path,
            _directory: directory,
        }
    }

    /// The shell command that waits.
    fn pass(&self) -> String {
        format!("read line <{}", self.path.display())
    }

    fn open(mut self) {
        self.file.write_all(b"go\n").unwrap();
        // Until the command has read it, the pipe must have a writer.
        Box::leak(Box::new(self));
    }
}

/// Runs a trace that ends before its command: everything has been written and detached by then, and the
/// command goes on.
fn outlived(view: &'static str, options: &[&str]) -> Ended {
    let (netns, gate) = (Netns::enter_new(), Gate::new());
    let (first, pass, second) = (attempt(6310), gate.pass(), attempt(6311));
    let script = format!("{first}; {pass}; {second}; exit 5");
    let mut trace = Trace::view(view, &netns, &with_script(options, &script));
    let objects = Objects::of(trace.pid());
    trace.wait_stdout_end();
    objects.wait_gone();
    gate.open();
    let ended = trace.wait_end();
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(5), ""),
        "{options:?}"
    );
    ended
}

#[test]
fn bound_on_the_rows_ends_the_trace_and_not_the_command() {
    let ended = outlived("tcpconnect", &["-n", "1"]);
    assert_eq!(ended.rows().len(), 1, "{:#?}", ended.lines);
    assert_eq!(ended.rows()[0]["rport"], 6310);
}

#[test]
fn bound_on_the_time_ends_the_trace_and_not_the_command() {
    outlived("tcpconnect", &["--duration", "100ms"]);
    outlived("sockets", &["--interval", "100ms", "--duration", "300ms"]);
}

#[test]
fn bound_on_the_intervals_ends_the_trace_and_not_the_command() {
    let ended = outlived("tcptop", &["0.1", "2"]);
    assert_eq!(ended.events("tcptop_total").len(), 2, "{:#?}", ended.lines);
}

#[test]
fn closed_pipe_ends_the_trace_and_not_the_command() {
    let (netns, gate) = (Netns::enter_new(), Gate::new());
    let script = format!("{}; {}; exit 5", attempt(6310), gate.pass());
    let args = with_script(&[], &script);
    let trace = Trace::head_of("tcpconnect", &netns, &args, 1);
    let objects = Objects::of(trace.pid());
    objects.wait_gone();
    gate.open();
    let ended = trace.wait_end();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(5), ""));
}

#[test]
fn command_is_ended_with_the_trace_if_asked_for() {
    let netns = Netns::enter_new();
    let script = format!(
        "trap 'kill $!; exit 9' TERM; sleep 1000 >/dev/null 2>&1 & {}; wait",
        attempt(6310)
    );
    let args = with_script(&["-n", "1", "--kill"], &script);
    let ended = Trace::view("tcpconnect", &netns, &args).wait_end();
    assert_eq!((ended.code, ended.rows().len()), (Some(9), 1));
    for (view, options) in [
        ("tcpconnect", &["--duration", "100ms"][..]),
        ("tcptop", &["0.1", "1"]),
        ("sockets", &["--interval", "100ms", "--duration", "200ms"]),
    ] {
        let args = [options, &["--kill", "--", "sleep", "1000"]].concat();
        let ended = Trace::view(view, &netns, &args).wait_end();
        let (code, stderr) = (ended.code, ended.stderr.as_str());
        assert_eq!((code, stderr), (Some(128 + libc::SIGTERM), ""), "{view}");
    }
    let args = ["--kill", "--", "sleep", "1000"];
    let ended = Trace::head_of("tcpconnect", &netns, &args, 1).wait_end();
    assert_eq!(ended.code, Some(128 + libc::SIGTERM), "{}", ended.stderr);
}

/// The script of a command that says by a row that it is ready for `signal`, by another how it was ended.
fn ends_well(signal: &str) -> String {
    format!(
        "trap 'kill $!; {}; exit 7' {signal}; sleep 1000 >/dev/null 2>&1 & {}; wait",
        attempt(6311),
        attempt(6310)
    )
}

#[test]
fn signal_to_the_tool_is_passed_on_and_what_the_command_does_then_is_traced() {
    for (name, signal) in [
        ("INT", libc::SIGINT),
        ("TERM", libc::SIGTERM),
        ("HUP", libc::SIGHUP),
    ] {
        let (netns, script) = (Netns::enter_new(), ends_well(name));
        let mut trace = Trace::view("tcpconnect", &netns, &with_script(&[], &script));
        trace.wait_rows(1);
        trace.signal(signal);
        let ended = trace.wait_end();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(7), ""), "{name}");
        let rports: Vec<_> = ended
            .rows()
            .iter()
            .map(|row| row["rport"].clone())
            .collect();
        assert_eq!(rports, [6310, 6311], "{name}");
    }
}

#[test]
fn signal_is_passed_on_when_the_trace_has_ended() {
    let (netns, script) = (Netns::enter_new(), ends_well("TERM"));
    let args = with_script(&["-n", "1"], &script);
    let mut trace = Trace::view("tcpconnect", &netns, &args);
    trace.wait_stdout_end();
    trace.signal(libc::SIGTERM);
    let ended = trace.wait_end();
    assert_eq!((ended.code, ended.rows().len()), (Some(7), 1));
}

#[test]
fn signal_that_the_command_does_not_handle_is_its_end() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let netns = Netns::enter_new();
        let trace = Trace::view("tcpconnect", &netns, &["--", "sleep", "1000"]);
        trace.signal(signal);
        let ended = trace.wait_end();
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (Some(128 + signal), "")
        );
    }
}

/// Each ^C reaches the command once, and the tool leaves what it means to it.
#[test]
fn interrupt_at_the_terminal_is_the_commands() {
    let netns = Netns::enter_new();
    let script = format!(
        "n=0; trap 'n=$((n + 1)); echo caught $n.' INT; trap 'kill $!; {}; exit 7' TERM; \
         sleep 1000 >/dev/null 2>&1 & echo armed; while :; do wait; done",
        attempt(6310)
    );
    let args = with_script(&[], &script);
    let mut terminal = Terminal::view("tcpconnect", &netns, &args, (120, 24));
    terminal.wait("the command", |text| text.contains("armed"));
    for caught in ["caught 1.", "caught 2."] {
        terminal.press("\u{3}");
        terminal.wait(caught, |text| text.contains(caught));
    }
    terminal.signal(libc::SIGTERM);
    let (code, text) = terminal.wait_end();
    assert_eq!(code, Some(7), "{text}");
    assert!(!text.contains("caught 3."), "{text}");
    assert!(text.contains(" 6310"), "{text}");
}

/// One that is not in the terminal's foreground gets no ^C from it.
#[test]
fn interrupt_at_the_terminal_is_passed_on_to_a_command_in_another_session() {
    let netns = Netns::enter_new();
    let script = "echo armed; exec sleep 1000";
    let args = ["--", "setsid", "sh", "-c", script];
    let mut terminal = Terminal::view("tcpconnect", &netns, &args, (120, 24));
    terminal.wait("the command", |text| text.contains("armed"));
    terminal.press("\u{3}");
    let (code, text) = terminal.wait_end();
    assert_eq!(code, Some(128 + libc::SIGINT), "{text}");
}

#[test]
fn loss_under_strict_comes_before_the_commands_status() {
    let netns = Netns::enter_new();
    let mut script = String::from(r#"exec "$0" "listen l 127.0.0.1:6310""#);
    for client in 0..10 {
        script.push_str(&format!(r#" "connect c{client} 127.0.0.1:6310""#));
    }
    script.push_str(r#" "exit 5""#);
    for (options, code) in [
        (&["--strict"][..], 5),
        (&["--strict", "--max-sockets", "4"], 3),
    ] {
        let ended = Trace::view("tcplife", &netns, &with_script(options, &script)).wait_end();
        assert_eq!(ended.code, Some(code), "{options:?}: {}", ended.stderr);
    }
}

#[test]
fn kill_needs_a_command() {
    let mut command = std::process::Command::new(tool());
    let output = command.args(["tcpconnect", "--kill"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("required"), "{stderr}");
}
