//! Both ends of a session in this process.

use std::net::SocketAddr;

use socket2::Socket;

use crate::row::Row;
use crate::sock::{self, Ends};

/// An established session.
#[derive(Debug)]
pub struct Pair {
    /// The end that connected.
    pub client: Socket,
    /// The end that was accepted.
    pub server: Socket,
}

impl Pair {
    /// To a listener on a free port of `address`, that is closed at once.
    pub fn open(address: SocketAddr) -> Self {
        Self::through(&sock::listen(address, 1).unwrap())
    }

    /// To the address of `listener`, which nobody else connects to meanwhile.
    pub fn through(listener: &Socket) -> Self {
        let address = sock::local(listener).unwrap();
        let client = sock::connect(address).unwrap();
        let server = sock::accept(listener).unwrap();
        Self { client, server }
    }

    /// The row of the client's end, but for bytes and close.
    pub fn client_row(&self) -> Row {
        Row::client(Ends::of(&self.client).unwrap())
    }

    /// The row of the server's end, but for bytes and close.
    pub fn server_row(&self) -> Row {
        Row::server(Ends::of(&self.server).unwrap())
    }

    /// Moves bytes to the server, then to the client, all acknowledged at the end.
    pub fn exchange(&self, to_server: usize, to_client: usize) {
        sock::transfer(&self.client, &self.server, to_server).unwrap();
        sock::transfer(&self.server, &self.client, to_client).unwrap();
    }

    /// Closes the client's end, and then the server's. Gives the two rows of a session that moved
    /// no bytes.
    pub fn close(self) -> [Row; 2] {
        let rows = [
            self.client_row().close("fin", "local"),
            self.server_row().close("fin", "remote"),
        ];
        close_in_order(self.client, self.server);
        rows
    }
}

/// Closes `first`, and `second` when it has seen that.
pub fn close_in_order(first: Socket, second: Socket) {
    drop(first);
    sock::drain(&second).unwrap();
    drop(second);
}

/// Resets `first`; back when `second` has been told.
pub fn reset_in_order(first: Socket, second: Socket) {
    sock::reset(first).unwrap();
    let error = sock::drain(&second).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
}
