//! Exit codes, and messages of a tool that cannot run.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tcp_tools_tests::tool;
use tcp_tools_tests::trace::tcplife;

const BTF: &str = "/sys/kernel/btf/vmlinux";
// Of linux/capability.h.
const CAP_SYS_ADMIN: libc::c_ulong = 21;
const CAP_PERFMON: libc::c_ulong = 38;
const CAP_BPF: libc::c_ulong = 39;

/// Runs it with a bound, should it work against all expectation.
fn run(command: &mut Command) -> Output {
    command.args(["--duration", "1s"]).output().unwrap()
}

/// Exit 1, nothing on standard output, and a message in one line; gives that.
fn refusal(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
        .strip_prefix("tcp-tools: ")
        .expect(&stderr)
        .trim_end()
        .to_owned()
}

/// The tool in a PID namespace of its own, as in a container.
fn in_other_pid_namespace(args: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]);
    command.arg(tool()).args(args).output().unwrap()
}

#[test]
fn command_in_another_pid_namespace_is_refused_unless_all_are_traced() {
    let refused = in_other_pid_namespace(&["tcpconnect", "--", "true"]);
    assert!(refusal(&refused).contains("--pid=host"), "{refused:?}");
    let all = in_other_pid_namespace(&["tcpconnect", "--all", "--", "sh", "-c", "exit 7"]);
    assert_eq!(all.status.code(), Some(7), "{all:?}");
}

#[test]
fn pids_are_those_of_the_host_in_another_pid_namespace() {
    let me = std::process::id().to_string();
    let found = in_other_pid_namespace(&["sockets", "--pid", &me]);
    assert_eq!(found.status.code(), Some(0), "{found:?}");
    let stderr = String::from_utf8(found.stderr).unwrap();
    assert!(stderr.contains("the initial PID namespace"), "{stderr}");
    let report = in_other_pid_namespace(&["doctor", "--json"]).stdout;
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["pid_namespace"]["initial"], false, "{report}");
}

#[test]
fn wrong_options_exit_2_with_the_usage() {
    for args in [
        &["tcplife", "--no-such-option"][..],
        &["tcplife", "--duration", "soon"],
        &["tcplife", "--local-port", "70000"],
        &["tcplife", "--local-port", "5-1"],
        &["tcplife", "--pid", "me"],
        &["tcplife", "--buffer-size", "many"],
        &["tcplife", "--max-events", "-1"],
        &["tcplife", "--hooks", "luck"],
        &["tcplife", "--fields", "no_such_field"],
        &["tcplife", "--json", "--csv"],
        &["no-such-command"],
        &[],
    ] {
        let output = Command::new(tool()).args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(
            stderr.contains("Usage:") || stderr.contains("--help"),
            "{args:?}: {stderr}"
        );
    }
}

#[test]
fn help_and_version_exit_0() {
    for (args, says) in [
        (["tcplife", "--help"], "--local-port"),
        (["doctor", "--help"], "--json"),
    ] {
        let output = Command::new(tool()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(
            String::from_utf8(output.stdout).unwrap().contains(says),
            "{args:?}"
        );
    }
    let output = Command::new(tool()).arg("--version").output().unwrap();
    assert!(output.stdout.starts_with(b"tcp-tools "));
}

#[test]
fn link_by_the_name_of_a_view_is_that_view() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("tcplife");
    symlink(tool(), &link).unwrap();
    let output = Command::new(link).arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("--local-port")
    );
}

#[test]
fn without_privilege_one_sentence_names_the_capability() {
    // A copy: another user may not be able to reach the directory of the build.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("tcp-tools");
    fs::copy(tool(), &copy).unwrap();
    let output = run(Command::new(copy).arg("tcplife").uid(65534).gid(65534));
    let message = refusal(&output);
    assert!(message.contains("CAP_BPF"), "{message}");
}

#[test]
fn root_of_a_user_namespace_lacks_capabilities() {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(tool());
    let output = run(command.arg("tcplife"));
    let message = refusal(&output);
    assert!(
        message.contains("CAP_BPF") && message.contains("user namespace"),
        "{message}"
    );
}

#[test]
fn root_without_a_capability_is_told_which() {
    for (missing, name) in [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")] {
        let mut command = tcplife(&[]);
        // SAFETY: prctl is async-signal-safe and involves no memory. What is outside the
        // bounding set cannot be gained by exec.
        unsafe {
            command.pre_exec(move || {
                for capability in [missing, CAP_SYS_ADMIN] {
                    if libc::prctl(libc::PR_CAPBSET_DROP, capability) != 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let message = refusal(&run(&mut command));
        assert!(message.contains(name), "{message}");
    }
}

fn refusal_of_btf(path: &Path) -> String {
    let message = refusal(&run(&mut tcplife(&["--btf", path.to_str().unwrap()])));
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    message
}

#[test]
fn each_kind_of_bad_btf_has_its_own_message() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &[u8]| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    };
    let kernel = fs::read(BTF).unwrap();
    let mut messages: Vec<String> = [
        dir.path().join("missing"),
        dir.path().to_owned(),
        file("empty", b""),
        file("garbage", &[0x5a; 4096]),
        file("truncated", &kernel[..kernel.len() / 2]),
    ]
    .iter()
    .map(|path| refusal_of_btf(path).replace(path.to_str().unwrap(), "FILE"))
    .collect();
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), 5, "{messages:#?}");
}

#[test]
fn the_kernels_btf_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux.btf");
    fs::copy(BTF, &path).unwrap();
    let output = tcplife(&["--duration", "1ms", "--btf", path.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn tier_that_this_kernel_cannot_give_is_refused_with_the_reason() {
    for tier in ["fentry", "kprobe", "tracepoint"] {
        let mut command = Command::new(tool());
        command.args(["tcplife", "--hooks", tier, "--duration", "1ms"]);
        let output = command.output().unwrap();
        if output.status.success() {
            eprintln!("{tier}: this kernel has it");
            continue;
        }
        let message = refusal(&output);
        assert!(message.contains(tier) && message.contains(':'), "{message}");
    }
}
