//! One cgroup that belongs to a pod, to a container, or to what a user named.

use std::sync::Arc;
use std::time::Instant;

use gadgets::wire::CgroupEntry;
use gadgets::workload::Workload;

use super::bundle::Names;
use super::path::Identity;
use super::pod::Pod;

/// What is known of a cgroup. A new value replaces the old when more is known.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    /// Id in the hierarchy that is followed.
    pub(crate) id: u64,
    /// Path there.
    pub(crate) path: String,
    /// Whose it is; `None` for one that is followed only because a user named it.
    pub(crate) identity: Option<Identity>,
    pub(crate) naming: Naming,
    /// Its pod, as the API server has it; `None` while it is not known there.
    pub(crate) pod: Option<Arc<Pod>>,
    /// When it was made, CLOCK_BOOTTIME ns; `None` for one that was there before the agent.
    pub(crate) made_ns: Option<u64>,
    /// The filter's slot that its events come through.
    pub(crate) slot: u32,
    /// It stands for its pod: for what belongs to nobody knows which container.
    pub(crate) is_whole_pod: bool,
}

/// How far the search for a container's names has come.
#[derive(Clone, Debug)]
pub(crate) enum Naming {
    /// Still looked for. Events are held back until then.
    Pending { until: Instant },
    /// Found, or known not to exist.
    Done(Names),
}

impl Cgroup {
    /// The names, as far as they are known.
    pub(crate) fn names(&self) -> Option<&Names> {
        match &self.naming {
            Naming::Done(names) => Some(names),
            Naming::Pending { .. } => None,
        }
    }

