//! Random traffic: every way in which sessions begin, lose segments and end.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

use socket2::Socket;

use crate::ktrace::CLOSED_PORT;
use crate::netns::Netns;
use crate::pair::{Pair, close_in_order, reset_in_order};
use crate::proc_net;
use crate::sock::{self, Ends};

/// Threads that make traffic at the same time.
const WORKERS: u64 = 6;

/// How often each of them does each of [`OPERATIONS`].
const ROUNDS: usize = 2;

const OPERATIONS: &[fn(&mut Worker) -> io::Result<()>] = &[
    Worker::talk,
    Worker::is_refused,
    Worker::gives_up_connecting,
    Worker::is_answered_late,
    Worker::answers_in_vain,
    Worker::resets,
    Worker::leaves_data_unread,
    Worker::closes_half,
    Worker::loses_the_tail,
    Worker::loses_the_head,
    Worker::loses_a_window,
    Worker::loses_the_fin,
    Worker::times_out,
    Worker::is_not_accepted,
];

/// What the traffic knows of itself.
#[derive(Debug, Default)]
pub struct Done {
    /// The ends that accept() has given, as they see themselves.
    pub accepted: Vec<Ends>,
    /// Calls of connect().
    pub attempts: usize,
    /// Sessions that ended by a timer of which no segment was sent.
    pub timed_out: usize,
}

/// SplitMix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// The seed of the traffic: `TCP_TOOLS_SEED`, or a random one, which is printed.
///
/// # Panics
/// When the variable is not a number.
pub fn seed() -> u64 {
    let given = env::var("TCP_TOOLS_SEED").ok();
    let seed = given.map(|seed| seed.parse().expect("TCP_TOOLS_SEED is a number"));
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    eprintln!("TCP_TOOLS_SEED={seed}");
    seed
}

/// Makes traffic in `netns`, which the calling thread must be in, and closes all of its sockets.
///
/// # Panics
/// When an operation fails, or the kernel does not finish with the sockets.
pub fn run(netns: &Netns, seed: u64) -> Done {
    let mut all = Done::default();
    thread::scope(|scope| {
        let work = |number| {
            let random = Random(seed.wrapping_add(number << 32));
            let addresses = netns.addresses();
            move || Worker::new(random, addresses).work()
        };
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| scope.spawn(work(number)))
            .collect();
        for worker in workers {
            let done = worker.join().unwrap();
            all.accepted.extend(done.accepted);
            all.attempts += done.attempts;
            all.timed_out += done.timed_out;
        }
    });
    proc_net::wait_until_closed();
    all
}

struct Worker {
    random: Random,
    addresses: [IpAddr; 2],
    done: Done,
}

impl Worker {
    fn new(random: Random, addresses: [IpAddr; 2]) -> Self {
        let done = Done::default();
        Self {
            random,
            addresses,
            done,
        }
    }

    fn work(mut self) -> Done {
        for _ in 0..ROUNDS {
            let mut operations: Vec<usize> = (0..OPERATIONS.len()).collect();
            while !operations.is_empty() {
                let next = self.random.between(0, operations.len() - 1);
                let operation = operations.swap_remove(next);
                let result = OPERATIONS[operation](&mut self);
                result.unwrap_or_else(|error| panic!("operation {operation}: {error}"));
            }
        }
        self.done
    }

    fn listener(&mut self) -> io::Result<(Socket, SocketAddr)> {
        let address = self.addresses[usize::from(self.random.flip())];
        let listener = sock::listen(SocketAddr::new(address, 0), 8)?;
        let address = sock::local(&listener)?;
        Ok((listener, address))
    }

