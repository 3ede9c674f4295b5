//! `vm`: the end-to-end tests, or one command, on a stock kernel in a virtual machine.

mod boot;
mod debian;
mod initramfs;
mod kernel;
mod modules;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::artifacts::{self, EndToEnd, Profile};
use crate::programs;
use crate::workspace::target_dir;

use boot::Machine;
use initramfs::Contents;
use modules::Module;

/// Options of `vm`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Debian's cloud kernel of a series (5.10, 6.1, 6.12, 6.16 and newer; fetched with apt-get), a
    /// vmlinuz file, or a directory with unpacked packages: boot/vmlinuz-* or
    /// usr/lib/modules/*/vmlinuz, and modules in lib/modules or usr/lib/modules
    #[arg(long, value_name = "SERIES|PATH")]
    kernel: String,

    /// Run the tests on this tier only; without it, once on each
    #[arg(long, value_enum)]
    hooks: Option<Tier>,

    /// The guest's memory in MiB
    #[arg(long, value_name = "MB", default_value_t = 2048)]
    memory: u32,

    /// Use KVM instead of emulation
    #[arg(long)]
    kvm: bool,

    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    timeout: u64,

    /// As [`Machine`] has it
    #[arg(skip)]
    steady: bool,

    /// Run this in the guest instead of the tests, and return its exit status
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tier {
    Tracepoint,
    Fentry,
    Kprobe,
}

impl Tier {
    /// The first is another than the host's: what runs on one tier only is tested on two this way.
    const ALL: [Self; 3] = [Self::Fentry, Self::Tracepoint, Self::Kprobe];

    fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }
}

/// Boots the kernel and runs the tests or the command in it.
///
/// # Errors
/// When something that is needed is missing or does not build, and when the guest does not come
/// to a verdict: it panics, hangs, or ends by itself.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    boot(options, |modules| {
        Ok(Contents {
            tcp_tools: artifacts::tcp_tools(Profile::Guest)?,
            end_to_end: artifacts::end_to_end(Profile::Guest)?,
            others: Vec::new(),
            modules,
            script: script(options),
        })
    })
}

/// Boots `kernel` with a tcp-tools and these other programs, each at its place in the guest, and runs
/// `command` there.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_with(
    kernel: &str,
    tcp_tools: PathBuf,
    others: Vec<(PathBuf, String)>,
    command: Vec<String>,
) -> Result<ExitCode> {
    let options = Options {
        kernel: kernel.to_owned(),
        hooks: None,
        memory: 2048,
        kvm: false,
        timeout: 3600,
        steady: true,
        command,
    };
    boot(&options, |modules| {
        Ok(Contents {
            tcp_tools,
            end_to_end: EndToEnd {
                tests: Vec::new(),
                helpers: Vec::new(),
            },
            others,
            modules,
            script: script(&options),
        })
    })
}

fn boot(
    options: &Options,
    contents: impl FnOnce(Vec<Module>) -> Result<Contents>,
) -> Result<ExitCode> {
    programs::require(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("cpio", "cpio"),
    ])?;
    let kernel = kernel::find(&options.kernel)?;
    let name = kernel.name();
    let modules = kernel.modules.as_deref().map(modules::wanted).transpose()?;
    let modules = modules.unwrap_or_default();
    if modules.is_empty() {
        eprintln!(
            "no modules for {name}: unless they are built in, tests that need veth, netem, nftables or tcp_diag \
             cannot run"
        );
    }
    let contents = contents(modules)?;
    let initramfs = initramfs::build(&contents, &target_dir().join("vm").join(&name))?;
    eprintln!("booting Linux {name}");
    let machine = Machine {
        kernel: kernel.image.clone(),
        initramfs,
        memory: options.memory,
        kvm: options.kvm,
        steady: options.steady,
    };
    machine.run(Duration::from_secs(options.timeout))
}

/// What the guest runs, as a shell script.
fn script(options: &Options) -> String {
    let tiers = options.hooks.map_or(Tier::ALL.to_vec(), |tier| vec![tier]);
    if options.command.is_empty() {
        return tests_script(&tiers);
    }
    let command: Vec<_> = options.command.iter().map(|word| quoted(word)).collect();
    let hooks = options
        .hooks
        .map(|tier| format!("export TCP_TOOLS_HOOKS={}\n", tier.name()));
    format!("{}exec {}\n", hooks.unwrap_or_default(), command.join(" "))
}

/// Tests that no kernel makes a difference to, by part of their names: they run on the host only.
const KERNELLESS: &[&str] = &[
    "cli::",
    "command::",
    "harness::",
    "output::",
    "schema::",
    "tcptop_terminal::",
    "untrusted::",
    "usage::",
];

/// Tests that a tier makes little difference to, likewise: they run on the first only.
const TIERLESS: &[&str] = &[
    "accept::ten_thousand",
    "faults::",
    "filters::",
    "soak::",
    "sockets::",
    "sockets_owners::",
    "tcptop::",
];

/// More than the guest has processors: a test waits for half of its time.
const TEST_THREADS: usize = 4;

/// Every test executable on every tier; the rest still runs when one has failed. At the end those that change
/// the machine, one at a time.
fn tests_script(tiers: &[Tier]) -> String {
    let tiers: Vec<_> = tiers.iter().map(|tier| tier.name()).collect();
    let skips =
        |names: &[&str]| -> String { names.iter().map(|name| format!(" --skip {name}")).collect() };
    format!(
        r#"status=0
skips="{kernelless}"
for TCP_TOOLS_HOOKS in {tiers}; do
    export TCP_TOOLS_HOOKS
    for test in /tests/*; do
        echo "== $(basename "$test") on the $TCP_TOOLS_HOOKS tier, Linux $(uname -r)"
        since=$(date +%s)
        "$test" $skips --test-threads {TEST_THREADS} || status=1
        echo "== $(($(date +%s) - since)) s"
    done
    skips="{kernelless}{tierless}"
done
for test in /tests/*; do
    "$test" --ignored --test-threads 1 || status=1
done
exit $status
"#,
        kernelless = skips(KERNELLESS),
        tierless = skips(TIERLESS),
        tiers = tiers.join(" "),
    )
}

/// A word that the shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_is_one_word() {
        let out = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("printf %s {}", quoted("it's $HOME \"and\" *")))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "it's $HOME \"and\" *");
    }
}
