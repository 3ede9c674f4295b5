//! The programs that are measured: tcp-tools, and its peers where they are installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::What;
use super::running::Running;

/// A program with the arguments that make it trace.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    /// As the report calls it.
    pub(super) name: String,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Tool {
    pub(super) fn new(name: &str, program: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
        }
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }
}

/// What bpftrace does for a row at each state change: less than a session tracer, so its figures are a
/// lower bound of what a script costs.
const BPFTRACE: &str = r#"tracepoint:sock:inet_sock_set_state /args->newstate == 7/ {
    printf("%d %s %d %d \n", pid, comm, args->sport, args->dport); }"#;

/// A kind of peer, and where Debian puts it.
struct Known {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    package: &'static str,
    /// What it cannot do without.
    needs: &'static str,
}

const LIBBPF_TCPLIFE: Known = Known {
    name: "libbpf-tools",
    program: "/usr/sbin/tcplife",
    arguments: &[],
    package: "libbpf-tools",
    needs: "BTF and tracefs",
};

const LIBBPF_TCPTOP: Known = Known {
    program: "/usr/sbin/tcptop",
    arguments: &["-C", "1"],
    needs: "kprobes",
    ..LIBBPF_TCPLIFE
};

const BPFTRACE_SCRIPT: Known = Known {
    name: "bpftrace",
    program: "/usr/bin/bpftrace",
    arguments: &["-e", BPFTRACE],
    package: "bpftrace",
    needs: "tracefs",
};

const BCC: Known = Known {
    name: "bcc",
    program: "/usr/sbin/tcplife-bpfcc",
    arguments: &[],
    package: "bpfcc-tools",
    needs: "the kernel's headers",
};

/// Files of the peers that can go into a virtual machine: those that need little more than themselves.
pub(super) const PORTABLE: [&str; 2] = [LIBBPF_TCPLIFE.program, LIBBPF_TCPTOP.program];

/// The peers that are here and run on this kernel.
#[derive(Default)]
pub(super) struct Peers {
    pub(super) tcplife: Option<Tool>,
    pub(super) tcptop: Option<Tool>,
    pub(super) bpftrace: Option<Tool>,
    pub(super) bcc: Option<Tool>,
    /// What became of each, in a line.
    pub(super) notes: Vec<String>,
}

impl Peers {
    /// Tries those that are needed once, with their output in `directory`.
    pub(super) fn find(needed: &[What], directory: &Path) -> Self {
        let mut peers = Self::default();
        let any = |of: &[What]| needed.iter().any(|what| of.contains(what));
        if any(&[
            What::Cost,
            What::Kernel,
            What::Loss,
            What::Startup,
            What::Http,
        ]) {
            peers.tcplife = peers.tried(&LIBBPF_TCPLIFE, directory);
        }
        if any(&[What::Top]) {
            peers.tcptop = peers.tried(&LIBBPF_TCPTOP, directory);
        }
        if any(&[What::Cost, What::Startup]) {
            peers.bpftrace = peers.tried(&BPFTRACE_SCRIPT, directory);
            peers.bcc = peers.tried(&BCC, directory);
        }
        peers
    }

    /// Session tracers.
    pub(super) fn tracers(&self) -> impl Iterator<Item = &Tool> {
        [&self.tcplife, &self.bpftrace, &self.bcc]
            .into_iter()
            .flatten()
    }

    fn tried(&mut self, known: &Known, directory: &Path) -> Option<Tool> {
        let (name, program) = (known.name, known.program);
        if !Path::new(program).is_file() {
            let package = known.package;
            self.notes.push(format!(
                "{name}: no {program}; on Debian: apt-get install {package}"
            ));
            return None;
        }
        let tool = Tool::new(name, program, known.arguments);
        match trial(&tool, directory) {
            Ok(()) => {
                self.notes
                    .push(format!("{name}: {program}{}", version(&tool)));
                Some(tool)
            }
            Err(error) => {
                let needs = known.needs;
                self.notes.push(format!(
                    "{name}: {program} needs {needs} and does not run here: {error:#}"
                ));
                None
            }
        }
    }
}

fn trial(tool: &Tool, directory: &Path) -> Result<()> {
    Running::start(tool, directory)?.stop().map(drop)
}

/// In words of its Debian package, where there is one.
fn version(tool: &Tool) -> String {
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat=, ${Package} ${Version}"])
        .arg(package_of(&tool.program).unwrap_or_default())
        .output();
    match query {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into(),
        _ => String::new(),
    }
}

fn package_of(file: &Path) -> Option<String> {
    let output = Command::new("dpkg-query")
        .arg("--search")
        .arg(file)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.split_once(':')?.0.to_owned())
}
