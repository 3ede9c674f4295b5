//! Percentiles of many sessions, by service port and by process.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use hdrhistogram::Histogram;

use crate::{
    event::{Role, Session},
    output::Value,
};

/// More groups than this are counted together.
const MAX_GROUPS: usize = 256;

/// Three significant digits: an error of 0.1 % at most.
const DIGITS: u8 = 3;

const MEASURES: [&str; 4] = ["duration_us", "tx_bytes", "rx_bytes", "srtt_us"];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// The port that the server listens on: remote for a client, local for a server.
    Port(u16),
    Process(Vec<u8>),
    Other,
}

/// One histogram a measure, each made when its first value comes.
type Histograms = [Option<Histogram<u64>>; MEASURES.len()];

/// Percentiles of the sessions that were added.
#[derive(Default)]
pub(super) struct Summary(BTreeMap<Group, Histograms>);

impl Summary {
    pub(super) fn add(&mut self, session: &Session) {
        let port = match session.role {
            Some(Role::Server) => session.flow.lport,
            Some(Role::Client) | None => session.flow.rport,
        };
        self.record(Group::Port(port), session);
        if let Some(owner) = &session.flow.owner {
            self.record(Group::Process(owner.comm().to_vec()), session);
        }
    }

    fn record(&mut self, group: Group, session: &Session) {
        let is_new = !self.0.contains_key(&group);
        let group = if is_new && self.0.len() >= MAX_GROUPS {
            Group::Other
        } else {
            group
        };
        let histograms = self.0.entry(group).or_default();
        let values = [
            session.duration_us,
            session.tx_bytes,
            Some(session.rx_bytes),
            session.srtt_us.map(u64::from),
        ];
        for (histogram, value) in histograms.iter_mut().zip(values) {
            let Some(value) = value else { continue };
            if histogram.is_none() {
                *histogram = Histogram::new(DIGITS).ok();
            }
            if let Some(histogram) = histogram {
                // It grows as it must, so it takes any value.
                let _ = histogram.record(value);
            }
        }
    }

    /// For people.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header([
            "BY", "KEY", "MEASURE", "COUNT", "MIN", "P50", "P90", "P99", "MAX",
        ]);
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        for (group, measure, histogram) in self.iter() {
            let (by, key) = match group {
                Group::Port(port) => ("port", port.to_string()),
                Group::Process(comm) => ("process", crate::output::escaped(comm)),
                Group::Other => ("other", String::from("-")),
            };
            let numbers = numbers(histogram).map(|(_, number)| number.to_string());
            table.add_row(
                [by.to_owned(), key, measure.to_owned()]
                    .into_iter()
                    .chain(numbers),
            );
        }
        table
    }

    /// For machines: the fields of one object after another.
    pub(super) fn each(&self, mut object: impl FnMut(&[(&'static str, Value<'_>)])) {
        for (group, measure, histogram) in self.iter() {
            let mut fields = vec![("event", Value::Text("tcplife_summary"))];
            match group {
                Group::Port(port) => fields.push(("port", Value::Uint(u64::from(*port)))),
                Group::Process(comm) => fields.push(("comm", Value::Untrusted(comm))),
                Group::Other => fields.push(("other", Value::Bool(true))),
            }
            fields.push(("measure", Value::Text(measure)));
            fields.extend(numbers(histogram).map(|(name, number)| (name, Value::Uint(number))));
            object(&fields);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&Group, &'static str, &Histogram<u64>)> {
        self.0.iter().flat_map(|(group, histograms)| {
            let named = MEASURES.iter().zip(histograms);
            named.filter_map(move |(name, histogram)| Some((group, *name, histogram.as_ref()?)))
        })
    }
}

fn numbers(histogram: &Histogram<u64>) -> [(&'static str, u64); 6] {
    [
        ("count", histogram.len()),
        ("min", histogram.min()),
        ("p50", histogram.value_at_quantile(0.50)),
        ("p90", histogram.value_at_quantile(0.90)),
        ("p99", histogram.value_at_quantile(0.99)),
        ("max", histogram.max()),
    ]
}
