//! Every program that a view loads here passes the verifier, and how far that is from its limit.

use std::io::Write;

use tcp_tools_tests::bpf::Objects;
use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::trace::Trace;
use tcp_tools_tests::views::ALL;

/// Of a million that the kernel allows (`BPF_COMPLEXITY_LIMIT_INSNS`, include/linux/bpf.h).
const BUDGET: u32 = 100_000;

/// Version of the running kernel.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|it: char| !it.is_ascii_digit());
    let mut number = || numbers.next().unwrap().parse().unwrap();
    (number(), number())
}

#[test]
fn instructions_that_the_verifier_walks_are_printed_and_bounded() {
    let views = [
        ("tcplife", &["--active", "-p", "1", "--follow"][..], 3),
        ("tcpconnect", &["--latency"], 3),
        ("tcpaccept", &[], 3),
        ("tcpretrans", &["-l"], 3),
        ("tcptop", &["1"], 3),
        ("sockets", &["--interval", "1s"], 2),
    ];
    assert_eq!(views.map(|(view, _, _)| view), ALL);
    for (view, args, least) in views {
        let netns = Netns::enter_new();
        let trace = Trace::view(view, &netns, args);
        let programs = Objects::of(trace.pid()).programs();
        assert!(programs.len() >= least, "{view}: {programs:?}");
        for program in programs {
            let name = program.name_as_str().unwrap_or_default();
            let walked = program.verified_instruction_count();
            // Counted since Linux 5.16.
            assert!(walked.is_some() || kernel() < (5, 16), "{view} {name}");
            let walked = walked.unwrap_or(0);
            let translated = program.size_translated().unwrap_or(0);
            // Not by the macro: the test's harness would keep it to itself.
            let mut stderr = std::io::stderr();
            let _ = writeln!(
                stderr,
                "verifier: {view} {name}: {walked} instructions walked, {translated} bytes"
            );
            assert!(walked < BUDGET, "{view} {name}: {walked}");
        }
        trace.interrupt();
    }
}
