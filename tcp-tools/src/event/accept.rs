//! A passive open.

use tcp_ebpf::wire;

use super::{DecodeError, Flow};

/// A connection was handed to a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Accept {
    /// When, between whom, whose.
    pub flow: Flow,
    /// How long it waited in the listener's queue, if it was established during the trace.
    pub queue_us: Option<u64>,
    /// Connections that wait there still.
    pub backlog: Option<u32>,
    /// Most that may wait.
    pub max_backlog: Option<u32>,
}

impl Accept {
    pub(super) fn new(record: &wire::Accept) -> Result<Self, DecodeError> {
        let known = |value: u32| Some(value).filter(|value| *value != u32::MAX);
        let waited_ns = record.head.ts_ns.saturating_sub(record.established_ns);
        Ok(Self {
            flow: Flow::new(&record.head)?,
            queue_us: (record.established_ns != 0).then_some(waited_ns / 1000),
            backlog: known(record.backlog),
            max_backlog: known(record.max_backlog),
        })
    }
}
