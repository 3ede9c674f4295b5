//! The end-to-end tests: see the crate's harness for how they run.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests report by panicking"
)]

mod accept;
mod bytes;
mod cli;
mod closes;
mod command;
mod command_end;
mod connect;
mod connect_failures;
mod connect_latency;
mod differential;
mod doctor;
mod ends;
mod ends_output;
mod faults;
mod filters;
mod harness;
mod load;
mod loss;
mod machine;
mod masked;
mod net_filters;
mod older;
mod output;
mod owners;
mod privilege;
mod process_filters;
mod retrans;
mod retrans_other_reasons;
mod retrans_output;
mod retrans_reasons;
mod schema;
mod sessions;
mod soak;
mod sockets;
mod sockets_output;
mod sockets_owners;
mod tcptop;
mod tcptop_output;
mod tcptop_terminal;
mod untrusted;
mod uring;
mod usage;
mod verifier;
