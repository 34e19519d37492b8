//! What can be found out without any agent: the API server, what the user may do, what is deployed.

use gadgets::catalogue::{OLDEST, Release};
use gadgets::diagnosis::Finding;
use gadgets::wire::VERSION;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};

use crate::cluster::Cluster;
use crate::deploy::{self, NAMESPACE, SELECTOR, VERSION_LABEL};

/// The label of a namespace that lets its pods be as they need to be (1.23), and what ours must say.
const POD_SECURITY: (&str, &str) = ("pod-security.kubernetes.io/enforce", "privileged");

/// What there is, as far as the user may see it.
#[derive(Default)]
pub(super) struct View {
    /// `None` if the user may not list them.
    pub(super) nodes: Option<Vec<Node>>,
    /// Likewise.
    pub(super) agents: Option<Vec<Pod>>,
    pub(super) is_deployed: bool,
}

pub(super) async fn look(cluster: &Cluster) -> (Vec<Finding>, View) {
    let version = match cluster.ask("ask the API server what it is", cluster.client.apiserver_version()).await {
        Ok(version) => version.git_version,
        Err(error) => {
            let mend = "check the context: kubectl config current-context; kubectl version";
            let finding = Finding::failed("api server", error.to_string(), "nothing works", mend);
            return (vec![finding], View::default());
        }
    };
    let mut findings = vec![Finding::ok("api server", version), use_rights(cluster).await];
    let mut view = View::default();
    match deploy::daemon_set(cluster).await {
        Err(error) => findings.push(Finding::degraded(
            "deployment",
            error.to_string(),
            "it cannot be told whether agents are deployed",
            "kubectl apply -f manifests/user-role.yaml, and bind it",
        )),
        Ok(None) => {
            findings.push(Finding::failed(
                "deployment",
                "there are no agents",
                "gadgets do not run, but with --rm",
                "kubectl gadget deploy",
            ));
            findings.push(deploy_rights(cluster).await);
        }
        Ok(Some(set)) => {
            view.is_deployed = true;
            findings.push(skew(&set));
            findings.extend(pod_security(cluster).await);
        }
    }
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    match cluster.ask("list nodes", nodes.list(&ListParams::default())).await {
        Ok(nodes) => view.nodes = Some(nodes.items),
        Err(error) => findings.push(Finding::degraded(
            "nodes",
            error.to_string(),
            "a node without an agent is not noticed",
            "have somebody who may list nodes run this",
        )),
    }
    let agents: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let ours = ListParams::default().labels(SELECTOR);
    match cluster.ask("list agents", agents.list(&ours)).await {
        Ok(agents) => view.agents = Some(agents.items),
        Err(error) => findings.push(Finding::failed(
            "agents",
            error.to_string(),
            "nothing can be asked of the nodes",
            "have an administrator apply manifests/user-role.yaml and bind it to you",
        )),
    }
    (findings, view)
}

/// A right, as the API server is asked for it.
struct Right {
    verb: &'static str,
    group: &'static str,
    /// With its sub-resource, as in `pods/exec`.
    resource: &'static str,
    namespace: Option<String>,
}

impl Right {
    fn new(verb: &'static str, group: &'static str, resource: &'static str, namespace: Option<&str>) -> Self {
        Self { verb, group, resource, namespace: namespace.map(str::to_owned) }
    }

