//! What a container's runtime says of it: the annotations in its OCI bundle.
//!
//! The bundle is written before the container's cgroup exists, so its names are there before the first event.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// Where containerd (also k3s' and RKE2's) and CRI-O keep bundles; the container's id names the folder inside.
pub(crate) const DEFAULT_ROOTS: &str = "/run/containerd/io.containerd.runtime.v2.task/*:\
                                        /run/k3s/containerd/io.containerd.runtime.v2.task/*:\
                                        /run/containers/storage/overlay-containers";

/// The longest config.json that is read.
const MAX_CONFIG: u64 = 4 << 20;

/// A container's names. What its runtime does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) namespace: Option<String>,
    pub(crate) pod: Option<String>,
    pub(crate) container: Option<String>,
    /// It is the pod's sandbox.
    pub(crate) sandbox: bool,
}

/// The folders in which bundles are.
#[derive(Clone, Debug)]
pub(crate) struct Bundles {
    roots: Vec<String>,
    /// The folders that the roots stand for, as of the last refresh.
    folders: Vec<PathBuf>,
}

impl Bundles {
    /// `roots` are separated by colons; `*` as the last part of one stands for any folder (containerd's namespaces).
    pub(crate) fn new(roots: &str) -> Self {
        let roots = roots.split(':').filter(|root| !root.is_empty()).map(str::to_owned).collect();
        let mut bundles = Self { roots, folders: Vec::new() };
        bundles.refresh();
        bundles
    }

    /// Looks which folders there are: to be called before a number of names are looked up.
    pub(crate) fn refresh(&mut self) {
        let expand = |root: &String| match root.strip_suffix("/*") {
            Some(parent) => fs::read_dir(parent)
                .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
                .unwrap_or_default(),
            None => vec![PathBuf::from(root)],
        };
        self.folders = self.roots.iter().flat_map(expand).collect();
    }

    /// The names of a container. `None` if there is no bundle of it that can be read (yet).
    pub(crate) fn names(&self, container_id: &str) -> Option<Names> {
        // An id is used as a file's name: from a hostile cgroup it could be "..", which leads out.
        if container_id.is_empty() || container_id.contains('/') || container_id.starts_with('.') {
            return None;
        }
        self.folders.iter().find_map(|folder| {
            let bundle = folder.join(container_id);
            ["config.json", "userdata/config.json"].iter().find_map(|file| read_annotations(&bundle.join(file)))
        })
    }
}

fn read_annotations(config: &std::path::Path) -> Option<Names> {
    let metadata = fs::metadata(config).ok()?;
    if !metadata.is_file() || metadata.len() > MAX_CONFIG {
        return None;
    }
    parse(&fs::read(config).ok()?)
}

fn parse(config: &[u8]) -> Option<Names> {
    let config: Value = serde_json::from_slice(config).ok()?;
    let annotation = |key: &str| config.get("annotations")?.get(key)?.as_str().filter(|text| !text.is_empty());
    let first = |keys: [&str; 2]| keys.iter().find_map(|key| annotation(key)).map(str::to_owned);
    // containerd's name for each, then CRI-O's.
    let kind = first(["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]);
    Some(Names {
        namespace: first(["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]),
        pod: first(["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
        container: first(["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]),
        sandbox: kind.is_some_and(|kind| kind == "sandbox"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(annotations: &str) -> Option<Names> {
        parse(format!(r#"{{"ociVersion":"1.0","annotations":{annotations}}}"#).as_bytes())
    }

    #[test]
    fn containerd_and_crio_are_understood() {
        let web = Names {
            namespace: Some("shop".into()),
            pod: Some("web-1".into()),
            container: Some("nginx".into()),
            sandbox: false,
        };
        let containerd = r#"{"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-name":"web-1",
            "io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.container-name":"nginx"}"#;
        let crio = r#"{"io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.pod.name":"web-1",
            "io.kubernetes.pod.namespace":"shop","io.kubernetes.container.name":"nginx"}"#;
        assert_eq!(names(containerd), Some(web.clone()));
        assert_eq!(names(crio), Some(web));
        assert!(names(r#"{"io.kubernetes.cri.container-type":"sandbox"}"#).is_some_and(|names| names.sandbox));
    }

    #[test]
    fn a_container_of_no_pod_has_no_names() {
        assert_eq!(names("{}"), Some(Names::default()));
        assert_eq!(names(r#"{"io.kubernetes.cri.sandbox-name":7}"#), Some(Names::default()));
        assert_eq!(parse(b"not json"), None);
    }

    #[test]
    fn ids_do_not_lead_out_of_the_folder() {
        let bundles = Bundles::new("/run/*:/etc");
        for id in ["", "..", "../etc", "a/b"] {
            assert_eq!(bundles.names(id), None);
        }
    }
}
