//! What user space asks of the programs: `.rodata` globals, set before loading.

/// The `.rodata` global `CONFIG`. All zero asks for everything.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Only this family as shown to people (4, or 6 without IPv4-mapped addresses); 0 for both.
    pub ip: u32,
    /// Only this network namespace, by inode number; 0 for all.
    pub netns: u32,
    /// 1: only processes in the map `PIDS`.
    pub by_pid: u32,
    /// 1: only local ports in the `.rodata` bitmap `LOCAL_PORTS`.
    pub by_local_port: u32,
    /// 1: only remote ports in the `.rodata` bitmap `REMOTE_PORTS`.
    pub by_remote_port: u32,
    /// 1: leave sessions out that were opened before the trace.
    pub new_only: u32,
}

impl Config {
    /// The bytes that the loader puts in place of the global.
    #[must_use]
    pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let words = [
            self.ip,
            self.netns,
            self.by_pid,
            self.by_local_port,
            self.by_remote_port,
            self.new_only,
        ];
        let mut bytes = [0; size_of::<Self>()];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// A set of ports: bit `port % 64` of word `port / 64`.
pub type PortSet = [u64; 1024];
