//! What went wrong between us and an API server, in words: what happened, why, and what to do next.

use std::error::Error;
use std::io;
use std::time::Duration;

use kube::client::{AuthError, UpgradeConnectionError};
use kube::config::{ExecConfig, KubeconfigError};
use kube::core::Status;
use rustls::CertificateError;
use thiserror::Error;

use crate::deploy;

/// Longest part of a foreign answer that is quoted, in characters.
const QUOTE: usize = 200;

/// A request that failed.
#[derive(Debug, Error)]
#[error("cannot {what}: {why}")]
pub(crate) struct ClusterError {
    /// What can be done about it, for callers that know something better than to give up.
    pub(crate) kind: Kind,
    what: String,
    why: String,
}

/// Sorts of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No API server there, or nobody whom we may trust to be one.
    Unreachable,
    /// It took longer than the user wants to wait.
    Timeout,
    /// The API server does not know who we are.
    Unauthorized,
    /// We may not.
    Forbidden,
    /// There is no such object.
    NotFound,
    /// Somebody else changed the object meanwhile, or owns it.
    Conflict,
    /// Anything else.
    Other,
}

impl ClusterError {
    /// What this error means for somebody who tried to do `what` with the API server at this address.
    pub(super) fn new(what: &str, server: &str, error: &kube::Error) -> Self {
        let (kind, why) = translate(server, error);
        Self { kind, what: what.to_owned(), why }
    }

    pub(super) fn timeout(what: &str, server: &str, limit: Duration) -> Self {
        let limit = humantime::format_duration(limit);
        let why = format!("the API server at {server} did not answer within {limit} (--request-timeout)");
        Self { kind: Kind::Timeout, what: what.to_owned(), why }
    }

    pub(super) fn other(what: &str, why: String) -> Self {
        Self { kind: Kind::Other, what: what.to_owned(), why }
    }
}

/// What is wrong with a kubeconfig. The library's words carry Rust's form of a path, and the parser's of a position.
pub(super) fn of_kubeconfig(error: &KubeconfigError) -> anyhow::Error {
    match error {
        KubeconfigError::ReadConfig(error, _) => anyhow::anyhow!("{error}"),
        KubeconfigError::Parse(error) => {
            let text = error.to_string();
            anyhow::anyhow!("it is no kubeconfig: {}", text.lines().next().unwrap_or_default())
        }
        other => anyhow::anyhow!("{other}"),
    }
}

/// What is wrong with the credentials or certificates that we start with.
pub(super) fn of_credentials(error: kube::Error, plugin: Option<&ExecConfig>, server: &str) -> anyhow::Error {
    let why = match &error {
        kube::Error::Auth(AuthError::AuthExecStart(error)) => {
            let command = plugin.and_then(|plugin| plugin.command.as_deref()).unwrap_or_default();
            let hint = match plugin.and_then(|plugin| plugin.install_hint.as_deref()) {
                Some(hint) => format!(": {}", hint.trim()),
                None => ": install it, or check the user of the context".to_owned(),
            };
            format!("the credential plugin {command:?} cannot be started ({error}){hint}")
        }
        _ => translate(server, &error).1,
    };
    anyhow::anyhow!("cannot log in: {why}")
}

fn translate(server: &str, error: &kube::Error) -> (Kind, String) {
    match error {
        kube::Error::Api(status) => of_status(server, status),
        // The library drops the answer's text. Only a session is asked for in this way.
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(http::StatusCode::FORBIDDEN)) => {
            (Kind::Forbidden, NO_SESSION.to_owned() + RIGHTS)
        }
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => {
            let status = Status { code: code.as_u16(), ..Status::default() };
            of_status(server, &status)
        }
        kube::Error::SerdeError(error) => {
            (Kind::Other, format!("what answers at {server} does not speak as an API server does: {error}"))
        }
        kube::Error::RustlsTls(error) => {
            let error = error.to_string();
            (Kind::Other, format!("{error}: check the certificates of the kubeconfig, or --certificate-authority"))
        }
        kube::Error::InferKubeconfig(error) => (Kind::Other, format!("{:#}", of_kubeconfig(error))),
        _ => of_chain(server, error),
    }
}

