//! The agents come, are what was promised, make way for others, and go without a trace.

use std::io::ErrorKind;

use tests::cluster::{
    NODES, Namespace, TICK, agent_process, agents, agents_alone, deploy, deployment, exists, gadget, script, start,
    undeploy,
};
use tests::{Loaded, dist};

use crate::faults::{has_events_after_gaps, has_gaps, untold_holes};
use crate::users::fails;

#[test]
fn what_deploy_makes_undeploy_removes() {
    let _alone = agents_alone();
    undeploy();
    let before = Loaded::now();
    let not_deployed = ["not deployed", "kubectl gadget deploy"];
    fails(&["execsnoop", "-A"], 1, &not_deployed);
    fails(&["status"], 1, &not_deployed);
    assert!(String::from_utf8_lossy(&gadget(&["version"]).stdout).contains("gadget-agent: not deployed"));

    let missing = "localhost/nothing:1";
    fails(
        &["deploy", "--image", missing],
        1,
        &["node node-a", "node node-b", missing, "is not there", "--image", "undeploy"],
    );
    let mended = deploy(&[]);
    assert!(mended.contains("daemonset/gadget-agent configured"), "{mended}");
    let again = deploy(&[]);
    assert!(again.lines().count() == 5 && again.lines().all(|line| line.ends_with(" unchanged")), "{again}");

    undeploy();
    let is_gone = || {
        for object in [["namespace", "gadget"], ["clusterrole", "gadget-agent"], ["clusterrolebinding", "gadget-agent"]]
        {
            assert!(!exists(&object), "{object:?} is left");
        }
        before.wait_for("with the agents gone");
    };
    is_gone();
    assert_eq!(undeploy(), "nothing is deployed\n");

    let output = gadget(&["execsnoop", "-A", "--rm", "--timeout", "1s", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains(r#""type":"summary""#));
    is_gone();
}

#[test]
fn an_upgrade_interrupts_a_run_and_the_run_says_so_and_goes_on() {
    let _alone = agents_alone();
    deploy(&[]);
    let namespace = Namespace::new("upgrade");
    namespace.run(&[deployment("web", TICK)]);
    let (image, next) = ("localhost/gadget-agent:0.1.0", "localhost/gadget-agent:next");
    for node in NODES {
        script(&["enter", node, "ctr", "-n", "k8s.io", "images", "tag", "--force", image, next]);
    }
    let mut client = start(&["execsnoop", "-n", &namespace.name], 2);
    let said = deploy(&["--image", next]);
    assert!(said.contains("daemonset/gadget-agent configured"), "{said}");
    client.read_until_seen("events after the upgrade", |seen| has_events_after_gaps(seen, &NODES));
    let seen = client.stop();
    assert_eq!(seen.status.code(), Some(130), "{}", seen.said);
    assert_eq!(seen.summary()["complete"], true);
    assert!(has_gaps(&seen.lines, &NODES));
    assert_eq!(untold_holes(&seen), [""; 0]);
}

#[test]
fn an_agent_has_four_capabilities_and_can_write_nothing() {
    let _agents = agents();
    for node in NODES {
        let process = agent_process(node);
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap().trim().to_owned()
        };
        // CAP_SYS_CHROOT, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF
        let four = format!("{:016x}", 1u64 << 18 | 1 << 19 | 1 << 38 | 1 << 39);
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(field(set), four, "{set} on {node}");
        }
        assert_eq!((&*field("CapAmb"), &*field("NoNewPrivs")), ("0000000000000000", "1"));
        for place in ["/", "/sys/fs/cgroup/"] {
            let folder = format!("/proc/{process}/root{place}made-by-a-test");
            let error = std::fs::create_dir(&folder).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{folder}");
        }
        // The image is the binary, and nothing else.
        let binary = std::fs::read(format!("/proc/{process}/exe")).unwrap();
        assert!(binary == std::fs::read(dist("gadget-agent")).unwrap(), "the agent on {node} is of another build");
    }
}