    fn accept(&mut self, listener: &Socket) -> io::Result<Socket> {
        let server = sock::accept(listener)?;
        self.done.accepted.push(Ends::of(&server)?);
        Ok(server)
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<Socket> {
        self.done.attempts += 1;
        sock::connect(address)
    }

    /// A session that has measured its round trip, and sends each write at once.
    fn pair(&mut self) -> io::Result<Pair> {
        let (listener, address) = self.listener()?;
        let client = self.connect(address)?;
        let server = self.accept(&listener)?;
        for socket in [&client, &server] {
            socket.set_tcp_nodelay(true)?;
        }
        let pair = Pair { client, server };
        pair.exchange(10, 10);
        Ok(pair)
    }

    /// In the order of closing.
    fn ends(&mut self, pair: Pair) -> (Socket, Socket) {
        if self.random.flip() {
            (pair.client, pair.server)
        } else {
            (pair.server, pair.client)
        }
    }

    fn close(&mut self, pair: Pair) {
        let (first, second) = self.ends(pair);
        close_in_order(first, second);
    }

    fn talk(&mut self) -> io::Result<()> {
        let pair = self.pair()?;
        for _ in 0..self.random.between(1, 4) {
            // All of it can be sent at once: a tail loss probe with new data is no retransmit.
            let counts = [(); 2].map(|()| self.random.between(1, 30_000));
            pair.exchange(counts[0], counts[1]);
        }
        self.close(pair);
        Ok(())
    }

    fn is_refused(&mut self) -> io::Result<()> {
        let address = self.addresses[usize::from(self.random.flip())];
        let refused = self.connect(SocketAddr::new(address, CLOSED_PORT));
        expect_error(refused, &[libc::ECONNREFUSED])
    }

    /// A client that nothing answers.
    fn gives_up_connecting(&mut self) -> io::Result<()> {
        let (listener, address) = self.listener()?;
        sock::deafen(&listener)?;
        self.done.attempts += 1;
        let client = sock::start_connect(address)?;
        let syns = self.random.between(1, 2);
        sock::hear_after_losses(&listener, syns as u32)?;
        drop(client);
        Ok(())
    }

    /// SYNs are lost.
    fn is_answered_late(&mut self) -> io::Result<()> {
        let (listener, address) = self.listener()?;
        sock::deafen(&listener)?;
        self.done.attempts += 1;
        let client = sock::start_connect(address)?;
        sock::hear_after_loss(&listener)?;
        let server = self.accept(&listener)?;
        client.set_nonblocking(false)?;
        self.close(Pair { client, server });
        Ok(())
    }

    /// SYN-ACKs are lost.
    fn answers_in_vain(&mut self) -> io::Result<()> {
        let (listener, address) = self.listener()?;
        let client = sock::tcp(address)?;
        sock::deafen(&client)?;
        client.set_nonblocking(true)?;
        self.done.attempts += 1;
        expect_error(client.connect(&address.into()), &[libc::EINPROGRESS])?;
        let synacks = self.random.between(1, 3);
        sock::hear_after_losses(&client, synacks as u32)?;
        let server = self.accept(&listener)?;
        client.set_nonblocking(false)?;
        self.close(Pair { client, server });
        Ok(())
    }

    fn resets(&mut self) -> io::Result<()> {
        let pair = self.pair()?;
        let (first, second) = self.ends(pair);
        if self.random.flip() {
            sock::send(&second, self.random.between(1, 1000))?;
        }
        reset_in_order(first, second);
        Ok(())
    }

    fn leaves_data_unread(&mut self) -> io::Result<()> {
        let pair = self.pair()?;
        let (first, second) = self.ends(pair);
        sock::send(&second, self.random.between(1, 1000))?;
        sock::wait_acked(&second)?;
        if self.random.flip() {
            first.shutdown(Shutdown::Write)?;
            sock::drain(&second)?;
            drop(first);
        } else {
            drop(first);
            expect_error(sock::drain(&second), &[libc::ECONNRESET])?;
        }
        drop(second);
        Ok(())
    }

    fn closes_half(&mut self) -> io::Result<()> {
        let pair = self.pair()?;
        let (first, second) = self.ends(pair);
        first.shutdown(Shutdown::Write)?;
        sock::drain(&second)?;
        sock::send(&second, self.random.between(0, 10_000))?;
        close_in_order(second, first);
        Ok(())
    }

    /// A probe or the timer sends the last segments again.
    fn loses_the_tail(&mut self) -> io::Result<()> {
        let pair = self.pair()?;
        let lost = self.random.between(1, 3);
        self.lose(&pair, lost, 3)?;
        self.close(pair);
        Ok(())
    }

    /// Later segments show what is missing.
    fn loses_the_head(&mut self) -> io::Result<()> {
        let pair = self.pair()?;
        sock::deafen(&pair.server)?;
        sock::send(&pair.client, 100)?;
        sock::hear_after_loss(&pair.server)?;
        for _ in 0..5 {
            sock::send(&pair.client, 100)?;
        }
        sock::recv(&pair.server, 600)?;
        sock::wait_acked(&pair.client)?;
        self.close(pair);
        Ok(())
    }

    /// The timer sends the first of many segments again, and acknowledgements the others.
    fn loses_a_window(&mut self) -> io::Result<()> {
        let pair = self.pair()?;
        self.lose(&pair, 8, 3)?;
        self.close(pair);
        Ok(())
    }

    /// Sends `segments`, of which nothing arrives until up to `more` were sent again.
    fn lose(&mut self, pair: &Pair, segments: usize, more: usize) -> io::Result<()> {
        const LENGTH: usize = 100;
        sock::deafen(&pair.server)?;
        for _ in 0..segments {
            sock::send(&pair.client, LENGTH)?;
        }
        let lost = segments + self.random.between(0, more);
        sock::hear_after_losses(&pair.server, lost as u32)?;
        sock::recv(&pair.server, segments * LENGTH)?;
        sock::wait_acked(&pair.client)
    }

    fn loses_the_fin(&mut self) -> io::Result<()> {
        let pair = self.pair()?;
        let (first, second) = self.ends(pair);
        sock::deafen(&second)?;
        drop(first);
        let fins = self.random.between(1, 3);
        sock::hear_after_losses(&second, fins as u32)?;
        sock::drain(&second)?;
        Ok(())
    }

    fn times_out(&mut self) -> io::Result<()> {
        let pair = self.pair()?;
        let (first, second) = self.ends(pair);
        let millis = self.random.between(300, 1000);
        first.set_tcp_user_timeout(Some(Duration::from_millis(millis as u64)))?;
        sock::deafen(&second)?;
        sock::send(&first, 100)?;
        expect_error(sock::drain(&first), &[libc::ETIMEDOUT])?;
        self.done.timed_out += 1;
        second.detach_filter()?;
        drop(second);
        Ok(())
    }

    /// Its listener is closed before.
    fn is_not_accepted(&mut self) -> io::Result<()> {
        let (listener, address) = self.listener()?;
        let client = self.connect(address)?;
        drop(listener);
        expect_error(sock::drain(&client), &[libc::ECONNRESET])
    }
}

fn expect_error<T>(result: io::Result<T>, errors: &[i32]) -> io::Result<()> {
    match result {
        Ok(_) => Err(io::Error::other("it succeeds")),
        Err(error) if error.raw_os_error().is_some_and(|it| errors.contains(&it)) => Ok(()),
        Err(error) => Err(error),
    }
}
