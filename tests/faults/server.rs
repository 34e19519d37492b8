//! API servers that refuse, are none, or are silent: the right words, and soon.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpListener;

use crate::client::{Client, Ended};
use tests::fake::{Answer, FakeCluster};

/// More than any of this takes, and less than somebody waits for it.
const SOON: Duration = Duration::from_secs(15);

fn status(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    Answer::Http(code, status.to_string())
}

/// What the client says when requests for this get this.
async fn with(target: &str, answer: Answer, args: &[&str]) -> Ended {
    let fake = FakeCluster::of(&["node-a"]).await;
    fake.answer(target, answer);
    let began = Instant::now();
    let ended = Client::start(&fake, args).end().await;
    assert!(began.elapsed() < SOON, "it took {:?}: {}", began.elapsed(), ended.said);
    assert!(ended.lines.is_empty(), "{:?}", ended.lines);
    ended
}

async fn fails_with(target: &str, answer: Answer, words: &[&str]) {
    let ended = with(target, answer, &[]).await;
    ended.must_be(1);
    ended.must_say(words);
}

const LIST: &str = "/pods?";
const EXEC: &str = "/exec?";

#[tokio::test]
async fn credentials_that_are_not_accepted() {
    let unauthorized = || status(401, "Unauthorized", "Unauthorized");
    fails_with(LIST, unauthorized(), &["does not accept your credentials", "log in again"]).await;
    fails_with(EXEC, unauthorized(), &["does not accept your credentials"]).await;
}

#[tokio::test]
async fn what_is_forbidden() {
    let message =
        r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "gadget""#;
    let rule = r#"{apiGroups: [""], resources: ["pods"], verbs: ["list"]}"#;
    fails_with(LIST, status(403, "Forbidden", message), &["jane", "not allowed to list pods", rule]).await;
    let message = r#"pods "agent" is forbidden: User "jane" cannot create resource "pods/exec" in API group "" in the namespace "gadget""#;
    // What a refused upgrade says is not passed on by the library.
    fails_with(EXEC, status(403, "Forbidden", message), &["node-a", "not allowed", "user-role.yaml"]).await;
}

#[tokio::test]
async fn what_is_not_there() {
    fails_with(LIST, status(404, "NotFound", "the server could not find it"), &["the server could not find it"]).await;
}

#[tokio::test]
async fn a_server_that_fails() {
    fails_with(LIST, status(500, "InternalError", "etcd has gone"), &["etcd has gone"]).await;
    fails_with(EXEC, status(500, "InternalError", "error dialing backend"), &["node-a", "HTTP 500"]).await;
}

#[tokio::test]
async fn what_is_no_api_server() {
    let page = "<!doctype html><title>Welcome</title>";
    fails_with(LIST, Answer::Http(500, page.into()), &["is no API server", "HTTP 500"]).await;
    fails_with(LIST, Answer::Http(200, page.into()), &["does not speak as an API server does"]).await;
    fails_with(EXEC, Answer::Http(200, page.into()), &["node-a", "HTTP 200"]).await;
}

#[tokio::test]
async fn a_server_that_is_silent() {
    for target in [LIST, EXEC] {
        let ended = with(target, Answer::Silence, &["--request-timeout", "1s"]).await;
        ended.must_be(1);
        ended.must_say(&["did not answer within 1s", "--request-timeout"]);
    }
}

#[tokio::test]
async fn nobody_listens() {
    // Free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let ended = Client::start_at(&format!("http://127.0.0.1:{port}"), &[]).end().await;
    ended.must_be(1);
    ended.must_say(&["cannot be reached", "connection refused"]);
}
