//! What not every supported kernel has, found without the tool.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// Whether programs can read the registers that a task entered the kernel with (`bpf_task_pt_regs`, Linux 5.15):
/// they hold the listener's descriptor in accept().
pub fn task_registers() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
        let mut names = symbols
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2));
        names.any(|name| name == "bpf_task_pt_regs")
    });
    *HAS
}

/// Whether the kernel was built with Multipath TCP.
pub fn multipath_tcp() -> bool {
    Path::new("/proc/sys/net/mptcp").exists()
}

/// What `doctor` must report as switched off here, each once.
pub fn switched_off() -> Vec<&'static str> {
    let features = [
        (task_registers(), "backlog of listeners"),
        (multipath_tcp(), "marks of Multipath TCP"),
    ];
    let missing = features.into_iter().filter(|(is_there, _)| !is_there);
    missing.map(|(_, feature)| feature).collect()
}
