//! What people type besides running a gadget, and how rows look.

use std::process::Command;

use serde_json::Value;
use tests::{client_output, loads_programs};

fn prints(args: &[&str]) -> String {
    let output = client_output(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn prints_json(args: &[&str]) -> Value {
    serde_json::from_str(&prints(args)).unwrap()
}

#[test]
fn list_and_explain_need_no_agent() {
    assert!(prints(&["list"]).contains("execsnoop"));
    assert_eq!(prints_json(&["list", "-o", "json"])[0]["name"], "execsnoop");
    let text = prints(&["explain", "execsnoop"]);
    for word in ["pcomm", "--failed", "tracepoint", "namespace of the pod"] {
        assert!(text.contains(word), "{word}");
    }
    assert!(prints(&["explain", "profile"]).contains("With samples=tick: samples keep step with timers"));
    let explained = prints_json(&["explain", "exec", "-o", "json"]);
    assert_eq!(
        explained["columns"],
        serde_json::json!([
            "node",
            "namespace",
            "pod",
            "container",
            "time",
            "pid",
            "ppid",
            "comm",
            "pcomm",
            "uid",
            "ret",
            "args"
        ])
    );
    assert_eq!(explained["streams"][0]["fields"][3]["kind"], "errno");
}

#[test]
fn the_agent_is_one_static_file() {
    let output = Command::new("ldd").arg(tests::dist("gadget-agent")).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("statically linked") || said.contains("not a dynamic executable"), "{said}");
}

#[test]
fn version_and_help() {
    assert!(prints(&["version", "--client"]).starts_with("kubectl-gadget 0."));
    let help = prints(&["execsnoop", "--help"]);
    for flag in ["--local", "--host", "--cgroup", "--container", "--failed", "--args-bytes", "--columns", "--timeout"] {
        assert!(help.contains(flag), "{flag}");
    }
}

#[test]
fn a_table_has_the_columns_that_were_asked_for() {
    let _loads = loads_programs();
    let mine = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = mine.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
    let marker = format!("marker-{}", std::process::id());
    let mut client = tests::client_command(
        "kubectl-gadget",
        &["execsnoop", "--local", "--cgroup", &path, "--columns", "comm,ret,file,args"],
    );
    let mut client = tests::Process(client.stdout(std::process::Stdio::piped()).spawn().unwrap());
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(client.0.stdout.take().unwrap()));
    let words = |line: String| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    assert_eq!(words(lines.next().unwrap().unwrap()), ["COMM", "RET", "FILE", "ARGS"]);
    let script = format!("/missing/{marker} '\x1b[31m' 2>/dev/null; true");
    assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
    let missing = format!("/missing/{marker}");
    let row = lines.map(Result::unwrap).find(|line| line.contains(&format!("ENOENT  {missing}"))).unwrap();
    assert_eq!(words(row), ["sh", "ENOENT", &missing, &missing, "\\e[31m"]);
}
