//! Whom it talks to: by TCP and UDP, and SCTP where the kernel has it, in every way there is.

use std::fs;
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::process::exit;
use std::time::Duration;

use nix::sys::socket::{
    MsgFlags, SockaddrLike as _, SockaddrStorage, bind, connect, recv, recvfrom, recvmsg, send, sendmsg, sendto,
};
use nix::sys::uio::writev;
use nix::unistd::{read, write};

use super::binds::{bound_address, set_option, socket};
use super::{log, sctp, wait_for_file};

/// Ports below which no kernel chooses one.
const EPHEMERAL: u16 = 32768;
/// Ways to take a datagram, each with a socket of its own. The first three know who has sent it, and answer.
const WAYS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the others listen.
struct Ports {
    tcp: u16,
    udp4: [u16; WAYS],
    udp6: [u16; WAYS],
    /// None if the kernel has no SCTP.
    sctp: Option<Associations>,
}

/// Those that listen for associations, of IPv4 and IPv6.
#[derive(Clone, Copy)]
struct Associations {
    /// Each is accepted.
    accepted: [u16; 2],
    /// One socket has all of them.
    many: [u16; 2],
}

impl Ports {
    fn write(&self, file: &str) {
        let sctp = self.sctp.map(|ports| [ports.accepted, ports.many].concat());
        let all = [self.tcp].into_iter().chain(self.udp4).chain(self.udp6).chain(sctp.into_iter().flatten());
        let words: Vec<String> = all.map(|port| port.to_string()).collect();
        // Whole, or not there.
        let new = format!("{file}.new");
        fs::write(&new, words.join(" ")).unwrap();
        fs::rename(new, file).unwrap();
    }

    fn read(file: &str) -> Self {
        wait_for_file(file);
        let text = fs::read_to_string(file).unwrap();
        let all: Vec<u16> = text.split(' ').map(|word| word.parse().unwrap()).collect();
        let ways = |from: usize| all[from..from + WAYS].try_into().unwrap();
        let sctp = match all[1 + 2 * WAYS..] {
            [accepted4, accepted6, many4, many6] => {
                Some(Associations { accepted: [accepted4, accepted6], many: [many4, many6] })
            }
            _ => None,
        };
        Self { tcp: all[0], udp4: ways(1), udp6: ways(1 + WAYS), sctp }
    }
}

/// As servers have them: one that no kernel chooses.
fn bind_chosen(address: IpAddr) -> UdpSocket {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    (first..EPHEMERAL).find_map(|port| UdpSocket::bind((address, port)).ok()).unwrap()
}

/// Takes what comes to these addresses, until DONE is there.
pub(super) fn answer(v4: &str, v6: &str, file: &str, done: &str) {
    let (v4, v6): (IpAddr, IpAddr) = (v4.parse().unwrap(), v6.parse().unwrap());
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let udp4: [UdpSocket; WAYS] = std::array::from_fn(|_| bind_chosen(v4));
    let udp6: [UdpSocket; WAYS] = std::array::from_fn(|_| UdpSocket::bind((v6, 0)).unwrap());
    let ports_of = |sockets: &[UdpSocket; WAYS]| std::array::from_fn(|way| sockets[way].local_addr().unwrap().port());
    let sctp = take_associations([v4, v6]);
    Ports { tcp: listener.local_addr().unwrap().port(), udp4: ports_of(&udp4), udp6: ports_of(&udp6), sctp }
        .write(file);
    for sockets in [udp4, udp6] {
        for (way, socket) in sockets.into_iter().enumerate() {
            std::thread::spawn(move || {
                loop {
                    if let Some(from) = take(socket.as_raw_fd(), way) {
                        sendto(socket.as_raw_fd(), b"answer", &from, MsgFlags::empty()).unwrap();
                    }
                }
            });
        }
    }
    std::thread::spawn(move || {
        loop {
            _ = listener.accept().unwrap().0.read_to_end(&mut Vec::new());
        }
    });
    wait_for_file(done);
    exit(0);
}