/// The API server's own words, and what to do about them.
fn of_status(server: &str, status: &Status) -> (Kind, String) {
    let message = quote(&status.message);
    let said = if message.is_empty() { String::new() } else { format!(": {message}") };
    match status.code {
        401 => (
            Kind::Unauthorized,
            format!(
                "the API server at {server} does not accept your credentials{said}; they may have expired: log in \
                 again, or check the user of the context"
            ),
        ),
        403 => (Kind::Forbidden, forbidden(&status.message)),
        404 if is_ours(status) => {
            (Kind::NotFound, "kubectl gadget is not deployed in this cluster; deploy it: kubectl gadget deploy".into())
        }
        404 => (Kind::NotFound, if message.is_empty() { "the API server does not know it".into() } else { message }),
        409 => (Kind::Conflict, message),
        // Not from an API server: its errors are Status objects.
        code if status.reason == UNPARSABLE => (
            Kind::Other,
            format!("what answers at {server} is no API server, or a proxy in its place: HTTP {code}{said}"),
        ),
        429 | 503 | 504 => {
            (Kind::Other, format!("the API server at {server} is too busy, or not ready{said}; try again"))
        }
        _ if !message.is_empty() => (Kind::Other, message),
        code => (Kind::Other, format!("the API server at {server} answers HTTP {code}")),
    }
}

/// The reason that the library gives to what is no Status.
const UNPARSABLE: &str = "Failed to parse error data";

fn is_ours(status: &Status) -> bool {
    let name = status.details.as_ref().map_or("", |details| &details.name);
    [deploy::NAMESPACE, deploy::NAME].contains(&name)
}

/// Who may not do what, and the rule that would allow it.
fn forbidden(message: &str) -> String {
    let Some(denied) = Denied::parse(message) else {
        let said = if message.is_empty() { String::new() } else { format!(": {}", quote(message)) };
        return format!("you are not allowed to{said}; {RIGHTS}");
    };
    let Denied { user, verb, resource, group, namespace } = denied;
    let place = match namespace {
        Some(namespace) => format!("in namespace {namespace}"),
        None => "in the whole cluster".to_owned(),
    };
    let who = if USED.contains(&resource) { RIGHTS } else { "deploying and removing is for cluster administrators" };
    format!(
        "user {user:?} is not allowed to {verb} {resource} {place}; a cluster administrator can grant it with the rule \
         {{apiGroups: [{group:?}], resources: [{resource:?}], verbs: [{verb:?}]}}; {who}"
    )
}

/// Which of the two verbs is asked for depends on Kubernetes' version.
const NO_SESSION: &str = "you are not allowed to get and create pods/exec in namespace gadget; a cluster administrator \
    can grant it with the rule {apiGroups: [\"\"], resources: [\"pods/exec\"], verbs: [\"get\", \"create\"]}; ";

const RIGHTS: &str = "manifests/user-role.yaml of kubectl-gadget has all rights that its users need";

/// What `user-role.yaml` is about.
const USED: [&str; 3] = ["pods", "pods/exec", "daemonsets"];

/// What the API server says when it denies something:
/// `pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "shop"`.
#[derive(Debug, PartialEq, Eq)]
struct Denied<'a> {
    user: &'a str,
    verb: &'a str,
    resource: &'a str,
    group: &'a str,
    namespace: Option<&'a str>,
}

impl<'a> Denied<'a> {
    fn parse(message: &'a str) -> Option<Self> {
        let (_, rest) = message.split_once("User \"")?;
        let (user, rest) = rest.split_once("\" cannot ")?;
        let (verb, rest) = rest.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once("\" in API group \"")?;
        let (group, rest) = rest.split_once('"')?;
        let namespace = rest.split_once("in the namespace \"").and_then(|(_, rest)| Some(rest.split_once('"')?.0));
        Some(Self { user, verb, resource, group, namespace })
    }
}

