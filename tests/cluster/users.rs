//! Who may do what, and what somebody is told who may not, or asks for what is not there.

use std::path::Path;
use std::process::{Command, Output};

use tests::cluster::{Namespace, SLEEP, agents, gadget, gadget_command, kubectl, pod};

/// Runs `kubectl gadget`, which must fail with this code and say all of these.
pub(crate) fn fails(args: &[&str], code: i32, words: &[&str]) {
    check(gadget(args), code, words, &format!("{args:?}"));
}

fn fails_with(mut command: Command, words: &[&str]) {
    check(command.output().unwrap(), 1, words, &format!("{command:?}"));
}

fn check(output: Output, code: i32, words: &[&str], what: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{what}: {said}");
    for word in words {
        assert!(said.contains(word), "{what} does not say {word:?}: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// The roles for users, removed when the test ends. What lies in a namespace goes with it.
struct Roles;

impl Roles {
    fn apply() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/user-role.yaml");
        kubectl(&["apply", "-f", file.to_str().unwrap()]);
        Self
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        let delete = |kind: &str, names: &[&str]| {
            let args = [&["delete", "-n", "gadget", "--ignore-not-found", kind], names].concat();
            let _ = tests::cluster::command("kubectl", &args).output();
        };
        delete("rolebinding", &["jane", "joe"]);
        delete("role", &["gadget-user"]);
        delete("clusterrole", &["gadget-user"]);
    }
}

#[test]
fn users_need_what_their_role_says_and_no_more() {
    let _agents = agents();
    let namespace = Namespace::new("users");
    namespace.run(&[pod("web", "node-a", &["main"], SLEEP)]);
    let _roles = Roles::apply();
    kubectl(&["create", "rolebinding", "jane", "-n", "gadget", "--role=gadget-user", "--user=jane"]);
    for user in ["jane", "jack"] {
        kubectl(&["create", "rolebinding", user, "-n", &namespace.name, "--clusterrole=gadget-user", "--user", user]);
    }
    let run = |user: &'static str, namespace: &str| -> Vec<String> {
        ["execsnoop", "-l", "app=web", "--timeout", "100ms", "--as", user, "-n", namespace].map(str::to_owned).into()
    };
    let denied = |user: &'static str, namespace: &str, words: &[&str]| {
        let args = run(user, namespace);
        fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), 1, words);
    };

    let jane = run("jane", &namespace.name);
    let output = gadget(&jane.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(gadget(&["status", "--as", "jane"]).status.code(), Some(0));
    // Her pods are in another namespace.
    denied("jane", "default", &["user \"jane\" is not allowed to list pods in namespace default", "user-role.yaml"]);
    // He may see pods, but not use agents.
    denied("jack", &namespace.name, &["user \"jack\" is not allowed to list pods in namespace gadget"]);
    fails(&["status", "--as", "jack"], 1, &["not allowed to list pods in namespace gadget"]);
    // She may see that there are agents, but not talk to them.
    kubectl(&["create", "role", "looker", "-n", "gadget", "--verb=list,watch", "--resource=pods"]);
    kubectl(&["create", "rolebinding", "joe", "-n", "gadget", "--role=looker", "--user=jack"]);
    denied("jack", &namespace.name, &["not allowed to get and create pods/exec in namespace gadget", "user-role.yaml"]);
    fails(&["deploy", "--as", "jane"], 1, &["\"jane\" is not allowed to get namespaces", "cluster administrators"]);
    fails(&["undeploy", "--as", "jane"], 1, &["\"jane\" is not allowed to get namespaces", "cluster administrators"]);
}

#[test]
fn a_cluster_that_cannot_be_used() {
    let without = |variable: &str, value: &str| {
        let mut command = gadget_command(&["execsnoop", "-A"]);
        command.env_remove("KUBECONFIG").env("HOME", "/missing").env(variable, value);
        command
    };
    fails_with(without("HOME", "/missing"), &["no cluster is configured", "/missing/.kube/config", "--kubeconfig"]);
    fails_with(without("KUBECONFIG", "/missing/too"), &["/missing/too (from KUBECONFIG)"]);
    fails(&["execsnoop", "--kubeconfig", "/missing/file"], 1, &["/missing/file", "No such file"]);
    fails(&["execsnoop", "--context", "nowhere"], 1, &["no context \"nowhere\"", "which has: kubectl-gadget-cluster"]);
    fails(&["execsnoop", "-A", "--server", "https://127.0.0.1:1"], 1, &["https://127.0.0.1:1", "connection refused"]);
    fails(&["execsnoop", "-A", "--token", "wrong"], 1, &["does not accept your credentials", "log in again"]);
    fails(&["deploy", "--token", "wrong"], 1, &["does not accept your credentials"]);
}

#[test]
fn something_that_is_not_there() {
    let _agents = agents();
    fails(&["execsnoop", "-l", "app in web"], 2, &["app in web", "app in (web,api)"]);
    fails(&["execsnoop", "--node", "nowhere"], 1, &["node nowhere", "no agent runs there", "node-a, node-b"]);
}
