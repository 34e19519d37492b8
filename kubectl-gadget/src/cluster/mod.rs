//! The way to a cluster's API server.
//!
//! - [`config`]: flags, kubeconfig or pod: which server, and as whom
//! - [`error`]: what went wrong, in words that say what to do next

mod config;
mod error;

use std::time::Duration;

use kube::client::{ClientBuilder, ConfigExt as _, retry::RetryPolicy};
use kube::{Client, Config};
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;

use crate::cli::cluster::ClusterArgs;

pub(crate) use error::{ClusterError, Kind};

/// Requests that may wait for their turn, as many as [`Client`] itself has.
const WAITING: usize = 1024;
/// How often, and with what pauses, a request is repeated that the API server was too busy for: about 3 s in all.
const RETRIES: (u32, Duration, Duration) = (5, Duration::from_millis(100), Duration::from_secs(2));

/// A cluster that the user can talk to.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// Makes the requests. Those that are no streams go through [`Cluster::ask`].
    pub(crate) client: Client,
    /// The context's namespace.
    pub(crate) default_namespace: String,
    /// Address of the API server, and the way to it, for messages.
    server: String,
    request_timeout: Option<Duration>,
}

impl Cluster {
    /// Prepares to talk to the cluster that flags, kubeconfig, or the pod that we run in name. Makes no request, but
    /// may run a credential plugin.
    ///
    /// # Errors
    /// If no cluster is named, or what is named cannot be used.
    pub(crate) async fn connect(args: &ClusterArgs) -> anyhow::Result<Self> {
        let mut config = config::load(args).await?;
        let request_timeout = args.request_timeout();
        if let (Some(connect), Some(request)) = (config.connect_timeout, request_timeout) {
            config.connect_timeout = Some(connect.min(request));
        }
        let mut server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        // Without the password that may be in its address.
        if let Some(proxy) = config.proxy_url.as_ref().and_then(|proxy| proxy.host()) {
            server += &format!(" (through the proxy {proxy})");
        }
        let default_namespace = config.default_namespace.clone();
        let plugin = config.auth_info.exec.clone();
        let client = client(config).map_err(|error| error::of_credentials(error, plugin.as_ref(), &server))?;
        Ok(Self { client, default_namespace, server, request_timeout })
    }

    /// Makes a request. `what` completes "cannot …", as in "list pods in namespace shop".
    ///
    /// # Errors
    /// What went wrong, in words for the user.
    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        let answer = match self.request_timeout {
            Some(limit) => match tokio::time::timeout(limit, request).await {
                Ok(answer) => answer,
                Err(_) => return Err(ClusterError::timeout(what, &self.server, limit)),
            },
            None => request.await,
        };
        answer.map_err(|error| self.explain(what, &error))
    }

    /// What an error means, for streams; everything else goes through [`Cluster::ask`].
    pub(crate) fn explain(&self, what: &str, error: &kube::Error) -> ClusterError {
        ClusterError::new(what, &self.server, error)
    }

    /// The same for a watch.
    pub(crate) fn explain_watch(&self, what: &str, error: &kube::runtime::watcher::Error) -> ClusterError {
        use kube::runtime::watcher::Error;
        match error {
            Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => {
                self.explain(what, error)
            }
            Error::WatchError(status) => self.explain(what, &kube::Error::Api(status.clone())),
            other => ClusterError::other(what, other.to_string()),
        }
    }
}

fn client(mut config: Config) -> kube::Result<Client> {
    // The default would go on for minutes, without a word.
    config.default_retry = false;
    // Where a plugin gives a token, the library would run it three times. This runs it once.
    let auth = if config.auth_info.exec.is_some() { config.auth_layer()? } else { None };
    if auth.is_some() {
        config.auth_info.exec = None;
    }
    let (retries, first, longest) = RETRIES;
    let retry = RetryPolicy::new(first, longest, retries, true).unwrap_or_else(|_| RetryPolicy::server_retry());
    let builder =
        ClientBuilder::try_from(config)?.with_layer(&BufferLayer::new(WAITING)).with_layer(&RetryLayer::new(retry));
    Ok(match auth {
        Some(auth) => builder.with_layer(&auth).build(),
        None => builder.build(),
    })
}
