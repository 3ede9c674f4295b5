//! What a row needs beyond its event.

use std::rc::Rc;

use crate::{
    enrich::{Containers, Names},
    event::Flow,
    trace::Clock,
};

use super::time::{Moment, Timed};

/// What turns events into rows: clocks, and what is known of this host.
pub struct Context {
    /// Relates the kernel's clock to those of people.
    pub clock: Clock,
    /// Containers by cgroup.
    pub containers: Containers,
    /// Names of addresses, if they are asked for.
    pub names: Option<Names>,
}

/// Something that happened to a socket, as a view shows it.
pub trait Subject: 'static {
    /// The name of the view, in JSON `event`.
    const VIEW: &'static str;

    /// When, between whom, whose.
    fn flow(&self) -> &Flow;

    /// Whether this is about one socket. If it is about several, the flow holds what they have in common;
    /// other addresses are unspecified and other numbers 0.
    fn is_one(&self) -> bool {
        true
    }
}

/// A row: an event, and what is known beyond it.
#[derive(Debug)]
pub struct Row<E> {
    /// What happened.
    pub event: E,
    /// When, by every clock.
    pub moment: Moment,
    /// The container that the process is in.
    pub container: Option<Rc<str>>,
    /// Name of the local address, where it is known already.
    pub lname: Option<Rc<[u8]>>,
    /// Name of the remote address, likewise.
    pub rname: Option<Rc<[u8]>>,
}

impl<E: Subject> Row<E> {
    /// Completes `event`.
    #[must_use]
    pub fn new(event: E, context: &mut Context) -> Self {
        let flow = event.flow();
        let cgroup_id = flow.owner.as_ref().and_then(|owner| owner.cgroup_id);
        let mut name = |address| context.names.as_mut().and_then(|names| names.get(address));
        Self {
            moment: Moment::new(flow.ts_ns, &context.clock),
            lname: name(flow.laddr),
            rname: name(flow.raddr),
            container: cgroup_id.and_then(|id| context.containers.get(id)),
            event,
        }
    }
}

impl<E: 'static> Timed for Row<E> {
    fn moment(&self) -> &Moment {
        &self.moment
    }
}
