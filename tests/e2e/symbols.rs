//! Who reads files of containers, and what these can do to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use tests::scenarios::profile::{assert_share, runs_in, sum};
use tests::{Client, Daemon, Folder, Pod, client_output, dist, loads_programs, memory, shared_folder, wait_for};

use crate::profiles::{frame, of_pod, profiled, run, samples};

/// The process that reads files of containers has no rights, and little memory.
#[test]
fn who_reads_files_can_do_nothing_else() {
    let _loads = loads_programs();
    let daemon = Daemon::start("confined");
    let _pod = run("confined", "rust");
    let mut client = Client::start(&["profile", "-p", "rust", "--socket", daemon.socket()]);
    client.read_until_seen("a name", |lines| lines.iter().any(|line| runs_in(line, "hot::spin")));
    let children = daemon.process.children();
    let reader = children
        .iter()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("read-symbols")));
    let reader = reader.expect("a reader of symbols");
    let status = fs::read_to_string(format!("/proc/{reader}/status")).unwrap();
    let of_status = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        line.trim_start_matches(':').trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(of_status(set), "0000000000000000", "{set}");
    }
    assert_eq!((of_status("NoNewPrivs"), of_status("Seccomp")), ("1".into(), "2".into()));
    // Whatever path it is told, it finds nothing that it has not open.
    assert_eq!(fs::read_link(format!("/proc/{reader}/root")).unwrap(), Path::new(&format!("/proc/{reader}/fd")));
    let limits = fs::read_to_string(format!("/proc/{reader}/limits")).unwrap();
    let data = limits.lines().find_map(|line| line.strip_prefix("Max data size")).unwrap();
    let most: Vec<&str> = data.split_whitespace().take(2).collect();
    assert_eq!(most, ["100663296"; 2], "96 MiB: {data}");
    drop(client.stop());
}

/// Stacks are named when there are some: by what their program was while it was there.
#[test]
fn programs_that_end_or_become_others() {
    let _loads = loads_programs();
    let (root, command) = profiled("rust");
    let pod = Pod::new("brief", "brief");
    let mut client = Client::start(&["profile", "-p", "brief", "--freq", "199"]);
    // Each is gone before the second in which its stacks are named is over; half of them leave their process to another. With so many, one that
    // nobody looked at in time makes no difference.
    let script = format!("while :; do {0} 300 /bin/busybox true; {0} 300 /bin/busybox sleep 1; done", command[0]);
    pod.run_from(&root, "app", &["/bin/busybox", "sh", "-c", &script]);
    let is_hot = |line: &Value| line["comm"] == "hot";
    let of_hot = |lines: &[Value]| sum(&lines.iter().filter(|line| is_hot(line)).collect::<Vec<_>>(), "samples");
    client.read_until_seen("samples of several", |lines| of_hot(lines) >= 1000);
    let seen = client.stop();
    let events: Vec<&Value> = seen.events().into_iter().filter(|event| is_hot(event)).collect();
    let processes: BTreeSet<u64> = events.iter().map(|event| event["pid"].as_u64().unwrap()).collect();
    assert!(processes.len() >= 12, "{processes:?}");
    assert_share(&events, |function| format!("hot::{function}"));
}

/// A section of an ELF file: where it begins.
fn section(file: &str, name: &str) -> usize {
    let output = Command::new("readelf").args(["--sections", "--wide", file]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.split_whitespace().any(|word| word == name)).unwrap();
    let words: Vec<&str> = line.split_once(name).unwrap().1.split_whitespace().collect();
    usize::from_str_radix(words[2], 16).unwrap()
}

/// A program whose description says that some of it is as large as that.
fn bomb(folder: &Folder, name: &str, size: u64) {
    let file = folder.path(name);
    let mut compress = Command::new("objcopy");
    compress.arg("--compress-debug-sections=zlib").arg(dist("hot")).arg(&file);
    assert!(compress.status().unwrap().success());
    let mut bytes = fs::read(&file).unwrap();
    // Elf64_Chdr: type, reserved, size.
    let at = section(&file, ".debug_info") + 8;
    bytes[at..at + 8].copy_from_slice(&size.to_le_bytes());
    share(name, &bytes);
}

