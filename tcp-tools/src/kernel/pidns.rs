//! Which process ids the programs see: those of the initial PID namespace, wherever this process is.

use std::{fs, path::Path};

/// The link of the initial one, whose number is fixed: `PROC_PID_INIT_INO`, include/linux/proc_ns.h (6.18).
const INITIAL: &str = "pid:[4026531836]";

/// Whether this process is in the initial PID namespace, so that the ids that it knows are those that the
/// programs see. True also where that cannot be found out.
#[must_use]
pub fn is_initial() -> bool {
    fs::read_link("/proc/self/ns/pid").map_or(true, |own| own == Path::new(INITIAL))
}