    /// Whether the user has it; `None` if the API server does not say.
    async fn is_granted(&self, cluster: &Cluster) -> Option<bool> {
        let (resource, subresource) = match self.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (self.resource, None),
        };
        let attributes = ResourceAttributes {
            verb: Some(self.verb.to_owned()),
            group: Some(self.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource,
            namespace: self.namespace.clone(),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
        let answer = cluster.ask("ask what you may do", reviews.create(&PostParams::default(), &review)).await.ok()?;
        Some(answer.status?.allowed)
    }

    fn words(&self) -> String {
        let place = self.namespace.as_ref().map(|name| format!(" in namespace {name}")).unwrap_or_default();
        format!("{} {}{place}", self.verb, self.resource)
    }
}

/// Whether the user has all of these rights. If not: what is lacking, in words, or that it is not known.
async fn check(cluster: &Cluster, rights: &[Right]) -> Result<(), String> {
    let mut lacking = Vec::new();
    for right in rights {
        match right.is_granted(cluster).await {
            Some(true) => {}
            Some(false) => lacking.push(right.words()),
            None => return Err(format!("the API server does not say whether you may {}", right.words())),
        }
    }
    if lacking.is_empty() { Ok(()) } else { Err(format!("you may not {}", lacking.join(", "))) }
}

/// What `manifests/user-role.yaml` grants.
async fn use_rights(cluster: &Cluster) -> Finding {
    let (ours, theirs) = (Some(NAMESPACE), Some(cluster.default_namespace.as_str()));
    let rights = [
        Right::new("list", "", "pods", ours),
        Right::new("watch", "", "pods", ours),
        Right::new("get", "apps", "daemonsets", ours),
        Right::new("get", "", "pods/exec", ours),
        Right::new("create", "", "pods/exec", ours),
        Right::new("list", "", "pods", theirs),
        Right::new("watch", "", "pods", theirs),
    ];
    let Err(why) = check(cluster, &rights).await else {
        return Finding::ok("rights", format!("you may look at pods of namespace {}", cluster.default_namespace));
    };
    Finding::failed(
        "rights",
        why,
        "gadgets do not run for you",
        "have an administrator apply manifests/user-role.yaml and bind it to you",
    )
}

/// What `deploy` needs.
async fn deploy_rights(cluster: &Cluster) -> Finding {
    const OBJECTS: [(&str, &str, Option<&str>); 5] = [
        ("", "namespaces", None),
        ("", "serviceaccounts", Some(NAMESPACE)),
        ("rbac.authorization.k8s.io", "clusterroles", None),
        ("rbac.authorization.k8s.io", "clusterrolebindings", None),
        ("apps", "daemonsets", Some(NAMESPACE)),
    ];
    // Server-side apply of what is not there yet is both.
    let of_object = |(group, resource, namespace)| {
        ["get", "create", "patch"].map(|verb| Right::new(verb, group, resource, namespace))
    };
    let rights: Vec<Right> = OBJECTS.into_iter().flat_map(of_object).collect();
    let Err(why) = check(cluster, &rights).await else {
        return Finding::ok("rights to deploy", "you may deploy");
    };
    Finding::degraded(
        "rights to deploy",
        why,
        "you cannot deploy the agents",
        "have an administrator run: kubectl gadget deploy",
    )
}

fn skew(set: &DaemonSet) -> Finding {
    let labels = set.metadata.labels.as_ref();
    let deployed = labels.and_then(|labels| labels.get(VERSION_LABEL)).map_or("an unknown version", String::as_str);
    let own = env!("CARGO_PKG_VERSION");
    if deployed == own {
        return Finding::ok("deployment", format!("agents of version {deployed}"));
    }
    Finding::degraded(
        "deployment",
        format!("agents of {deployed}, a client of {own} (protocol {VERSION})"),
        "gadgets and flags of one side may be unknown to the other",
        "kubectl gadget deploy, or install the client of the agents' version",
    )
}

async fn pod_security(cluster: &Cluster) -> Option<Finding> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = cluster.ask("get the agents' namespace", namespaces.get_opt(NAMESPACE)).await.ok()??;
    let (label, wanted) = POD_SECURITY;
    let enforced = namespace.metadata.labels.unwrap_or_default().remove(label);
    if enforced.as_deref() == Some(wanted) {
        return Some(Finding::ok("pod security", format!("namespace {NAMESPACE} is {wanted}")));
    }
    Some(Finding::degraded(
        "pod security",
        format!("namespace {NAMESPACE} has {}", enforced.map_or("no label".into(), |level| format!("{label}={level}"))),
        "where Pod Security is enforced, no agent starts",
        format!("kubectl label --overwrite namespace {NAMESPACE} {label}={wanted}"),
    ))
}

/// What the API server knows of a node's kernel.
pub(super) fn kernel(node: &Node) -> Option<Finding> {
    let info = node.status.as_ref()?.node_info.as_ref()?;
    let found = format!("{}, {}, {}", info.kernel_version, info.os_image, info.container_runtime_version);
    let release = Release::parse(&info.kernel_version)?;
    if release >= OLDEST {
        return Some(Finding::ok("kernel", found));
    }
    Some(Finding::failed("kernel", found, "gadgets do not load", format!("run the node with kernel {OLDEST} or later")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gadgets::diagnosis::Verdict;
    use serde_json::json;

    #[test]
    fn agents_of_another_version_are_told() {
        let set = |version: &str| {
            let set = json!({"metadata": {"labels": {VERSION_LABEL: version}}});
            serde_json::from_value::<DaemonSet>(set).unwrap_or_default()
        };
        assert_eq!(skew(&set(env!("CARGO_PKG_VERSION"))).verdict, Verdict::Ok);
        let other = skew(&set("0.0.9"));
        assert_eq!(other.verdict, Verdict::Degraded);
        assert!(other.found.contains("agents of 0.0.9") && other.mend.contains("kubectl gadget deploy"), "{other:?}");
    }

    #[test]
    fn a_kernel_that_is_too_old_is_told_before_anything_is_deployed() {
        let node = |kernel: &str| {
            let info = json!({"kernelVersion": kernel, "osImage": "", "containerRuntimeVersion": "", "machineID": "",
                "systemUUID": "", "bootID": "", "kubeletVersion": "", "kubeProxyVersion": "", "operatingSystem": "",
                "architecture": ""});
            serde_json::from_value::<Node>(json!({"status": {"nodeInfo": info}})).unwrap_or_default()
        };
        assert_eq!(kernel(&node("4.19.0-27-amd64")).map(|finding| finding.verdict), Some(Verdict::Failed));
        assert_eq!(kernel(&node("6.1.0-50-amd64")).map(|finding| finding.verdict), Some(Verdict::Ok));
        assert_eq!(kernel(&Node::default()), None);
    }
}
