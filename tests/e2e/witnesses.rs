//! Gadgets beside witnesses that are not ours, event by event: strace sees the same system calls through ptrace, and ss asks the
//! kernel for its own counters.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use serde_json::Value;
use tests::{Client, Folder, Process, dist, endpoint, loads_programs, texts};

/// A folder for one test, with the workload under a name that no other test has.
struct Stage {
    folder: Folder,
    name: &'static str,
}

impl Stage {
    fn new(name: &'static str) -> Self {
        let folder = Folder::new(name);
        fs::copy(dist("workload"), folder.path(name)).unwrap();
        Self { folder, name }
    }

    fn path(&self, file: &str) -> String {
        self.folder.path(file)
    }

    /// The gadget for what this stage's workload does, in the cgroup of this process.
    fn watch(&self, gadget: &str) -> Client {
        let mine = fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = mine.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        Client::start(&[gadget, "--cgroup", path, "--comm", self.name])
    }

    /// The workload under strace, which writes to a file. `starter` becomes the workload.
    fn trace(&self, trace: &str, calls: &str, starter: &[&str], args: &[&str]) -> Process {
        let mut command = Command::new("/usr/bin/strace");
        command.args(["-f", "-xx", "-s", "8192", "-e", calls, "-o", &self.path(trace)]).args(starter);
        Process(command.arg(self.path(self.name)).args(args).spawn().unwrap())
    }

    /// What strace has written: the call, all that follows its name, and its result as events have it.
    fn traced(&self, trace: &str) -> Vec<Traced> {
        fs::read_to_string(self.path(trace)).unwrap().lines().filter_map(Traced::read).collect()
    }
}

struct Traced {
    call: String,
    args: String,
    /// A number, or an error's name.
    result: String,
}

impl Traced {
    /// `123 open("…", O_RDWR) = -1 ENOENT (No such file or directory)`; `None` of what is no call.
    fn read(line: &str) -> Option<Self> {
        let (_, line) = line.split_once(' ')?;
        let (call, rest) = line.trim_start().split_once('(')?;
        let (args, result) = rest.rsplit_once(" = ")?;
        let result = result.strip_prefix("-1 ").unwrap_or(result).split(' ').next()?;
        Some(Self { call: call.to_owned(), args: args.to_owned(), result: result.to_owned() })
    }

    /// The first text in double quotes, which is all in hexadecimal; whether there is more of it.
    fn text(&self) -> (Vec<u8>, bool) {
        let Some((_, rest)) = self.args.split_once('"') else { return (Vec::new(), true) };
        let (hex, rest) = rest.split_once('"').unwrap();
        let bytes = hex.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        (bytes, rest.starts_with("..."))
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.args.split([',', '{', '}', '(', ')', '=', ' '])
    }

    /// The address of IP, if it has one.
    fn address(&self) -> Option<SocketAddr> {
        let port = self.args.split_once("htons(")?.1.split_once(')')?.0.parse().unwrap();
        let ip: IpAddr = String::from_utf8(self.text().0).unwrap().parse().unwrap();
        Some((ip.to_canonical(), port).into())
    }
}

fn finish(mut process: Process) {
    assert!(process.wait().success());
}

/// As strace writes it.
fn result(event: &Value) -> String {
    event["ret_name"].as_str().map_or_else(|| event["ret"].to_string(), str::to_owned)
}

