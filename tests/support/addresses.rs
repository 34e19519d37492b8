//! Addresses of this host that are not loopback's, though what is sent to them stays here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::net::if_::if_nametoindex;

/// An address of IPv4 that is added; with it comes all of its network.
const ALIAS: &[u8] = b"lo:documentation";
/// Networks of documentation: TEST-NET-2, and a part of that of IPv6.
const IPV4: [u8; 3] = [198, 51, 100];
const IPV6: [u16; 3] = [0x2001, 0xdb8, 0x64];
/// Addresses of IPv6 are added one by one.
const IPV6_COUNT: u16 = 8;
const SIOCDIFADDR: libc::c_ulong = 0x8936;

/// As in include/uapi/linux/ipv6.h.
#[repr(C)]
struct In6Request {
    address: libc::in6_addr,
    prefix_length: u32,
    index: libc::c_int,
}

/// They are there until this is dropped.
pub struct Addresses(());

impl Addresses {
    /// Adds them to loopback's device.
    pub fn add() -> Self {
        let v4 = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(Self::v4(1).octets()) },
            sin_zero: [0; 8],
        };
        let mut request = alias();
        // SAFETY: an address of IPv4 is as large as any that goes there.
        request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(v4) };
        control(Ipv4Addr::UNSPECIFIED.into(), libc::SIOCSIFADDR, &request).unwrap();
        for index in 1..=IPV6_COUNT {
            let added = control(Ipv6Addr::UNSPECIFIED.into(), libc::SIOCSIFADDR, &in6(index));
            assert!(added.as_ref().err().and_then(io::Error::raw_os_error).is_none_or(|error| error == libc::EEXIST));
        }
        Self(())
    }

    /// One of IPv4.
    pub fn v4(index: u8) -> Ipv4Addr {
        Ipv4Addr::new(IPV4[0], IPV4[1], IPV4[2], index)
    }

    /// One of IPv6, from 1 to 8.
    pub fn v6(index: u16) -> Ipv6Addr {
        Ipv6Addr::new(IPV6[0], IPV6[1], IPV6[2], 0, 0, 0, 0, index)
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        // One that is not up is gone.
        let _ = control(Ipv4Addr::UNSPECIFIED.into(), libc::SIOCSIFFLAGS, &alias());
        for index in 1..=IPV6_COUNT {
            let _ = control(Ipv6Addr::UNSPECIFIED.into(), SIOCDIFADDR, &in6(index));
        }
    }
}

fn alias() -> libc::ifreq {
    // SAFETY: all of it may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(ALIAS.iter().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request
}

fn in6(index: u16) -> In6Request {
    let index_of_loopback = if_nametoindex("lo").unwrap();
    In6Request {
        address: libc::in6_addr { s6_addr: Addresses::v6(index).octets() },
        prefix_length: 128,
        index: index_of_loopback.cast_signed(),
    }
}

fn control<T>(family: IpAddr, what: libc::c_ulong, request: &T) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::new(family, 0))?;
    // SAFETY: the kernel reads what it takes for this request.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what, std::ptr::from_ref(request)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