/// What lies below: no connection, no trust, no credentials.
fn of_chain(server: &str, error: &kube::Error) -> (Kind, String) {
    let mut deepest = String::new();
    for cause in Chain(Some(error)) {
        if let Some(error) = cause.downcast_ref::<AuthError>() {
            return (Kind::Unauthorized, of_auth(error));
        }
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return (Kind::Unreachable, of_tls(server, error));
        }
        if let Some(error) = cause.downcast_ref::<io::Error>()
            && error.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>())
            && let Some(why) = of_io(error)
        {
            return (Kind::Unreachable, format!("the API server at {server} cannot be reached: {why}"));
        }
        // The library that resolves names has no type for it that it shows.
        if cause.to_string().starts_with("dns error") {
            let why = cause.source().map_or_else(String::new, |source| format!(" ({source})"));
            return (
                Kind::Unreachable,
                format!("the API server at {server} cannot be reached: its name is not known{why}; check the address"),
            );
        }
        deepest = cause.to_string();
    }
    let kind = if matches!(error, kube::Error::Service(_) | kube::Error::HyperError(_)) {
        Kind::Unreachable
    } else {
        Kind::Other
    };
    (kind, format!("the conversation with the API server at {server} failed: {}", quote(&deepest)))
}

/// An error and all that it came from. Unlike `source`, this sees what an [`io::Error`] wraps.
struct Chain<'a>(Option<&'a (dyn Error + 'static)>);

impl<'a> Iterator for Chain<'a> {
    type Item = &'a (dyn Error + 'static);

    fn next(&mut self) -> Option<Self::Item> {
        let current = self.0?;
        let wrapped = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        self.0 = wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| current.source());
        Some(current)
    }
}

fn of_io(error: &io::Error) -> Option<String> {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused; is it running, and is the address right?",
        io::ErrorKind::TimedOut => "no answer in time; is a firewall or a VPN in between?",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "there is no way to it; is a VPN needed?",
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            "it broke off the connection"
        }
        io::ErrorKind::UnexpectedEof => "it ended the connection; does it speak TLS, and is a proxy in between?",
        _ => return None,
    };
    Some(why.to_owned())
}

fn of_tls(server: &str, error: &rustls::Error) -> String {
    let why = match error {
        rustls::Error::InvalidCertificate(error) => {
            return format!("the API server at {server} cannot be trusted: {}", of_certificate(error));
        }
        rustls::Error::InvalidMessage(_) => "it does not speak TLS; should the address begin with http://?".to_owned(),
        rustls::Error::AlertReceived(alert) => {
            format!("it refuses our TLS ({alert:?}); has the client certificate of the kubeconfig expired?")
        }
        other => other.to_string(),
    };
    format!("no secure connection to the API server at {server}: {why}")
}

fn of_certificate(error: &CertificateError) -> String {
    let with = "check the kubeconfig, or --certificate-authority";
    match error {
        CertificateError::UnknownIssuer => format!("nobody whom we know has signed its certificate; {with}"),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; is the clock right?".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "its certificate is for another name ({error}); check the address, or say it with --tls-server-name"
            )
        }
        CertificateError::BadSignature => format!("its certificate has a bad signature; {with}"),
        other => format!("{other}; {with}"),
    }
}

fn of_auth(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { cmd, status, out } => {
            let complaint = String::from_utf8_lossy(&out.stderr);
            let last = complaint.lines().rev().find(|line| !line.trim().is_empty());
            let last = last.map_or_else(String::new, |line| format!(": {}", quote(line)));
            format!("the credential plugin {cmd} failed ({status}){last}")
        }
        AuthError::AuthExecStart(error) => format!("the credential plugin cannot be started: {error}"),
        AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed => {
            "the credential plugin printed what is no credential; check the user of the context".into()
        }
        other => other.to_string(),
    }
}

