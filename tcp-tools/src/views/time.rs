//! When: the columns that every line has, whatever it is about.

use std::marker::PhantomData;

use crate::{
    output::{Align, Column, Fixed, Kind, Value},
    trace::Clock,
};

use super::columns::column;

/// A moment by every clock that people or machines may ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// `CLOCK_MONOTONIC`, ns.
    pub ts_ns: u64,
    /// Since the epoch, ns.
    pub wall_ns: u64,
    /// Since the trace began, ns.
    pub elapsed_ns: u64,
}

impl Moment {
    /// The moment that the kernel calls `ts_ns`.
    #[must_use]
    pub fn new(ts_ns: u64, clock: &Clock) -> Self {
        Self {
            ts_ns,
            wall_ns: clock.wall_ns(ts_ns),
            elapsed_ns: clock.elapsed_ns(ts_ns),
        }
    }
}

/// Has happened, or was true, at a moment.
pub(super) trait Timed: 'static {
    fn moment(&self) -> &Moment;
}

/// Columns about the moment of a line.
pub(super) struct Time<T>(PhantomData<T>);

impl<T: Timed> Time<T> {
    pub(super) const TS: Column<T> = Column {
        width: 27,
        ..column(
            "ts",
            "TS",
            Kind::String,
            "When: RFC 3339, UTC, microseconds.",
            |line| Value::Rfc3339(line.moment().wall_ns),
        )
    };
    pub(super) const TS_NS: Column<T> = Column {
        width: 16,
        ..column(
            "ts_ns",
            "TS_NS",
            Kind::Integer,
            "When: CLOCK_MONOTONIC, ns.",
            |line| Value::Uint(line.moment().ts_ns),
        )
    };
    pub(super) const TIME: Column<T> = Column {
        width: 8,
        ..column(
            "time",
            "TIME",
            Kind::String,
            "When: local time of day.",
            |line| Value::Clock(line.moment().wall_ns),
        )
    };
    pub(super) const TIME_S: Column<T> = Column {
        width: 9,
        align: Align::Left,
        ..column(
            "time_s",
            "TIME(s)",
            Kind::Number,
            "When: seconds since the trace began.",
            |line| {
                Value::Fixed(Fixed {
                    units: line.moment().elapsed_ns / 1000,
                    scale: 6,
                    shown: 6,
                })
            },
        )
    };
}
