//! execsnoop beside a witness that is not ours.

use std::fs;
use std::process::{Command, Stdio};

use tests::{Client, loads_programs, texts};

/// strace is the witness: it sees the same system calls through ptrace.
#[test]
fn what_strace_sees() {
    let _loads = loads_programs();
    let mine = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = mine.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
    let marker = format!("strace-witness-{}", std::process::id());
    let client = Client::start(&["execsnoop", "--cgroup", &path]);
    let script = format!("/bin/true {marker} 1; /missing {marker} '2 3'; /bin/sh -c 'exec /bin/echo {marker} 4'");
    let trace = tests::temporary("trace", b"", 0o600);
    let status = Command::new("/usr/bin/strace")
        .args(["-f", "-s", "4096", "-e", "trace=execve,execveat", "-o"])
        .arg(&trace)
        .args(["/bin/sh", "-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    let seen = client.stop();

    // 123 execve("/bin/true", ["/bin/true", "MARKER", "1"], 0x… /* 9 vars */) = 0
    let traced: Vec<(Vec<String>, bool)> = fs::read_to_string(&trace)
        .unwrap()
        .lines()
        .filter(|line| line.contains("execve") && line.contains(&marker))
        .map(|line| {
            let list = &line[line.find('[').unwrap() + 1..line.rfind("], ").unwrap()];
            let args = list.split(", ").map(|arg| arg.trim_matches('"').to_owned()).collect();
            (args, line.ends_with("= 0"))
        })
        .collect();
    let shown: Vec<(Vec<String>, bool)> = seen
        .events()
        .iter()
        .filter(|event| event["args"].to_string().contains(&marker) && event["args"][0] != "/usr/bin/strace")
        .map(|event| {
            let args = texts(event, "args").iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
            (args, event["ret"] == 0)
        })
        .collect();
    assert_eq!(shown, traced);
    assert!(traced.len() >= 4, "{traced:?}");
}
