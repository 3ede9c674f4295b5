//! Prints figures as they come, as the rows of a Markdown table, and then what they mean.

use super::stats::{Spread, ratios};
use super::tool::Tool;

/// What a figure says.
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) meaning: &'static str,
    pub(super) target: Option<Target>,
}

/// What the median should be at most.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// Of the ratio to the peer.
    Ratio(f64),
    /// Of the figure itself.
    Value(f64),
}

/// Numbers of one tool, one a round.
pub(super) struct Numbers<'a> {
    pub(super) tool: &'a str,
    pub(super) values: &'a [f64],
}

impl<'a> Numbers<'a> {
    /// Of each of `tools`.
    pub(super) fn of(tools: &[&'a Tool], values: &'a [Vec<f64>]) -> Vec<Self> {
        let each = tools.iter().zip(values);
        each.map(|(tool, values)| Self {
            tool: &tool.name,
            values,
        })
        .collect()
    }
}

/// Prints to standard output.
#[derive(Default)]
pub(super) struct Report {
    explained: Vec<&'static str>,
    meanings: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    pub(super) fn header() -> Self {
        println!("\n| measure | unit | tool | figure | peer | figure | ratio | target |");
        println!("|---|---|---|---|---|---|---|---|");
        Self::default()
    }

    /// One row: ours, the peer's if there is one, and the ratio of both.
    pub(super) fn row(&mut self, measure: &Measure, ours: &Numbers, peer: Option<&Numbers>) {
        self.row_with(measure, measure.target, ours, peer);
    }

    /// As [`Report::row`], with a target that was found out only now.
    pub(super) fn row_with(
        &mut self,
        measure: &Measure,
        target: Option<Target>,
        ours: &Numbers,
        peer: Option<&Numbers>,
    ) {
        let ratio = peer.and_then(|peer| Spread::of(&ratios(ours.values, peer.values)));
        let value = Spread::of(ours.values);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            measure.name,
            measure.unit,
            ours.tool,
            shown(value),
            peer.map_or("", |peer| peer.tool),
            peer.map_or(String::new(), |peer| shown(Spread::of(peer.values))),
            shown(ratio),
            verdict(target, value, ratio),
        );
        if !self.explained.contains(&measure.name) {
            self.explained.push(measure.name);
            self.meanings
                .push(format!("- {}: {}", measure.name, measure.meaning));
        }
    }

    /// A sentence below the table.
    pub(super) fn note(&mut self, text: String) {
        self.notes.push(format!("- {text}"));
    }

    pub(super) fn finish(self) {
        println!(
            "\nEach figure is min / median / max over the rounds. Ratios are tcp-tools to peer, taken round by round.\n"
        );
        for line in self.meanings.into_iter().chain(self.notes) {
            println!("{line}");
        }
    }
}

fn verdict(target: Option<Target>, value: Option<Spread>, ratio: Option<Spread>) -> String {
    let (Some(target), true) = (target, value.is_some()) else {
        return String::new();
    };
    let (limit, median, of) = match target {
        Target::Ratio(limit) => (limit, ratio.map(|ratio| ratio.median), "ratio "),
        Target::Value(limit) => (limit, value.map(|value| value.median), ""),
    };
    let said = match median {
        Some(median) if median <= limit => "met",
        Some(_) => "missed",
        None => "no peer",
    };
    format!("{of}≤ {}: {said}", number(limit))
}

fn shown(spread: Option<Spread>) -> String {
    spread.map_or(String::from("-"), |Spread { min, median, max }| {
        if min.total_cmp(&max).is_eq() {
            return number(median);
        }
        format!("{} / {} / {}", number(min), number(median), number(max))
    })
}

/// Three digits that mean something, or all that stand before the point.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        100.0.. => 0,
        10.0.. => 1,
        0.1.. => 2,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Option<Spread> = Some(Spread {
        min: 0.4,
        median: 0.5,
        max: 0.9,
    });

    #[test]
    fn the_median_decides() {
        assert_eq!(
            verdict(Some(Target::Ratio(0.5)), HALF, HALF),
            "ratio ≤ 0.50: met"
        );
        assert_eq!(verdict(Some(Target::Value(0.0)), HALF, None), "≤ 0: missed");
        assert_eq!(
            verdict(Some(Target::Ratio(0.5)), HALF, None),
            "ratio ≤ 0.50: no peer"
        );
        assert_eq!(verdict(None, HALF, HALF), "");
    }

    #[test]
    fn numbers_keep_their_digits() {
        let shown = [0.0, 0.0123, 0.25, 12.34, 59_900.4, -3.0].map(number);
        assert_eq!(shown, ["0", "0.0123", "0.25", "12.3", "59900", "-3.00"]);
    }

    #[test]
    fn one_round_has_no_spread() {
        assert_eq!(shown(Spread::of(&[2.0])), "2.00");
        assert_eq!(shown(HALF), "0.40 / 0.50 / 0.90");
        assert_eq!(shown(None), "-");
    }
}
