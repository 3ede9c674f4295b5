//! Several views of the same sessions, under the same filter.

use crate::actor::Actor;
use crate::netns::Netns;
use crate::row::{Process, Row};
use crate::sock::Ends;
use crate::trace::{Ended, Trace};

/// All views. A test compares them with the tool's own list.
pub const ALL: [&str; 6] = [
    "tcplife",
    "tcpconnect",
    "tcpaccept",
    "tcpretrans",
    "tcptop",
    "sockets",
];

/// Options with which a view runs until it is stopped, and writes nothing on its own before that but a first snapshot.
///
/// # Panics
/// When `view` is none of [`ALL`].
pub fn until_stopped(view: &str) -> &'static [&'static str] {
    match view {
        "tcplife" | "tcpconnect" | "tcpaccept" | "tcpretrans" => &[],
        "tcptop" => &["3600"],
        "sockets" => &["--interval", "1h"],
        other => panic!("unknown view {other}"),
    }
}

/// The views that a session shows up in, as it begins or ends.
const VIEWS: [&str; 3] = ["tcplife", "tcpconnect", "tcpaccept"];

/// One end of a session that was opened and closed, by the client first, without any bytes.
#[derive(Clone, Debug)]
pub struct End {
    /// Whether it is the end that connected.
    pub is_client: bool,
    /// Between whom.
    pub ends: Ends,
    /// Whose socket it is.
    pub owner: Process,
}

impl End {
    /// Both ends of a session.
    pub fn both(at_client: Ends, client: &Process, server: &Process) -> [Self; 2] {
        let end = |is_client, ends, owner: &Process| Self {
            is_client,
            ends,
            owner: owner.clone(),
        };
        [
            end(true, at_client, client),
            end(false, at_client.swapped(), server),
        ]
    }

    /// The row that `view` gives it, if it gives one.
    pub fn row(&self, view: &str) -> Option<Row> {
        let row = match (view, self.is_client) {
            ("tcplife", true) => Row::client(self.ends).close("fin", "local"),
            ("tcplife", false) => Row::server(self.ends).close("fin", "remote"),
            ("tcpconnect", true) => Row::connect(self.ends),
            ("tcpaccept", false) => Row::accept(self.ends),
            ("tcpconnect", false) | ("tcpaccept", true) => return None,
            (other, _) => panic!("no row of a session is known of {other}"),
        };
        Some(row.of(&self.owner))
    }
}

impl Actor {
    /// Has it open and close a session with itself.
    pub fn session(&mut self) -> [End; 2] {
        let me = self.process();
        End::both(self.talk(), &me, &me)
    }
}

/// One trace by each view.
#[derive(Debug)]
pub struct Views(Vec<(&'static str, Trace)>);

impl Views {
    /// Starts them with `args`, of which a filter must keep the sessions of other tests out.
    pub fn start(netns: &Netns, args: &[&str]) -> Self {
        let start = |view| {
            (
                view,
                Trace::everywhere(view, netns, &[&["-v"], args].concat()),
            )
        };
        Self(VIEWS.map(start).into())
    }

    /// Ends them: each must have shown the ends that `pass`, each once, and nothing else. What does not
    /// pass must not have got as far as the ring.
    pub fn expect(self, all: &[End], pass: impl Fn(&End) -> bool) {
        self.finish(all, pass, |ended, rows, others| {
            let (submitted, kept_out) = ring(&ended.stderr);
            assert_eq!(submitted, rows, "{}", ended.stderr);
            assert!(kept_out >= others, "{}", ended.stderr);
        });
    }

    /// As [`Views::expect`], of a filter that user space applies.
    pub fn expect_after_ring(self, all: &[End], pass: impl Fn(&End) -> bool) {
        self.finish(all, pass, |_, _, _| {});
    }

    fn finish(
        self,
        all: &[End],
        pass: impl Fn(&End) -> bool,
        check: impl Fn(&Ended, usize, usize),
    ) {
        for (view, mut trace) in self.0 {
            let row = |end: &End| end.row(view);
            let expected: Vec<Row> = all.iter().filter(|it| pass(it)).filter_map(row).collect();
            let others = all.iter().filter_map(row).count() - expected.len();
            assert!(!expected.is_empty() || others > 0);
            trace.wait_rows(expected.len());
            let ended = trace.interrupt();
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            crate::row::assert_rows(&ended.rows(), &expected);
            check(&ended, expected.len(), others);
        }
    }
}

/// Records that got into the ring and that filters kept out of it, as `-v` tells at the end.
pub fn ring(stderr: &str) -> (usize, usize) {
    let line = stderr.lines().find(|line| line.contains("submitted"));
    let words = line.expect(stderr).split([' ', ';']);
    let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}
