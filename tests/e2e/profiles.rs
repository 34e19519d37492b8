//! Profiles of programs in four languages, whose hot functions are known, in every form.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tests::scenarios::profile::{assert_share, cpu_ns, runs_in, sum};
use tests::{Client, Folder, Pod, Seen, client_command, client_output, dist, loads_programs, script_output, wait_for};

use crate::cgroups::Cgroups;

/// What is enough to see a share of three quarters.
const SAMPLES: u64 = 300;

/// A program of `tests/profiled`: where its root file system is, and the command that runs it there.
pub(crate) fn profiled(name: &str) -> (PathBuf, Vec<String>) {
    let said = script_output("profiled/build", &[name]);
    let mut words = said.split_whitespace().skip(1).map(str::to_owned);
    (words.next().unwrap().into(), words.collect())
}

/// A pod that runs one of them for ever.
pub(crate) fn run(namespace: &str, name: &str) -> Pod {
    let (root, command) = profiled(name);
    let pod = Pod::new(namespace, name);
    pod.run_from(&root, "app", &command.iter().map(String::as_str).collect::<Vec<_>>());
    pod
}

pub(crate) fn samples(lines: &[Value], pod: &str) -> u64 {
    let of_pod = |line: &&Value| line["type"] == "event" && line["pod"] == pod;
    lines.iter().filter(of_pod).map(|line| line["samples"].as_u64().unwrap()).sum()
}

pub(crate) fn of_pod<'a>(seen: &'a Seen, pod: &str) -> Vec<&'a Value> {
    seen.events().into_iter().filter(|event| event["pod"] == pod).collect()
}

/// A frame of some stack, by its function.
pub(crate) fn frame<'a>(events: &[&'a Value], function: &str) -> &'a Value {
    let frames = events.iter().filter_map(|event| event["user_stack"].as_array()).flatten();
    frames.into_iter().find(|frame| frame["function"] == function).unwrap_or_else(|| panic!("no {function}"))
}

/// In the middle of a program of each language: how its functions are called, and where the line of one is.
type Language = (&'static str, fn(&str) -> String, Option<&'static str>);

const LANGUAGES: [Language; 6] = [
    // Stripped, its names are in a file of their own: where its build id says.
    ("c", |function| function.to_owned(), Some("hot.c")),
    // Where its debug link says.
    ("c-linked", |function| function.to_owned(), Some("hot.c")),
    // Static.
    ("rust", |function| format!("hot::{function}"), Some("hot.rs")),
    ("go", |function| format!("main.{function}"), Some("hot.go")),
    // Stripped, and its names are in no other file.
    ("go-stripped", |function| format!("main.{function}"), Some("hot.go")),
    // Not in any file but the one that it writes.
    ("python", |function| format!("py::{function}:/app/hot.py"), None),
];

#[test]
fn hot_functions_of_four_languages() {
    let _loads = loads_programs();
    let _pods = LANGUAGES.map(|(name, ..)| run("languages", name));
    let mut client = Client::start(&["profile", "-n", "languages", "--freq", "199"]);
    let is_enough = |lines: &[Value]| LANGUAGES.iter().all(|(name, ..)| samples(lines, name) >= SAMPLES);
    client.read_until_seen("enough samples of each", is_enough);
    let seen = client.stop();
    assert_eq!(seen.lost(), 0);
    for (name, function, file) in LANGUAGES {
        let events = of_pod(&seen, name);
        assert_eq!(sum(&events, "spent"), sum(&events, "samples") * (1_000_000_000 / 199));
        assert_share(&events, function);
        let heavy = frame(&events, &function("heavy"));
        match file {
            Some(file) => {
                assert!(heavy["file"].as_str().is_some_and(|path| path.ends_with(file)), "{heavy}");
                assert!(heavy["module"].as_str().is_some_and(|module| module.starts_with("/app/")), "{heavy}");
                // Where it calls spin.
                let line = heavy["line"].as_u64().unwrap() as usize;
                let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiled").join(file);
                let source = fs::read_to_string(source).unwrap();
                let text = source.lines().nth(line - 1).unwrap();
                assert!(text.contains("spin(") && text.contains('3'), "line {line} of {file} is {text:?}");
            }
            None => assert_eq!(heavy["jit"], true, "{heavy}"),
        }
    }
    // What the compiler has put into another function.
    let c = of_pod(&seen, "c");
    assert_eq!(frame(&c, "inlined")["inlined"], true);
    assert!(c.iter().filter(|event| runs_in(event, "inlined")).all(|event| runs_in(event, "spin")));
}

