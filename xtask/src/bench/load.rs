//! The work that is traced: sessions, ping-pong and streams over loopback, by threads of this process.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, SockRef, Socket, Type};

/// Where all servers listen. The bench has a network namespace of its own, so it is free there, and
/// tells its rows from those of the rest of the machine.
pub(super) const PORT: u16 = 7007;

/// Clients may be so many sessions ahead of the servers: less than the listen queue holds.
const AHEAD: u64 = 512;

/// Connects to so many addresses in turn, for each of which all client ports are free.
const ADDRESSES: u64 = 200;

/// Makes `count` sessions as fast as it goes, by `pairs` of a client and a server, and returns how
/// long that took: connect, one byte, reset. A reset leaves no TIME_WAIT behind that would use up the
/// ports.
///
/// # Errors
/// When a socket call fails.
pub(super) fn sessions(count: u64, pairs: usize) -> io::Result<Duration> {
    let listener = listener()?;
    let progress = Progress::default();
    let start = Instant::now();
    thread::scope(|scope| {
        let servers = (0..pairs).map(|server| {
            let share = share(count, pairs, server);
            let (progress, listener) = (&progress, &listener);
            scope.spawn(move || progress.guard(listener, serve(listener, share, progress)))
        });
        let clients = (0..pairs)
            .map(|_| scope.spawn(|| progress.guard(&listener, connect_all(count, &progress))));
        let threads: Vec<_> = servers.chain(clients).collect();
        threads.into_iter().try_for_each(joined)
    })?;
    Ok(start.elapsed())
}

/// How far the threads of a load are.
#[derive(Default)]
struct Progress {
    made: AtomicU64,
    served: AtomicU64,
    failed: AtomicBool,
}

impl Progress {
    /// When one thread fails, the others must not wait for what it would have done.
    fn guard(&self, listener: &TcpListener, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
            // Wakes those that wait for a connection.
            drop(SockRef::from(listener).shutdown(Shutdown::Both));
        }
        result
    }
}

/// Of `count`, what falls to the one of `pairs` with this number.
fn share(count: u64, pairs: usize, number: usize) -> u64 {
    let (pairs, number) = (pairs as u64, number as u64);
    count / pairs + u64::from(number < count % pairs)
}

fn serve(listener: &TcpListener, count: u64, progress: &Progress) -> io::Result<()> {
    let mut buffer = [0; 64];
    for _ in 0..count {
        let (mut stream, _) = listener.accept()?;
        // To the reset, which is an error here.
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        progress.served.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn connect_all(count: u64, progress: &Progress) -> io::Result<()> {
    loop {
        let number = progress.made.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(());
        }
        while number > progress.served.load(Ordering::Relaxed) + AHEAD {
            if progress.failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::yield_now();
        }
        session(number)?;
    }
}

fn session(number: u64) -> io::Result<()> {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    client.set_linger(Some(Duration::ZERO))?;
    let address = u32::from(Ipv4Addr::LOCALHOST) + (number % ADDRESSES) as u32;
    client.connect(&SocketAddr::from((Ipv4Addr::from_bits(address), PORT)).into())?;
    client.send(b"x").map(drop)
}

/// A session from this thread to itself: connect, accept, one byte, and both ends closed.
///
/// # Errors
/// When a socket call fails.
pub(super) fn one_session(listener: &TcpListener) -> io::Result<()> {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    client.set_linger(Some(Duration::ZERO))?;
    client.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)).into())?;
    client.send(b"x")?;
    let (_server, _) = listener.accept()?;
    Ok(())
}

/// Listens on [`PORT`] of every address.
///
/// # Errors
/// When a socket call fails.
pub(super) fn listener() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Runs `body` while another thread calls `work` again and again.
///
/// # Errors
/// Those of `body`, and when `work` fails.
pub(super) fn meanwhile(
    mut work: impl FnMut() -> io::Result<()> + Send,
    body: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                work()?;
            }
            Ok(())
        });
        let result = body();
        over.store(true, Ordering::Relaxed);
        joined(worker).context("cannot keep the load up")?;
        result
    })
}

/// Sends 64 bytes to and fro for `time`, and returns round trips per second.
///
/// # Errors
/// When a socket call fails.
pub(super) fn ping_pong(time: Duration) -> io::Result<f64> {
    let (mut client, mut server) = pair()?;
    thread::scope(|scope| {
        let echo = scope.spawn(move || {
            let mut message = [0; 64];
            while server.read_exact(&mut message).is_ok() {
                server.write_all(&message)?;
            }
            Ok(())
        });
        let (start, mut trips) = (Instant::now(), 0_u64);
        let mut message = [0; 64];
        while start.elapsed() < time {
            client.write_all(&message)?;
            client.read_exact(&mut message)?;
            trips += 1;
        }
        let rate = trips as f64 / start.elapsed().as_secs_f64();
        drop(client);
        joined(echo)?;
        Ok(rate)
    })
}

/// Sends as much as it can for `time`, and returns bytes received per second.
///
/// # Errors
/// When a socket call fails.
pub(super) fn bulk(time: Duration) -> io::Result<f64> {
    let (mut client, mut server) = pair()?;
    thread::scope(|scope| {
        let start = Instant::now();
        let sink = scope.spawn(move || {
            let (mut buffer, mut bytes) = (vec![0; 1 << 18], 0_u64);
            loop {
                match server.read(&mut buffer)? {
                    0 => return Ok(bytes),
                    length => bytes += length as u64,
                }
            }
        });
        let data = vec![0; 1 << 16];
        while start.elapsed() < time {
            client.write_all(&data)?;
        }
        drop(client);
        let bytes = joined(sink)?;
        Ok(bytes as f64 / start.elapsed().as_secs_f64())
    })
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = listener()?;
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
    let (server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok((client, server))
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a thread of the load panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (count, pairs) in [(10, 3), (2, 4), (300_000, 2)] {
            let shares = (0..pairs).map(|number| share(count, pairs, number));
            assert_eq!(shares.sum::<u64>(), count);
        }
    }
}
