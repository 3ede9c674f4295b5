//! Names of addresses, from the system's resolver: /etc/hosts, DNS, whatever nsswitch.conf says.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    rc::Rc,
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// The names of addresses, remembered.
///
/// [`get`](Self::get) never waits: it answers what is known at this moment, and has a thread ask the resolver
/// for the rest. So the first rows with an address show the address, and later ones its name. While the
/// resolver hangs no new names come, and nothing else happens.
#[derive(Debug)]
pub struct Names {
    known: HashMap<IpAddr, Entry>,
    questions: SyncSender<IpAddr>,
    answers: Receiver<(IpAddr, Option<Vec<u8>>)>,
    limits: Limits,
}

#[derive(Debug)]
struct Entry {
    name: Option<Rc<[u8]>>,
    /// When to ask again; none while a question waits for its answer.
    stale: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Addresses remembered; more than can wait for an answer.
    addresses: usize,
    /// Questions that wait for the resolver.
    questions: usize,
    /// How long a name holds.
    found: Duration,
    /// How long it holds that there is no name, or no resolver.
    missing: Duration,
}

const LIMITS: Limits = Limits {
    addresses: 4096,
    questions: 256,
    found: Duration::from_secs(600),
    missing: Duration::from_secs(60),
};

impl Names {
    /// Starts the thread that asks the system's resolver.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start() -> io::Result<Self> {
        Self::with(LIMITS, |address| {
            dns_lookup::lookup_addr(&address)
                .ok()
                .map(String::into_bytes)
        })
    }

    fn with(
        limits: Limits,
        mut resolve: impl FnMut(IpAddr) -> Option<Vec<u8>> + Send + 'static,
    ) -> io::Result<Self> {
        let (questions, to_answer) = sync_channel(limits.questions);
        // No more answers can wait than questions were asked since the last look at the answers.
        let (answered, answers) = channel();
        // Nobody joins the thread: it may hang in the resolver for ever, and may do so until the process ends.
        thread::Builder::new()
            .name("resolver".into())
            .spawn(move || {
                for address in to_answer {
                    if answered.send((address, resolve(address))).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self {
            known: HashMap::new(),
            questions,
            answers,
            limits,
        })
    }

    /// The name of `address`, if it is known by now. From outside: any bytes.
    pub fn get(&mut self, address: IpAddr) -> Option<Rc<[u8]>> {
        while let Ok((address, name)) = self.answers.try_recv() {
            self.learn(address, name);
        }
        let entry = self.known.get_mut(&address);
        let is_due = entry
            .as_ref()
            .is_none_or(|entry| entry.stale.is_some_and(|at| at <= Instant::now()));
        // If the queue is full, the next event with this address asks again.
        let is_asked = is_due && self.questions.try_send(address).is_ok();
        match entry {
            Some(entry) => {
                if is_asked {
                    entry.stale = None;
                }
                entry.name.clone()
            }
            None => {
                if is_asked {
                    self.expect(address);
                }
                None
            }
        }
    }

    /// Asks for the names of all these addresses and waits for the answers, but not longer than `patience`: for
    /// whoever shows an address only once.
    pub fn wait_for(&mut self, addresses: impl IntoIterator<Item = IpAddr>, patience: Duration) {
        let deadline = Instant::now() + patience;
        for address in addresses {
            self.get(address);
            // The queue is full.
            while !self.known.contains_key(&address) {
                if !self.wait(deadline) {
                    return;
                }
                self.get(address);
            }
        }
        while self.known.values().any(|entry| entry.stale.is_none()) && self.wait(deadline) {}
    }

    /// Takes in the next answer; false if none has come in time.
    fn wait(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.answers.recv_timeout(left) {
            Ok((address, name)) => {
                self.learn(address, name);
                true
            }
            Err(_) => false,
        }
    }

    fn learn(&mut self, address: IpAddr, name: Option<Vec<u8>>) {
        let Some(entry) = self.known.get_mut(&address) else {
            return;
        };
        entry.name = name.filter(|name| is_name(name)).map(Rc::from);
        let holds = if entry.name.is_some() {
            self.limits.found
        } else {
            self.limits.missing
        };
        entry.stale = Some(Instant::now() + holds);
    }

    fn expect(&mut self, address: IpAddr) {
        if self.known.len() >= self.limits.addresses {
            // Looking through all is fine: it happens no more often than the resolver takes a question.
            let stalest = self
                .known
                .iter()
                .filter_map(|(address, entry)| Some((entry.stale?, *address)))
                .min();
            if let Some((_, address)) = stalest {
                self.known.remove(&address);
            }
        }
        let waiting = Entry {
            name: None,
            stale: None,
        };
        self.known.insert(address, waiting);
    }
}

/// Whoever runs the reverse zone of an address chooses its name, and may choose another's address.
fn is_name(name: &[u8]) -> bool {
    let is_address = str::from_utf8(name).is_ok_and(|name| name.parse::<IpAddr>().is_ok());
    !name.is_empty() && !is_address
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SMALL: Limits = Limits {
        addresses: 8,
        questions: 4,
        found: HOUR,
        missing: HOUR,
    };

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    impl Names {
        /// Waits for the next answer, which `get` never does.
        fn wait_one(&mut self) {
            assert!(self.wait(Instant::now() + HOUR));
        }

        fn is_known(&mut self, address: IpAddr, name: &str) -> bool {
            self.get(address).as_deref() == Some(name.as_bytes())
        }
    }

    /// A resolver that tells each question that it was asked.
    fn names(limits: Limits, name: &'static str) -> (Names, Receiver<IpAddr>) {
        let (ask, asked) = channel();
        let names = Names::with(limits, move |address| {
            ask.send(address).unwrap();
            Some(name.as_bytes().to_vec())
        });
        (names.unwrap(), asked)
    }

    #[test]
    fn a_name_is_asked_for_once_and_then_known() {
        let (mut names, asked) = names(SMALL, "web");
        assert_eq!(names.get(address(1)), None);
        names.wait_one();
        for _ in 0..100 {
            assert!(names.is_known(address(1), "web"));
        }
        assert_eq!(asked.try_iter().count(), 1);
    }

    #[test]
    fn that_there_is_no_name_is_known_too() {
        for answer in ["", "127.0.0.1", "::1"] {
            let (mut names, asked) = names(SMALL, answer);
            assert_eq!(names.get(address(1)), None);
            names.wait_one();
            assert_eq!(names.get(address(1)), None);
            drop(names);
            assert_eq!(asked.iter().count(), 1, "{answer}");
        }
    }

    #[test]
    fn a_stale_name_is_shown_while_it_is_asked_for_again() {
        let at_once = Limits {
            found: Duration::ZERO,
            ..SMALL
        };
        let (mut names, asked) = names(at_once, "web");
        assert_eq!(names.get(address(1)), None);
        names.wait_one();
        assert!(names.is_known(address(1), "web"));
        names.wait_one();
        assert!(names.is_known(address(1), "web"));
        drop(names);
        assert_eq!(asked.iter().count(), 3);
    }

    #[test]
    fn names_are_any_bytes() {
        let mut names = Names::with(SMALL, |_| Some(b"\x1b[2J\xff".to_vec())).unwrap();
        names.get(address(1));
        names.wait_one();
        assert_eq!(names.get(address(1)).as_deref(), Some(&b"\x1b[2J\xff"[..]));
    }

    #[test]
    fn a_resolver_that_hangs_stops_nothing() {
        let (resume, hangs) = channel::<()>();
        let (ask, asked) = channel();
        let mut names = Names::with(SMALL, move |address| {
            ask.send(address).unwrap();
            let _ = hangs.recv();
            Some(b"late".to_vec())
        })
        .unwrap();
        assert_eq!(names.get(address(0)), None);
        assert_eq!(asked.recv(), Ok(address(0)), "and there it hangs");
        for number in 0..1000 {
            assert_eq!(names.get(address(number)), None);
        }
        assert_eq!(names.known.len(), 5, "one asked, four in the queue");
        drop(resume);
        for _ in 0..5 {
            names.wait_one();
        }
        for number in 0..5 {
            assert!(names.is_known(address(number), "late"));
        }
        assert_eq!(names.get(address(5)), None, "asked now");
        names.wait_one();
        assert!(names.is_known(address(5), "late"));
    }

    #[test]
    fn names_can_be_waited_for() {
        let (mut names, _asked) = names(SMALL, "web");
        // More than the queue holds.
        names.wait_for((0..8).map(address), HOUR);
        for number in 0..8 {
            assert!(names.is_known(address(number), "web"));
        }
    }

    #[test]
    fn waiting_for_a_resolver_that_hangs_has_an_end() {
        let (_resume, hangs) = channel::<()>();
        let mut names = Names::with(SMALL, move |_| {
            let _ = hangs.recv();
            None
        })
        .unwrap();
        names.wait_for((0..100).map(address), Duration::from_millis(1));
        assert_eq!(names.get(address(0)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut names, _asked) = names(SMALL, "web");
        for number in 0..100 {
            assert_eq!(names.get(address(number)), None);
            names.wait_one();
            assert!(names.is_known(address(number), "web"));
            assert!(names.known.len() <= 8);
        }
        assert!(
            names.is_known(address(92), "web"),
            "the last eight are left"
        );
        assert!(!names.known.contains_key(&address(91)));
    }

    #[test]
    fn the_systems_resolver_knows_this_machine() {
        // Whatever the name, it comes out of /etc/hosts without a network.
        if !std::fs::read_to_string("/etc/hosts").is_ok_and(|hosts| hosts.contains("127.0.0.1")) {
            return crate::testing::skip("name of 127.0.0.1 in /etc/hosts");
        }
        let mut names = Names::start().unwrap();
        names.get(Ipv4Addr::LOCALHOST.into());
        names.wait_one();
        assert!(names.get(Ipv4Addr::LOCALHOST.into()).is_some());
    }
}
