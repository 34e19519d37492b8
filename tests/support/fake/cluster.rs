//! A fake API server: it knows the agents' pods, and how to connect to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex as AsyncMutex, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::agent::FakeAgent;
use super::within;

/// The subprotocol of old API servers.
pub const V4: &str = "v4.channel.k8s.io";
/// That of today's.
pub const V5: &str = "v5.channel.k8s.io";

const AGENTS: &str = "/api/v1/namespaces/gadget/pods?";
/// What a request for agents and one for a session must have asked for.
const SELECTED: &str = "labelSelector=app.kubernetes.io%2Fname%3Dgadget-agent";
const COMMAND: &str = "command=%2Fgadget-agent&command=session";

/// What a request gets instead of what it asks for.
#[derive(Clone)]
pub enum Answer {
    /// This code and text.
    Http(u16, String),
    /// Nothing, while the connection stays open.
    Silence,
}

/// A cluster with an agent on each of its nodes.
pub struct FakeCluster {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    /// Ends with it.
    _server: JoinSet<()>,
}

struct Shared {
    /// The agents' pods, by node.
    pods: Mutex<BTreeMap<String, Value>>,
    changes: broadcast::Sender<String>,
    /// For requests whose target has this text.
    answers: Mutex<Vec<(String, Answer)>>,
    /// The targets of all requests so far.
    asked: watch::Sender<Vec<String>>,
    protocol: &'static str,
    sessions: BTreeMap<String, Sessions>,
}

/// Sessions that the client has opened with a node and the test has not taken yet.
struct Sessions {
    sender: mpsc::UnboundedSender<FakeAgent>,
    receiver: AsyncMutex<mpsc::UnboundedReceiver<FakeAgent>>,
}

impl FakeCluster {
    /// One of today, with agents on these nodes.
    pub async fn of(nodes: &[&str]) -> Self {
        Self::speaking(V5, nodes).await
    }

    /// One that knows only this subprotocol.
    pub async fn speaking(protocol: &'static str, nodes: &[&str]) -> Self {
        let sessions = nodes.iter().map(|node| {
            let (sender, receiver) = mpsc::unbounded_channel();
            ((*node).to_owned(), Sessions { sender, receiver: AsyncMutex::new(receiver) })
        });
        let shared = Arc::new(Shared {
            pods: Mutex::new(nodes.iter().map(|node| ((*node).to_owned(), ready_pod(node))).collect()),
            changes: broadcast::Sender::new(16),
            answers: Mutex::default(),
            asked: watch::Sender::default(),
            protocol,
            sessions: sessions.collect(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, _server: server }
    }

    /// From now on, requests whose target has this text get this.
    pub fn answer(&self, target: &str, answer: Answer) {
        lock(&self.shared.answers).push((target.to_owned(), answer));
    }

    /// Changes the pod of a node's agent, and tells who watches.
    pub fn set_pod(&self, node: &str, pod: Value) {
        let change = json!({"type": "MODIFIED", "object": pod}).to_string();
        lock(&self.shared.pods).insert(node.to_owned(), pod);
        // Nobody need be watching yet.
        let _ = self.shared.changes.send(change + "\n");
    }

    /// Waits until there was a request whose target has this text.
    pub async fn until_asked(&self, target: &str) {
        let mut asked = self.shared.asked.subscribe();
        let found = asked.wait_for(|asked| asked.iter().any(|one| one.contains(target)));
        within(&format!("a request for {target}"), found).await.unwrap();
    }

    /// The next session that the client opens with a node.
    pub async fn agent(&self, node: &str) -> FakeAgent {
        let mut sessions = self.shared.sessions[node].receiver.lock().await;
        within(&format!("a session with {node}"), sessions.recv()).await.unwrap()
    }

    /// A session with each node, greeted.
    pub async fn agents<const N: usize>(&self, nodes: [&str; N]) -> [FakeAgent; N] {
        let mut agents = Vec::new();
        for node in nodes {
            let mut agent = self.agent(node).await;
            agent.greet().await;
            agents.push(agent);
        }
        agents.try_into().unwrap_or_else(|_| unreachable!("as many as there are nodes"))
    }
}

/// The pod of an agent that serves.
pub fn ready_pod(node: &str) -> Value {
    pod(
        node,
        json!({
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "agent", "ready": true, "started": true, "restartCount": 0, "image": "agent", "imageID": "",
                "state": {"running": {}},
            }],
        }),
    )
}

