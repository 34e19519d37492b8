//! A gadget of one C file and one catalogue entry runs, and nothing else had to change for it.

use tests::{Client, Pod, loads_programs};

#[test]
fn forks_of_a_container() {
    let _loads = loads_programs();
    let agent = tests::dist("tiny-agent");
    let client = Client::start_with("tiny-client", &["forksnoop", "-p", "forking", "--agent", agent.to_str().unwrap()]);
    let pod = Pod::new("tiny", "forking");
    pod.run("app", &["sh", "-c", "for i in 1 2 3 4 5; do (exit 0); done"]);
    pod.wait("app");
    let seen = client.stop();
    let forks = seen.events().iter().filter(|event| event["comm"] == "sh").count();
    assert_eq!(forks, 5);
    let pid = &seen.events().iter().find(|event| event["comm"] == "sh").unwrap()["pid"];
    assert!(seen.events().iter().filter(|event| event["comm"] == "sh").all(|event| event["pid"] == *pid));
    assert!(seen.events().iter().all(|event| event["container"] == "app"));
}
