//! What a container's runtime says of it: the annotations in its OCI bundle.
//!
//! The bundle is written before the container's cgroup exists, so its names are there before the first event.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::path::identify;

/// Where containerd (also k3s' and RKE2's) and CRI-O keep bundles; the container's id names the folder inside.
pub(crate) const DEFAULT_ROOTS: &str = "/run/containerd/io.containerd.runtime.v2.task/*:\
                                        /run/k3s/containerd/io.containerd.runtime.v2.task/*:\
                                        /run/containers/storage/overlay-containers";

/// The longest config.json that is read.
const MAX_CONFIG: u64 = 4 << 20;

/// How the processes begin that containerd starts for each pod (`containerd-shim-runc-v2`, cut to 15 bytes).
const SHIM: &[u8] = b"containerd-shim";
/// How often they are looked for at most.
const SEARCH_AGAIN: Duration = Duration::from_secs(1);

/// A container's names. What its runtime does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) namespace: Option<String>,
    pub(crate) pod: Option<String>,
    pub(crate) container: Option<String>,
    /// It is the pod's sandbox.
    pub(crate) sandbox: bool,
}

/// The folders in which bundles are: those that are usual, and those where containerd's shims work.
#[derive(Clone, Debug)]
pub(crate) struct Bundles {
    roots: Vec<String>,
    /// The host's root directory, as this process sees it.
    host: PathBuf,
    /// The folders that the roots stand for, as of the last refresh.
    folders: Vec<PathBuf>,
    /// Folders of shims, as of the last search.
    of_shims: Vec<PathBuf>,
    searched: Option<Instant>,
}

impl Bundles {
    /// `roots` are separated by colons; `*` as the last part of one stands for any folder (containerd's namespaces). With
    /// none, nothing is looked for.
    pub(crate) fn new(roots: &str) -> Self {
        let roots = roots.split(':').filter(|root| !root.is_empty()).map(str::to_owned).collect();
        let mut bundles = Self { roots, host: host_root(), folders: Vec::new(), of_shims: Vec::new(), searched: None };
        bundles.refresh();
        bundles
    }

    /// Looks which folders there are: to be called before a number of names are looked up.
    pub(crate) fn refresh(&mut self) {
        let expand = |root: &String| match root.strip_suffix("/*") {
            Some(parent) => fs::read_dir(self.on_host(Path::new(parent)))
                .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
                .unwrap_or_default(),
            None => vec![self.on_host(Path::new(root))],
        };
        self.folders = self.roots.iter().flat_map(expand).collect();
    }

    fn on_host(&self, path: &Path) -> PathBuf {
        self.host.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The names of a container. `None` if there is no bundle of it that can be read (yet).
    pub(crate) fn names(&mut self, container_id: &str) -> Option<Names> {
        // An id is used as a file's name: from a hostile cgroup it could be "..", which leads out.
        if self.roots.is_empty()
            || container_id.is_empty()
            || container_id.contains('/')
            || container_id.starts_with('.')
        {
            return None;
        }
        let known = self.folders.iter().chain(&self.of_shims).find_map(|folder| names_in(folder, container_id));
        let is_recent = self.searched.is_some_and(|searched| searched.elapsed() < SEARCH_AGAIN);
        // A folder goes out of sight with the shim that it was seen through: others are still in it.
        if known.is_some() || is_recent && self.of_shims.iter().all(|folder| folder.is_dir()) {
            return known;
        }
        // Looks at every process: only for a container whose bundle is nowhere else.
        self.searched = Some(Instant::now());
        self.of_shims = folders_of_shims();
        self.of_shims.iter().find_map(|folder| names_in(folder, container_id))
    }
}

/// Where the host's files are. In a container that sees the host's processes they are behind its first one.
fn host_root() -> PathBuf {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    match (namespace("1"), namespace("self")) {
        (Some(host), Some(own)) if host != own => "/proc/1/root".into(),
        _ => "/".into(),
    }
}

/// The folders of bundles that containerd's shims work in, wherever its state is kept, as seen through one of them. A
/// shim's working directory is the bundle of its first container. Any process can call itself a shim; one of a pod is
/// not believed.
fn folders_of_shims() -> Vec<PathBuf> {
    let mut folders = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()) {
        if let Some((namespace, folder)) = folder_of_shim(&process) {
            let seen = process.join("root").join(folder.strip_prefix("/").unwrap_or(&folder));
            folders.entry((namespace, folder)).or_insert(seen);
        }
    }
    folders.into_values().collect()
}

/// The folder that this process works in if it is a shim, and the mount namespace in which it has that name.
fn folder_of_shim(process: &Path) -> Option<(PathBuf, PathBuf)> {
    let is_shim = fs::read(process.join("comm")).is_ok_and(|comm| comm.starts_with(SHIM));
    if !is_shim || fs::metadata(process).ok()?.uid() != 0 {
        return None;
    }
    let cgroups = fs::read_to_string(process.join("cgroup")).ok()?;
    let mut whose = cgroups.lines().filter_map(|line| identify(line.splitn(3, ':').nth(2)?));
    if whose.any(|whose| whose.pod_uid.is_some()) {
        return None;
    }
    let bundle = fs::read_link(process.join("cwd")).ok()?;
    Some((fs::read_link(process.join("ns/mnt")).ok()?, bundle.parent()?.to_owned()))
}

fn names_in(folder: &Path, container_id: &str) -> Option<Names> {
    let bundle = folder.join(container_id);
    ["config.json", "userdata/config.json"].iter().find_map(|file| read_annotations(&bundle.join(file)))
}

fn read_annotations(config: &Path) -> Option<Names> {
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
        let mut bundles = Bundles::new("/run/*:/etc");
        for id in ["", "..", "../etc", "a/b"] {
            assert_eq!(bundles.names(id), None);
        }
    }
}
