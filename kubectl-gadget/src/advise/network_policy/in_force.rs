//! What is in force in a cluster.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::Namespaces;
use crate::cluster::Cluster;
use crate::notice::notice;

/// The policies of these namespaces; of all, if none is named.
///
/// # Errors
/// If the API server does not tell.
pub(crate) async fn in_force(cluster: &Cluster, namespaces: &[String]) -> anyhow::Result<Vec<NetworkPolicy>> {
    let client = || cluster.client.clone();
    let apis: Vec<Api<NetworkPolicy>> = match namespaces {
        [] => vec![Api::all(client())],
        some => some.iter().map(|namespace| Api::namespaced(client(), namespace)).collect(),
    };
    let mut found = Vec::new();
    for api in apis {
        let listed = cluster.ask("list the policies in force", api.list(&ListParams::default())).await;
        found.extend(listed.context("nobody knows what is in force")?);
    }
    Ok(found)
}

/// The labels of all namespaces. Without them only their names are known, which is most of what policies ask for.
pub(crate) async fn namespaces(cluster: &Cluster) -> Namespaces {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    match cluster.ask("list namespaces", api.list(&ListParams::default())).await {
        Ok(list) => list.iter().map(|namespace| (namespace.name_any(), namespace.labels().clone())).collect(),
        Err(error) => {
            notice(&format!("of namespaces only names are known, not labels: {error:#}"));
            Namespaces::new()
        }
    }
}
