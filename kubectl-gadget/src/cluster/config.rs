//! Which API server, and as whom: what flags say over what the kubeconfig says, as kubectl has it; without either, the
//! cluster of the pod that we run in.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use kube::config::{AuthInfo, Context, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedContext};

use super::error::of_kubeconfig;
use crate::cli::cluster::ClusterArgs;

/// The settings of the client.
///
/// # Errors
/// If no cluster is named, or what is named does not exist or cannot be read.
pub(super) async fn load(args: &ClusterArgs) -> anyhow::Result<Config> {
    let files = Files::find(args);
    let kubeconfig = files.read()?;
    let chosen = choose(&kubeconfig, args, &files)?;
    let proxy_named = chosen.as_ref().is_some_and(|chosen| names_proxy(&kubeconfig, chosen));
    let mut config = match (&chosen, &args.server) {
        (Some(options), _) => Config::from_custom_kubeconfig(with_context(kubeconfig, options), options)
            .await
            .map_err(|error| of_kubeconfig(&error))
            .with_context(|| format!("cannot use {files}"))?,
        (None, Some(server)) => Config::new(address(server, args, false)?),
        (None, None) if env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
            Config::incluster().context("cannot use the service account of the pod that this runs in")?
        }
        (None, None) => bail!(
            "no cluster is configured: {}; name a file with --kubeconfig, or a cluster with --server and --token",
            files.emptiness()
        ),
    };
    override_server(&mut config, args)?;
    override_user(&mut config.auth_info, args);
    if !proxy_named {
        config.proxy_url = environments_proxy(&config.cluster_url)?;
    }
    Ok(config)
}

/// The kubeconfig files that there may be.
struct Files {
    paths: Vec<PathBuf>,
    origin: Origin,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Flag,
    Environment,
    Home,
}

impl Files {
    fn find(args: &ClusterArgs) -> Self {
        if let Some(path) = &args.kubeconfig {
            return Self { paths: vec![path.clone()], origin: Origin::Flag };
        }
        let named = env::var_os("KUBECONFIG").unwrap_or_default();
        let paths: Vec<_> = env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect();
        if !paths.is_empty() {
            return Self { paths, origin: Origin::Environment };
        }
        let home = env::home_dir().map(|home| home.join(".kube/config"));
        Self { paths: home.into_iter().collect(), origin: Origin::Home }
    }

    /// All of them as one; earlier files win. A missing file is empty, if the user did not name it alone.
    fn read(&self) -> anyhow::Result<Kubeconfig> {
        let mut merged = Kubeconfig::default();
        for path in &self.paths {
            let file = match Kubeconfig::read_from(path) {
                Ok(file) => file,
                Err(KubeconfigError::ReadConfig(error, _))
                    if error.kind() == ErrorKind::NotFound && self.origin != Origin::Flag =>
                {
                    continue;
                }
                Err(error) => {
                    return Err(of_kubeconfig(&error)).with_context(|| format!("cannot use {}", path.display()));
                }
            };
            merged = merged.merge(file).with_context(|| format!("cannot use {} with the others", path.display()))?;
        }
        Ok(merged)
    }

    /// Why there is no cluster in them.
    fn emptiness(&self) -> String {
        if self.paths.iter().any(|path| path.exists()) {
            format!("{self} has no current context (choose one with --context)")
        } else {
            format!("{self} does not exist")
        }
    }
}

impl std::fmt::Display for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
        let origin = if self.origin == Origin::Environment { " (from KUBECONFIG)" } else { "" };
        write!(f, "the kubeconfig {}{origin}", paths.join(", "))
    }
}

