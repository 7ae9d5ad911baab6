//! The sockets that daemons listen on.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens on `port` (0: any free one) of all addresses: IPv6 and IPv4, or
/// IPv4 alone where the host has no IPv6.
///
/// # Errors
/// The port is taken or not allowed.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    dual_stack(port).or_else(|_| bound(TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, port).into()))
}

fn dual_stack(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    SockRef::from(&socket).set_only_v6(false)?;
    bound(socket, (Ipv6Addr::UNSPECIFIED, port).into())
}

fn bound(socket: TcpSocket, address: SocketAddr) -> io::Result<TcpListener> {
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn every_address_of_the_host_is_listened_on() {
        let listener = listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).await.unwrap();
        if address.is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, address.port())).await.unwrap();
        }
        assert_eq!(listen(address.port()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
