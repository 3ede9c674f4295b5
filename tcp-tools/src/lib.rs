//! The library behind the `tcp-tools` command.
//!
//! ```text
//! kernel -> records -> event -> view -> output
//! ```
//!
//! [`kernel`] loads and attaches the programs and reads their records; [`event`] decodes them; [`views`]
//! make rows of events, with what [`enrich`] knows of this host; [`output`] makes lines of rows; [`terminal`] is where
//! they are redrawn in place; [`trace`] runs one view on a live stream, or on snapshots; [`cli`]
//! turns arguments into all of that.

pub mod cli;
pub mod command;
mod confine;
pub mod enrich;
pub mod event;
#[cfg(any(test, fuzzing))]
pub mod hostile;
pub mod kernel;
pub mod output;
mod signals;
pub mod terminal;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod views;