/// What to take from the kubeconfig; `None` if it names no cluster and nobody asked it to.
///
/// # Errors
/// If what is asked for is not in there: with the names that are.
fn choose(kubeconfig: &Kubeconfig, args: &ClusterArgs, files: &Files) -> anyhow::Result<Option<KubeConfigOptions>> {
    let current = kubeconfig.current_context.as_ref().filter(|name| !name.is_empty());
    let context = match args.context.as_ref().or(current) {
        Some(name) => {
            let known = || kubeconfig.contexts.iter().map(|context| &*context.name);
            let found = kubeconfig.contexts.iter().find(|context| context.name == *name);
            Some(
                found
                    .and_then(|found| found.context.as_ref())
                    .ok_or_else(|| unknown("context", name, known(), files))?,
            )
        }
        None => None,
    };
    let cluster = args.cluster.as_ref().or(context.map(|context| &context.cluster)).filter(|name| !name.is_empty());
    let Some(cluster) = cluster else { return Ok(None) };
    if !kubeconfig.clusters.iter().any(|known| known.name == *cluster) {
        let known = kubeconfig.clusters.iter().map(|cluster| &*cluster.name);
        return Err(unknown("cluster", cluster, known, files));
    }
    let is_given = |name: &&String| !name.is_empty();
    let user = args.user.as_ref().filter(is_given).or(context.and_then(|context| context.user.as_ref()));
    let user = user.filter(is_given);
    if let Some(user) = user
        && !kubeconfig.auth_infos.iter().any(|known| known.name == *user)
    {
        return Err(unknown("user", user, kubeconfig.auth_infos.iter().map(|user| &*user.name), files));
    }
    Ok(Some(KubeConfigOptions {
        context: args.context.as_ref().or(current).cloned(),
        cluster: Some(cluster.clone()),
        user: user.cloned(),
    }))
}

/// The library wants a context, kubectl does not: --cluster and --user alone will do.
fn with_context(mut kubeconfig: Kubeconfig, options: &KubeConfigOptions) -> Kubeconfig {
    if options.context.is_none() {
        let name = String::new();
        kubeconfig.contexts.push(NamedContext { name, context: Some(Context::default()), ..NamedContext::default() });
        kubeconfig.current_context = Some(String::new());
    }
    kubeconfig
}

fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>, files: &Files) -> anyhow::Error {
    let mut known: Vec<_> = known.collect();
    known.sort_unstable();
    let mut message = format!("no {kind} {name:?} in {files}");
    let _ = match &known[..] {
        [] => write!(message, ", which has none"),
        known => write!(message, ", which has: {}", known.join(", ")),
    };
    anyhow!(message)
}

/// What the flags say about the server, over what is there.
fn override_server(config: &mut Config, args: &ClusterArgs) -> anyhow::Result<()> {
    if let Some(server) = &args.server {
        config.cluster_url = address(server, args, has_tls(config))?;
        // It was for the other server.
        config.tls_server_name = None;
    }
    if let Some(file) = &args.certificate_authority {
        fs::metadata(file).with_context(|| format!("cannot read {} (--certificate-authority)", file.display()))?;
        config.root_cert_file = Some(file.clone());
        config.accept_invalid_certs = false;
    }
    config.accept_invalid_certs |= args.insecure_skip_tls_verify;
    if let Some(name) = &args.tls_server_name {
        config.tls_server_name = Some(name.clone());
    }
    Ok(())
}

/// What the flags say about who the user is, over what is there.
fn override_user(user: &mut AuthInfo, args: &ClusterArgs) {
    if let Some(token) = &args.token {
        // Instead of all other credentials: a certificate would win, and the token mean nothing.
        let impersonated = (user.impersonate.take(), user.impersonate_groups.take());
        *user = AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() };
        (user.impersonate, user.impersonate_groups) = impersonated;
    }
    if let Some(name) = &args.act_as {
        user.impersonate = Some(name.clone());
        user.impersonate_groups = Some(args.act_as_group.clone());
    }
}

/// A server's address. As kubectl has it, one without a scheme is http, unless something about TLS is said, by flags or
/// by the kubeconfig. (Nor is a token sent in the clear unless that was asked for.)
fn address(server: &str, args: &ClusterArgs, config_has_tls: bool) -> anyhow::Result<Uri> {
    let tls =
        config_has_tls || args.certificate_authority.is_some() || args.insecure_skip_tls_verify || args.token.is_some();
    let scheme = match (server.contains("://"), tls) {
        (true, _) => "",
        (false, true) => "https://",
        (false, false) => "http://",
    };
    let uri: Uri = format!("{scheme}{server}").parse().with_context(|| format!("--server {server:?}"))?;
    if uri.host().is_none_or(str::is_empty) || !matches!(uri.scheme_str(), Some("http" | "https")) {
        bail!("--server {server:?} is no address: write it as in https://10.0.0.1:6443");
    }
    Ok(uri)
}

