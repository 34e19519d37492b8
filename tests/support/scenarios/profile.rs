//! profile shows where a program spends its time, and where it waits: as often as it does, in functions that are known, and nobody else's.

use std::fs;

use serde_json::Value;

use super::{Containers, Scenario, Storm, provide, provide_workload};
use crate::Seen;

/// All of it.
pub(super) static PROFILE: Scenario = Scenario {
    gadget: "profile",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: false,
    exact,
    // It waits for other reasons, too. How many samples there are to be is the clock's matter.
    storm: Some(Storm {
        name: "waits",
        count: 900,
        args: &["4", "/tmp/storm-waits.log"],
        each: 1,
        others: None,
        options: &["--off-cpu"],
    }),
};

/// Of a program that spends three quarters of its time below one function: enough to see that.
const SAMPLES: u64 = 150;
/// How far from the share that is expected one of so many samples may be, in standard deviations.
const DEVIATIONS: f64 = 5.0;

/// The sum of a measure.
pub fn sum<'a>(events: impl IntoIterator<Item = &'a &'a Value>, measure: &str) -> u64 {
    events.into_iter().map(|event| event[measure].as_u64().unwrap()).sum()
}

/// Whether a function of a program is on an event's stack.
pub fn runs_in(event: &Value, function: &str) -> bool {
    let frames = event["user_stack"].as_array();
    frames.is_some_and(|frames| frames.iter().any(|frame| frame["function"] == function))
}

/// What is below `heavy` of all samples, by what these functions are called: nearly all are below `run`, and of these three quarters, as far as
/// so many can tell.
pub fn assert_share(events: &[&Value], name: fn(&str) -> String) {
    let below = |function: &str| {
        let is_below = |event: &&&Value| runs_in(event, &name(function)) && runs_in(event, &name("run"));
        sum(events.iter().filter(is_below), "samples")
    };
    let (all, heavy, light) = (below("run"), below("heavy"), below("light"));
    // The rest is its beginning, and what runs beside it.
    let samples = sum(events, "samples");
    assert!(all >= samples * 9 / 10, "{all} of {samples} are below {}: {events:#?}", name("run"));
    let (count, share) = (all as f64, heavy as f64 / all as f64);
    let most = DEVIATIONS * (0.75 * 0.25 / count).sqrt();
    assert!(
        (share - 0.75).abs() < most,
        "{heavy} of {all} are below {}, {light} below {}",
        name("heavy"),
        name("light")
    );
    // Between calls there is nearly nothing to do.
    assert!(heavy + light >= all * 95 / 100, "{heavy} and {light} of {all}");
}

/// CPU time of a process, by /proc: in hundredths of a second.
pub fn cpu_ns(pid: u64) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let words: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| words[at].parse::<u64>().unwrap();
    (ticks(11) + ticks(12)) * 10_000_000
}

fn exact(containers: &mut dyn Containers, options: &[&str], size: usize) -> Seen {
    let is_forced = |hook: &str| options.iter().any(|option| option.starts_with(hook));
    if is_forced("waits=") {
        return waits(containers, options, size);
    }
    if !is_forced("samples=") {
        waits(containers, options, size);
    }
    runs(containers, options)
}

fn runs(containers: &mut dyn Containers, options: &[&str]) -> Seen {
    let hot = provide(containers, "hot");
    let mut client = PROFILE.client(&[&["-n", "shop", "-p", "web", "-c", "app"], options].concat());
    containers.start("shop/db", "app", &[&hot]);
    containers.start("shop/web", "app", &[&hot]);
    let events = |seen: &[Value]| -> u64 {
        seen.iter().filter(|line| line["type"] == "event").map(|event| event["samples"].as_u64().unwrap()).sum()
    };
    client.read_until_seen("enough samples", |seen| events(seen) >= SAMPLES);
    let pid = client.seen.iter().find_map(|line| line["pid"].as_u64()).unwrap();
    let before = cpu_ns(pid);
    let seen = client.stop();
    let after = cpu_ns(pid);
    if options.contains(&"samples=tick") {
        let mut degraded = seen.lines.iter().filter_map(|line| line["degraded"].as_array()).flatten();
        assert!(degraded.any(|what| what.as_str().unwrap().contains("keep step with timers")), "{}", seen.said);
    }
    let events = seen.events();
    assert_eq!(seen.lost(), 0);
    for event in &events {
        assert!(event["pod"] == "web" && event["container"] == "app" && event["pid"] == pid, "{event}");
        assert!(event["activity"] == "running" && event["comm"].as_str().unwrap().starts_with("hot"), "{event}");
        assert_eq!(
            event["spent"].as_u64().unwrap(),
            event["samples"].as_u64().unwrap() * (1_000_000_000 / 49),
            "{event}"
        );
    }
    assert_share(&events, |function| format!("hot::{function}"));
    // What the kernel has counted for the process. An emulated processor may miss strikes of its clock.
    let spent = sum(&events, "spent");
    assert!(spent <= after + after / 5 && spent >= before / 2, "{spent} ns of {before} to {after}");
    seen
}

fn waits(containers: &mut dyn Containers, options: &[&str], size: usize) -> Seen {
    let log = containers.shared_folder().join("waits.log");
    let _ = fs::remove_file(&log);
    let workload = provide_workload(containers);
    let client = PROFILE.client(&[&["-n", "shop", "-p", "web", "-c", "app", "--off-cpu"], options].concat());
    let count = size.to_string();
    containers.start("shop/db", "app", &[&workload, "waits", &count, "20", "/tmp/others.log"]);
    containers.start("shop/web", "app", &[&workload, "waits", &count, "20", "/tmp/waits.log"]);
    containers.wait("shop/web", "app");
    containers.wait("shop/db", "app");
    let seen = client.stop();
    assert_eq!(seen.lost(), 0);
    let events = seen.events();
    assert!(events.iter().all(|event| event["pod"] == "web" && event["container"] == "app"));
    let in_nanosleep = |event: &&&Value| {
        let frames = event["kernel_stack"].as_array();
        let mut frames = frames.into_iter().flatten().map(|frame| frame.as_str().unwrap());
        event["activity"] == "sleeping" && frames.any(|frame| frame.starts_with("do_nanosleep+"))
    };
    let sleeps: Vec<&Value> = events.iter().filter(in_nanosleep).copied().collect();
    let written = fs::read_to_string(&log).unwrap();
    let (left, slept) = written.split_once(' ').unwrap();
    let [left, slept]: [u64; 2] = [left, slept].map(|number| number.parse().unwrap());
    // A sleep that is over before it has begun is none: the machine may stand still in between.
    assert!(left <= size as u64 && left >= size as u64 * 9 / 10, "{left} of {size}");
    assert_eq!(sum(&sleeps, "samples"), left, "{events:#?}");
    let spent = sum(&sleeps, "spent");
    assert!(spent >= slept * 9 / 10 && spent <= slept, "{spent} ns of {slept}");
    seen
}
