//! What hides answers can be left out, and nothing else.

use tests::{Client, loads_programs};

use super::cgroups::Cgroups;

#[test]
fn a_program_that_starts_looks_for_what_all_do() {
    let _loads = loads_programs();
    let cgroups = Cgroups::new("noise");
    let path = cgroups.make("");
    let run = |args: &[&str]| Client::start(&[&["opensnoop", "--cgroup", &path], args].concat());
    let (all, quiet) = (run(&[]), run(&["--quiet-noise"]));
    // A shared object that is asked for in another way, and a folder that is called like one.
    cgroups.run("", "cat /etc/hostname /missing/file /missing.so.1 /missing.so/x >/dev/null 2>&1 || true");
    let paths = |client: Client| -> Vec<String> {
        let seen = client.stop();
        let path = |event: &&serde_json::Value| event["path"].as_str().unwrap().to_owned();
        seen.events().iter().filter(|event| event["comm"] == "cat").map(path).collect()
    };
    let (all, quiet) = (paths(all), paths(quiet));
    let is_noise = |path: &&String| {
        path.starts_with("/etc/ld.so.")
            || path.contains("libc.so")
            || path.contains("/locale/")
            || path.contains("locale-")
    };
    assert!(all.iter().filter(is_noise).count() >= 2, "{all:?}");
    assert_eq!(quiet, all.iter().filter(|path| !is_noise(path)).cloned().collect::<Vec<_>>());
    assert!(quiet.ends_with(&["/etc/hostname", "/missing/file", "/missing.so.1", "/missing.so/x"].map(str::to_owned)));
}
