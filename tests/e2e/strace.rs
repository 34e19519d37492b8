//! traceloop beside strace: both see one run of a real program, call by call, with results, paths and times.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::{Client, Folder, loads_programs};

use super::cgroups::Cgroups;

/// What they make is much the same as anybody's programs do.
const GIT: &str = "
set -e
cd \"$1\"
git init --quiet project
cd project
mkdir -p one/two
echo text >one/two/file
ln -s file one/two/link
mv one/two/file one/two/moved
git add .
git -c user.name=a -c user.email=a@b -c gc.auto=0 commit --quiet -m message
git status --short
cat one/two/link 2>/dev/null || true
rm -r one
";

const PYTHON: &str = "cd \"$1\" && python3 -m venv --without-pip project && sleep 0.2";

/// Arguments that are paths, by the kernel's names for them; strace has them as the texts of a call, in this order.
const PATHS: [(&str, &[&str]); 16] = [
    ("access", &["filename"]),
    ("chdir", &["filename"]),
    ("execve", &["filename"]),
    ("faccessat2", &["filename"]),
    ("link", &["oldname", "newname"]),
    ("lstat", &["filename"]),
    ("mkdir", &["pathname"]),
    ("newfstatat", &["filename"]),
    ("openat", &["filename"]),
    ("readlink", &["path"]),
    ("rename", &["oldname", "newname"]),
    ("renameat2", &["oldname", "newname"]),
    ("rmdir", &["pathname"]),
    ("symlinkat", &["oldname", "newname"]),
    ("unlink", &["pathname"]),
    ("unlinkat", &["pathname"]),
];

/// Calls that make a process or thread.
const MAKERS: [&str; 4] = ["clone", "clone3", "fork", "vfork"];

#[derive(Clone, Debug)]
struct Call {
    name: String,
    result: String,
    paths: Vec<String>,
    /// How long it took, if that is known.
    us: Option<u64>,
}

impl Call {
    fn is_like(&self, other: &Self) -> bool {
        (&self.name, &self.result, &self.paths) == (&other.name, &other.result, &other.paths)
    }
}

fn paths_of(name: &str) -> &'static [&'static str] {
    PATHS.iter().find(|(known, _)| *known == name).map_or(&[], |(_, paths)| paths)
}

/// Whether both tell of a call in the same way. Those left out:
/// - `exit` and `exit_group` do not return: strace has `?` for their results;
/// - `rt_sigreturn` has the registers, and for strace the result, of what the signal interrupted;
/// - `restart_syscall` is what strace calls a call that the kernel goes on with after a stop;
/// - `wait4` is interrupted by the child's own signal, or not, as it comes: strace shows each attempt, and its result as ERESTARTSYS.
fn is_compared(name: &str) -> bool {
    !matches!(name, "exit" | "exit_group" | "rt_sigreturn" | "restart_syscall" | "wait4")
}

/// By thread, in their order.
type Calls = BTreeMap<u64, Vec<Call>>;

/// What strace has written, with `-xx` for texts and `-T` for times: `123 openat(AT_FDCWD, "\x2f…", O_RDONLY) = 3 <0.000012>`, in two lines if others came between.
fn traced(trace: &str) -> Calls {
    let mut calls = Calls::new();
    let mut begun: HashMap<u64, String> = HashMap::new();
    for line in trace.lines() {
        let (thread, line) = line.split_once(' ').unwrap();
        let (thread, line) = (thread.parse().unwrap(), line.trim_start());
        if let Some(first) = line.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, first.to_owned());
            continue;
        }
        let whole = match line.strip_prefix("<... ") {
            Some(rest) => begun.remove(&thread).unwrap() + rest.split_once(" resumed>").unwrap().1,
            None => line.to_owned(),
        };
        // Else it is a signal, or an end.
        if !whole.starts_with(|first: char| first.is_ascii_lowercase()) {
            continue;
        }
        let (name, rest) = whole.split_once('(').unwrap();
        let (args, result) = rest.rsplit_once(" = ").unwrap();
        if is_compared(name) {
            let paths = texts(args).take(paths_of(name).len()).collect();
            let time = result.rsplit_once(" <").unwrap().1.strip_suffix('>').unwrap();
            let us = Some((time.parse::<f64>().unwrap() * 1e6).round() as u64);
            let call = Call { name: name.to_owned(), result: result_of_strace(result), paths, us };
            calls.entry(thread).or_default().push(call);
        }
    }
    calls
}

