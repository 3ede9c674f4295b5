//! What tcptop costs the data that it counts.

use std::io;
use std::time::Duration;

use anyhow::Result;

use super::report::{Measure, Numbers, Report, Target};
use super::running::Running;
use super::stats::Spread;
use super::tool::Tool;
use super::{Bench, alternate, load};

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
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); tools.len() + 1];
        alternate(bench.rounds, rates.len(), |at| {
            let tracer = match at.checked_sub(1) {
                Some(tool) => Some(Running::start(tools[tool], bench.directory.path())?),
                None => None,
            };
            rates[at].push(load(bench.time)?);
            tracer.map(Running::stop).transpose()?;
            Ok(())
        })?;
        let (untraced, traced) = rates.split_at(1);
        let slower: Vec<Vec<f64>> = traced
            .iter()
            .map(|rates| slower_percent(&untraced[0], rates))
            .collect();
        let numbers: Vec<_> = tools
            .iter()
            .zip(&slower)
            .map(|(tool, values)| Numbers {
                tool: &tool.name,
                values,
            })
            .collect();
        let target = Target::Value(1.0 + variation(&untraced[0]));
        // No ratio: both are differences that may be next to nothing.
        for (numbers, target) in numbers.iter().zip([Some(target), None]) {
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
