//! What an agent records for whoever asks: it outlives the client that began it, and the containers.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tests::scenarios::traceloop::{Calls, calls_of, calls_of_log};
use tests::{Client, Daemon, Pod, Process, Seen, client_command, dist, loads_programs, shared_folder};

use crate::cgroups::Cgroups;

/// A daemon, and what is recorded there.
struct Recordings {
    daemon: Daemon,
}

impl Recordings {
    fn new(name: &str) -> Self {
        Self { daemon: Daemon::start(name) }
    }

    /// Runs a command about recordings, which must succeed, and returns what it prints.
    fn run(&self, args: &[&str]) -> String {
        let (is_done, printed, said) = self.attempt(args);
        assert!(is_done, "{args:?}: {said}");
        printed
    }

    /// Whether it succeeds, what it prints and what it says.
    fn attempt(&self, args: &[&str]) -> (bool, String, String) {
        let args = [&["traceloop"], args, &["--local", "--socket", self.daemon.socket()]].concat();
        let output = client_command("kubectl-gadget", &args).output().unwrap();
        let [printed, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.success(), printed, said)
    }

    /// What is shown of a recording.
    fn show(&self, args: &[&str]) -> Seen {
        Client::start(&[&["traceloop", "show", "--socket", self.daemon.socket()], args].concat()).finish()
    }

    /// The only one.
    fn only(&self) -> Value {
        let list: Value = serde_json::from_str(&self.run(&["list", "-o", "json"])).unwrap();
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
        list[0]["recording"].clone()
    }
}

/// Runs a container that makes so many calls, to its end. Returns what it has written down.
fn run(pod: &Pod, container: &str, count: usize) -> Calls {
    let name = format!("calls-{}-{container}", pod.full_name.replace('/', "-"));
    let log = shared_folder().join(format!("{name}.log"));
    let _ = fs::remove_file(&log);
    fs::copy(dist("workload"), shared_folder().join(&name)).unwrap();
    pod.run(container, &[&format!("/tmp/{name}"), "calls", &count.to_string(), &format!("/tmp/{name}.log")]);
    pod.wait(container);
    calls_of_log(&log)
}

