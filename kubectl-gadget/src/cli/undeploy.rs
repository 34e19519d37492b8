//! `undeploy`: everything that `deploy` made, out of the cluster again.

use clap::{ArgMatches, Args, Command, FromArgMatches as _};

use super::cluster::ClusterArgs;
use super::deploy::{WaitArgs, say, until_signalled};
use super::{block_on, print};
use crate::cluster::Cluster;
use crate::deploy;
use crate::exit::End;

#[derive(Args)]
struct UndeployArgs {
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn command() -> Command {
    UndeployArgs::augment_args(Command::new("undeploy").about("Remove the agents, and all that deploy made"))
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<End> {
    let args = UndeployArgs::from_arg_matches(matches)?;
    block_on(async {
        let cluster = Cluster::connect(&args.cluster).await?;
        let work = async {
            if !deploy::undeploy(&cluster, args.wait.time(), &say).await? {
                print("nothing is deployed");
            }
            Ok(())
        };
        until_signalled(work, "what was begun to be removed goes on being removed").await
    })
}
