//! Sockets that are bound, and attempts that fail.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike as _, SockaddrStorage, getsockname};

use super::log;

/// What is attempted, beside the socket.
struct Bind {
    socket: RawFd,
    protocol: &'static str,
    to: SocketAddr,
    options: &'static [&'static str],
}

/// What is written down is the protocol, where the socket is bound then, and its options.
pub(super) fn binds(count: usize, log_path: &str) {
    let attempt = |bind: &Bind| {
        let result = bind_raw(bind.socket, bind.to);
        // Of what is bound the kernel says where.
        let at = if result == 0 { bound_address(bind.socket) } else { bind.to };
        let words = [bind.protocol.to_owned(), at.to_string(), bind.options.join("|")];
        log(log_path, result, &words.map(String::into_bytes));
    };
    let local: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let local6: SocketAddr = (Ipv6Addr::LOCALHOST, 0).into();
    // Of TEST-NET-1: no machine's own.
    let foreign: SocketAddr = (Ipv4Addr::new(192, 0, 2, 1), 0).into();
    for index in 0..count {
        let tcp = socket(libc::AF_INET, libc::SOCK_STREAM);
        let plain = Bind { socket: tcp.as_raw_fd(), protocol: "tcp", to: local, options: &[] };
        match index % 12 {
            0 => attempt(&plain),
            1 => {
                let udp = socket(libc::AF_INET, libc::SOCK_DGRAM);
                attempt(&Bind { socket: udp.as_raw_fd(), protocol: "udp", ..plain });
            }
            2 => {
                let tcp = socket(libc::AF_INET6, libc::SOCK_STREAM);
                // The kernel sets it with an address that is of IPv6 alone.
                attempt(&Bind { socket: tcp.as_raw_fd(), to: local6, options: &["v6only"], ..plain });
            }
            3 => {
                let udp = socket(libc::AF_INET6, libc::SOCK_DGRAM);
                set_option(&udp, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
                let to = (Ipv6Addr::UNSPECIFIED, 0).into();
                attempt(&Bind { socket: udp.as_raw_fd(), protocol: "udp", to, options: &["v6only"] });
            }
            4 => {
                // Two at one port.
                let options = &["reuseaddr", "reuseport"];
                let other = socket(libc::AF_INET, libc::SOCK_STREAM);
                for socket in [&tcp, &other] {
                    set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR);
                    set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT);
                }
                attempt(&Bind { options, ..plain });
                let to = bound_address(tcp.as_raw_fd());
                assert_eq!(bind_raw(other.as_raw_fd(), to), 0);
                log(log_path, 0, &["tcp".into(), to.to_string().into(), options.join("|").into()]);
            }
            5 => {
                let first = std::net::TcpListener::bind(local).unwrap();
                log(log_path, 0, &["tcp".into(), first.local_addr().unwrap().to_string().into(), "reuseaddr".into()]);
                attempt(&Bind { to: first.local_addr().unwrap(), ..plain });
            }
            6 => attempt(&Bind { to: foreign, ..plain }),
            7 => {
                set_option(&tcp, libc::IPPROTO_IP, libc::IP_FREEBIND);
                attempt(&Bind { to: foreign, options: &["freebind"], ..plain });
            }
            8 => {
                set_option(&tcp, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
                attempt(&Bind { options: &["bind_address_no_port"], ..plain });
            }
            // No descriptor, and none of a socket.
            9 => attempt(&Bind { socket: -1, protocol: "none", ..plain }),
            10 => attempt(&Bind { socket: 0, protocol: "none", ..plain }),
            _ => std::thread::scope(|scope| _ = scope.spawn(|| attempt(&plain)).join()),
        }
    }
    // Sockets of other families are no matter of ours.
    let _ = std::os::unix::net::UnixDatagram::bind("/missing/socket");
}

pub(super) fn failing_binds(count: usize) {
    for _ in 0..count {
        assert_eq!(bind_raw(-1, (Ipv4Addr::LOCALHOST, 80).into()), -libc::EBADF);
    }
}

pub(super) fn socket(family: i32, kind: i32) -> OwnedFd {
    // SAFETY: takes numbers only.
    let socket = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    assert!(socket >= 0, "socket: {}", Errno::last());
    // SAFETY: the kernel has just made it for this process.
    unsafe { OwnedFd::from_raw_fd(socket) }
}

/// Sets an option to 1.
pub(super) fn set_option(socket: &impl AsRawFd, level: i32, name: i32) {
    set_option_to(socket, level, name, 1);
}

pub(super) fn set_option_to(socket: &impl AsRawFd, level: i32, name: i32, value: i32) {
    let size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `value` only.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    assert_eq!(result, 0, "setsockopt: {}", Errno::last());
}

pub(super) fn bound_address(socket: RawFd) -> SocketAddr {
    let bound = getsockname::<SockaddrStorage>(socket).unwrap();
    let v4 = bound.as_sockaddr_in().map(|v4| SocketAddr::from(SocketAddrV4::from(*v4)));
    v4.or_else(|| bound.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into())).unwrap()
}

/// The result as the kernel has it: 0, or minus the error.
fn bind_raw(socket: RawFd, to: SocketAddr) -> i32 {
    let address = SockaddrStorage::from(to);
    // SAFETY: the kernel reads the address only.
    let result = unsafe { libc::bind(socket, address.as_ptr(), address.len()) };
    if result == 0 { 0 } else { -Errno::last_raw() }
}
