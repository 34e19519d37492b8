//! One cgroup that belongs to a pod, to a container, or to what a user named.

use std::time::Instant;

use gadgets::wire::CgroupEntry;

use super::bundle::Names;
use super::path::Identity;

/// What is known of a cgroup. A new value replaces the old when more is known.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    /// Id in the unified hierarchy.
    pub(crate) id: u64,
    /// Path in the unified hierarchy.
    pub(crate) path: String,
    /// Whose it is; `None` for one that is followed only because a user named it.
    pub(crate) identity: Option<Identity>,
    pub(crate) naming: Naming,
    /// The filter's slot that its events come through.
    pub(crate) slot: u32,
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

    /// The same, with nothing more to be expected of its names.
    pub(crate) fn without_names(&self) -> Self {
        Self { naming: Naming::Done(Names::default()), ..self.clone() }
    }

    /// The runtime's id of the container that it is or lies in; `None` outside containers.
    pub(crate) fn container_id(&self) -> Option<&str> {
        self.identity.as_ref()?.container_id.as_deref()
    }

    /// The container's name; outside pods, or if nobody says, its id.
    fn container(&self) -> Option<String> {
        let id = self.container_id()?;
        let name = self.names().and_then(|names| names.container.clone());
        // Twelve digits of an id are what runtimes print.
        name.or_else(|| Some(id.get(..12).unwrap_or(id).to_owned()))
    }

    /// What the client is told.
    pub(crate) fn entry(&self) -> CgroupEntry {
        let names = self.names();
        CgroupEntry {
            cgroup: self.id,
            path: self.path.clone(),
            namespace: names.and_then(|names| names.namespace.clone()),
            pod: names.and_then(|names| names.pod.clone()),
            pod_uid: self.identity.as_ref().and_then(|identity| identity.pod_uid.clone()),
            container: self.container(),
            container_id: self.container_id().map(str::to_owned),
            sandbox: names.is_some_and(|names| names.sandbox),
            ..CgroupEntry::default()
        }
    }
}
