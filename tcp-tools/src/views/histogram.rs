//! The distribution of a measure: percentiles, and a picture.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::output::{Format, Lines as _, Value, Writer};

/// Three significant digits: percentiles are off by 0.1 % at most. Extremes are exact.
const DIGITS: u8 = 3;

/// Values of one measure, in a unit of the caller's.
#[derive(Debug, Default)]
pub(super) struct Distribution {
    /// Made when the first value comes.
    histogram: Option<Histogram<u64>>,
    min: u64,
    max: u64,
}

impl Distribution {
    pub(super) fn add(&mut self, value: u64) {
        if self.histogram.is_none() {
            self.histogram = Histogram::new(DIGITS).ok();
            (self.min, self.max) = (value, value);
        }
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if let Some(histogram) = &mut self.histogram {
            // It grows as it must, so it takes any value.
            let _ = histogram.record(value);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.histogram.is_none()
    }

    /// Count, extremes and percentiles by name; nothing if there are no values.
    pub(super) fn numbers(&self) -> Vec<(&'static str, u64)> {
        let Some(histogram) = &self.histogram else {
            return Vec::new();
        };
        let at = |quantile| {
            histogram
                .value_at_quantile(quantile)
                .clamp(self.min, self.max)
        };
        vec![
            ("count", histogram.len()),
            ("min", self.min),
            ("p50", at(0.50)),
            ("p90", at(0.90)),
            ("p99", at(0.99)),
            ("p99.9", at(0.999)),
            ("max", self.max),
        ]
    }

    /// Writes it behind the rows, in their format; `event` and `measure` are its names in JSON.
    pub(super) fn write<R>(
        &self,
        writer: &mut Writer<R>,
        event: &'static str,
        measure: &'static str,
        title: &str,
    ) {
        match writer.format() {
            Format::Table { .. } => writer.text(&format!("\n{}", self.picture(title))),
            Format::Json => {
                let names = [
                    ("event", Value::Text(event)),
                    ("measure", Value::Text(measure)),
                ];
                let fields: Vec<_> = names.into_iter().chain(self.fields()).collect();
                writer.object(&fields);
            }
            // A picture would spoil the table.
            Format::Csv => eprint!("{}", self.picture(title)),
        }
    }

    /// As fields of a JSON object; `p99.9` is called `p999` there.
    pub(super) fn fields<'a>(&self) -> impl Iterator<Item = (&'static str, Value<'a>)> + use<'a> {
        self.numbers().into_iter().map(|(name, number)| {
            (
                if name == "p99.9" { "p999" } else { name },
                Value::Uint(number),
            )
        })
    }

    /// A line of numbers, and a bar for each power of two; `title` should name the unit.
    fn picture(&self, title: &str) -> String {
        const LONGEST_BAR: u64 = 40;
        let mut text = format!("{title}\n");
        let Some(histogram) = &self.histogram else {
            text.push_str("nothing to count\n");
            return text;
        };
        for (name, number) in self.numbers() {
            let _ = write!(text, "{name} {number}  ");
        }
        text.truncate(text.trim_end().len());
        let _ = write!(text, "\n\n{:>12} - {:<12} {:>8}\n", "from", "to", "count");
        let buckets = buckets(histogram);
        let largest = buckets
            .iter()
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(1)
            .max(1);
        for (bits, count) in buckets {
            let (low, high) = (
                if bits == 0 { 0 } else { 1_u64 << (bits - 1) },
                bucket_end(bits),
            );
            let bar = "#".repeat(usize::try_from(count * LONGEST_BAR / largest).unwrap_or(0));
            let line = format!("{low:>12} - {high:<12} {count:>8} {bar}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

/// Last value whose binary logarithm is `bits - 1`.
fn bucket_end(bits: u32) -> u64 {
    u64::MAX.checked_shr(64 - bits).unwrap_or(0)
}

/// How many values take so many bits, from the least to the most.
fn buckets(histogram: &Histogram<u64>) -> Vec<(u32, u64)> {
    let mut counts = [0_u64; 65];
    for step in histogram.iter_recorded() {
        let bits = 64 - step.value_iterated_to().leading_zeros();
        counts[bits as usize] += step.count_since_last_iteration();
    }
    let first = counts.iter().position(|count| *count > 0).unwrap_or(0);
    let last = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
    (0..)
        .zip(counts)
        .skip(first)
        .take(last + 1 - first)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_counts_every_value_once() {
        let mut distribution = Distribution::default();
        for value in [0, 1, 1, 3, 100, 5000] {
            distribution.add(value);
        }
        insta::assert_snapshot!(distribution.picture("latency, us"), @r"
        latency, us
        count 6  min 0  p50 1  p90 5000  p99 5000  p99.9 5000  max 5000

                from - to              count
                   0 - 0                   1 ####################
                   1 - 1                   2 ########################################
                   2 - 3                   1 ####################
                   4 - 7                   0
                   8 - 15                  0
                  16 - 31                  0
                  32 - 63                  0
                  64 - 127                 1 ####################
                 128 - 255                 0
                 256 - 511                 0
                 512 - 1023                0
                1024 - 2047                0
                2048 - 4095                0
                4096 - 8191                1 ####################
        ");
    }

    #[test]
    fn extremes_are_exact() {
        let mut distribution = Distribution::default();
        distribution.add(5_000_001);
        distribution.add(5_000_003);
        let numbers = distribution.numbers();
        assert_eq!(numbers[1], ("min", 5_000_001));
        assert_eq!(numbers[6], ("max", 5_000_003));
        assert!(numbers[2].1 <= 5_000_003);
    }
}
