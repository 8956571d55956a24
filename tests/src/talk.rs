//! A TCP connection that is to outlive what happens to the network.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};

use crate::ns::{Place, join};
use crate::wait::secs;

/// A TCP connection from one place to another.
#[derive(Debug)]
pub struct Talk {
    here: TcpStream,
    there: TcpStream,
}

impl Talk {
    /// Connects from one place to an address of the other.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn begin(from: Place, to: Place, address: &str) -> Result<Self> {
        let ip: IpAddr = address.parse()?;
        let listener = join(to.thread(move || Ok(TcpListener::bind(SocketAddr::new(ip, 0))?)))?;
        let target = listener.local_addr()?;
        let here = join(from.thread(move || Ok(TcpStream::connect(target)?)))?;
        let (there, _) = listener.accept()?;
        for stream in [&here, &there] {
            stream.set_read_timeout(Some(secs(30)))?;
        }
        Ok(Self { here, there })
    }

    /// Both ends say something, and hear the other.
    ///
    /// # Errors
    /// When one does not hear the other for 30 s.
    pub fn goes_on(&mut self) -> Result<()> {
        self.here.write_all(b"are you there?")?;
        self.there.read_exact(&mut [0; 14]).context("the connection was lost")?;
        self.there.write_all(b"yes")?;
        self.here.read_exact(&mut [0; 3]).context("the connection was lost")
    }
}