#[test]
fn it_outlives_the_client_and_the_containers() {
    let _loads = loads_programs();
    let recordings = Recordings::new("recordings");
    assert_eq!(recordings.run(&["list"]), "Nothing is recorded.\n");
    let begun = recordings.run(&["start", "--name", "kept", "-n", "outlived", "--budget", "4MiB"]);
    assert_eq!(begun, "kept\n");
    let (is_done, _, said) = recordings.attempt(&["start", "--name", "kept"]);
    assert!(!is_done && said.contains("there is a recording kept already"), "{said}");

    let [web, db] = {
        let [web, db] = ["web", "db"].map(|name| Pod::new("outlived", name));
        [run(&web, "app", 1000), run(&db, "app", 10)]
    };
    // Both pods are gone, and it goes on: it can be shown more than once.
    for _ in 0..2 {
        let seen = recordings.show(&["pod/web", "-n", "outlived"]);
        assert_eq!((calls_of(&seen.events()), seen.lost()), (web.clone(), 0), "{}", seen.said);
        assert!(seen.events().iter().all(|event| event["pod"] == "web" && event["container"] == "app"));
    }
    assert_eq!(calls_of(&recordings.show(&["outlived/db"]).events()), db);
    let all = recordings.show(&["kept"]);
    let of_pod = |pod: &str| all.events().into_iter().filter(|event| event["pod"] == pod).collect::<Vec<_>>();
    assert_eq!((calls_of(&of_pod("web")), calls_of(&of_pod("db"))), (web.clone(), db));
    let listed = recordings.only();
    for container in listed["containers"].as_array().unwrap() {
        let shown = of_pod(container["container"]["pod"].as_str().unwrap()).len();
        assert_eq!((&container["kept"], &container["overwritten"]), (&shown.into(), &0.into()), "{listed}");
        assert_eq!(container["is_gone"], true, "{listed}");
    }
    // Of each container.
    let few = recordings.show(&["kept", "--last", "50"]);
    let shown = all.events();
    let calls = |events: &[&Value], pod: &str| -> Vec<Value> {
        let of_pod = events.iter().filter(|event| event["pod"] == pod);
        of_pod.map(|event| json!([event["syscall"], event["args"], event["ret"]])).collect()
    };
    let (web, db) = (calls(&shown, "web"), calls(&shown, "db"));
    for (pod, all) in [("web", web), ("db", db)] {
        assert_eq!(calls(&few.events(), pod), all[all.len() - 50..], "{pod}");
    }
    assert_eq!(few.lost(), 0);
    assert_eq!(recordings.show(&["kept", "--since", "1ms"]).events().len(), 0);

    let dump = shared_folder().join("dump.json");
    let _ = fs::remove_file(&dump);
    recordings.run(&["dump", "kept", "-o", dump.to_str().unwrap()]);
    let lines = fs::read_to_string(&dump).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains(r#""type":"event""#)).count(), shown.len());

    recordings.run(&["stop", "kept"]);
    let (is_done, _, said) = recordings.attempt(&["show", "kept"]);
    assert!(!is_done && said.contains("no agent has a recording \"kept\""), "{said}");
    assert_eq!(recordings.run(&["list"]), "Nothing is recorded.\n");
}

#[test]
fn what_comes_is_shown_to_who_follows() {
    let _loads = loads_programs();
    let recordings = Recordings::new("followed");
    recordings.run(&["start", "--name", "live", "-n", "followed", "--budget", "4MiB"]);
    let pod = Pod::new("followed", "web");
    let before = run(&pod, "before", 10);
    let mut client = Client::start(&["traceloop", "show", "live", "--follow", "--socket", recordings.daemon.socket()]);
    let after = run(&pod, "after", 1000);
    let is_of = |line: &Value, container: &str| line["type"] == "event" && line["container"] == container;
    let has_all = |seen: &[Value]| {
        let of_after: Vec<&Value> = seen.iter().filter(|line| is_of(line, "after")).collect();
        calls_of(&of_after).len() >= after.len()
    };
    client.read_until_seen("the calls of the second", has_all);
    let seen = client.stop();
    let of = |container: &str| seen.events().into_iter().filter(|line| is_of(line, container)).collect::<Vec<_>>();
    assert_eq!((calls_of(&of("before")), calls_of(&of("after"))), (before, after));
    assert_eq!((seen.lost(), seen.gaps().len()), (0, 0), "{}", seen.said);
}

#[test]
fn what_an_agent_had_is_told_when_another_goes_on() {
    let _loads = loads_programs();
    let mut recordings = Recordings::new("replaced");
    recordings.run(&["start", "--name", "kept", "-n", "replaced", "--budget", "4MiB"]);
    let pod = Pod::new("replaced", "web");
    run(&pod, "before", 10);
    recordings.daemon.replace();
    let after = run(&pod, "after", 10);
    let seen = recordings.show(&["kept"]);
    let events = seen.events();
    assert!(events.iter().all(|event| event["container"] == "after"));
    assert_eq!(calls_of(&events), after);
    assert!(
        matches!(&seen.gaps()[..], [gap] if gap["reason"].as_str().unwrap().contains("what it had recorded is lost")),
        "{:?}",
        seen.gaps()
    );
    let listed = recordings.only();
    assert_eq!((&listed["id"], listed["gaps"].as_array().map(Vec::len)), (&"kept".into(), Some(1)));
}

/// More than there is place for at once.
const MANY: u64 = 300;

#[test]
fn containers_that_are_gone_make_room_and_are_counted() {
    let _loads = loads_programs();
    let recordings = Recordings::new("churned");
    let cgroups = Cgroups::new("churned");
    let all = cgroups.make("");
    recordings.run(&["start", "--name", "many", "--cgroup", &all, "--budget", "1MiB"]);
    let workload = dist("workload");
    for number in 0..MANY {
        let name = format!("/{number}");
        cgroups.make(&name);
        cgroups.run(&name, &format!("exec {} calls 100 /dev/null", workload.display()));
        fs::remove_dir(cgroups.directory(&name)).unwrap();
    }
    let listed = recordings.only();
    let containers = listed["containers"].as_array().unwrap();
    let sum = |name: &str| containers.iter().map(|container| container[name].as_u64().unwrap()).sum::<u64>();
    // Each makes as many: those of the last one are still there.
    let newest = containers.iter().max_by_key(|container| container["last_wall_ns"].as_u64()).unwrap();
    assert_eq!(newest["container"]["path"], format!("{all}/{}", MANY - 1), "{newest}");
    let each = newest["kept"].as_u64().unwrap() + newest["overwritten"].as_u64().unwrap();
    let forgotten = listed["forgotten_containers"].as_u64().unwrap();
    assert_eq!(containers.len() as u64 + forgotten, MANY);
    assert!(forgotten > 0);
    let told = sum("kept") + sum("overwritten") + listed["forgotten"].as_u64().unwrap();
    assert_eq!((told, listed["lost"].as_u64()), (each * MANY, Some(0)));
}

#[test]
fn how_processes_and_containers_end_is_told() {
    let _loads = loads_programs();
    let recordings = Recordings::new("ends");
    recordings.run(&["start", "--name", "ends", "-n", "ends", "--budget", "4MiB"]);
    let pod = Pod::new("ends", "web");
    let scripts = [("good", "true; exit 0"), ("bad", "sh -c 'kill -9 $$'; exit 3")];
    for (container, script) in scripts {
        pod.run(container, &["/bin/sh", "-c", script]);
        pod.wait(container);
    }
    let listed = recordings.only();
    let end = |name: &str| {
        let containers = listed["containers"].as_array().unwrap();
        let found = containers.iter().find(|container| container["container"]["container"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {listed}"))["end"].clone()
    };
    assert_eq!((end("good"), end("bad")), (json!({"exited": 0}), json!({"exited": 3})));
    let (_, text, _) = recordings.attempt(&["list"]);
    assert!(text.contains("exited with 3"), "{text}");

    let seen = recordings.show(&["ends", "-c", "bad"]);
    let events = seen.events();
    let killed: Vec<&&Value> = events.iter().filter(|event| event["end"] == "killed").collect();
    assert!(matches!(&killed[..], [child] if child["ret"] == 9 && child["syscall"] == Value::Null), "{killed:?}");
    // The last call, which never returns, and the end of the first process.
    let [.., call, end] = &events[..] else { panic!("{} events", events.len()) };
    assert_eq!((&call["syscall"], &call["args"]["error_code"]), (&"exit_group".into(), &3.into()), "{call}");
    assert_eq!((&call["ret"], &end["end"], &end["ret"]), (&Value::Null, &"exited".into(), &3.into()), "{end}");
    assert_eq!(call["pid"], end["pid"]);
}

#[test]
fn calls_that_have_not_returned_are_shown_last() {
    let _loads = loads_programs();
    let recordings = Recordings::new("underway");
    recordings.run(&["start", "--name", "underway", "-n", "underway", "--budget", "4MiB"]);
    let pod = Pod::new("underway", "web");
    pod.run("app", &["/bin/sh", "-c", "sleep 1000; true"]);
    // It sleeps, and who has started it waits for it.
    let last = || {
        let seen = recordings.show(&["underway", "--last", "1"]);
        let is_open = |event: &&Value| event["ret"] == Value::Null && event["end"] == Value::Null;
        let calls = seen.events().into_iter().filter(is_open);
        calls.map(|call| [&call["comm"], &call["syscall"]].map(|name| name.as_str().unwrap().to_owned())).collect()
    };
    let asleep = |calls: &Vec<[String; 2]>| {
        let is_among = |comm: &str, name: &str| calls.iter().any(|[of, call]| of == comm && call.contains(name));
        is_among("sleep", "nanosleep") && is_among("sh", "wait4")
    };
    tests::wait_for("both calls", || asleep(&last()));
    assert_eq!(last().len(), 2);
}

/// Containers at once, and what each makes before it waits: together more than the memory has room for.
const CROWD: usize = 100;
const EACH: usize = 3000;

#[test]
fn many_containers_share_the_memory_and_each_has_its_newest_calls() {
    let _loads = loads_programs();
    let recordings = Recordings::new("crowd");
    let cgroups = Cgroups::new("crowd");
    recordings.run(&["start", "--name", "crowd", "--cgroup", &cgroups.make(""), "--budget", "64MiB"]);
    let workload = dist("workload");
    let containers: Vec<Process> = (0..CROWD)
        .map(|number| {
            let name = format!("/{number}");
            cgroups.make(&name);
            let entered = format!("echo $$ > {}/cgroup.procs", cgroups.directory(&name).display());
            let script = format!("{entered}; {} calls {EACH} /dev/null; exec sleep 1000", workload.display());
            Process(Command::new("sh").args(["-c", &script]).spawn().unwrap())
        })
        .collect();
    let comm = |process: &Process| fs::read_to_string(format!("/proc/{}/comm", process.pid())).unwrap();
    tests::wait_for("all of them to be done", || containers.iter().all(|process| comm(process) == "sleep\n"));
    // From then on they sleep. Each needed more than its share.
    let share = (64 << 20) / 8 * 7 / CROWD as u64;
    let has_half_of_it = |container: &Value| container["bytes"].as_u64().unwrap() >= share / 2;
    tests::wait_for("the memory to be shared out", || {
        recordings.only()["containers"].as_array().unwrap().iter().all(has_half_of_it)
    });
    let listed = recordings.only();
    let all = listed["containers"].as_array().unwrap();
    let number = |container: &Value, name: &str| container[name].as_u64().unwrap();
    assert_eq!((all.len(), listed["lost"].as_u64()), (CROWD, Some(0)));
    let bytes: u64 = all.iter().map(|container| number(container, "bytes")).sum();
    assert!(bytes <= 64 << 20, "{bytes}");
    let made: Vec<u64> =
        all.iter().map(|container| number(container, "kept") + number(container, "overwritten")).collect();
    let (least, most) = (made.iter().min().unwrap(), made.iter().max().unwrap());
    assert!(*least > 4 * EACH as u64 && most - least < 100, "{least} to {most}");
    assert!(all.iter().any(|container| number(container, "overwritten") > 0), "all had room");
    // Its last calls are those of the program that sleeps, and the very last is the one in which it does.
    let seen = recordings.show(&["crowd", "--last", "5"]);
    let events = seen.events();
    for container in all {
        let of_it: Vec<_> = events.iter().filter(|event| event["cgroup"] == container["container"]["cgroup"]).collect();
        assert_eq!(of_it.len(), 6, "{container}: {of_it:?}");
        assert!(of_it.iter().all(|event| event["comm"] == "sleep"), "{of_it:?}");
        assert!(of_it.iter().any(|event| event["syscall"] == "clock_nanosleep" && event["ret"] == Value::Null));
    }
}

#[test]
fn what_is_shown_while_it_is_written_over_is_whole() {
    let _loads = loads_programs();
    let recordings = Recordings::new("torn");
    let cgroups = Cgroups::new("torn");
    recordings.run(&["start", "--name", "torn", "--cgroup", &cgroups.make(""), "--budget", "1MiB"]);
    let entered = format!("echo $$ > {}/cgroup.procs", cgroups.directory("").display());
    let script = format!("{entered}; while :; do {} calls 100000 /dev/null; done", dist("workload").display());
    // One for each processor, and one more.
    let writers: Vec<Process> =
        (0..3).map(|_| Process(Command::new("sh").args(["-c", &script]).spawn().unwrap())).collect();
    let mut checked = 0;
    for _ in 0..20 {
        let seen = recordings.show(&["torn"]);
        let mut last: HashMap<(u64, &str), u64> = HashMap::new();
        let mut times = "";
        for event in seen.events().into_iter().filter(|event| event["comm"] == "workload") {
            let (name, time) = (event["syscall"].as_str().unwrap_or_default(), event["time"].as_str().unwrap());
            let (arg, ret) = match name {
                "getpgid" => ("pid", -3),
                "dup" => ("fildes", -9),
                _ => continue,
            };
            let number = event["args"][arg].as_u64().unwrap();
            assert_eq!(event["ret"], ret, "{event}");
            assert!(number >= 1 << 30 && times <= time, "{event}");
            let before = last.insert((event["tid"].as_u64().unwrap(), name), number);
            assert!(before.is_none_or(|before| before < number), "{before:?}: {event}");
            times = time;
            checked += 1;
        }
    }
    drop(writers);
    assert!(checked > 1000, "{checked}");
}
