//! Sockets of SCTP, where the kernel has it.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{Backlog, SockaddrStorage, bind, listen};

/// One that is bound to an address, for one association (`SOCK_STREAM`) or many (`SOCK_SEQPACKET`); `None` if the kernel has no
/// SCTP.
pub(super) fn bound(address: IpAddr, kind: i32) -> Option<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: takes numbers only.
    let socket = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, libc::IPPROTO_SCTP) };
    if socket < 0 && Errno::last() == Errno::EPROTONOSUPPORT {
        return None;
    }
    assert!(socket >= 0, "socket: {}", Errno::last());
    // SAFETY: the kernel has just made it for this process.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((address, 0)))).unwrap();
    Some(socket)
}

/// One that takes associations; accept and getsockname are the same as of TCP.
pub(super) fn listener(address: IpAddr) -> Option<TcpListener> {
    let socket = bound(address, libc::SOCK_STREAM)?;
    listen(&socket, Backlog::MAXCONN).unwrap();
    Some(socket.into())
}

/// One that takes many associations, and the messages of all of them.
pub(super) fn listener_of_many(address: IpAddr) -> Option<OwnedFd> {
    let socket = bound(address, libc::SOCK_SEQPACKET)?;
    listen(&socket, Backlog::MAXCONN).unwrap();
    Some(socket)
}