/// Takes what comes to these addresses by SCTP; `None` if the kernel has none.
fn take_associations(addresses: [IpAddr; 2]) -> Option<Associations> {
    let mut ports = Associations { accepted: [0; 2], many: [0; 2] };
    for (index, address) in addresses.into_iter().enumerate() {
        let (accepting, many) = (sctp::listener(address)?, sctp::listener_of_many(address)?);
        ports.accepted[index] = accepting.local_addr().unwrap().port();
        ports.many[index] = bound_address(many.as_raw_fd()).port();
        std::thread::spawn(move || {
            loop {
                drop(accepting.accept().unwrap());
            }
        });
        std::thread::spawn(move || {
            loop {
                let (_, from) = recvfrom::<SockaddrStorage>(many.as_raw_fd(), &mut [0; 16]).unwrap();
                // Whoever waits for an answer.
                _ = sendto(many.as_raw_fd(), b"answer", &from.unwrap(), MsgFlags::empty());
            }
        });
    }
    Some(ports)
}

/// Returns who has sent it, if that was asked.
fn take(socket: RawFd, way: usize) -> Option<SockaddrStorage> {
    let mut bytes = [0; 16];
    match way {
        0 => recvfrom(socket, &mut bytes).unwrap().1,
        1 => {
            let mut into = [IoSliceMut::new(&mut bytes)];
            recvmsg::<SockaddrStorage>(socket, &mut into, None, MsgFlags::empty()).unwrap().address
        }
        2 => Some(recvmmsg(socket)),
        3 => {
            recv(socket, &mut bytes, MsgFlags::empty()).unwrap();
            None
        }
        _ => {
            // SAFETY: it is open as long as its thread runs.
            let socket = unsafe { BorrowedFd::borrow_raw(socket) };
            read(socket, &mut bytes).unwrap();
            None
        }
    }
}

fn recvmmsg(socket: RawFd) -> SockaddrStorage {
    let mut bytes = [0u8; 16];
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all of these may be zero.
    let (mut name, mut message) =
        unsafe { (std::mem::zeroed::<libc::sockaddr_storage>(), std::mem::zeroed::<libc::mmsghdr>()) };
    message.msg_hdr.msg_name = (&raw mut name).cast();
    message.msg_hdr.msg_namelen = size_of_val(&name) as libc::socklen_t;
    message.msg_hdr.msg_iov = &raw mut vector;
    message.msg_hdr.msg_iovlen = 1;
    // SAFETY: the message points to what lives until the call is over.
    let count = unsafe { libc::recvmmsg(socket, &raw mut message, 1, 0, std::ptr::null_mut()) };
    assert_eq!(count, 1);
    // SAFETY: the kernel has written it, and its size.
    unsafe { SockaddrStorage::from_raw((&raw const name).cast(), Some(message.msg_hdr.msg_namelen)) }.unwrap()
}

/// To several, in one call.
fn sendmmsg(socket: RawFd, to: &[SocketAddr]) {
    let names: Vec<SockaddrStorage> = to.iter().map(|to| SockaddrStorage::from(*to)).collect();
    let mut vector = libc::iovec { iov_base: b"many".as_ptr().cast_mut().cast(), iov_len: 4 };
    let message = |name: &SockaddrStorage| {
        // SAFETY: all of it may be zero.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
        message.msg_hdr.msg_namelen = name.len();
        message.msg_hdr.msg_iov = &raw mut vector;
        message.msg_hdr.msg_iovlen = 1;
        message
    };
    let mut messages: Vec<libc::mmsghdr> = names.iter().map(message).collect();
    let count = libc::c_uint::try_from(messages.len()).unwrap();
    // SAFETY: the messages point to what lives until the call is over.
    let sent = unsafe { libc::sendmmsg(socket, messages.as_mut_ptr(), count, 0) };
    assert_eq!(usize::try_from(sent), Ok(to.len()));
}

/// Ways to call.
const CALLS: usize = 18;

/// What is written down is direction, protocol, the own address, the other's, and whether it is that of who answers.
struct Caller<'a> {
    log_path: &'a str,
}