/// The pod of an agent whose image is not there.
pub fn pod_without_image(node: &str) -> Value {
    let waiting = json!({"reason": "ImagePullBackOff", "message": "Back-off pulling image"});
    pod(
        node,
        json!({
            "phase": "Pending",
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{
                "name": "agent", "ready": false, "started": false, "restartCount": 0, "imageID": "",
                "image": "registry.example/agent:1", "state": {"waiting": waiting},
            }],
        }),
    )
}

fn pod(node: &str, status: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("agent-of-{node}"),
            "namespace": "gadget",
            "resourceVersion": "1",
            "labels": {"app.kubernetes.io/name": "gadget-agent"},
        },
        "spec": {"nodeName": node, "containers": [{"name": "agent"}]},
        "status": status,
    })
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // What it serves ends with it.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // A client may go at any time.
            let _ = answer(stream, &shared).await;
        });
    }
}

/// Answers one request.
async fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let head = peek_head(&stream).await?;
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    shared.asked.send_modify(|asked| asked.push(target.clone()));
    let prepared = lock(&shared.answers).iter().rev().find(|(part, _)| target.contains(part)).cloned();
    let session = target.strip_prefix("/api/v1/namespaces/gadget/pods/agent-of-").and_then(|rest| {
        let (node, query) = rest.split_once("/exec?")?;
        query.contains(COMMAND).then(|| shared.sessions.get_key_value(node)).flatten()
    });
    if let (None, Some((node, sessions))) = (&prepared, session) {
        if let Some(agent) = upgrade(stream, node, shared.protocol).await {
            let _ = sessions.sender.send(agent);
        }
        return Ok(());
    }
    stream.read_exact(&mut vec![0; head.len()]).await?;
    match prepared {
        Some((_, Answer::Http(code, text))) => respond(&mut stream, code, &text).await,
        Some((_, Answer::Silence)) => std::future::pending().await,
        None if !head.contains("Bearer x\r\n") => respond(&mut stream, 401, "").await,
        None if !target.starts_with(AGENTS) || !target.contains(SELECTED) => respond(&mut stream, 404, "").await,
        None if target.contains("watch=true") => follow(&mut stream, shared.changes.subscribe()).await,
        None => {
            let items: Vec<Value> = lock(&shared.pods).values().cloned().collect();
            let list =
                json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": items});
            respond(&mut stream, 200, &list.to_string()).await
        }
    }
}

/// The request up to its empty line, left where it is: who upgrades the connection reads it again.
async fn peek_head(stream: &TcpStream) -> std::io::Result<String> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = stream.peek(&mut buffer).await?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        match text.find("\r\n\r\n") {
            Some(end) => return Ok(text[..end + 4].to_owned()),
            None if length == 0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            None => tokio::task::yield_now().await,
        }
    }
}

async fn respond(stream: &mut TcpStream, code: u16, text: &str) -> std::io::Result<()> {
    let length = text.len();
    let head = format!("HTTP/1.1 {code} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all((head + text).as_bytes()).await?;
    stream.shutdown().await
}

/// Passes on changes, for as long as somebody reads them.
async fn follow(stream: &mut TcpStream, mut changes: broadcast::Receiver<String>) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Ok(change) => stream.write_all(change.as_bytes()).await?,
                Err(_) => return Ok(()),
            },
            // It says nothing more, but may go.
            _ = stream.read_u8() => return Ok(()),
        }
    }
}

async fn upgrade(stream: TcpStream, node: &str, protocol: &'static str) -> Option<FakeAgent> {
    // The size of the error is the library's.
    #[allow(clippy::result_large_err)]
    let choose = |_: &Request, mut response: Response| {
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(protocol));
        Ok(response)
    };
    Some(FakeAgent::new(node, accept_hdr_async(stream, choose).await.ok()?))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
