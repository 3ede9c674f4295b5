//! What user space asks of the programs: `.rodata` globals, set before loading.

/// Bits of [`Config::events`]: which records are written.
pub mod event {
    /// Sessions that end.
    pub const SESSION: u32 = 1;
    /// Active opens, when the SYN is sent.
    pub const ATTEMPT: u32 = 2;
    /// Active opens, when the outcome is known.
    pub const OUTCOME: u32 = 4;
    /// Passive opens.
    pub const ACCEPT: u32 = 8;
    /// Retransmits.
    pub const RETRANSMIT: u32 = 16;
    /// Listeners, whatever the filters say of them.
    pub const LISTENERS: u32 = 32;
    /// RSTs that sockets send, so that [`SESSION`] says how they ended.
    pub const RESET: u32 = 64;
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$doc])* pub $field: u32,)* }

        impl $name {
            /// The bytes that the loader puts in place of the global.
            #[must_use]
            pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
                let mut bytes = [0; size_of::<Self>()];
                for (to, word) in bytes.chunks_exact_mut(4).zip([$(self.$field),*]) {
                    to.copy_from_slice(&word.to_ne_bytes());
                }
                bytes
            }
        }
    };
}

words! {
    /// The `.rodata` global `CONFIG`. All words are u32, so that one can be read by its index.
    Config {
        /// See [`event`].
        events,
        /// Only this family as shown to people (4, or 6 without IPv4-mapped addresses); 0 for both.
        ip,
        /// Only this network namespace, by inode number; 0 for all.
        netns,
        /// 1: only local ports in the `.rodata` bitmap `LOCAL_PORTS`.
        by_local_port,
        /// 1: only remote ports in the `.rodata` bitmap `REMOTE_PORTS`.
        by_remote_port,
        /// 1: only local addresses in the map `LOCAL_NETS`.
        by_local_net,
        /// 1: only remote addresses in the map `REMOTE_NETS`.
        by_remote_net,
        /// 1: only processes in the map `PIDS`.
        by_pid,
        /// 1: only users in the map `UIDS`.
        by_uid,
        /// 1: only processes of a cgroup in the map `CGROUPS`, or below one.
        by_cgroup,
        /// 1: leave sessions out that were opened before the trace.
        new_only,
        /// Only sockets in these states, bit `1 << state` for each; 0 for all.
        states,
        /// Length of a jiffy, ns.
        tick_ns,
    }
}

/// A set of ports: bit `port % 64` of word `port / 64`.
pub type PortSet = [u64; 1024];

/// Key of the maps `LOCAL_NETS` and `REMOTE_NETS` (`struct bpf_lpm_trie_key`); IPv4 as mapped IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// Bits of the address that count.
    pub prefix_len: u32,
    /// In network order.
    pub address: [u32; 4],
}

impl Net {
    /// The bytes of the key.
    #[must_use]
    pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..4].copy_from_slice(&self.prefix_len.to_ne_bytes());
        for (to, word) in bytes[4..].chunks_exact_mut(4).zip(self.address) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}
