//! The end-to-end tests: see the crate's harness for how they run.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests report by panicking"
)]

mod bytes;
mod cli;
mod closes;
mod doctor;
mod filters;
mod harness;
mod load;
mod loss;
mod older;
mod output;
mod owners;
mod sessions;
