//! What user space adds to events: the container of a process, names of addresses.
//!
//! The stream of events waits for none of it. Everything is cached, the caches are bounded, and what is
//! not known in time is shown as not known.

mod cgroup;
mod container;
mod containers;
mod names;

pub use self::{
    cgroup::{Cgroup, CgroupError, Hierarchy},
    container::{Container, Runtime, container_of},
    containers::{ContainerError, Containers, find_container},
    names::Names,
};