fn has_tls(config: &Config) -> bool {
    let user = &config.auth_info;
    let has_certificate = user.client_certificate.is_some() || user.client_certificate_data.is_some();
    config.root_cert.is_some() || config.root_cert_file.is_some() || config.accept_invalid_certs || has_certificate
}

/// Whether the kubeconfig itself names a proxy; else the environment may.
fn names_proxy(kubeconfig: &Kubeconfig, chosen: &KubeConfigOptions) -> bool {
    let cluster = kubeconfig.clusters.iter().find(|cluster| Some(&cluster.name) == chosen.cluster.as_ref());
    let proxy = cluster.and_then(|named| named.cluster.as_ref()).and_then(|cluster| cluster.proxy_url.as_ref());
    proxy.is_some_and(|proxy| !proxy.is_empty())
}

/// The proxy that the environment wants for this server. (The library would not ask for NO_PROXY.)
fn environments_proxy(server: &Uri) -> anyhow::Result<Option<Uri>> {
    let variable = |upper: &str, lower: &str| env::var(upper).or_else(|_| env::var(lower)).unwrap_or_default();
    let proxy = match server.scheme_str() {
        Some("https") => variable("HTTPS_PROXY", "https_proxy"),
        _ => variable("HTTP_PROXY", "http_proxy"),
    };
    if proxy.is_empty() || excluded(server, &variable("NO_PROXY", "no_proxy")) {
        return Ok(None);
    }
    proxy.parse().map(Some).with_context(|| format!("the environment's proxy {proxy:?}"))
}

fn excluded(server: &Uri, no_proxy: &str) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    here || Matcher::builder().all("http://any").no(no_proxy).build().intercept(server).is_none()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    const TWO: &str = r#"
apiVersion: v1
kind: Config
current-context: shop
clusters:
- name: here
  cluster: {server: "https://10.0.0.1:6443", tls-server-name: api}
- name: there
  cluster: {server: "https://10.0.0.2:6443", proxy-url: "socks5://10.0.0.9:1080"}
contexts:
- name: shop
  context: {cluster: here, user: jane, namespace: shop}
- name: bare
  context: {cluster: there, user: ""}
- name: broken
  context: {cluster: nowhere}
users:
- name: jane
  user: {username: jane, password: secret, as: joe, as-groups: [staff]}
- name: ann
  user: {token: anns}