#[test]
fn opens_that_strace_sees() {
    let _loads = loads_programs();
    let stage = Stage::new("witness-opens");
    let client = stage.watch("opensnoop");
    let calls = "trace=open,openat,openat2,creat,open_by_handle_at";
    finish(stage.trace("trace", calls, &[], &["opens", "120", &stage.path("log")]));
    let seen = client.stop();

    let mut events = seen.events().into_iter().filter(|event| {
        let path = texts(event, "path").remove(0);
        // strace does not see what io_uring does.
        let is_numbered = path.last().is_some_and(u8::is_ascii_digit);
        !(is_numbered && path.windows(6).any(|part| part == b"uring-"))
    });
    let traced = stage.traced("trace");
    assert!(traced.len() > 240, "{}", traced.len());
    for traced in traced {
        let event = events.next().unwrap_or_else(|| panic!("{}({}) is not seen", traced.call, traced.args));
        let has_path = traced.call != "open_by_handle_at";
        let (path, is_cut) = if has_path { traced.text() } else { (Vec::new(), false) };
        let mut shown = texts(event, "path").remove(0);
        // Of one that is too long we show a byte more.
        shown.truncate(if is_cut { path.len() } else { shown.len() });
        let same = shown == path && result(event) == traced.result && (event["path_truncated"] == true) == is_cut;
        assert!(same, "{}({}) = {} is {event}", traced.call, traced.args, traced.result);
        if let Some(flags) = traced.words().find(|word| word.starts_with("O_")) {
            let shown: Vec<&str> =
                event["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap()).collect();
            let mut flags: Vec<&str> = flags.split('|').collect();
            flags.sort_by_key(|flag| shown.iter().position(|shown| shown == flag));
            assert_eq!(shown, flags, "{event}");
        }
        // 0640, 04751
        let is_mode = |word: &&str| word.len() >= 4 && word.starts_with('0') && !word.starts_with("0x");
        let mode = traced.words().find(is_mode).map_or(0, |mode| u32::from_str_radix(mode, 8).unwrap());
        assert_eq!(event["mode"], format!("{mode:04o}"), "{event}");
    }
    assert_eq!((events.next(), seen.lost()), (None, 0));
}

#[test]
fn binds_that_strace_sees() {
    let _loads = loads_programs();
    let stage = Stage::new("witness-binds");
    let client = stage.watch("bindsnoop");
    finish(stage.trace("trace", "trace=bind", &[], &["binds", "240", &stage.path("log")]));
    let seen = client.stop();

    let mut events = seen.events().into_iter();
    for traced in stage.traced("trace") {
        let Some(address) = traced.address() else { continue };
        let event = events.next().unwrap_or_else(|| panic!("bind({}) is not seen", traced.args));
        let shown = endpoint(&event["address"]);
        assert_eq!((result(event), shown.ip()), (traced.result, address.ip()), "{event}");
        // Where none is asked for the kernel chooses one.
        let chooses = address.port() == 0 && event["ret"] == 0 && event["options"][0] != "bind_address_no_port";
        assert!(if chooses { shown.port() > 0 } else { shown.port() == address.port() }, "{event}");
    }
    assert_eq!((events.next(), seen.events().len() > 240, seen.lost()), (None, true, 0));
}

#[test]
fn connections_that_strace_sees() {
    let _loads = loads_programs();
    let stage = Stage::new("witness-tcp");
    let mut client = stage.watch("tcptracer");
    let port = stage.path("port");
    let answerer = stage.trace("accepts", "trace=accept4", &[], &["answer", "60", &port]);
    let call = ["call", "60", &port, &stage.path("log")];
    finish(stage.trace("connects", "trace=connect", &[], &call));
    finish(answerer);
    // Each of the 40 that are made has two ends.
    client.read_until_seen("the ends", |seen| seen.iter().filter(|line| line["operation"] == "close").count() == 80);
    let seen = client.stop();

    let of = |operation: &str| {
        let events = seen.events().into_iter().filter(move |event| event["operation"] == operation);
        events.map(|event| (result(event), endpoint(&event["peer"]))).collect::<Vec<_>>()
    };
    let connects = stage.traced("connects").into_iter().map(|traced| {
        // The workload waits until it is connected.
        let result = if traced.result == "EINPROGRESS" { "0".to_owned() } else { traced.result.clone() };
        (result, traced.address().unwrap())
    });
    let accepts = stage.traced("accepts").into_iter().map(|traced| ("0".to_owned(), traced.address().unwrap()));
    assert_eq!(of("connect"), connects.collect::<Vec<_>>());
    assert_eq!(of("accept"), accepts.collect::<Vec<_>>());
    assert_eq!((of("connect").len(), of("accept").len(), seen.lost()), (60, 40, 0));
}

#[test]
fn checks_that_strace_sees() {
    const CALLS: [&str; 5] = ["reboot", "sethostname", "setgroups", "acct", "settimeofday"];
    let _loads = loads_programs();
    let stage = Stage::new("witness-checks");
    let client = stage.watch("capabilities");
    let calls = format!("trace={}", CALLS.join(","));
    let mut traced = Vec::new();
    for starter in [&[][..], &["/usr/bin/setpriv", "--bounding-set=-all"]] {
        finish(stage.trace("trace", &calls, starter, &["checks", "50", &stage.path("log")]));
        traced.extend(stage.traced("trace"));
    }
    let seen = client.stop();

    let checks = seen.events().into_iter().filter(|event| CALLS.contains(&event["syscall"].as_str().unwrap()));
    let checks: Vec<_> = checks.map(|event| (event["syscall"].as_str().unwrap(), result(event))).collect();
    let refused = |traced: &Traced| if traced.result == "EPERM" { "EPERM" } else { "0" }.to_owned();
    let expected: Vec<_> = traced.iter().map(|traced| (traced.call.as_str(), refused(traced))).collect();
    assert_eq!(checks, expected);
    assert_eq!((checks.iter().filter(|(_, result)| result == "EPERM").count(), checks.len()), (50, 100));
}

#[test]
fn bytes_that_ss_counts() {
    let _loads = loads_programs();
    let pid = std::process::id().to_string();
    let mut client = Client::start(&["tcptop", "--host=outside", "--pid", &pid, "--interval", "250ms"]);
    let listener = TcpListener::bind(("::", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut pairs: Vec<_> = ["127.0.0.1", "::1"]
        .map(|address| {
            let caller = TcpStream::connect((address, port)).unwrap();
            (caller, listener.accept().unwrap().0)
        })
        .into();
    let (question, answer) = (vec![b'?'; 300_000], vec![b'!'; 777]);
    for (caller, answerer) in &mut pairs {
        for _ in 0..3 {
            std::thread::scope(|scope| {
                scope.spawn(|| caller.write_all(&question).unwrap());
                answerer.read_exact(&mut vec![0; question.len()]).unwrap();
            });
            answerer.write_all(&answer).unwrap();
            caller.read_exact(&mut vec![0; answer.len()]).unwrap();
        }
    }
    // Each end has sent or received all of it once.
    let all = 2 * 2 * 3 * (question.len() + answer.len()) as u64;
    let sums = |seen: &[Value]| {
        let mut sums = std::collections::BTreeMap::<_, [u64; 3]>::new();
        for row in seen.iter().filter(|line| line["type"] == "event") {
            let sum = sums.entry((endpoint(&row["local"]), endpoint(&row["peer"]))).or_default();
            for (sum, measure) in sum.iter_mut().zip(["sent", "received", "retransmits"]) {
                *sum += row[measure].as_u64().unwrap();
            }
        }
        sums
    };
    client.read_until_seen("all bytes", |seen| sums(seen).values().map(|sum| sum[0] + sum[1]).sum::<u64>() >= all);
    let witness =
        Command::new("ss").args(["-tinHO", &format!("( sport = :{port} or dport = :{port} )")]).output().unwrap();
    let witness = String::from_utf8(witness.stdout).unwrap();
    let of_ss = witness.lines().filter(|line| line.starts_with("ESTAB")).map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = |word: &str| {
            let address: SocketAddr = word.parse().unwrap();
            SocketAddr::from((address.ip().to_canonical(), address.port()))
        };
        let value = |name| words.iter().find_map(|word| word.strip_prefix(name)).unwrap_or("0");
        // UNDERWAY/ALL
        let again = value("retrans:").rsplit('/').next().unwrap().parse().unwrap();
        let [sent, received] = ["bytes_sent:", "bytes_received:"].map(|name| value(name).parse().unwrap());
        let sent: u64 = sent - value("bytes_retrans:").parse::<u64>().unwrap();
        ((address(words[3]), address(words[4])), [sent, received, again])
    });
    let of_ss: std::collections::BTreeMap<_, _> = of_ss.collect();
    let seen = client.stop();
    assert_eq!((sums(&seen.lines), seen.lost()), (of_ss, 0), "{witness}");
    assert_eq!(sums(&seen.lines).len(), 4);
}

/// The call in a line of strace; one that another thread interrupts has two.
fn call_of(line: &str) -> Option<&str> {
    let (_, line) = line.split_once(' ')?;
    let line = line.trim_start();
    let name = line.strip_prefix("<... ").unwrap_or(line).split(['(', ' ']).next()?;
    // What is no call: signals, ends, and that a process makes calls of 32 bits.
    name.starts_with(|first: char| first.is_ascii_lowercase()).then_some(name)
}

#[test]
fn syscalls_that_strace_sees() {
    let _loads = loads_programs();
    let stage = Stage::new("witness-calls");
    let client = stage.watch("syscalls");
    finish(stage.trace("trace", "trace=all", &[], &["syscalls", "3", &stage.path("log")]));
    let seen = client.stop();
    let mut shown = seen.events().into_iter().map(|event| event["syscall"].as_str().unwrap()).collect::<Vec<_>>();
    shown.sort_unstable();
    shown.dedup();
    let trace = fs::read_to_string(stage.path("trace")).unwrap();
    // It is strace's child until then.
    let mut traced: Vec<&str> = trace.lines().filter_map(call_of).filter(|call| *call != "execve").collect();
    traced.sort_unstable();
    traced.dedup();
    assert_eq!(shown, traced);
}
