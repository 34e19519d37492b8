//! bcc's tools as witnesses: what one of them shows of a workload ours shows too, and nothing else of the same kind. They hang on
//! kprobes, which not every host has; the guests of the kernel matrix do.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use gadgets::catalogue::Release;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Containers, Scenario, provide_workload};
use crate::{PATIENCE, Process, endpoint};

/// Where the tools are, and their libraries.
pub const FOLDER: &str = "/bcc";

/// One of them.
pub struct Witness {
    gadget: &'static str,
    /// Its name and arguments.
    pub tool: &'static [&'static str],
    /// What the workload is told.
    workload: &'static [&'static str],
    /// How many rows of these both must show.
    rows: usize,
    /// What of a row is compared, by its words; `None` of one that only the tool shows.
    theirs: fn(&[&str]) -> Option<String>,
    ours: fn(&Value) -> Option<String>,
    /// Which word is the name of the thread.
    comm_at: usize,
    /// The first kernel that it does not know how to read.
    until: Option<Release>,
}

/// All there are.
pub static WITNESSES: [Witness; 3] = [
    Witness {
        gadget: "bindsnoop",
        tool: &["bindsnoop", "-x"],
        workload: &["binds", "24", "/tmp/bcc.log"],
        rows: 24,
        // PID COMM RET PROTO OPTS IF PORT ADDR
        theirs: |words| {
            let [_, _, result, protocol, _, _, port, address] = words else { return None };
            let at = if *result == "0" { format!(" {port} {address}") } else { String::new() };
            Some(format!("{} {}{at}", result.trim_start_matches('-'), protocol.to_lowercase()))
        },
        ours: |event| {
            let (result, protocol) = (event["ret"].as_i64()?, event["protocol"].as_str()?);
            let address = &event["address"];
            let at = || format!(" {} {}", address["port"], address["address"].as_str().unwrap());
            // It does not see what is no socket.
            let at = if result == 0 { at() } else { String::new() };
            (protocol != "none").then(|| format!("{} {protocol}{at}", result.abs()))
        },
        comm_at: 1,
        // The options of sockets are elsewhere since then.
        until: Some(Release(6, 6)),
    },
    Witness {
        gadget: "capabilities",
        tool: &["capable", "-v"],
        workload: &["checks", "25", "/tmp/bcc.log"],
        rows: 20,
        // TIME UID PID COMM CAP NAME AUDIT VERDICT
        theirs: |words| {
            let [_, _, _, _, _, name, _, verdict] = words else { return None };
            asks_itself(name).then(|| format!("{name} {verdict}"))
        },
        ours: |event| {
            let name = event["capability"].as_str()?;
            let verdict = if event["ret"] == 0 { "allow" } else { "deny" };
            asks_itself(name).then(|| format!("{name} {verdict}"))
        },
        comm_at: 3,
        until: None,
    },
    Witness {
        gadget: "tcptracer",
        tool: &["tcptracer"],
        workload: &["transfers", "12"],
        rows: 24,
        // T PID COMM IP SADDR DADDR SPORT DPORT
        theirs: |words| {
            let [what @ ("C" | "A"), _, _, _, local, peer, local_port, peer_port] = words else { return None };
            let address = |text: &str| text.parse::<IpAddr>().map(|address| address.to_canonical());
            let (local, peer) = (address(local).ok()?, address(peer).ok()?);
            Some(format!("{what} {local}:{local_port} {peer}:{peer_port}"))
        },
        ours: |event| {
            let what = match event["operation"].as_str()? {
                "connect" => "C",
                "accept" => "A",
                _ => return None,
            };
            Some(format!("{what} {} {}", endpoint(&event["local"]), endpoint(&event["peer"])))
        },
        comm_at: 2,
        until: None,
    },
];

/// The kernel asks for others by itself.
fn asks_itself(capability: &str) -> bool {
    ["CAP_SYS_BOOT", "CAP_SETGID", "CAP_SYS_PACCT", "CAP_SYS_TIME"].contains(&capability)
}

impl Witness {
    /// That of a gadget on a kernel.
    pub fn of(gadget: &str, kernel: Release) -> Option<&'static Self> {
        let knows = |witness: &&Self| witness.until.is_none_or(|until| kernel < until);
        WITNESSES.iter().find(|witness| witness.gadget == gadget).filter(knows)
    }

    /// Runs tool and gadget beside each other.
    pub fn check(&self, containers: &mut dyn Containers) {
        let workload = provide_workload(containers);
        let client = Scenario::of(self.gadget).client(&["-p", "bcc"]);
        let (tool, lines) = self.start();
        containers.start("witness/bcc", "app", &[&[workload.as_str()], self.workload].concat());
        containers.wait("witness/bcc", "app");
        let name = Path::new(&workload).file_name().unwrap().to_str().unwrap();
        let row = |line: String| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // It may cut the name.
            let is_workload = words.get(self.comm_at).is_some_and(|comm| comm.len() >= 8 && name.starts_with(comm));
            if is_workload { (self.theirs)(&words) } else { None }
        };
        let mut theirs: Vec<String> = Vec::new();
        while theirs.len() < self.rows {
            theirs.extend(row(lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it shows only {theirs:?}"))));
        }
        tool.signal(Signal::SIGINT);
        theirs.extend(lines.iter().filter_map(row));
        let seen = client.stop();
        let mut ours: Vec<String> = seen.events().into_iter().filter_map(self.ours).collect();
        // It reads one processor after the other.
        theirs.sort_unstable();
        ours.sort_unstable();
        assert_eq!((ours, seen.lost()), (theirs, 0));
    }

    /// Returns when it sees all that follows.
    fn start(&self) -> (Process, Receiver<String>) {
        let in_folder = |path: &str| format!("{FOLDER}/{path}");
        let ends = nix::pty::openpty(None, None).unwrap();
        let mut command = Command::new(in_folder("ld-linux-x86-64.so.2"));
        command.args(["--library-path", FOLDER, &in_folder(self.tool[0])]).args(&self.tool[1..]);
        // To a terminal it writes each line at once.
        command.stdin(Stdio::null()).stdout(ends.slave);
        let process = Process(command.spawn().unwrap());
        drop(command);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(File::from(ends.master)).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.contains("PID")) {
            let line = lines.recv_timeout(PATIENCE);
            said.push(line.unwrap_or_else(|_| panic!("{} does not start: {said:?}", self.tool[0])));
        }
        (process, lines)
    }
}
