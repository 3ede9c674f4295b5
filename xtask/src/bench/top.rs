//! What tcptop costs the data that it counts.

use std::io;
use std::time::Duration;

use anyhow::Result;

use super::report::{Measure, Numbers, Report, Target};
use super::stats::Spread;
use super::tool::Tool;
use super::{Bench, load, rates};

/// A load, and how it is measured: a name, and a function that gives a rate.
type Load = (Measure, fn(Duration) -> io::Result<f64>);

const LOADS: [Load; 2] = [
    (
        Measure {
            name: "tcptop, ping-pong",
            unit: "% slower",
            meaning: "64 bytes to and fro on one connection: round trips per second that it loses while tcptop runs; the target is 1 % and what the untraced rounds vary by",
            target: None,
        },
        load::ping_pong,
    ),
    (
        Measure {
            name: "tcptop, bulk",
            unit: "% slower",
            meaning: "one stream as fast as it goes: bytes per second that it loses",
            target: None,
        },
        load::bulk,
    ),
];

/// Rates with and without tcptop.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let ours = bench.ours(&["tcptop", "1"]);
    let tools: Vec<&Tool> = std::iter::once(&ours).chain(&bench.peers.tcptop).collect();
    for (measure, load) in LOADS {
        let (untraced, traced) = rates(bench, &tools, || Ok(load(bench.time)?))?;
        let slower: Vec<Vec<f64>> = traced
            .iter()
            .map(|rates| slower_percent(&untraced, rates))
            .collect();
        let target = Target::Value(1.0 + variation(&untraced));
        // No ratio: both are differences that may be next to nothing.
        for (numbers, target) in Numbers::of(&tools, &slower)
            .iter()
            .zip([Some(target), None])
        {
            report.row_with(&measure, target, numbers, None);
        }
    }
    Ok(())
}

fn slower_percent(untraced: &[f64], traced: &[f64]) -> Vec<f64> {
    untraced
        .iter()
        .zip(traced)
        .map(|(without, with)| (without / with - 1.0) * 100.0)
        .collect()
}

/// How far the rates are apart, in percent of their median.
fn variation(rates: &[f64]) -> f64 {
    Spread::of(rates).map_or(0.0, |spread| {
        (spread.max - spread.min) / spread.median * 100.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_rate_is_twice_as_slow() {
        assert_eq!(
            slower_percent(&[100.0, 100.0], &[50.0, 100.0]),
            [100.0, 0.0]
        );
    }

    #[test]
    fn variation_is_relative() {
        assert_eq!(variation(&[90.0, 100.0, 110.0]), 20.0);
        assert_eq!(variation(&[]), 0.0);
    }
}
