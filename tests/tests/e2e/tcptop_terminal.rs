//! `tcptop` at a terminal: it redraws in place, obeys keys, and leaves the terminal as it was.

use tcp_tools_tests::netns::Netns;
use tcp_tools_tests::pair::Pair;
use tcp_tools_tests::sock::{Ends, V4};
use tcp_tools_tests::terminal::Terminal;

const SIZE: (u16, u16) = (120, 24);

/// A terminal that shows a socket that moved bytes.
fn start(netns: &Netns, args: &[&str]) -> (Terminal, Vec<Pair>) {
    let mut terminal = Terminal::view("tcptop", netns, args, SIZE);
    terminal.wait("the first picture", |text| text.contains("[q]uit"));
    let pairs: Vec<Pair> = (1..=6).map(|_| Pair::open(V4)).collect();
    for (index, pair) in (1..).zip(&pairs) {
        pair.exchange(index * 1024, 0);
    }
    (terminal, pairs)
}

#[test]
fn keys_change_what_is_shown() {
    let netns = Netns::enter_new();
    let (mut terminal, pairs) = start(&netns, &["0.1"]);
    assert!(terminal.is_alternate());
    let busy = Ends::of(&pairs[5].client).unwrap().local.to_string();
    let exchange = || pairs[5].exchange(1, 0);
    terminal.wait_doing("the busy one", exchange, |text| text.contains(&busy));
    // From now on the same interval is shown.
    terminal.press("p");
    terminal.wait("the pause", |text| text.contains("PAUSED"));
    terminal.press("s");
    terminal.wait("another order", |text| text.contains("[s]ort rtt"));
    terminal.press("b");
    terminal.wait("processes", |text| {
        text.contains("[b]y process") && text.contains("SOCKETS")
    });
    terminal.press("?pq");
    let (code, text) = terminal.wait_end();
    assert_eq!(code, Some(0));
    assert!(
        text.contains("loadavg: ") && text.contains("SOCKETS"),
        "{text}"
    );
}

#[test]
fn a_picture_fits_the_terminal() {
    let netns = Netns::enter_new();
    let (mut terminal, pairs) = start(&netns, &["0.1"]);
    terminal.resize(60, 6);
    // Time and keys, headings, and three of twelve rows, of which addresses are cut and numbers are not.
    let is_full = |text: &str| {
        let rows = text.lines().filter(|line| line.ends_with(" 0"));
        text.contains("RX_KB") && text.contains('…') && rows.count() == 3
    };
    let exchange = || pairs.iter().for_each(|pair| pair.exchange(1024, 1024));
    terminal.wait_doing("a full picture", exchange, is_full);
    terminal.press("\u{3}");
    let (code, text) = terminal.wait_end();
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn signals_leave_the_terminal_as_it_was() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let netns = Netns::enter_new();
        let (terminal, _pairs) = start(&netns, &["0.1"]);
        terminal.signal(signal);
        let (code, text) = terminal.wait_end();
        assert_eq!(code, Some(0), "{text}");
    }
}

#[test]
fn the_last_of_a_bounded_run_stays() {
    let netns = Netns::enter_new();
    let terminal = Terminal::view("tcptop", &netns, &["0.1", "2"], SIZE);
    let (code, text) = terminal.wait_end();
    assert_eq!(code, Some(0));
    assert_eq!(text.matches("loadavg: ").count(), 1, "{text}");
}

#[test]
fn without_clearing_outputs_follow_one_another() {
    let netns = Netns::enter_new();
    let terminal = Terminal::view("tcptop", &netns, &["-C", "0.1", "3"], SIZE);
    let (code, text) = terminal.wait_end();
    assert_eq!(code, Some(0));
    assert_eq!(text.matches("loadavg: ").count(), 3, "{text}");
    assert!(!text.contains("[q]uit"));
}