/// The first line of somebody else's words, cut where it goes on for too long.
fn quote(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(QUOTE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;
    use kube::api::ListParams;

    use super::*;
    use crate::cli::cluster::ClusterArgs;
    use crate::cluster::Cluster;

    /// Answers one connection with these bytes, or keeps it open if there are none; returns its port.
    fn server(answer: Option<String>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            match answer {
                Some(answer) => _ = stream.write_all(answer.as_bytes()),
                // Until the client goes.
                None => _ = stream.read(&mut [0; 1]),
            }
        });
        port
    }

    fn http(code: u16, body: &str) -> Option<String> {
        Some(format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()))
    }

    /// What listing pods with these flags says.
    fn listing(words: &[&str]) -> ClusterError {
        let args = ClusterArgs::parse(&[&["--kubeconfig", "/dev/null"], words].concat()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster = Cluster::connect(&args).await.unwrap();
            let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
            cluster.ask("list pods in namespace shop", pods.list(&ListParams::default())).await.unwrap_err()
        })
    }

    fn answered(answer: Option<String>) -> (Kind, String) {
        let error = listing(&["--server", &format!("http://127.0.0.1:{}", server(answer))]);
        (error.kind, error.to_string())
    }

    fn status(code: u16, message: &str) -> Option<String> {
        let status = serde_json::json!({"kind": "Status", "status": "Failure", "code": code, "message": message});
        http(code, &status.to_string())
    }

    #[test]
    fn a_denial_names_user_right_and_rule() {
        let denied =
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "shop""#;
        let (kind, text) = answered(status(403, denied));
        assert_eq!(kind, Kind::Forbidden);
        assert!(
            text.starts_with(
                r#"cannot list pods in namespace shop: user "jane" is not allowed to list pods in namespace shop; "#
            ),
            "{text}"
        );
        assert!(text.contains(r#"{apiGroups: [""], resources: ["pods"], verbs: ["list"]}"#), "{text}");
        let (_, text) = answered(status(403, "namespaces \"x\" is forbidden: because it is being terminated"));
        assert!(text.contains("because it is being terminated"), "{text}");
    }

    #[test]
    fn a_denial_is_read_whatever_is_denied() {
        let parse = |text| Denied::parse(text).unwrap();
        let denied = parse(
            r#"clusterroles.rbac.authorization.k8s.io "gadget-agent" is forbidden: User "system:serviceaccount:ci:bot" cannot patch resource "clusterroles" in API group "rbac.authorization.k8s.io" at the cluster scope"#,
        );
        assert_eq!(
            (denied.user, denied.verb, denied.resource),
            ("system:serviceaccount:ci:bot", "patch", "clusterroles")
        );
        assert_eq!((denied.group, denied.namespace), ("rbac.authorization.k8s.io", None));
        let denied = parse(
            r#"pods "a" is forbidden: User "jane" cannot create resource "pods/exec" in API group "" in the namespace "gadget": RBAC: role not found"#,
        );
        assert_eq!((denied.resource, denied.namespace), ("pods/exec", Some("gadget")));
        assert_eq!(Denied::parse("User \"jane\" cannot"), None);
    }

    #[test]
    fn what_the_server_answers_is_told_with_what_to_do() {
        let (kind, text) = answered(status(401, "Unauthorized"));
        assert!(kind == Kind::Unauthorized && text.contains("log in again"), "{text}");
        let missing = r#"{"kind": "Status", "code": 404, "message": "not found", "details": {"name": "gadget-agent"}}"#;
        let (kind, text) = answered(http(404, missing));
        assert!(kind == Kind::NotFound && text.ends_with("deploy it: kubectl gadget deploy"), "{text}");
        let (kind, text) = answered(status(404, "pods \"web\" not found"));
        assert!(kind == Kind::NotFound && text.ends_with("pods \"web\" not found"), "{text}");
        let (kind, text) = answered(status(409, "conflict"));
        assert!(kind == Kind::Conflict && text.ends_with("conflict"), "{text}");
    }

    #[test]
    fn what_is_no_api_server_is_called_so() {
        let (_, text) = answered(http(502, "<html>\n<h1>Bad Gateway</h1>"));
        assert!(text.contains("is no API server, or a proxy in its place: HTTP 502: <html>"), "{text}");
        let (_, text) = answered(http(200, "<html>log in here</html>"));
        assert!(text.contains("does not speak as an API server does"), "{text}");
        let (_, text) = answered(http(400, "Client sent an HTTP request to an HTTPS server."));
        assert!(text.contains("Client sent an HTTP request to an HTTPS server."), "{text}");
    }

    #[test]
    fn nobody_there_nobody_answers_and_no_tls_are_three_things() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = listing(&["--server", &format!("http://127.0.0.1:{closed}")]);
        assert_eq!(error.kind, Kind::Unreachable);
        assert!(
            error.to_string().contains(&format!("http://127.0.0.1:{closed} cannot be reached: connection refused")),
            "{error}"
        );

        let silent = format!("http://127.0.0.1:{}", server(None));
        let error = listing(&["--server", &silent, "--request-timeout", "100ms"]);
        assert_eq!(error.kind, Kind::Timeout);
        assert!(error.to_string().contains("did not answer within 100ms (--request-timeout)"), "{error}");

        let plain = format!("https://127.0.0.1:{}", server(http(400, "speak HTTP")));
        let error = listing(&["--server", &plain, "--insecure-skip-tls-verify"]);
        assert_eq!(error.kind, Kind::Unreachable);
        assert!(error.to_string().contains("it does not speak TLS"), "{error}");
    }

    #[test]
    fn certificates_are_judged_in_words() {
        let of = |error: CertificateError| {
            // As it comes from below: an io::Error in an io::Error.
            let error = io::Error::other(io::Error::other(rustls::Error::InvalidCertificate(error)));
            ClusterError::new("try", "https://api", &kube::Error::Service(Box::new(error))).to_string()
        };
        assert!(of(CertificateError::UnknownIssuer).contains("nobody whom we know has signed its certificate"));
        assert!(of(CertificateError::Expired).contains("its certificate has expired"));
        assert!(of(CertificateError::NotValidForName).contains("--tls-server-name"));
        assert!(
            of(CertificateError::Revoked).starts_with("cannot try: the API server at https://api cannot be trusted: ")
        );
    }

    /// What a credential plugin with this script leads to.
    fn with_plugin(name: &str, plugin: &str) -> Result<(), String> {
        let file = std::env::temp_dir().join(format!("kubectl-gadget-{}-plugin-{name}", std::process::id()));
        let config = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nclusters: [{{name: c, \
             cluster: {{server: \"http://127.0.0.1:1\"}}}}]\nusers: [{{name: u, user: {{exec: {plugin}}}}}]"
        );
        std::fs::write(&file, config).unwrap();
        let args = ClusterArgs::parse(&["--kubeconfig", file.to_str().unwrap()]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(Cluster::connect(&args)).map(|_| ()).map_err(|error| format!("{error:#}"));
        let _ = std::fs::remove_file(file);
        result
    }

    #[test]
    fn a_credential_plugin_may_be_missing_or_fail() {
        let api = "apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never";
        let error = with_plugin("missing", &format!("{{{api}, command: no-such-plugin, installHint: get it there}}"))
            .unwrap_err();
        assert!(error.contains(r#"the credential plugin "no-such-plugin" cannot be started"#), "{error}");
        assert!(error.ends_with("get it there"), "{error}");
        let failing = format!(r#"{{{api}, command: sh, args: ["-c", "echo log in first >&2; exit 3"]}}"#);
        let error = with_plugin("failing", &failing).unwrap_err();
        assert!(error.contains("failed (exit status: 3): log in first"), "{error}");
        let babbling = format!(r#"{{{api}, command: echo, args: ["{{}}"]}}"#);
        assert!(with_plugin("babbling", &babbling).unwrap_err().contains("printed what is no credential"));
    }

    #[test]
    fn a_credential_plugin_is_run_once() {
        let runs = std::env::temp_dir().join(format!("kubectl-gadget-{}-runs", std::process::id()));
        let credential =
            r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t"}}"#;
        let script = format!("echo run >>{}; echo '{credential}'", runs.display()).replace('"', "\\\"");
        let plugin = format!(
            r#"{{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh, args: ["-c", "{script}"]}}"#
        );
        with_plugin("counted", &plugin).unwrap();
        assert_eq!(std::fs::read_to_string(&runs).unwrap(), "run\n");
        std::fs::remove_file(runs).unwrap();
    }
}
