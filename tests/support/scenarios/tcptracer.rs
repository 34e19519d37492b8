//! tcptracer shows every connection of a container from its beginning to its end, with the bytes each way, and nobody
//! else's.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket};
use serde_json::Value;

use super::calls::Call;
use super::{Containers, Scenario, Storm, provide_workload};
use crate::{Seen, endpoint, wait_for};

/// All of it.
pub(super) static TCPTRACER: Scenario = Scenario {
    gadget: "tcptracer",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: true,
    exact,
    storm: Some(Storm { name: "failing-connects", count: 2000, args: &[], each: 1, others: Some(0), options: &[] }),
};

/// The rows of an operation that did not fail: its own end, the other, and what the gadget has counted.
fn rows(seen: &[Value], operation: &str) -> Vec<(SocketAddr, SocketAddr, Value, Value)> {
    let is_it = |line: &&Value| line["operation"] == operation && line.get("ret").is_none_or(|ret| *ret == 0);
    let row = |line: &Value| {
        (endpoint(&line["local"]), endpoint(&line["peer"]), line["sent"].clone(), line["received"].clone())
    };
    seen.iter().filter(is_it).map(row).collect()
}

/// Whether a process whose arguments have this word sleeps in accept.
fn sleeps_in_accept(word: &str) -> bool {
    let mut processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes.any(|process| {
        let args = fs::read(process.join("cmdline")).unwrap_or_default();
        let call = fs::read_to_string(process.join("syscall")).unwrap_or_default();
        args.split(|byte| *byte == 0).any(|arg| arg == word.as_bytes())
            && call.starts_with(&format!("{} ", libc::SYS_accept4))
    })
}

/// One pod calls another in the same network; a third waits for a call since before the run.
fn exact(containers: &mut dyn Containers, options: &[&str], calls: usize) -> Seen {
    let folder = containers.shared_folder();
    let (port, log) = (folder.join("port"), folder.join("calls.log"));
    [&port, &log].into_iter().for_each(|file| _ = fs::remove_file(file));
    let workload = provide_workload(containers);
    let waiting_port = folder.join("waiting-port");
    let _ = fs::remove_file(&waiting_port);
    containers.start("net/waiting", "app", &[&workload, "answer", "1", "/tmp/waiting-port"]);
    wait_for("it to wait for a call", || sleeps_in_accept("/tmp/waiting-port"));
    let mut waiting = TCPTRACER.client(&[&["-p", "waiting"], options].concat());
    let port_of_waiting: u16 = fs::read_to_string(&waiting_port).unwrap().parse().unwrap();
    let mut call = TcpStream::connect((Ipv4Addr::LOCALHOST, port_of_waiting)).unwrap();
    let row = (call.peer_addr().unwrap(), call.local_addr().unwrap(), Value::Null, Value::Null);
    call.shutdown(Shutdown::Write).unwrap();
    call.read_to_end(&mut Vec::new()).unwrap();
    containers.wait("net/waiting", "app");
    waiting.read_until_seen("the call's end", |seen| rows(seen, "close").len() == 1);
    assert_eq!(rows(&waiting.stop().lines, "accept"), [row]);

    let watch = |pod| TCPTRACER.client(&[&["-p", pod], options].concat());
    let (mut server, mut caller, in_vain) = (watch("answering"), watch("calling"), watch("calling-in-vain"));
    // It takes no more than one, and nobody takes that.
    let deaf = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(deaf.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&deaf, Backlog::new(0).unwrap()).unwrap();
    let deaf_port = getsockname::<SockaddrIn>(deaf.as_raw_fd()).unwrap().port();
    let _only_one = TcpStream::connect((Ipv4Addr::LOCALHOST, deaf_port)).unwrap();
    let vain_log = folder.join("vain.log");
    let _ = fs::remove_file(&vain_log);
    let call_in_vain = [&*workload, "call-in-vain", &deaf_port.to_string(), "/tmp/vain.log"];
    containers.start("net/calling-in-vain", "app", &call_in_vain);
    let count = calls.to_string();
    containers.start("net/answering", "app", &[&workload, "answer", &count, "/tmp/port"]);
    containers.start("net/calling", "app", &[&workload, "call", &count, "/tmp/port", "/tmp/calls.log"]);
    containers.wait("net/calling", "app");
    containers.wait("net/answering", "app");
    containers.wait("net/calling-in-vain", "app");
    let log = Call::read_all(&log);
    assert_eq!(log.len(), calls);
    let made: Vec<&Call> = log.iter().filter(|call| call.result == 0).collect();
    // The last of it may happen when both have ended.
    for client in [&mut server, &mut caller] {
        client.read_until_seen("the end of all connections", |seen| rows(seen, "close").len() == made.len());
    }
    let (server, caller) = (server.stop(), caller.stop());

    // The caller makes one after the other.
    let connects: Vec<_> = caller.events().into_iter().filter(|event| event["operation"] == "connect").collect();
    assert_eq!(connects.len(), log.len());
    for (event, call) in connects.iter().zip(&log) {
        assert_eq!((&event["ret"], endpoint(&event["peer"])), (&call.result.into(), call.peer), "{event} {call:?}");
        assert!(call.local.is_none_or(|local| local == endpoint(&event["local"])), "{event} {call:?}");
    }
    let in_vain = in_vain.stop();
    let attempts = in_vain.events().into_iter().map(|event| (event["ret"].as_i64().unwrap(), endpoint(&event["peer"])));
    let expected = Call::read_all(&vain_log).into_iter().map(|call| (call.result, call.peer));
    assert_eq!(attempts.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!((in_vain.events().len(), in_vain.lost()), (2, 0));
    let sorted = |mut rows: Vec<_>| {
        rows.sort_by_key(|row: &(SocketAddr, SocketAddr, Value, Value)| (row.0, row.1));
        rows
    };
    let of_caller = |call: &&Call| (call.local.unwrap(), call.peer, call.sent.into(), call.received.into());
    let of_server = |call: &&Call| (call.peer, call.local.unwrap(), call.received.into(), call.sent.into());
    assert_eq!(sorted(rows(&caller.lines, "close")), sorted(made.iter().map(of_caller).collect()));
    assert_eq!(sorted(rows(&server.lines, "close")), sorted(made.iter().map(of_server).collect()));
    let accepted = made.iter().map(|call| (call.peer, call.local.unwrap(), Value::Null, Value::Null)).collect();
    assert_eq!(sorted(rows(&server.lines, "accept")), sorted(accepted));

    for (seen, pod, not) in [(&server, "answering", "connect"), (&caller, "calling", "accept")] {
        assert_eq!(seen.lost(), 0);
        let events = seen.events();
        assert!(events.iter().all(|event| event["pod"] == pod && event["operation"] != not));
        // Whoever runs when it ends, it is the opener's.
        assert!(events.iter().all(|event| event["pid"] == events[0]["pid"]), "{events:?}");
        assert!(events.iter().all(|event| event["operation"] != "close" || event["duration"].as_u64().unwrap() > 0));
    }
    server
}