/// `-1 ENOENT (No such file or directory)`, `0x7f12`, `022`, `3`, with more behind it at times.
fn result_of_strace(result: &str) -> String {
    let result = result.strip_prefix("-1 ").unwrap_or(result).split(' ').next().unwrap();
    let number = match result.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None => i64::from_str_radix(result, if result.starts_with('0') { 8 } else { 10 }),
    };
    number.map_or(result.to_owned(), |number| number.to_string())
}

/// The texts in double quotes.
fn texts(args: &str) -> impl Iterator<Item = String> {
    let text = |hex: &str| {
        let bytes = hex.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        String::from_utf8(bytes).unwrap()
    };
    args.split('"').skip(1).step_by(2).map(text)
}

fn shown(events: &[&Value]) -> Calls {
    let mut calls = Calls::new();
    for event in events {
        // What has none is the end of a process.
        let Some(name) = event["syscall"].as_str().filter(|name| is_compared(name)).map(str::to_owned) else {
            continue;
        };
        let result = event["ret_name"].as_str().map_or_else(|| event["ret"].to_string(), str::to_owned);
        let args = paths_of(&name).iter().map(|path| event["args"][path].as_str().unwrap_or_default().to_owned());
        let paths = args.collect();
        let us = event["duration"].as_u64().map(|ns| ns / 1000);
        calls.entry(event["tid"].as_u64().unwrap()).or_default().push(Call { name, result, paths, us });
    }
    calls
}

#[test]
fn calls_of_git_that_strace_sees() {
    compare("strace-git", GIT, 5);
}

#[test]
fn calls_of_python_that_strace_sees() {
    compare("strace-python", PYTHON, 2);
}

/// Runs a script that makes a thousand calls, in more than so many threads, below both.
fn compare(name: &str, script: &str, threads: usize) {
    let _loads = loads_programs();
    let folder = Folder::new(name);
    let cgroups = Cgroups::new(name);
    let client = Client::start(&["traceloop", "--cgroup", &cgroups.make("/run"), "--buffer", "64MiB", "--durations"]);
    let processes = cgroups.directory("/run").join("cgroup.procs");
    let status = Command::new("/bin/sh")
        .args(["-c", "echo $$ >\"$0\" && exec \"$@\"", processes.to_str().unwrap()])
        .args(["/usr/bin/strace", "-f", "-T", "-xx", "-s", "4096", "-o", &folder.path("trace")])
        .args(["/bin/sh", "-c", script, "sh", &folder.path("")])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder.path(""))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let seen = client.stop();
    assert_eq!(seen.lost(), 0);

    let traced = traced(&fs::read_to_string(folder.path("trace")).unwrap());
    let mut shown = shown(&seen.events());
    // The others are strace's own.
    shown.retain(|thread, _| traced.contains_key(thread));
    // A child's first return is from the call that made it, which strace shows of the parent alone.
    let is_birth = |call: &Call| MAKERS.contains(&call.name.as_str()) && call.result == "0";
    for calls in shown.values_mut().filter(|calls| calls.first().is_some_and(is_birth)) {
        calls.remove(0);
    }
    assert!(traced.len() > threads, "{} threads", traced.len());
    let mut count = 0;
    for (thread, traced) in &traced {
        let shown = shown.get(thread).map(Vec::as_slice).unwrap_or_default();
        // strace's child, until it becomes the program, is strace.
        let is_first = |call: &Call| call.is_like(&traced[0]);
        let first = if traced[0].name == "execve" { shown.iter().position(is_first).unwrap() } else { 0 };
        let shown = &shown[first..];
        let differs = traced.iter().zip(shown).position(|(one, other)| !one.is_like(other));
        let around = |calls: &[Call], at: usize| calls[at.saturating_sub(2)..(at + 3).min(calls.len())].to_vec();
        if let Some(at) = differs {
            panic!("thread {thread}, call {at}: strace {:#?}, traceloop {:#?}", around(traced, at), around(shown, at));
        }
        assert_eq!(traced.len(), shown.len(), "thread {thread}");
        // What strace itself does with a call is in its time, and not in ours, which is rounded up.
        for (theirs, ours) in traced.iter().zip(shown) {
            assert!(ours.us.is_some_and(|us| us > 0 && us <= theirs.us.unwrap() + 1), "{theirs:?}: {ours:?}");
        }
        count += traced.len();
    }
    assert!(count > 1000, "{count} calls");
    let slept = shown.values().flatten().filter(|call| call.name == "clock_nanosleep").filter_map(|call| call.us);
    assert_eq!(slept.filter(|us| (200_000..2_000_000).contains(us)).count(), usize::from(script == PYTHON));
}