"#;

    /// A folder that is removed with its files.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("kubectl-gadget-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, text: &str) -> String {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn args(words: &[&str]) -> ClusterArgs {
        ClusterArgs::parse(words).unwrap()
    }

    fn try_load(words: &[&str]) -> Result<Config, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(load(&args(words))).map_err(|error| format!("{error:#}"))
    }

    fn load_from(text: &str, name: &str, words: &[&str]) -> Result<Config, String> {
        let folder = Folder::new(name);
        let file = folder.file("config", text);
        try_load(&[&["--kubeconfig", &file], words].concat())
    }

    #[test]
    fn the_context_says_which_cluster_and_as_whom() {
        let config = load_from(TWO, "context", &[]).unwrap();
        assert_eq!(config.cluster_url, "https://10.0.0.1:6443/");
        assert_eq!(config.default_namespace, "shop");
        assert_eq!(config.tls_server_name.as_deref(), Some("api"));
        assert_eq!(config.auth_info.username.as_deref(), Some("jane"));
        let config = load_from(TWO, "context", &["--context", "bare"]).unwrap();
        assert_eq!((config.default_namespace.as_str(), config.auth_info.username), ("default", None));
        assert_eq!(config.proxy_url.unwrap(), "socks5://10.0.0.9:1080/");
    }

    #[test]
    fn flags_win() {
        let words = ["--server", "https://10.0.0.3", "--token", "abc", "--insecure-skip-tls-verify"];
        let config = load_from(TWO, "flags", &words).unwrap();
        assert_eq!(config.cluster_url, "https://10.0.0.3/");
        assert!(config.accept_invalid_certs);
        assert_eq!(config.tls_server_name, None, "it was the other server's");
        assert!(config.auth_info.token.is_some() && config.auth_info.username.is_none());
        assert_eq!(config.auth_info.impersonate.as_deref(), Some("joe"));
        let config = load_from(TWO, "flags", &["--as", "max", "--user", "ann", "--cluster", "there"]).unwrap();
        assert_eq!(config.cluster_url, "https://10.0.0.2:6443/");
        assert_eq!(config.default_namespace, "shop");
        assert!(config.auth_info.token.is_some());
        assert_eq!(config.auth_info.impersonate.as_deref(), Some("max"));
        assert_eq!(config.auth_info.impersonate_groups, Some(vec![]));
    }

    #[test]
    fn a_cluster_and_a_user_need_no_context() {
        let text = TWO.replace("current-context: shop", "current-context: \"\"");
        let config = load_from(&text, "contextless", &["--cluster", "here", "--user", "ann"]).unwrap();
        assert_eq!((config.cluster_url.host(), config.default_namespace.as_str()), (Some("10.0.0.1"), "default"));
        assert!(config.auth_info.token.is_some());
        let config = load_from("", "contextless", &["-s", "https://10.0.0.4", "--token", "t"]).unwrap();
        assert_eq!(config.cluster_url, "https://10.0.0.4/");
        let error = load_from(&text, "contextless", &[]).unwrap_err();
        assert!(error.contains("no cluster is configured") && error.contains("no current context"), "{error}");
    }

    #[test]
    fn names_that_do_not_exist_are_answered_with_those_that_do() {
        let of = |words: &[&str]| load_from(TWO, "names", words).unwrap_err();
        assert!(of(&["--context", "prod"]).contains("no context \"prod\""));
        assert!(of(&["--context", "prod"]).ends_with("which has: bare, broken, shop"));
        assert!(of(&["--context", "broken"]).contains("no cluster \"nowhere\""));
        assert!(of(&["--user", "eve"]).ends_with("which has: ann, jane"));
        assert!(try_load(&["--kubeconfig", "/nonexistent"]).unwrap_err().contains("cannot use /nonexistent"));
        let error = load_from("clusters: [", "names", &[]).unwrap_err();
        assert!(error.contains("cannot use /") && error.contains("it is no kubeconfig"), "{error}");
    }

    #[test]
    fn a_missing_file_is_empty_and_the_first_of_several_wins() {
        let folder = Folder::new("several");
        let first = folder.file("first", "current-context: bare");
        let second = folder.file("second", TWO);
        let paths = ["/nonexistent", &first, &second].map(PathBuf::from).to_vec();
        let files = Files { paths, origin: Origin::Environment };
        let merged = files.read().unwrap();
        assert_eq!(merged.current_context.as_deref(), Some("bare"));
        assert_eq!(merged.contexts.len(), 3);
    }

    #[test]
    fn an_address_without_a_scheme_is_as_safe_as_kubectl_has_it() {
        let of = |words: &[&str]| address("localhost:8001", &args(words), false).unwrap().to_string();
        assert_eq!(of(&[]), "http://localhost:8001/");
        assert_eq!(of(&["--insecure-skip-tls-verify"]), "https://localhost:8001/");
        assert!(address("ftp://host", &args(&[]), false).is_err() && address("https://", &args(&[]), false).is_err());
    }

    #[test]
    fn some_servers_are_not_asked_through_the_environments_proxy() {
        let excluded = |server: &str, no_proxy| excluded(&server.parse().unwrap(), no_proxy);
        assert!(
            excluded("https://127.0.0.1:6443", "") && excluded("http://localhost", "") && excluded("https://[::1]", "")
        );
        assert!(excluded("https://10.1.2.3:6443", "example.com, 10.0.0.0/8"));
        assert!(excluded("https://api.example.com", ".example.com"));
        assert!(!excluded("https://api.example.org", "example.com") && !excluded("https://10.1.2.3", ""));
    }
}
