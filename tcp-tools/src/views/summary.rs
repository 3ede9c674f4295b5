//! Percentiles of many sessions, by service port and by process.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};

use super::histogram::Distribution;
use crate::{
    event::{Role, Session},
    output::Value,
};

/// More groups than this are counted together.
const MAX_GROUPS: usize = 256;

const MEASURES: [&str; 4] = ["duration_us", "tx_bytes", "rx_bytes", "srtt_us"];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// The port that the server listens on: remote for a client, local for a server.
    Port(u16),
    Process(Vec<u8>),
    Other,
}

/// One a measure.
type Distributions = [Distribution; MEASURES.len()];

/// Percentiles of the sessions that were added.
#[derive(Default)]
pub(super) struct Summary(BTreeMap<Group, Distributions>);

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
        let distributions = self.0.entry(group).or_default();
        let values = [
            session.duration_us,
            session.tx_bytes,
            Some(session.rx_bytes),
            session.srtt_us.map(u64::from),
        ];
        for (distribution, value) in distributions.iter_mut().zip(values) {
            if let Some(value) = value {
                distribution.add(value);
            }
        }
    }

    /// For people.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header([
            "BY", "KEY", "MEASURE", "COUNT", "MIN", "P50", "P90", "P99", "P99.9", "MAX",
        ]);
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        for (group, measure, distribution) in self.iter() {
            let (by, key) = match group {
                Group::Port(port) => ("port", port.to_string()),
                Group::Process(comm) => ("process", crate::output::escaped(comm)),
                Group::Other => ("other", String::from("-")),
            };
            let numbers = distribution
                .numbers()
                .into_iter()
                .map(|(_, number)| number.to_string());
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
        for (group, measure, distribution) in self.iter() {
            let mut fields = vec![("event", Value::Text("tcplife_summary"))];
            match group {
                Group::Port(port) => fields.push(("port", Value::Uint(u64::from(*port)))),
                Group::Process(comm) => fields.push(("comm", Value::Untrusted(comm))),
                Group::Other => fields.push(("other", Value::Bool(true))),
            }
            fields.push(("measure", Value::Text(measure)));
            fields.extend(distribution.fields());
            object(&fields);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&Group, &'static str, &Distribution)> {
        self.0.iter().flat_map(|(group, distributions)| {
            let named = MEASURES.into_iter().zip(distributions);
            named
                .filter(|(_, distribution)| !distribution.is_empty())
                .map(move |(name, distribution)| (group, name, distribution))
        })
    }
}