/// Makes a program like `hot`, with what else objcopy is to do, that says its symbols are in this file: one with its symbols, by their sum.
fn linked(folder: &Folder, name: &str, options: &[&str], link: &str) {
    let [file, debug, section] =
        [name.to_owned(), format!("{name}.debug"), format!("{name}.link")].map(|name| folder.path(&name));
    let objcopy = |args: &[&str]| assert!(Command::new("objcopy").args(args).status().unwrap().success(), "{args:?}");
    let hot = dist("hot").display().to_string();
    let [file, debug, section] = [&*file, &*debug, &*section];
    objcopy(&["--only-keep-debug", &hot, debug]);
    objcopy(&[options, &[&format!("--add-gnu-debuglink={debug}"), &hot, file]].concat());
    objcopy(&["--dump-section", &format!(".gnu_debuglink={section}"), file]);
    // The name, zeros up to a multiple of four, and the sum.
    let sum = fs::read(section).unwrap().split_last_chunk::<4>().unwrap().1.to_owned();
    let mut bytes = link.as_bytes().to_owned();
    bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    fs::write(section, [bytes, sum.to_vec()].concat()).unwrap();
    objcopy(&["--update-section", &format!(".gnu_debuglink={section}"), file]);
    share(name, &fs::read(file).unwrap());
}

/// Puts a program into what pods have at `/tmp`. A new file: the former one may be in use.
fn share(name: &str, bytes: &[u8]) {
    let file = shared_folder().join(name);
    let _ = fs::remove_file(&file);
    fs::write(&file, bytes).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// Builds a program whose stacks are as deep as they can be, with as many functions in each frame and as long names as the agent takes, and whose
/// innermost function has thousands of addresses: none is like another.
fn endless(folder: &Folder, name: &str) {
    const INLINED: usize = 60;
    let long = "x".repeat(480);
    let inlined = "static inline __attribute__((always_inline)) void";
    let mut source = "volatile unsigned long sum;\n__attribute__((noinline)) void deeper(int depth);\n".to_owned();
    source += &format!("{inlined} f0_{long}(int depth) {{ deeper(depth - 1); sum++; }}\n");
    for at in 1..INLINED {
        source += &format!("{inlined} f{at}_{long}(int depth) {{ f{}_{long}(depth); }}\n", at - 1);
    }
    source += "__attribute__((noinline)) void leaf(void) {\n";
    (0..4000).for_each(|at| source += &format!("sum ^= sum * {}ul + {at};\n", 2 * at + 1));
    source += "}\n__attribute__((noinline)) void deeper(int depth) {\n";
    source += &format!("if (depth <= 0) {{ leaf(); leaf(); }} else f{}_{long}(depth);\n}}\n", INLINED - 1);
    source += "int main(void) { for (;;) for (int depth = 60; depth < 120; depth++) deeper(depth); }\n";
    let [text, program] = [format!("{name}.c"), name.to_owned()].map(|name| folder.path(&name));
    fs::write(&text, source).unwrap();
    let mut compile = Command::new("gcc");
    compile.args(["-static", "-g", "-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-o"]);
    assert!(compile.args([&program, &text]).status().unwrap().success());
    share(name, &fs::read(program).unwrap());
}

/// However deep and many stacks are, and however long names, the agent keeps some of them, and says of which it has left something out.
#[test]
fn stacks_without_end() {
    const MEMORY: u64 = 160 << 20;
    let _loads = loads_programs();
    let daemon = Daemon::start("endless");
    let folder = Folder::new("endless");
    endless(&folder, "endless");
    let pod = Pod::new("endless", "endless");
    pod.run("app", &["/tmp/endless"]);
    // With each as JSON there would be gigabytes to read.
    let options =
        ["profile", "--local", "-p", "endless", "--freq", "999", "--timeout", "8s", "--socket", daemon.socket()];
    let output = client_output(&options);
    let memory = memory(daemon.process.pid(), "VmHWM").unwrap();
    assert!(memory < MEMORY, "{} MiB", memory >> 20);
    let [table, said] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success() && said.contains("have stacks that are cut"), "{said}");
    // There is always a stack that is new: whoever leaves does not wait for the names of what came when it was gone.
    let line = said.lines().find(|line| line.contains("have stacks that are cut")).unwrap();
    let count: u64 = line.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!((999..2 * 8 * 999).contains(&count), "{line}");
    assert!(table.contains("leaf") && table.contains("f0_xxx"), "{}", table.lines().take(4).collect::<String>());
}

