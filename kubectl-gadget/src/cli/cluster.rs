//! Which cluster, and as whom: kubectl's flags, with kubectl's meaning. Every command that talks to a cluster has them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

// What the user says about the cluster; what is not said, the kubeconfig says.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// The kubeconfig file; else those of $KUBECONFIG, else ~/.kube/config
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context to use, instead of the kubeconfig's current one
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The kubeconfig's cluster to use, instead of the context's
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) cluster: Option<String>,
    /// The kubeconfig's user to be, instead of the context's
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) user: Option<String>,
    /// Act as this user (impersonation)
    #[arg(long = "as", value_name = "USER", hide_short_help = true)]
    pub(crate) act_as: Option<String>,
    /// Act as a member of this group, with --as (repeat for more)
    #[arg(long = "as-group", value_name = "GROUP", requires = "act_as", hide_short_help = true)]
    pub(crate) act_as_group: Vec<String>,
    /// Bearer token to log in with, instead of the context's credentials
    #[arg(long, value_name = "TOKEN", hide_short_help = true)]
    pub(crate) token: Option<String>,
    /// Address of the API server; with --token no kubeconfig is needed
    #[arg(short, long, value_name = "URL", value_hint = ValueHint::Url, hide_short_help = true)]
    pub(crate) server: Option<String>,
    /// File with the certificates of who may vouch for the API server
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub(crate) certificate_authority: Option<PathBuf>,
    /// Do not check the API server's certificate: whoever is in between can read and change everything
    #[arg(long, conflicts_with = "certificate_authority", hide_short_help = true)]
    pub(crate) insecure_skip_tls_verify: bool,
    /// Name that the API server's certificate must have, instead of the host's
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) tls_server_name: Option<String>,
    /// How long a request may take, as in 30s; 0 for as long as it takes. Streams take as long as they take
    #[arg(long, value_name = "DURATION", value_parser = request_timeout, default_value = "0", hide_short_help = true)]
    pub(crate) request_timeout: Duration,
}

impl ClusterArgs {
    /// How long a request may take; `None` for as long as it takes.
    pub(crate) fn request_timeout(&self) -> Option<Duration> {
        (!self.request_timeout.is_zero()).then_some(self.request_timeout)
    }
}

/// kubectl's forms: a number of seconds, or numbers with units.
fn request_timeout(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as in 30s, or 0 for no limit"))
}

#[cfg(test)]
impl ClusterArgs {
    /// What these words on a command line mean.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, clap::Error> {
        use clap::FromArgMatches as _;
        let command = Self::augment_args(clap::Command::new("test").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(words)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<ClusterArgs, clap::Error> {
        ClusterArgs::parse(words)
    }

    #[test]
    fn timeouts_are_written_as_kubectl_has_them() {
        for (text, seconds) in [("0", 0), ("30", 30), ("30s", 30), ("1m", 60), ("1m30s", 90), ("0s", 0)] {
            assert_eq!(request_timeout(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert!(request_timeout("soon").is_err() && request_timeout("-1").is_err() && request_timeout("").is_err());
        assert_eq!(parse(&[]).ok().and_then(|args| args.request_timeout()), None);
        let given = parse(&["--request-timeout", "1m"]).ok().and_then(|args| args.request_timeout());
        assert_eq!(given, Some(Duration::from_secs(60)));
    }

    #[test]
    fn groups_need_a_user_and_a_certificate_is_checked_or_not() {
        let groups = parse(&["--as", "jane", "--as-group", "a", "--as-group", "b"]).map(|args| args.act_as_group);
        assert_eq!(groups.ok(), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert!(parse(&["--as-group", "a"]).is_err());
        assert!(parse(&["--insecure-skip-tls-verify", "--certificate-authority", "ca.crt"]).is_err());
        assert_eq!(
            parse(&["-s", "http://localhost:1"]).ok().and_then(|args| args.server).as_deref(),
            Some("http://localhost:1")
        );
    }
}
