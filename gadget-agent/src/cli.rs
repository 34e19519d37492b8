//! The agent's command line: flags, and what each command starts.

use std::path::PathBuf;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use gadgets::catalogue::Catalogue;

use crate::agent::Agent;
use crate::pods::bundle;
use crate::runtime::memory;
use crate::symbols::reader;
use crate::{host, probe, server, session, sizes};

/// The agent of kubectl gadget: loads BPF programs and streams what they see. People use kubectl-gadget.
#[derive(Parser)]
#[command(name = "gadget-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve sessions on a Unix socket until SIGTERM or SIGINT
    Daemon(DaemonArgs),
    /// Carry one session over standard input and output
    Session(SessionArgs),
    /// Look at this host, print what is found as JSON, and end
    Probe(HostArgs),
    /// Exit with 0 if the daemon serves its socket
    Ready(SocketArg),
    /// Read files of containers for the agent that has started this
    #[command(name = reader::COMMAND, hide = true)]
    ReadSymbols,
}

#[derive(Args)]
struct DaemonArgs {
    #[command(flatten)]
    socket: SocketArg,
    #[command(flatten)]
    host: HostArgs,
    /// Ask the API server about the node's pods, as the service account of the pod that this runs in
    #[arg(long)]
    pods: bool,
    /// What the rings of gadgets and the queues of sessions may take of the node's memory; a run beyond that is refused
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(sizes::BUDGET))]
    budget: ByteSize,
}

#[derive(Args)]
struct SessionArgs {
    /// Be the agent, instead of passing the session on to the daemon
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    socket: SocketArg,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args)]
struct SocketArg {
    /// The daemon's socket
    #[arg(long, value_name = "PATH", default_value = server::DEFAULT_SOCKET)]
    socket: PathBuf,
}

#[derive(Args)]
struct HostArgs {
    /// Name of this node; the host's name if not given
    #[arg(long, value_name = "NAME", env = "GADGET_NODE")]
    node: Option<String>,
    /// Where runtimes keep the bundles of their containers, separated by colons; `*` stands for one folder
    #[arg(long, value_name = "DIRS", env = "GADGET_BUNDLES", default_value = bundle::DEFAULT_ROOTS)]
    bundles: String,
}

impl HostArgs {
    fn start(
        self,
        catalogue: Catalogue,
        watch_pods: bool,
        budget: Option<u64>,
        recordings: Option<PathBuf>,
    ) -> Result<Agent, crate::error::AgentError> {
        Agent::start(catalogue, self.node, bundle::Bundles::new(&self.bundles), watch_pods, budget, recordings)
    }
}

pub(crate) fn run(catalogue: Catalogue) -> ExitCode {
    memory::share_arena();
    let cli = Cli::parse();
    // Standard output carries frames: everything else goes to standard error.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("GADGET_LOG")
                .unwrap_or_else(|_| "warn,gadget_agent=info".into()),
        )
        .init();
    let done = match cli.command {
        Command::Daemon(args) => daemon(args, catalogue),
        Command::Session(args) if args.local => {
            // The client was told why it ended, and tells the user.
            return match session::serve_stdio(|| args.host.start(catalogue, false, None, None)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::debug!("the session ended: {error}");
                    ExitCode::FAILURE
                }
            };
        }
        Command::Session(args) => session::relay(&args.socket.socket),
        Command::Probe(args) => probe(args, catalogue),
        Command::Ready(args) => server::connect(&args.socket).map(drop),
        Command::ReadSymbols => reader::serve(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gadget-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn daemon(args: DaemonArgs, catalogue: Catalogue) -> anyhow::Result<()> {
    let listener = server::Listener::prepare(&args.socket.socket)?;
    let recordings = args.socket.socket.with_extension("recordings");
    // In a cluster these are its last words, which the client shows.
    let agent = args
        .host
        .start(catalogue, args.pods, Some(args.budget.as_u64()), Some(recordings))
        .map_err(|error| anyhow::anyhow!("{error}; what mends it: kubectl gadget doctor"))?;
    listener.serve(&agent)
}

fn probe(args: HostArgs, catalogue: Catalogue) -> anyhow::Result<()> {
    host::provide_tracefs();
    let diagnosis = probe::diagnose(catalogue, args.node, bundle::Bundles::new(&args.bundles));
    serde_json::to_writer(std::io::stdout().lock(), &diagnosis)?;
    Ok(())
}
