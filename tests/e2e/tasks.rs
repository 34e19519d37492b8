//! Filters on who does something, beside the pod's.

use std::io::Write as _;
use std::process::{Command, Stdio};

use tests::{Client, Process, Seen, loads_programs};

use super::cgroups::Cgroups;

/// What was started, by the first argument.
fn started(seen: &Seen) -> Vec<String> {
    let mut tokens: Vec<_> =
        seen.events().iter().map(|event| event["args"][1].as_str().unwrap_or_default().to_owned()).collect();
    tokens.sort();
    tokens
}

#[test]
fn each_list_keeps_what_it_names_and_with_an_exclamation_mark_the_rest() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("tasks");
    let path = cgroups.make("");
    // A process whose id is known before it becomes something else.
    let script = format!("echo $$ >{}/cgroup.procs; read go; exec /bin/true mine", cgroups.directory("").display());
    let mut mine = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().map(Process).unwrap();
    let (pid, not_pid) = (mine.pid().to_string(), format!("!{}", mine.pid()));
    let cases: [(&[&str], &[&str]); 9] = [
        (&[], &["--reuid", "echo", "mine", "other", "plain"]),
        (&["--comm", "true"], &["mine", "other", "plain"]),
        (&["--comm", "!true"], &["--reuid", "echo"]),
        (&["--comm", "echo,setpriv"], &["--reuid", "echo"]),
        (&["--uid", "1234"], &["other"]),
        (&["--uid", "!1234,!77"], &["--reuid", "echo", "mine", "plain"]),
        (&["--pid", &pid], &["mine"]),
        (&["--pid", &not_pid], &["--reuid", "echo", "other", "plain"]),
        (&["--comm", "true", "--uid", "!1234", "--pid", &not_pid], &["plain"]),
    ];
    let run = |args: &[&str]| Client::start(&[&["execsnoop", "--cgroup", &path], args].concat());
    let clients: Vec<Client> = cases.iter().map(|(args, _)| run(args)).collect();
    cgroups.run("", "/bin/true plain; /usr/bin/setpriv --reuid 1234 --clear-groups /bin/true other; /bin/echo echo");
    mine.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(mine.wait().success());
    for ((args, expected), client) in cases.iter().zip(clients) {
        assert_eq!(started(&client.stop()), *expected, "{args:?}");
    }
}

#[test]
fn what_is_outside_of_containers_can_be_had_alone() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("outside");
    let container = cgroups.make(&format!("/kubepods/pod{}/{}", "9".repeat(32), "8".repeat(64)));
    let below = container.strip_prefix(&cgroups.path("")).unwrap();
    let run = |host: &str| Client::start(&["execsnoop", host, "--comm", "true"]);
    let (outside, all) = (run("--host=outside"), run("--host"));
    let token = |place: &str| format!("{place}-{}", std::process::id());
    cgroups.run(below, &format!("/bin/true {}", token("inside")));
    assert!(Command::new("/bin/true").arg(token("outside")).status().unwrap().success());
    let of_this_test = |client: Client| -> Vec<String> {
        let started = started(&client.stop());
        started.into_iter().filter(|started| started.ends_with(&std::process::id().to_string())).collect()
    };
    assert_eq!(of_this_test(outside), [token("outside")]);
    assert_eq!(of_this_test(all), [token("inside"), token("outside")]);
}