/// Programs that say that their symbols are in files of the host: these are not read, nor opened, which may do something.
#[test]
fn files_that_name_files_of_the_host() {
    let _loads = loads_programs();
    let folder = Folder::new("links");
    let pipe = folder.path("pipe");
    mkfifo(&*pipe, Mode::S_IRWXU).unwrap();
    linked(&folder, "astray", &["--strip-all"], &folder.path("astray.debug"));
    linked(&folder, "piped", &[], &pipe);
    let names = ["astray", "piped"];
    let _pods = names.map(|name| {
        let pod = Pod::new("links", name);
        pod.run("app", &[&format!("/tmp/{name}")]);
        pod
    });
    let mut client = Client::start(&["profile", "-n", "links"]);
    client.read_until_seen("samples of both", |lines| names.iter().all(|pod| samples(lines, pod) >= 30));
    let seen = client.stop();
    let is_named =
        |event: &&Value| event["user_stack"].as_array().unwrap().iter().any(|frame| !frame["function"].is_null());
    let astray = of_pod(&seen, "astray");
    assert_eq!(astray.iter().find(|event| is_named(event)), None);
    assert!(astray.iter().all(|event| event["user_stack_problem"].is_null()), "{astray:#?}");
    assert!(frame(&of_pod(&seen, "piped"), "hot::run")["line"].is_u64());
}

/// Programs whose descriptions say that they are larger than any memory, or than what their reader has, and files that are no programs
/// at all: the agent goes on, and says why there are no names.
#[test]
fn files_that_mean_harm() {
    let _loads = loads_programs();
    let daemon = Daemon::start("harm");
    let folder = Folder::new("harm");
    // Of those that would have room in any memory, too, more than the reader has.
    let bombs = [("bomb", 1u64 << 40), ("bomb-2", 200 << 20)];
    let mut pods = Vec::new();
    let mut start = |name: &str| {
        let pod = Pod::new("harm", name);
        pod.run("app", &[&format!("/tmp/{name}")]);
        pods.push(pod);
    };
    for (name, size) in bombs {
        bomb(&folder, name, size);
        start(name);
    }
    let hot = fs::read(dist("hot")).unwrap();
    share("noise", &hot);
    start("noise");
    // Its path ends like that from now on, in /proc/PID/maps, and there is such a file.
    let moved = "noise (deleted)";
    share(moved, &hot);
    fs::remove_file(shared_folder().join("noise")).unwrap();

    let profile = |pods: &[&str]| {
        let mut client = Client::start(&["profile", "-n", "harm", "--socket", daemon.socket()]);
        client.read_until_seen("samples of all", |lines| pods.iter().all(|pod| samples(lines, pod) >= 30));
        let seen = client.stop();
        assert_eq!((seen.lost(), &seen.summary()["complete"]), (0, &true.into()));
        seen
    };
    let seen = profile(&["bomb", "bomb-2", "noise"]);
    for (name, _) in bombs {
        // Names need no lines.
        let events = of_pod(&seen, name);
        assert!(events.iter().any(|event| runs_in(event, "hot::heavy")), "{events:#?}");
        assert!(frame(&events, "hot::run")["line"].is_null());
    }
    // It is this file that is read.
    assert!(frame(&of_pod(&seen, "noise"), "hot::run")["line"].is_u64());

    // Something that begins like a program; what is none; and nothing.
    let mut random = 1u32;
    let mut noise = hot.clone();
    noise.iter_mut().skip(16).for_each(|byte| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (random >> 24) as u8;
    });
    for (bytes, problem) in [(Some(&noise[..]), "cannot be read"), (Some(b"#!"), "cannot be read"), (None, "replaced")]
    {
        match bytes {
            Some(bytes) => share(moved, bytes),
            None => fs::remove_file(shared_folder().join(moved)).unwrap(),
        }
        let seen = profile(&["noise"]);
        let events = of_pod(&seen, "noise");
        for event in &events {
            let mut frames = event["user_stack"].as_array().unwrap().iter();
            assert!(frames.all(|frame| frame["function"].is_null()), "{event}");
            assert!(event["user_stack_problem"].as_str().is_some_and(|said| said.contains(problem)), "{event}");
        }
    }
    // The agent is the same one.
    wait_for("the daemon", || fs::exists(format!("/proc/{}", daemon.process.pid())).unwrap());
    let again = Client::start(&["profile", "-n", "harm", "--socket", daemon.socket(), "--timeout", "1s"]).finish();
    assert!(again.status.success());
}