#[test]
fn idle_processors_count_only_if_asked_for() {
    let _loads = loads_programs();
    let is_idle = |line: &Value| line["activity"] == "idle";
    let mut asked = Client::start(&["profile", "--host", "--idle"]);
    asked.read_until_seen("a processor that is idle", |lines| lines.iter().any(is_idle));
    let seen = asked.stop();
    assert!(seen.events().into_iter().filter(|event| is_idle(event)).all(|event| event["pid"] == 0));
    for variant in ["clock", "tick"] {
        let mut unasked = Client::start(&["profile", "--host", "--variant", &format!("samples={variant}")]);
        let is_event = |line: &&Value| line["type"] == "event";
        unasked.read_until_seen("some samples", |lines| lines.iter().filter(is_event).count() > 10);
        let seen = unasked.stop();
        assert!(!seen.events().into_iter().any(is_idle), "{variant}: {}", seen.said);
    }
}

/// Samples for which there was no room are counted, and said: with those that are shown they are all that there were.
#[test]
fn samples_that_are_lost() {
    let _loads = loads_programs();
    let _pod = run("lost", "rust");
    let options = ["--freq", "999", "--buffer", "64KiB", "--variant", "samples=clock"];
    let mut client = Client::start(&[&["profile", "-n", "lost"], &options[..]].concat());
    client.read_until_seen("a sample", |lines| samples(lines, "rust") > 0);
    let pid = client.seen.iter().find_map(|line| line["pid"].as_u64()).unwrap();
    let before = cpu_ns(pid);
    let frozen = client.freeze_agent();
    // After 10 s without a sign of life the client would go.
    let enough = before + 1_200_000_000;
    wait_for("more than the ring has room for", || cpu_ns(pid) >= enough);
    drop(frozen);
    let seen = client.stop();
    let after = cpu_ns(pid);
    assert!(seen.lost() > 0, "{}", seen.said);
    assert_eq!((&seen.summary()["lost"], &seen.summary()["complete"]), (&seen.lost().into(), &true.into()));
    assert!(seen.said.contains("lost"), "{}", seen.said);
    let spent = (sum(&of_pod(&seen, "rust"), "samples") + seen.lost()) * (1_000_000_000 / 999);
    assert!(spent <= after + after / 5 && spent >= (after - before) / 2, "{spent} ns of {before} to {after}");
}

