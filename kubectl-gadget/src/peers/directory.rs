//! Asks the API server who has an address.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gadgets::workload::Workload;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{Identity, Peer, ServicePort, TargetPort, Traits};
use crate::cluster::Cluster;

/// How long lists of services and nodes count. Both change seldom.
const FRESH: Duration = Duration::from_secs(300);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The API server has not told. What it may not tell counts as not there.
pub(super) struct Untold;

/// What the API server tells of addresses.
pub(super) struct Directory {
    client: Client,
    /// Where to ask for what may not be asked for everywhere.
    namespaces: Vec<String>,
    pods: Everywhere,
    services: Everywhere,
    lists: Mutex<Lists>,
}

/// Whether objects of a kind may be asked for in all namespaces; until it is forbidden, perhaps.
struct Everywhere(AtomicBool);

/// Services and nodes by their addresses.
#[derive(Default)]
struct Lists {
    read: Option<Instant>,
    known: BTreeMap<IpAddr, Identity>,
}

impl Directory {
    pub(super) fn new(cluster: &Cluster, namespaces: Vec<String>) -> Self {
        let [pods, services] = [(); 2].map(|()| Everywhere(AtomicBool::new(true)));
        Self { client: cluster.client.clone(), namespaces, pods, services, lists: Mutex::default() }
    }

    /// Who has an address now.
    pub(super) async fn who_is(&self, address: IpAddr) -> Result<Option<Identity>, Untold> {
        if let Some(peer) = self.listed(address).await? {
            return Ok(Some(peer));
        }
        let with_address = ListParams::default().match_any().fields(&format!("status.podIP={address}"));
        Ok(pod_or_node(&self.list::<Pod>(&self.pods, &with_address).await?))
    }

    async fn listed(&self, address: IpAddr) -> Result<Option<Identity>, Untold> {
        let mut lists = self.lists.lock().await;
        if lists.read.is_none_or(|read| read.elapsed() > FRESH) {
            let all = ListParams::default().match_any();
            let nodes = list(Api::<Node>::all(self.client.clone()), &all).await?.unwrap_or_default();
            let services = self.list::<Service>(&self.services, &all).await?;
            lists.known = nodes.iter().flat_map(addresses_of_node).collect();
            for service in &services {
                lists.known.extend(addresses_of_service(service, self.behind(service).await?));
            }
            lists.read = Some(Instant::now());
        }
        Ok(lists.known.get(&address).cloned())
    }

    /// Addresses behind a service, where no selector says who is.
    async fn behind(&self, service: &Service) -> Result<Vec<IpAddr>, Untold> {
        if service
            .spec
            .as_ref()
            .is_some_and(|spec| spec.selector.is_some() || spec.cluster_ip.as_deref() == Some("None"))
        {
            return Ok(Vec::new());
        }
        let api = Api::<Endpoints>::namespaced(self.client.clone(), &service.namespace().unwrap_or_default());
        let named = ListParams::default().match_any().fields(&format!("metadata.name={}", service.name_any()));
        let found = list(api, &named).await?.unwrap_or_default();
        let subsets = found.into_iter().flat_map(|endpoints| endpoints.subsets.unwrap_or_default());
        let addresses = subsets.flat_map(|subset| subset.addresses.unwrap_or_default());
        Ok(addresses.filter_map(|address| address.ip.parse().ok()).collect())
    }

    /// Those of all namespaces, or, if that is not allowed, of the run's.
    async fn list<K>(&self, everywhere: &Everywhere, params: &ListParams) -> Result<Vec<K>, Untold>
    where
        K: kube::Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        if everywhere.0.load(Ordering::Relaxed) {
            if let Some(found) = list(Api::<K>::all(self.client.clone()), params).await? {
                return Ok(found);
            }
            everywhere.0.store(false, Ordering::Relaxed);
        }
        let mut found = Vec::new();
        for namespace in &self.namespaces {
            found.extend(list(Api::<K>::namespaced(self.client.clone(), namespace), params).await?.unwrap_or_default());
        }
        Ok(found)
    }
}

/// `None` if it is forbidden.
async fn list<K>(api: Api<K>, params: &ListParams) -> Result<Option<Vec<K>>, Untold>
where
    K: Clone + Debug + DeserializeOwned,
{
    const FORBIDDEN: u16 = 403;
    match timeout(PATIENCE, api.list(params)).await {
        Ok(Ok(list)) => Ok(Some(list.items)),
        Ok(Err(kube::Error::Api(status))) if status.code == FORBIDDEN => Ok(None),
        _ => Err(Untold),
    }
}

