//! `doctor --local` against what other tools say of this host.

use std::fs;

use serde_json::Value;
use tests::{client_command, client_output, loads_programs, temporary};

#[test]
fn of_this_host() {
    let _loads = loads_programs();
    let output = client_output(&["doctor", "--local", "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["nodes"][0]["findings"].as_array().unwrap();
    let finding = |check: &str| findings.iter().find(|finding| finding["check"] == check).unwrap();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!((&finding("kernel")["found"], &finding("kernel")["verdict"]), (&kernel.trim().into(), &"ok".into()));
    for check in ["btf", "privileges", "bpf", "cgroups", "memory", "execsnoop start"] {
        assert_eq!(finding(check)["verdict"], "ok", "{}", finding(check));
    }
    // Whoever is told that a kernel cannot do something gets the verifier's or the system's words for it.
    for status in report["nodes"][0]["variants"].as_array().unwrap() {
        let can = status["state"] == "best" || status["state"] == "works";
        assert_eq!(can, status["why"].is_null(), "{status}");
        assert!(can || !status["log"].as_array().unwrap().is_empty(), "{status}");
    }
    let failed = findings.iter().filter(|finding| finding["verdict"] == "failed").count();
    assert_eq!(output.status.code(), Some(i32::from(failed > 0)));
}

#[test]
fn of_a_host_that_lets_us_do_nothing() {
    let agent = temporary("agent-for-nobody", &fs::read(tests::dist("gadget-agent")).unwrap(), 0o755);
    let client = temporary("client-for-nobody", &fs::read(tests::dist("kubectl-gadget")).unwrap(), 0o755);
    let run = |args: &[&str]| {
        use std::os::unix::process::CommandExt as _;
        let mut command = std::process::Command::new(&client);
        command.args(args).env("KUBECTL_GADGET_AGENT", &agent).uid(65534).output().unwrap()
    };
    let output = run(&["doctor", "--local"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("failed    capabilities") && text.contains("mend: ") && text.contains("sudo"), "{text}");
    // The gadget's own error leads there.
    let output = run(&["execsnoop", "--local"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("kubectl gadget doctor --local"), "{said}");
}

#[test]
fn a_variant_that_is_forced_and_cannot_be_had_says_what_it_needs() {
    let _loads = loads_programs();
    let report: Value = serde_json::from_slice(&client_output(&["doctor", "--local", "-o", "json"]).stdout).unwrap();
    let variants = report["nodes"][0]["variants"].as_array().unwrap().clone();
    for status in variants.iter().filter(|status| status["state"] == "unmet") {
        let variant = format!("{}={}", status["hook"].as_str().unwrap(), status["variant"].as_str().unwrap());
        let gadget = status["gadget"].as_str().unwrap();
        let mut command = client_command("kubectl-gadget", &[gadget, "--local", "--variant", &variant]);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("needs ") && said.contains(status["unmet"].as_str().unwrap()), "{said}");
    }
}
