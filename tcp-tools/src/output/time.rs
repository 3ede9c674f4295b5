//! Points in time as text. Rows come many to a second, so the text of a second is kept.

use std::io::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

const NANOSECONDS: u64 = 1_000_000_000;

/// Formats points in time, given in nanoseconds since the epoch.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// Looked up when it is first needed: it reads files.
    zone: Option<TimeZone>,
    clock: Cached,
    date: Cached,
}

/// The text of one second.
#[derive(Debug, Default)]
struct Cached {
    second: Option<u64>,
    text: Vec<u8>,
}

impl Times {
    #[cfg(test)]
    pub(super) fn in_zone(zone: TimeZone) -> Self {
        Self {
            zone: Some(zone),
            ..Self::default()
        }
    }

    /// `HH:MM:SS`, local.
    pub(super) fn clock(&mut self, ns: u64) -> &[u8] {
        let zone = &mut self.zone;
        self.clock.at(ns / NANOSECONDS, |text, instant| {
            let zone = zone.get_or_insert_with(TimeZone::system).clone();
            let _ = write!(text, "{}", instant.to_zoned(zone).strftime("%H:%M:%S"));
        })
    }

    /// Appends `2026-11-21T22:10:05.123456Z`.
    pub(super) fn rfc3339(&mut self, out: &mut Vec<u8>, ns: u64) {
        let second = self.date.at(ns / NANOSECONDS, |text, instant| {
            let _ = write!(text, "{}", instant.strftime("%Y-%m-%dT%H:%M:%S"));
        });
        out.extend(second);
        let mut fraction = *b".000000Z";
        let mut microseconds = ns % NANOSECONDS / 1000;
        for digit in fraction[1..7].iter_mut().rev() {
            *digit += (microseconds % 10) as u8;
            microseconds /= 10;
        }
        out.extend(fraction);
    }
}

impl Cached {
    fn at(&mut self, second: u64, format: impl FnOnce(&mut Vec<u8>, Timestamp)) -> &[u8] {
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            // 64 bits of nanoseconds end in the year 2554, well inside a `Timestamp`'s range.
            let instant = Timestamp::from_second(second as i64).unwrap_or(Timestamp::MAX);
            format(&mut self.text, instant);
        }
        &self.text
    }
}