/// Pods in the network of their node have its address, and so nobody can tell which of them it is.
fn pod_or_node(pods: &[Pod]) -> Option<Identity> {
    let is_running = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    };
    let of_host = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let (running, over): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| is_running(pod));
    // Nobody has it after them yet, and so what is seen of it was theirs.
    if let Some(pod) = running.iter().chain(&over).find(|pod| !of_host(pod)) {
        let peer = Peer::Pod { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() };
        let traits = Traits { owner: owner(pod), labels: pod.labels().clone(), ..Traits::default() };
        return Some(Identity { peer, traits });
    }
    let node = running.iter().find_map(|pod| pod.spec.as_ref()?.node_name.clone());
    node.map(|name| Peer::Node { name }.into())
}

fn owner(pod: &Pod) -> Option<String> {
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let controller = Workload::new(&controller.kind, &controller.name);
    Workload::of_pod(&pod.name_any(), Some(controller), pod.labels()).last().map(ToString::to_string)
}

fn addresses_of_node(node: &Node) -> Vec<(IpAddr, Identity)> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let identity = Identity::from(Peer::Node { name: node.name_any() });
    addresses.filter_map(|address| Some((address.address.parse().ok()?, identity.clone()))).collect()
}

fn addresses_of_service(service: &Service, endpoints: Vec<IpAddr>) -> Vec<(IpAddr, Identity)> {
    let spec = service.spec.clone().unwrap_or_default();
    let balanced = service.status.as_ref().and_then(|status| status.load_balancer.clone()).unwrap_or_default();
    let balanced = balanced.ingress.unwrap_or_default().into_iter().filter_map(|ingress| ingress.ip);
    let own = spec.cluster_ips.unwrap_or_default().into_iter().chain(spec.cluster_ip);
    let addresses = own.chain(spec.external_ips.unwrap_or_default()).chain(balanced);
    let identity = Identity {
        peer: Peer::Svc { namespace: service.namespace().unwrap_or_default(), name: service.name_any() },
        traits: Traits {
            selector: spec.selector.unwrap_or_default(),
            ports: spec.ports.iter().flatten().filter_map(port).collect(),
            endpoints,
            ..Traits::default()
        },
    };
    addresses.filter_map(|address| Some((address.parse().ok()?, identity.clone()))).collect()
}

fn port(port: &k8s_openapi::api::core::v1::ServicePort) -> Option<ServicePort> {
    let number = |number: i32| u16::try_from(number).ok();
    let target = match &port.target_port {
        Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
        Some(IntOrString::Int(target)) => TargetPort::Number(number(*target)?),
        None => TargetPort::Number(number(port.port)?),
    };
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    Some(ServicePort { protocol, port: number(port.port)?, target })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn pod(name: &str, phase: &str, host: bool) -> Pod {
        let spec = json!({"containers": [], "hostNetwork": host, "nodeName": "a"});
        let status = json!({"phase": phase});
        from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec, "status": status}))
            .expect("a pod")
    }

    #[test]
    fn an_address_of_a_node_is_nobodys_pod() {
        let web = Peer::Pod { namespace: "shop".into(), name: "web".into() }.into();
        assert_eq!(pod_or_node(&[pod("old", "Succeeded", false), pod("web", "Running", false)]), Some(web));
        let hosts = [pod("proxy", "Running", true), pod("agent", "Running", true)];
        assert_eq!(pod_or_node(&hosts), Some(Peer::Node { name: "a".into() }.into()));
        assert_eq!(pod_or_node(&[]), None);
        let old = Peer::Pod { namespace: "shop".into(), name: "old".into() }.into();
        assert_eq!(pod_or_node(&[pod("old", "Succeeded", false)]), Some(old));
    }

    fn service(spec: Value, status: Value) -> Vec<String> {
        let service =
            from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec, "status": status}));
        let addresses = addresses_of_service(&service.expect("a service"), Vec::new());
        assert!(addresses.iter().all(|(_, identity)| identity.peer.to_string() == "svc/shop/web"));
        addresses.into_iter().map(|(address, _)| address.to_string()).collect()
    }

    #[test]
    fn services_have_addresses_of_several_kinds() {
        assert_eq!(service(json!({"clusterIP": "None"}), json!({})), [""; 0]);
        let spec = json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "externalIPs": ["192.0.2.1"]});
        let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "lb"}]}});
        assert_eq!(service(spec, status), ["10.0.0.1", "fd00::1", "192.0.2.1", "192.0.2.2"]);
    }
}
