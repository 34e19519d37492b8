//! Connections of TCP, and listeners that are passed on.

use std::fs;
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, connect as connect_to, recvmsg, sendmsg,
};

use super::binds::{set_option, socket};
use super::{log, wait_for_file};

pub(super) fn serve(count: usize, file: &str) {
    take(count, &listen(file));
}

fn listen(file: &str) -> TcpListener {
    listen_at((Ipv4Addr::LOCALHOST, 0).into(), file)
}

fn listen_at(address: SocketAddr, file: &str) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap();
    // Whole, or not there.
    let new = format!("{file}.new");
    fs::write(&new, listener.local_addr().unwrap().port().to_string()).unwrap();
    fs::rename(new, file).unwrap();
    listener
}

fn take(count: usize, listener: &TcpListener) {
    for _ in 0..count {
        listener.accept().unwrap().0.read_to_end(&mut Vec::new()).unwrap();
    }
}

pub(super) fn offer(file: &str, socket: &str) {
    let (listener, door) = (listen(file), UnixListener::bind(socket).unwrap());
    let (mut taker, _) = door.accept().unwrap();
    let (message, rights) = ([IoSlice::new(b"!")], [listener.as_raw_fd()]);
    sendmsg::<()>(taker.as_raw_fd(), &message, &[ControlMessage::ScmRights(&rights)], MsgFlags::empty(), None).unwrap();
    drop(listener);
    taker.read_to_end(&mut Vec::new()).unwrap();
}

pub(super) fn take_over(count: usize, socket: &str) {
    wait_for_file(socket);
    let offerer = UnixStream::connect(socket).unwrap();
    let (mut byte, mut space) = ([0], cmsg_space!(RawFd));
    let mut message = [IoSliceMut::new(&mut byte)];
    let received = recvmsg::<()>(offerer.as_raw_fd(), &mut message, Some(&mut space), MsgFlags::empty()).unwrap();
    let Some(ControlMessageOwned::ScmRights(rights)) = received.cmsgs().unwrap().next() else { panic!("no socket") };
    // SAFETY: the kernel has just made it for this process.
    take(count, &unsafe { TcpListener::from_raw_fd(rights[0]) });
}

pub(super) fn connect(count: usize, file: &str, log_path: &str) {
    wait_for_file(file);
    let port: u16 = fs::read_to_string(file).unwrap().parse().unwrap();
    for _ in 0..count {
        let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let own = connection.local_addr().unwrap().port().to_string();
        log(log_path, 0, &[own.into_bytes()]);
    }
}

/// Of so many calls, those that are made to somebody who answers.
fn is_made(index: usize) -> bool {
    index % CALLS < 4
}

/// Ways to call.
const CALLS: usize = 6;

pub(super) fn answer(count: usize, file: &str) {
    // Of IPv6, and of IPv4 as IPv6 has it.
    let listener = listen_at((Ipv6Addr::UNSPECIFIED, 0).into(), file);
    for _ in (0..count).filter(|index| is_made(*index)) {
        let mut connection = listener.accept().unwrap().0;
        let mut question = Vec::new();
        connection.read_to_end(&mut question).unwrap();
        // Twice as much, in two parts.
        connection.write_all(&question).unwrap();
        connection.write_all(&question).unwrap();
    }
}