impl Caller<'_> {
    fn flow(&self, direction: &str, protocol: &str, local: SocketAddr, peer: SocketAddr, is_answered: bool) {
        let [local, peer] = [local, peer].map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()).to_string());
        let words = [direction.to_owned(), protocol.to_owned(), local, peer, is_answered.to_string()];
        log(self.log_path, 0, &words.map(String::into_bytes));
    }

    /// A connection, or an attempt.
    fn connects(&self, local: IpAddr, peer: SocketAddr, is_answered: bool) {
        let (family, name) = match local {
            IpAddr::V4(_) => (libc::AF_INET, SocketAddr::new(local, 0)),
            IpAddr::V6(_) => (libc::AF_INET6, SocketAddr::new(local, 0)),
        };
        let socket = socket(family, libc::SOCK_STREAM);
        bind(socket.as_raw_fd(), &SockaddrStorage::from(name)).unwrap();
        self.flow("egress", "tcp", bound_address(socket.as_raw_fd()), peer, is_answered);
        if is_answered {
            connect(socket.as_raw_fd(), &SockaddrStorage::from(peer)).unwrap();
            TcpStream::from(socket).write_all(b"!").unwrap();
        } else {
            set_option(&socket, libc::IPPROTO_TCP, libc::TCP_SYNCNT);
            let result = connect(socket.as_raw_fd(), &SockaddrStorage::from(peer));
            result.unwrap_err();
        }
    }

    /// An association that the other end accepts, and ends.
    fn associates(&self, local: IpAddr, peer: SocketAddr) {
        let socket = sctp::bound(local, libc::SOCK_STREAM).unwrap();
        self.flow("egress", "sctp", bound_address(socket.as_raw_fd()), peer, true);
        connect(socket.as_raw_fd(), &SockaddrStorage::from(peer)).unwrap();
        let _ = TcpStream::from(socket).read_to_end(&mut Vec::new());
    }

    /// With a message to a socket that has many, from one that has many as well, until it is answered.
    fn asks_many(&self, local: IpAddr, peer: SocketAddr) {
        let socket = sctp::bound(local, libc::SOCK_SEQPACKET).unwrap();
        self.flow("egress", "sctp", bound_address(socket.as_raw_fd()), peer, true);
        sendto(socket.as_raw_fd(), b"?", &SockaddrStorage::from(peer), MsgFlags::empty()).unwrap();
        recv(socket.as_raw_fd(), &mut [0; 16], MsgFlags::empty()).unwrap();
    }

    /// Nobody listens there: once with connect, once with a message.
    fn associates_in_vain(&self, local: IpAddr, peer: Ipv4Addr) {
        let [one, many] = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].map(|kind| sctp::bound(local, kind).unwrap());
        let [first, second] = [1, 2].map(|port| SocketAddr::from((peer, port)));
        self.flow("egress", "sctp", bound_address(one.as_raw_fd()), first, false);
        connect(one.as_raw_fd(), &SockaddrStorage::from(first)).unwrap_err();
        self.flow("egress", "sctp", bound_address(many.as_raw_fd()), second, false);
        // It does not wait for an answer.
        sendto(many.as_raw_fd(), b"?", &SockaddrStorage::from(second), MsgFlags::empty()).unwrap();
    }

    /// A datagram from a socket that is bound to this address, and its answer.
    fn sends(&self, local: IpAddr, peers: &[SocketAddr], is_answered: bool, send: impl FnOnce(RawFd)) {
        let socket = UdpSocket::bind((local, 0)).unwrap();
        let own = socket.local_addr().unwrap();
        peers.iter().for_each(|peer| self.flow("egress", "udp", own, *peer, true));
        send(socket.as_raw_fd());
        if is_answered {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            for _ in peers {
                socket.recv(&mut [0; 16]).unwrap();
            }
        }
    }
}

