//! Each gadget shows the pods that are selected, on every node. What exactly it shows is held to tests/support/scenarios.

use serde_json::Value;
use tests::cluster::{NODES, Namespace, agents, deployment, start};

/// Opens a file, binds a port, needs a capability, fetches a page from itself and asks the API server, over and over.
const BUSY: &str = "httpd -p 127.0.0.1:8080 -h /etc; while sleep 0.2; do cat /etc/passwd >/dev/null; chroot / true; \
                    timeout 0.1 nc -l -p 9000; wget -q -O /dev/null http://127.0.0.1:8080/passwd; \
                    timeout 1 wget -q -O /dev/null http://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/; done";

/// A gadget, and an event of it that each such pod makes.
type Case = (&'static str, fn(&Value) -> bool);

const CASES: [Case; 8] = [
    ("opensnoop", |event| event["path"] == "/etc/passwd" && event["flags"][0] == "O_RDONLY"),
    ("bindsnoop", |event| event["address"]["port"] == 9000 && event["protocol"] == "tcp" && event["ret"] == 0),
    ("capabilities", |event| event["capability"] == "CAP_SYS_CHROOT" && event["syscall"] == "chroot"),
    ("profile", |event| event["activity"] == "running" && event["samples"].as_u64() > Some(0)),
    ("syscalls", |event| event["syscall"] == "chroot" && event["comm"] == "chroot"),
    ("tcptracer", |event| {
        let is_end = event["operation"] == "close" && event["peer"]["port"] == 8080;
        is_end && event["received"].as_u64() > event["sent"].as_u64()
    }),
    ("tcptop", |event| event["peer"]["port"] == 8080 && event["received"].as_u64() > event["sent"].as_u64()),
    ("flows", |event| {
        let is_loopback = event["peer"]["address"] == "127.0.0.1";
        !is_loopback && event["peer"]["port"] == 443 && event["direction"] == "egress" && event["protocol"] == "tcp"
    }),
];

#[test]
fn each_shows_the_pods_of_a_label() {
    let _agents = agents();
    let namespace = Namespace::new("gadgets");
    namespace.run(&[deployment("web", BUSY), deployment("db", BUSY)]);
    for (gadget, is_wanted) in CASES {
        let mut client = start(&[gadget, "-n", &namespace.name, "-l", "app=web"], NODES.len());
        let has = |seen: &[Value], node: &str| {
            seen.iter().any(|line| line["type"] == "event" && line["node"] == node && is_wanted(line))
        };
        let what = format!("what {gadget} is to show on both nodes");
        client.read_until_seen(&what, |seen| NODES.iter().all(|node| has(seen, node)));
        let seen = client.stop();
        assert!(seen.events().iter().all(|event| event["labels"]["app"] == "web"), "{gadget}");
        assert_eq!((seen.lost(), &seen.summary()["complete"]), (0, &true.into()), "{gadget}: {}", seen.said);
    }
}

/// Of both nodes, and of one; and of that whatever is in whichever namespace.
#[test]
fn where_pods_spend_their_time() {
    let _agents = agents();
    let namespace = Namespace::new("profiled");
    namespace.run(&[deployment("web", BUSY), deployment("db", BUSY)]);
    let select = ["profile", "-n", &namespace.name, "-l", "app=web"];
    for (of_nodes, nodes) in [(&[][..], &NODES[..]), (&["--node", NODES[0]], &NODES[..1])] {
        let mut client = start(&[&select[..], of_nodes].concat(), nodes.len());
        let has = |seen: &[Value], node: &str| {
            let is_named = |frame: &Value| frame.as_str().is_some_and(|frame| frame.contains('+'));
            seen.iter().any(|line| {
                let frames = line["kernel_stack"].as_array();
                line["node"] == node && frames.is_some_and(|frames| frames.iter().any(is_named))
            })
        };
        client.read_until_seen("samples of the nodes", |seen| nodes.iter().all(|node| has(seen, node)));
        let seen = client.stop();
        let is_wanted =
            |event: &&Value| event["labels"]["app"] == "web" && nodes.iter().any(|node| event["node"] == *node);
        assert!(seen.events().iter().all(is_wanted), "{:#?}", seen.events());
        assert_eq!((seen.lost(), &seen.summary()["complete"]), (0, &true.into()), "{}", seen.said);
    }
    let mut client = start(&["profile", "--node", NODES[0]], 1);
    let is_web = |line: &Value| line["namespace"] == *namespace.name && line["activity"] == "running";
    client.read_until_seen("samples of a pod", |seen| seen.iter().any(is_web));
    let seen = client.stop();
    assert!(seen.events().iter().all(|event| event["node"] == NODES[0]), "{:#?}", seen.events());
}

/// What is recorded is shown at the end.
#[test]
fn each_pods_last_system_calls() {
    let _agents = agents();
    let namespace = Namespace::new("recorded");
    namespace.run(&[deployment("web", BUSY), deployment("db", BUSY)]);
    let select = ["-n", &namespace.name, "-l", "app=web"];
    let recording = start(&[&["traceloop"], &select[..]].concat(), NODES.len());
    let changes_root = |line: &&Value| line["syscall"] == "chroot";
    let on_both = |lines: &[&Value]| NODES.iter().all(|node| lines.iter().any(|line| line["node"] == *node));
    let mut witness = start(&[&["capabilities"], &select[..]].concat(), NODES.len());
    witness
        .read_until_seen("a call on both nodes", |seen| on_both(&seen.iter().filter(changes_root).collect::<Vec<_>>()));
    witness.stop();
    let seen = recording.stop();
    let events = seen.events();
    assert!(events.iter().all(|event| event["labels"]["app"] == "web"));
    let calls: Vec<&Value> = events.into_iter().filter(changes_root).collect();
    assert!(on_both(&calls) && calls.iter().all(|call| call["comm"] == "chroot"), "{calls:?}");
    assert_eq!((seen.lost(), &seen.summary()["complete"]), (0, &true.into()), "{}", seen.said);
}

/// A snapshot ends by itself, once all nodes have given out what there is.
#[test]
fn what_pods_have_now() {
    let _agents = agents();
    let namespace = Namespace::new("present");
    namespace.run(&[deployment("web", BUSY), deployment("db", BUSY)]);
    let select = ["-n", &namespace.name, "-l", "app=web"];
    let cases: [Case; 3] = [
        ("socket", |event| event["local"]["port"] == 8080 && event["state"] == "listen"),
        ("process", |event| event["comm"] == "httpd" && event["threads"] == 1),
        ("file", |event| event["comm"] == "httpd" && event["kind"] == "socket"),
    ];
    for (what, is_wanted) in cases {
        let seen = start(&[&["snapshot", what], &select[..]].concat(), NODES.len()).finish();
        let events = seen.events();
        assert!(events.iter().all(|event| event["labels"]["app"] == "web"), "{what}");
        for node in NODES {
            assert!(
                events.iter().any(|event| event["node"] == node && is_wanted(event)),
                "{what} on {node}: {events:?}"
            );
        }
        assert_eq!(
            (seen.status.code(), seen.lost(), &seen.summary()["complete"]),
            (Some(0), 0, &true.into()),
            "{}",
            seen.said
        );
    }
}
