//! Development commands of tcp-tools: `cargo xtask COMMAND`.

mod artifacts;
mod bench;
mod build_ebpf;
mod compare;
mod demo;
mod netns;
mod privilege;
mod programs;
mod ready;
mod run;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// Development commands of tcp-tools.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Build the kernel object, tcp-tools/bpf/tcp.bpf.o
    BuildEbpf(build_ebpf::Options),
    /// Build tcp-tools and run it as root: `cargo xtask run -- tcplife`
    Run(run::Options),
    /// Show tcplife on traffic of the demo's own
    Demo(demo::Options),
    /// Measure tcp-tools beside its peers, on the same work in one run
    Bench(bench::Options),
    /// Run all tests that this machine can run
    Test(test::Options),
    /// Run the end-to-end tests, or a command, on a stock kernel in a virtual machine
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::BuildEbpf(options) => build_ebpf::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Vm(options) => vm::run(&options),
    };
    result.unwrap_or_else(|error| {
        // Not `main`'s own report: RUST_BACKTRACE, set for the tests, would bury the message.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