pub(super) fn call(count: usize, file: &str, deaf: SocketAddr, [v4, v6]: [&str; 2], log_path: &str) {
    let ports = Ports::read(file);
    let (v4, v6): (Ipv4Addr, Ipv6Addr) = (v4.parse().unwrap(), v6.parse().unwrap());
    let caller = Caller { log_path };
    for index in 0..count {
        let round = index / CALLS;
        // Own addresses: another each time, from the same networks.
        let own4 = Ipv4Addr::from(u32::from(v4) + 100 + u32::try_from(round % 100).unwrap());
        let own6 = Ipv6Addr::from(u128::from(v6) + 4 + u128::try_from(round % 4).unwrap());
        let (at4, at6): (IpAddr, IpAddr) = (own4.into(), own6.into());
        let mapped: IpAddr = own4.to_ipv6_mapped().into();
        let to4 = |way: usize| SocketAddr::from((v4, ports.udp4[way]));
        let to6 = |way: usize| SocketAddr::from((v6, ports.udp6[way]));
        let none = MsgFlags::empty();
        let connected = |socket: RawFd, peer: SocketAddr| connect(socket, &SockaddrStorage::from(peer)).unwrap();
        let named = |socket: RawFd, bytes: &[u8], peer: SocketAddr| {
            sendto(socket, bytes, &SockaddrStorage::from(peer), none).unwrap();
        };
        match index % CALLS {
            0 => caller.connects(at4, (v4, ports.tcp).into(), true),
            1 => caller.connects(at6, (v6, ports.tcp).into(), true),
            2 => caller.connects(mapped, (v4.to_ipv6_mapped(), ports.tcp).into(), true),
            // Nobody listens there.
            3 => caller.connects(at4, (v4, 1).into(), false),
            // Nobody answers there; it takes a while.
            4 if round == 0 => caller.connects(at4, deaf, false),
            4 => {}
            5 => caller.sends(at4, &[to4(0)], true, |socket| named(socket, b"?", to4(0))),
            6 => caller.sends(at6, &[to6(1)], true, |socket| named(socket, b"?", to6(1))),
            7 => caller.sends(at4, &[to4(2)], true, |socket| {
                connected(socket, to4(2));
                send(socket, b"?", none).unwrap();
            }),
            8 => caller.sends(at6, &[to6(3)], false, |socket| {
                connected(socket, to6(3));
                // SAFETY: it is open.
                write(unsafe { BorrowedFd::borrow_raw(socket) }, b"?").unwrap();
            }),
            9 => caller.sends(at4, &[to4(4)], false, |socket| {
                let bytes = [IoSlice::new(b"?")];
                sendmsg(socket, &bytes, &[], none, Some(&SockaddrStorage::from(to4(4)))).unwrap();
            }),
            10 => caller.sends(at4, &[to4(0), to4(1), to4(2)], true, |socket| {
                sendmmsg(socket, &[to4(0), to4(1), to4(2)]);
            }),
            11 => caller.sends(at6, &[to6(0)], true, |socket| {
                connected(socket, to6(0));
                // SAFETY: it is open.
                let socket = unsafe { BorrowedFd::borrow_raw(socket) };
                writev(socket, &[IoSlice::new(b"two"), IoSlice::new(b"parts")]).unwrap();
            }),
            12 => caller.sends(mapped, &[(v4.to_ipv6_mapped(), ports.udp4[1]).into()], true, |socket| {
                named(socket, b"?", (v4.to_ipv6_mapped(), ports.udp4[1]).into());
            }),
            // Of no bytes.
            13 => caller.sends(at4, &[to4(3)], false, |socket| named(socket, b"", to4(3))),
            14 => in_vain(&caller, own4, v4),
            15 => inside(own4),
            16 => {
                if let Some(Associations { accepted, many }) = ports.sctp {
                    caller.associates(at4, (v4, accepted[0]).into());
                    caller.associates(at6, (v6, accepted[1]).into());
                    caller.asks_many(at4, (v4, many[0]).into());
                    caller.asks_many(at6, (v6, many[1]).into());
                    caller.associates_in_vain(at4, v4);
                }
            }
            _ => to_a_group(&caller, own4),
        }
    }
}