/// Writes a profile of so many seconds in some form into a file. Returns what was said beside it.
pub(crate) fn written(folder: &Folder, file: &str, seconds: u64, args: &[&str]) -> String {
    let out = fs::File::create(folder.path(file)).unwrap();
    let timeout = format!("{seconds}s");
    let args = [&["profile", "--local", "--duration", &timeout, "--freq", "199"], args].concat();
    let output = client_command("kubectl-gadget", &args).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// The same program in each form that somebody else reads.
#[test]
fn forms_that_others_read() {
    let _loads = loads_programs();
    let folder = Folder::new("profiles");
    let _pod = run("forms", "rust");
    let select = ["-p", "rust"];

    // Where much else runs it takes longer until there are enough.
    let mut seconds = 3;
    let folded = loop {
        let said = written(&folder, "folded", seconds, &[&select[..], &["-o", "folded"]].concat());
        let folded = fs::read_to_string(folder.path("folded")).unwrap();
        let counts = folded.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
        if counts.sum::<u64>() >= SAMPLES {
            break folded;
        }
        assert!(seconds < 60, "too few samples: {said}");
        seconds *= 2;
    };
    let mut below: BTreeMap<&str, u64> = BTreeMap::new();
    let mut all = 0;
    for line in folded.lines() {
        let (stack, count) = line.rsplit_once(' ').unwrap();
        let count: u64 = count.parse().unwrap();
        let frames: Vec<&str> = stack.split(';').collect();
        assert!(frames.contains(&"rust") && frames.contains(&"app"), "{line}");
        // Outermost first.
        let at = |function: &str| frames.iter().position(|frame| *frame == function);
        if let (Some(run), Some(heavy)) = (at("hot::run"), at("hot::heavy")) {
            assert!(run < heavy && at("hot::spin").is_none_or(|spin| heavy < spin), "{line}");
            *below.entry("heavy").or_default() += count;
        }
        all += count;
    }
    assert!(below["heavy"] * 10 > all * 6, "{below:?} of {all}");

    // Whoever wants to know nothing of pods has all in one.
    written(&folder, "merged", seconds, &[&select[..], &["-o", "folded", "--by", "none"]].concat());
    let merged = fs::read_to_string(folder.path("merged")).unwrap();
    assert!(merged.contains("hot::heavy") && merged.lines().all(|line| !line.split(';').any(|frame| frame == "rust")));

    written(&folder, "flamegraph.svg", seconds, &[&select[..], &["-o", "flamegraph"]].concat());
    let svg = fs::read_to_string(folder.path("flamegraph.svg")).unwrap();
    assert!(svg.contains("hot::heavy") && !svg.contains("href=\"http") && !svg.contains("src=\"http"));
    // An independent reader of XML finds it well-formed.
    let script = "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])";
    let parsed = Command::new("python3").args(["-c", script, &folder.path("flamegraph.svg")]).status().unwrap();
    assert!(parsed.success());

    written(&folder, "merged.svg", seconds, &[&select[..], &["-o", "flamegraph", "--by", "none"]].concat());
    let merged = fs::read_to_string(folder.path("merged.svg")).unwrap();
    assert!(merged.contains("hot::heavy") && svg.contains("<title>rust (") && !merged.contains("<title>rust ("));

    written(&folder, "profile.pb.gz", seconds, &[&select[..], &["-o", "pprof"]].concat());
    let (root, command) = profiled("pprof");
    let reader = root.join(command[0].trim_start_matches('/'));
    let read = |args: &[&str]| {
        let output = Command::new(&reader).args(args).arg(folder.path("profile.pb.gz")).output().unwrap();
        assert!(output.status.success(), "pprof: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // flat flat% sum% cum cum% NAME
    let top = read(&["-top", "-sample_index=samples", "-nodecount=1000"]);
    let percent = |function: &str, column: usize| -> f64 {
        let line = top.lines().find(|line| line.split_whitespace().nth(5) == Some(function));
        let line = line.unwrap_or_else(|| panic!("no {function} in {top}"));
        line.split_whitespace().nth(column).unwrap().trim_end_matches('%').parse().unwrap()
    };
    assert!((percent("hot::heavy", 4) - 75.0).abs() < 15.0, "{top}");
    assert!(percent("hot::spin", 1) > 90.0, "{top}");
    assert!(read(&["-tags"]).contains("rust"));
    assert!(read(&["-list", "hot::run"]).contains("hot.rs"));
}

/// Without a name for the kernel's part, and with its name alone.
#[test]
fn halves_of_stacks() {
    let _loads = loads_programs();
    let pod = Pod::new("halves", "zeros");
    pod.run("app", &["dd", "if=/dev/zero", "of=/dev/null", "bs=1M"]);
    let has = |event: &Value, stack: &str| event[stack].as_array().is_some_and(|frames| !frames.is_empty());
    for (flag, there, missing) in [("--kernel", "kernel_stack", "user_stack"), ("--user", "user_stack", "kernel_stack")]
    {
        let mut client = Client::start(&["profile", "-p", "zeros", flag]);
        client.read_until_seen("samples", |lines| samples(lines, "zeros") >= 30);
        let seen = client.stop();
        assert!(seen.events().iter().all(|event| !has(event, missing)), "{flag}");
        let with = seen.events().into_iter().filter(|event| has(event, there));
        assert!(sum(&with.collect::<Vec<_>>(), "samples") >= 25, "{flag}");
    }
    // The kernel clears the memory that is read.
    let mut client = Client::start(&["profile", "-p", "zeros"]);
    client.read_until_seen("samples", |lines| samples(lines, "zeros") >= 30);
    let seen = client.stop();
    let reads = |event: &&&Value| {
        let frames = event["kernel_stack"].as_array().into_iter().flatten();
        frames.filter_map(Value::as_str).any(|frame| frame.starts_with("vfs_read+"))
    };
    let events = seen.events();
    assert!(sum(events.iter().filter(reads), "samples") * 2 > sum(&events, "samples"));
}

/// Whoever has waited since before it began, and does not stop, is shown as well.
#[test]
fn a_wait_that_does_not_end() {
    let _loads = loads_programs();
    let pod = Pod::new("waits", "stuck");
    pod.run("app", &["sleep", "86400"]);
    let seen = Client::start(&["profile", "-p", "stuck", "-c", "app", "--off-cpu", "--timeout", "3s"]).finish();
    let events = seen.events();
    let in_sleep = |event: &&&Value| {
        let frames = event["kernel_stack"].as_array().into_iter().flatten();
        frames.filter_map(Value::as_str).any(|frame| frame.starts_with("hrtimer_nanosleep+"))
    };
    assert!(events.iter().all(|event| in_sleep(&event) && event["activity"] == "sleeping"), "{events:#?}");
    // One wait, as long as it was looked at.
    assert_eq!((sum(&events, "samples"), seen.lost()), (1, 0));
    let spent = Duration::from_nanos(sum(&events, "spent"));
    assert!(spent >= Duration::from_millis(2500) && spent < Duration::from_secs(6), "{spent:?}");
}

/// Whoever has to wait for a processor is in some function of its program.
#[test]
fn waits_in_the_middle_of_a_program() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("queue");
    let path = cgroups.make("");
    // Two on one processor.
    let _hot = [(); 2].map(|()| cgroups.start("", &format!("taskset -c 0 {}", dist("hot").display())));
    let mut client = Client::start(&["profile", "--cgroup", &path, "--off-cpu"]);
    let is_waiting = |event: &Value| event["activity"] == "preempted" && runs_in(event, "hot::heavy");
    client.read_until_seen("waits in a function", |lines| lines.iter().filter(|line| is_waiting(line)).count() >= 10);
    let seen = client.stop();
    assert_eq!(seen.lost(), 0);
    let waits: Vec<&Value> = seen.events().into_iter().filter(|event| is_waiting(event)).collect();
    assert!(waits.iter().all(|event| runs_in(event, "hot::main") && event["comm"] == "hot"), "{waits:#?}");
}

/// What is missing of stacks is counted: outer functions than the kernel gives out, and those that are called without frame pointers.
#[test]
fn stacks_that_are_not_whole() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("unwhole");
    let path = cgroups.make("");
    let _deep = cgroups.start("", &format!("{} deep", dist("hot").display()));
    // As Debian builds it: without.
    let _short = cgroups.start("", "/usr/bin/python3 -c 'while True: pass'");
    let mut client = Client::start(&["profile", "--cgroup", &path]);
    let has = |lines: &[Value], comm: &str, what: &str| {
        lines.iter().any(|line| line["comm"] == comm && line[format!("user_stack_{what}")] == true)
    };
    client.read_until_seen("both", |lines| has(lines, "hot", "truncated") && has(lines, "python3", "short"));
    let seen = client.stop();
    for event in seen.events().iter().filter(|event| event["comm"] == "hot") {
        assert!(runs_in(event, "hot::deep") && !runs_in(event, "hot::main"), "{event}");
        assert!(event["user_stack_short"].is_null(), "{event}");
    }
    let output = client_output(&["profile", "--local", "--cgroup", &path, "--timeout", "2s"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("have stacks that are cut") && said.contains("end before where their thread began"),
        "{said}"
    );
}
