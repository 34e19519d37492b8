//! snapshot-socket shows every socket of a container, as /proc has it, and nobody else's.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use super::families::{self, Families};
use super::{Containers, Scenario};
use crate::{Seen, endpoint};

/// All of it.
pub(super) static SNAPSHOT_SOCKET: Scenario = Scenario {
    gadget: "snapshot-socket",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: false,
    exact,
    // There are no events.
    storm: None,
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Socket {
    Internet { protocol: &'static str, state: String, ends: [SocketAddr; 2], recv_queue: u64, send_queue: Option<u64> },
    Unix { protocol: String, listens: bool, path: String },
}

/// Names of states, by the kernel's numbers.
const STATES: [&str; 12] = [
    "",
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "unconnected",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
];

/// `0100007F:1F90`: 32 bits at a time, in the order of this machine.
fn end_of_proc(text: &str) -> SocketAddr {
    let (address, port) = text.split_once(':').unwrap();
    let words: Vec<[u8; 4]> =
        address.as_bytes().chunks(8).map(|word| hex(str::from_utf8(word).unwrap()).to_ne_bytes()).collect();
    let address = match &words[..] {
        [v4] => IpAddr::V4(Ipv4Addr::from(*v4)),
        v6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(v6.concat()).unwrap())).to_canonical(),
    };
    SocketAddr::new(address, hex(port) as u16)
}

fn hex(text: &str) -> u32 {
    u32::from_str_radix(text, 16).unwrap()
}

/// The sockets of a process's network namespace, with their inodes: of those that nobody has they are 0.
fn sockets_of_proc(process: &Path) -> Vec<(u64, Socket)> {
    let mut sockets = Vec::new();
    let lines = |name: &str| fs::read_to_string(process.join("net").join(name)).unwrap();
    for (file, protocol) in [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")] {
        for line in lines(file).lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (send, recv) = words[4].split_once(':').unwrap();
            let state = STATES[hex(words[3]) as usize].to_owned();
            // Of one that listens it does not say how many may wait.
            let send_queue = (state != "listen").then(|| hex(send).into());
            let ends = [words[1], words[2]].map(end_of_proc);
            let socket = Socket::Internet { protocol, state, ends, recv_queue: hex(recv).into(), send_queue };
            sockets.push((words[9].parse().unwrap(), socket));
        }
    }
    for line in lines("unix").lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let protocol =
            ["", "unix_stream", "unix_datagram", "", "", "unix_seqpacket"][hex(words[4]) as usize].to_owned();
        let path = words.get(7).copied().unwrap_or_default().to_owned();
        sockets.push((words[6].parse().unwrap(), Socket::Unix { protocol, listens: words[3] == "00010000", path }));
    }
    sockets
}

fn socket_of(event: &Value) -> Socket {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| event[name].as_u64().unwrap();
    let protocol = match text("protocol").as_str() {
        "tcp" => "tcp",
        "udp" => "udp",
        unix => {
            return Socket::Unix { protocol: unix.to_owned(), listens: text("state") == "listen", path: text("path") };
        }
    };
    Socket::Internet {
        protocol,
        state: text("state"),
        ends: [endpoint(&event["local"]), endpoint(&event["peer"])],
        recv_queue: number("recv_queue"),
        send_queue: (text("state") != "listen").then(|| number("send_queue")),
    }
}

fn exact(containers: &mut dyn Containers, options: &[&str], members: usize) -> Seen {
    let families = Families::start(containers, members.min(20));
    let seen = families.first().take(&SNAPSHOT_SOCKET, options);
    let processes = families.first().processes();
    let all = sockets_of_proc(&processes[0]);
    let sockets: BTreeMap<u64, Socket> = all.iter().cloned().collect();
    let mut expected = BTreeMap::new();
    for process in &processes {
        let pid: u64 = process.file_name().unwrap().to_str().unwrap().parse().unwrap();
        for path in families::descriptors(process) {
            let place = fs::read_link(&path).unwrap();
            let inode = place.to_str().unwrap().strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            let Some(inode) = inode.map(|inode| inode.parse::<u64>().unwrap()) else { continue };
            let fd: u64 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            expected.insert((pid, fd, inode), sockets[&inode].clone());
        }
    }
    let (held, unheld): (Vec<_>, Vec<_>) = seen.events().into_iter().partition(|event| event["fd"].is_u64());
    let key = |event: &Value| {
        let number = |name: &str| event[name].as_u64().unwrap();
        (number("pid"), number("fd"), number("inode"))
    };
    let shown: BTreeMap<_, _> = held.iter().map(|event| (key(event), socket_of(event))).collect();
    assert_eq!((&shown, held.len()), (&expected, expected.len()));
    let mut of_nobody: Vec<Socket> = unheld.iter().map(|event| socket_of(event)).collect();
    let mut expected_of_nobody: Vec<Socket> =
        all.into_iter().filter(|(inode, _)| *inode == 0).map(|(_, socket)| socket).collect();
    of_nobody.sort();
    expected_of_nobody.sort();
    assert_eq!(of_nobody, expected_of_nobody);
    let states = |state: &str| unheld.iter().filter(|event| event["state"] == state).count();
    let counts = ["time_wait", "fin_wait1", "fin_wait2", "syn_recv", "established"].map(states);
    assert_eq!((counts, unheld.len()), ([2, 1, 1, 1, 1], 6), "{unheld:?}");

    let has = |wanted: &dyn Fn(&Socket) -> bool| expected.values().any(wanted);
    let queue = |of: &'static str, is: &'static str, least: u64| move |socket: &Socket| matches!(socket, Socket::Internet { protocol, state, recv_queue, .. } if *protocol == of && state == is && *recv_queue >= least);
    assert!(
        has(&queue("tcp", "listen", 1)) && has(&queue("tcp", "established", 5)) && has(&queue("udp", "unconnected", 1))
    );
    assert!(has(&|socket| matches!(socket, Socket::Unix { listens: true, path, .. } if path.starts_with("/tmp/"))));
    assert!(has(&|socket| matches!(socket, Socket::Unix { path, .. } if path.starts_with('@'))));
    // Two ends of a pair are each other's, and what was written to one waits in the other.
    let peers: BTreeMap<u64, &Value> = held
        .iter()
        .filter(|event| event["peer_inode"].as_u64() > Some(0))
        .map(|event| (key(event).2, *event))
        .collect();
    // Three of seven bytes were read.
    assert!(peers.values().any(|event| event["recv_queue"] == 4));
    for (inode, event) in &peers {
        assert_eq!(peers[&event["peer_inode"].as_u64().unwrap()]["peer_inode"], *inode, "{event}");
    }
    families.end(containers);
    seen
}