/// The second datagram fails, since nobody takes the first.
fn in_vain(caller: &Caller<'_>, own: Ipv4Addr, v4: Ipv4Addr) {
    let (socket, peer) = (UdpSocket::bind((own, 0)).unwrap(), SocketAddr::from((v4, 1)));
    caller.flow("egress", "udp", socket.local_addr().unwrap(), peer, false);
    socket.connect(peer).unwrap();
    socket.send(b"?").unwrap();
    assert_eq!(socket.send(b"?").unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
}

/// What nobody else hears: over loopback, and to its own address.
fn inside(own: Ipv4Addr) {
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into(), own.into()] {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let caller = socket(family, libc::SOCK_STREAM);
        bind(caller.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((address, 0)))).unwrap();
        connect(caller.as_raw_fd(), &SockaddrStorage::from(listener.local_addr().unwrap())).unwrap();
        listener.accept().unwrap();
        let (one, other) = (UdpSocket::bind((address, 0)).unwrap(), UdpSocket::bind((address, 0)).unwrap());
        one.send_to(b"?", other.local_addr().unwrap()).unwrap();
        other.recv(&mut [0; 16]).unwrap();
    }
    // No address means that, too.
    let _ = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().send_to(b"?", (Ipv4Addr::UNSPECIFIED, 9));
}

fn to_a_group(caller: &Caller<'_>, own: Ipv4Addr) {
    let (socket, peer) = (UdpSocket::bind((own, 0)).unwrap(), SocketAddr::from(([239, 255, 0, 1], 9)));
    let through = libc::in_addr { s_addr: u32::from_ne_bytes(own.octets()) };
    let size = size_of_val(&through) as libc::socklen_t;
    // SAFETY: the kernel reads the address only.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_IF, (&raw const through).cast(), size)
    };
    assert_eq!(result, 0);
    caller.flow("egress", "udp", socket.local_addr().unwrap(), peer, false);
    socket.send_to(b"?", peer).unwrap();
}

/// Goes on with exchanges from before GO is there: one in which it was asked, and one in which it has asked `asked`. Somebody waits
/// from before GO as well, who is asked later.
pub(super) fn go_on(own: &str, asked: SocketAddr, [file, go]: [&str; 2], log_path: &str) {
    let own: IpAddr = own.parse().unwrap();
    let bound = || UdpSocket::bind((own, 0)).unwrap();
    let (server, client, waiter) = (bind_chosen(own), bound(), bound());
    [&server, &client, &waiter].iter().for_each(|socket| socket.set_read_timeout(Some(PATIENCE)).unwrap());
    client.send_to(b"?", asked).unwrap();
    let [server_at, waiter_at] = [&server, &waiter].map(|socket| socket.local_addr().unwrap());
    let waiting = std::thread::spawn(move || {
        let (_, from) = waiter.recv_from(&mut [0; 16]).unwrap();
        waiter.send_to(b"answer", from).unwrap();
        from
    });
    let new = format!("{file}.new");
    fs::write(&new, format!("{server_at} {waiter_at}")).unwrap();
    fs::rename(new, file).unwrap();
    let (_, asker) = server.recv_from(&mut [0; 16]).unwrap();
    wait_for_file(go);
    let caller = Caller { log_path };
    server.send_to(b"answer", asker).unwrap();
    caller.flow("ingress", "udp", server_at, asker, false);
    let (_, from) = client.recv_from(&mut [0; 16]).unwrap();
    caller.flow("egress", "udp", client.local_addr().unwrap(), from, false);
    caller.flow("ingress", "udp", waiter_at, waiting.join().unwrap(), false);
}

/// To an address that is another for another count.
pub(super) fn storm(count: usize) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    set_option(&socket, libc::SOL_SOCKET, libc::SO_DONTROUTE);
    // Of TEST-NET-3: nobody's neighbours, so that nothing leaves.
    let peer = Ipv4Addr::new(203, 0, 113, u8::try_from(count % 250 + 1).unwrap());
    for port in 1..=u16::try_from(count).unwrap() {
        let failed = socket.send_to(b"?", (peer, port)).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(libc::ENETUNREACH));
    }
}