    /// Whether its names are still looked for.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.naming, Naming::Pending { .. })
    }

    /// The same, with nothing more to be expected of its names.
    pub(crate) fn without_names(&self) -> Self {
        Self { naming: Naming::Done(Names::default()), ..self.clone() }
    }

    /// The runtime's id of the container that it is or lies in; `None` outside containers.
    pub(crate) fn container_id(&self) -> Option<&str> {
        self.identity.as_ref()?.container_id.as_deref()
    }

    /// The UID of the pod that it is or lies in.
    pub(crate) fn pod_uid(&self) -> Option<&str> {
        self.identity.as_ref()?.pod_uid.as_deref()
    }

    /// Its pod's namespace: the API server's word, else its runtime's.
    pub(crate) fn namespace(&self) -> Option<&str> {
        let pods = self.pod.as_ref().map(|pod| pod.namespace.as_str());
        pods.or_else(|| self.names()?.namespace.as_deref())
    }

    /// Its pod's name, likewise.
    pub(crate) fn pod_name(&self) -> Option<&str> {
        let pods = self.pod.as_ref().map(|pod| pod.name.as_str());
        pods.or_else(|| self.names()?.pod.as_deref())
    }

    /// Whether it is a pod's container that nobody has told the name of.
    pub(crate) fn lacks_name(&self) -> bool {
        let has_name = self.names().is_some_and(|names| names.container.is_some() || names.sandbox);
        self.pod_uid().is_some() && self.container_id().is_some() && !has_name
    }

    /// What a person would call it.
    pub(crate) fn full_name(&self) -> String {
        let container = self.container();
        let parts = [self.namespace(), self.pod_name(), container.as_deref()];
        let name = parts.into_iter().flatten().collect::<Vec<_>>().join("/");
        if name.is_empty() { self.path.clone() } else { name }
    }

    /// The container's name; outside pods, or if nobody says, its id.
    pub(crate) fn container(&self) -> Option<String> {
        let id = self.container_id()?;
        let name = self.names().and_then(|names| names.container.clone());
        // Twelve digits of an id are what runtimes print.
        name.or_else(|| Some(id.get(..12).unwrap_or(id).to_owned()))
    }

    /// Whose something is that belongs to a pod, and to none of its cgroups for certain: its only container's, else the pod's
    /// without saying of which. In cgroups that a user named it is the uppermost one's.
    pub(crate) fn of_all(cgroups: &[Arc<Self>]) -> Option<Arc<Self>> {
        if let Some(pending) = cgroups.iter().find(|cgroup| cgroup.is_pending()) {
            return Some(Arc::clone(pending));
        }
        let is_sandbox = |cgroup: &Self| cgroup.names().is_some_and(|names| names.sandbox);
        let containers = || cgroups.iter().filter(|cgroup| cgroup.container_id().is_some() && !is_sandbox(cgroup));
        // One that has begun anew has the same name.
        if let Some(last) = containers().max_by_key(|cgroup| cgroup.id)
            && containers().all(|other| other.container() == last.container())
        {
            return Some(Arc::clone(last));
        }
        let is_unit = |cgroup: &Self| cgroup.identity.as_ref().is_some_and(|identity| identity.unit == cgroup.path);
        let Some(pods) = cgroups.iter().find(|cgroup| is_unit(cgroup)) else {
            return cgroups.iter().min_by_key(|cgroup| cgroup.path.len()).cloned();
        };
        let named = cgroups.iter().filter_map(|cgroup| cgroup.names()).max_by_key(|names| names.pod.is_some());
        let names = Names { container: None, sandbox: false, ..named.cloned().unwrap_or_default() };
        Some(Arc::new(Self { naming: Naming::Done(names), is_whole_pod: true, ..(**pods).clone() }))
    }

    /// What the client is told.
    pub(crate) fn entry(&self) -> CgroupEntry {
        CgroupEntry {
            cgroup: self.id,
            path: self.path.clone(),
            namespace: self.namespace().map(str::to_owned),
            pod: self.pod_name().map(str::to_owned),
            pod_uid: self.pod_uid().map(str::to_owned),
            container: self.container(),
            container_id: self.container_id().map(str::to_owned),
            labels: self.pod.as_ref().map(|pod| pod.labels.clone()).unwrap_or_default(),
            owner: self.pod.as_ref().and_then(|pod| pod.owner()).map(Workload::to_string),
            sandbox: self.names().is_some_and(|names| names.sandbox),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::path::identify;
    use super::*;

    fn cgroup(id: u64, container: Option<(&str, bool)>) -> Arc<Cgroup> {
        let mut path = format!("/kubepods/pod{}", "a".repeat(32));
        let mut names = Names::default();
        if let Some((name, sandbox)) = container {
            path = format!("{path}/{}", name.repeat(64));
            let of_container = (!sandbox).then(|| name.to_owned());
            names = Names { namespace: Some("shop".into()), pod: Some("web".into()), container: of_container, sandbox };
        }
        let identity = identify(&path);
        let naming = Naming::Done(names);
        Arc::new(Cgroup { id, path, identity, naming, pod: None, made_ns: None, slot: 2, is_whole_pod: false })
    }

    fn name(cgroups: &[Arc<Cgroup>]) -> Option<String> {
        Cgroup::of_all(cgroups).map(|cgroup| cgroup.full_name())
    }

    #[test]
    fn what_is_a_pods_is_its_only_containers_or_nobody_says_of_which() {
        let (pod, sandbox) = (cgroup(1, None), cgroup(2, Some(("5", true))));
        let (app, inside, proxy) =
            (cgroup(3, Some(("a", false))), cgroup(4, Some(("a", false))), cgroup(5, Some(("b", false))));
        assert_eq!(name(&[pod.clone(), sandbox.clone(), app.clone(), inside]).as_deref(), Some("shop/web/a"));
        assert_eq!(name(&[pod.clone(), sandbox.clone(), app, proxy]).as_deref(), Some("shop/web"));
        assert_eq!(name(&[pod, sandbox]).as_deref(), Some("shop/web"));
    }

    #[test]
    fn while_a_name_may_come_nothing_is_said() {
        let app = cgroup(3, Some(("a", false)));
        let naming = Naming::Pending { until: Instant::now() };
        let pending = Arc::new(Cgroup { id: 4, naming, ..(*app).clone() });
        assert!(Cgroup::of_all(&[app, pending]).is_some_and(|cgroup| cgroup.is_pending()));
        assert!(Cgroup::of_all(&[]).is_none());
    }
}
