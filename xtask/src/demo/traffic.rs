//! The demo's sessions: real sockets, bytes both ways, one connect that is refused.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

/// A session with so many bytes from the client, and so many from the server.
struct Session {
    ipv6: bool,
    request: usize,
    response: usize,
}

const SESSIONS: [Session; 4] = [
    Session {
        ipv6: false,
        request: 300,
        response: 120_000,
    },
    Session {
        ipv6: false,
        request: 64_000,
        response: 2_000,
    },
    Session {
        ipv6: true,
        request: 5_000,
        response: 5_000,
    },
    Session {
        ipv6: true,
        request: 1_000_000,
        response: 0,
    },
];

/// Rows that the sessions give: two ends each, and the client of the refused connect.
pub(crate) const ROWS: usize = 2 * SESSIONS.len() + 1;

/// Runs the sessions one after another.
///
/// # Errors
/// When a socket call fails, or the refused connect is not refused.
pub(crate) fn make() -> io::Result<()> {
    for session in &SESSIONS {
        let listener = if session.ipv6 {
            TcpListener::bind((Ipv6Addr::LOCALHOST, 0))?
        } else {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        };
        let stream = TcpStream::connect(listener.local_addr()?)?;
        thread::scope(|scope| {
            let server = scope.spawn(|| serve(&listener, session.response));
            client(stream, session.request)?;
            server
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the server panicked")))
        })?;
    }
    refused()
}

fn serve(listener: &TcpListener, response: usize) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.read_to_end(&mut Vec::new())?;
    stream.write_all(&vec![0; response])
}

fn client(mut stream: TcpStream, request: usize) -> io::Result<()> {
    stream.write_all(&vec![0; request])?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Connects to a port that was free a moment ago; in this namespace nobody else takes it.
fn refused() -> io::Result<()> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    match TcpStream::connect(free) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("a connect to a free port was not refused")),
    }
}