/// What is written down is the own address, the other's, and the bytes that were sent and received.
pub(super) fn call(count: usize, file: &str, log_path: &str) {
    wait_for_file(file);
    let port: u16 = fs::read_to_string(file).unwrap().parse().unwrap();
    let (v4, v6): (IpAddr, IpAddr) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    for index in 0..count {
        let (peer, patience) = match index % CALLS {
            0 => ((v4, port), None),
            1 => ((v6, port), None),
            // It does not block.
            2 => ((v4, port), Some(Duration::from_secs(60))),
            3 => ((v6, port), Some(Duration::from_secs(60))),
            // Nobody listens there.
            4 => ((v4, 1), None),
            // Of a group, to which nobody can connect: nothing is sent.
            _ => ((Ipv4Addr::new(224, 0, 0, 1).into(), 80), None),
        };
        let peer = SocketAddr::from(peer);
        let result = match patience {
            Some(patience) => TcpStream::connect_timeout(&peer, patience),
            None => TcpStream::connect(peer),
        };
        let words = |local: String, sent: usize, received: usize| {
            [local, peer.to_string(), sent.to_string(), received.to_string()].map(String::into_bytes)
        };
        match result {
            Ok(mut connection) => {
                let question = vec![b'?'; 1 + index * 1000];
                let local = connection.local_addr().unwrap().to_string();
                connection.write_all(&question).unwrap();
                connection.shutdown(Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                connection.read_to_end(&mut answer).unwrap();
                log(log_path, 0, &words(local, question.len(), answer.len()));
            }
            Err(error) => log(log_path, -error.raw_os_error().unwrap(), &words("none".into(), 0, 0)),
        }
    }
}

/// Each is attempted once more after a second.
pub(super) fn call_in_vain(port: u16, log_path: &str) {
    let patient = || {
        let socket = socket(libc::AF_INET, libc::SOCK_STREAM);
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_SYNCNT);
        Ok(connect_to(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port))?)
    };
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let impatient = || TcpStream::connect_timeout(&peer, Duration::from_millis(200)).map(drop);
    for (result, of_kernel) in [(patient(), libc::ETIMEDOUT), (impatient(), libc::ECANCELED)] {
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        log(log_path, -of_kernel, &["none".into(), peer.to_string().into(), "0".into(), "0".into()]);
    }
}

/// A connection, by its two ends.
fn connect_to_itself() -> (TcpStream, TcpStream) {
    connect_through(&TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
}

fn connect_through(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (caller, listener.accept().unwrap().0)
}

/// Sends something before GO is there, and something else after.
pub(super) fn hold(file: &str, go: &str, log_path: &str) {
    const BEFORE: usize = 1234;
    const AFTER: usize = 567;
    let (mut caller, mut answerer) = connect_to_itself();
    let mut send = |count: usize| {
        caller.write_all(&vec![b'.'; count]).unwrap();
        answerer.read_exact(&mut vec![0; count]).unwrap();
    };
    send(BEFORE);
    fs::write(file, "").unwrap();
    wait_for_file(go);
    send(AFTER);
    let ends = [caller.local_addr().unwrap(), caller.peer_addr().unwrap()].map(|end| end.to_string());
    let [local, peer] = ends;
    log(log_path, 0, &[local, peer, AFTER.to_string(), "0".into()].map(String::into_bytes));
}

fn transfer((mut caller, mut answerer): (&TcpStream, &TcpStream)) {
    caller.write_all(b"!").unwrap();
    answerer.read_exact(&mut [0]).unwrap();
}

pub(super) fn transfers(count: usize) {
    for _ in 0..count {
        let (caller, answerer) = connect_to_itself();
        transfer((&caller, &answerer));
    }
}

/// With the help of others like itself, since a process may have a thousand files, or less than that.
pub(super) fn transfers_at_once(count: usize) {
    const EACH: usize = 250;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connect = |_| {
        let (caller, answerer) = connect_through(&listener);
        transfer((&caller, &answerer));
        (caller, answerer)
    };
    let _kept: Vec<_> = (0..count.min(EACH)).map(connect).collect();
    if count > EACH {
        let others = ["transfers-at-once".to_owned(), (count - EACH).to_string()];
        assert!(Command::new("/proc/self/exe").args(others).status().unwrap().success());
    }
}

pub(super) fn failing_connects(count: usize) {
    for _ in 0..count {
        // Nobody listens at port 1 of a machine that runs tests.
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, 1)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

pub(super) fn echo_datagrams(port: u16) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    let mut datagram = [0; 1024];
    loop {
        let (length, from) = socket.recv_from(&mut datagram).unwrap();
        // Who asked may be gone.
        let _ = socket.send_to(&datagram[..length], from);
    }
}
