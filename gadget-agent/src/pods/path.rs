//! What a cgroup's path says about whose it is.
//!
//! Kubelet, container runtimes and systemd name cgroups in a dozen ways. What they share: a pod's directory has "pod"
//! and an id in its name, a container's has an id, and what lies below belongs to it. `level_of_name` in
//! `bpf/tracker.bpf.c` decides by the same marks, more coarsely; where the two differ, this one has the last word.

/// Whose a cgroup is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Path of the directory that stands for the pod, or for the container if it is in none. One filter slot each.
    pub(crate) unit: String,
    /// The pod's UID with dashes, or a static pod's hash. `None` outside pods.
    pub(crate) pod_uid: Option<String>,
    /// The container's id in its runtime. `None` for a pod's own directory and for a runtime's helpers.
    pub(crate) container_id: Option<String>,
}

/// Hex digits of a static pod's hash: the shortest id there is.
const HASH: usize = 32;
/// Hex digits of a container's id.
const CONTAINER: usize = 64;

/// Reads a path in a cgroup hierarchy. `None` if it is neither a pod's nor a container's.
pub(crate) fn identify(path: &str) -> Option<Identity> {
    let mut at = 0;
    let mut outside_pods = None;
    for component in path.split('/') {
        let end = at + component.len();
        if let Some((uid, container)) = pod(component) {
            let rest = path.get(end + 1..).unwrap_or_default();
            let container = container.or_else(|| container_in_pod(rest.split('/').next()?));
            return Some(Identity {
                unit: path[..end].to_owned(),
                pod_uid: Some(uid),
                container_id: container.map(str::to_owned),
            });
        }
        // The first container counts: one that runs inside another belongs to it. A pod further down counts more,
        // since a node may run in a container.
        if outside_pods.is_none()
            && let Some(id) = container_anywhere(component)
        {
            outside_pods =
                Some(Identity { unit: path[..end].to_owned(), pod_uid: None, container_id: Some(id.to_owned()) });
        }
        at = end + 1;
    }
    outside_pods
}

/// The UID, if a directory is a pod's; and the container's id where one name holds both (`SLICE:cri-containerd:ID`).
fn pod(component: &str) -> Option<(String, Option<&str>)> {
    let (name, container) = match component.split_once(':') {
        Some((slice, rest)) => (slice, rest.rsplit(':').next()),
        None => (component, None),
    };
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let start = match name.strip_prefix("pod") {
        Some(id) => id,
        // systemd repeats the parents: kubepods-burstable-podUID, kubelet-kubepods-podUID.
        None if name.contains("kubepods") => name.rsplit_once("-pod")?.1,
        None => return None,
    };
    let uid = start.replace('_', "-");
    is_uid(&uid).then_some((uid, container))
}

/// A UUID, or a static pod's hash.
fn is_uid(id: &str) -> bool {
    let digits = id.bytes().filter(|byte| *byte != b'-');
    id.bytes().all(|byte| byte == b'-' || is_hex(byte)) && digits.count() == HASH
}

/// The container's id, given the name of a directory in a pod's. Any name is one, but for a runtime's helpers.
fn container_in_pod(component: &str) -> Option<&str> {
    if component.is_empty() || component.starts_with("crio-conmon-") {
        return None;
    }
    match component.strip_suffix(".scope") {
        Some(scope) => Some(scope.rsplit_once('-').map_or(scope, |(_, id)| id)),
        None => Some(component),
    }
}

/// The container's id, given the name of a directory anywhere.
fn container_anywhere(component: &str) -> Option<&str> {
    let id = match component.strip_suffix(".scope") {
        Some(scope) => {
            let (runtime, id) = scope.rsplit_once('-')?;
            if runtime.ends_with("conmon") {
                return None;
            }
            id
        }
        None => component.strip_prefix("libpod-").unwrap_or(component),
    };
    (id.len() == CONTAINER && id.bytes().all(is_hex)).then_some(id)
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uid() -> impl Strategy<Value = String> {
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    }

    fn qos() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec!["", "besteffort", "burstable"])
    }

    /// Where a node's own cgroup may be: the host's root, a container (kind), another prefix.
    fn prefix() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            Just("/node-1".to_owned()),
            "[0-9a-f]{64}".prop_map(|id| format!("/docker/{id}/kubelet")),
            "[0-9a-f]{64}".prop_map(|id| format!("/system.slice/docker-{id}.scope/kubelet.slice")),
        ]
    }

    /// What a container may make for itself.
    fn inner() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            Just("/init.scope".to_owned()),
            "(/[a-z.-]{1,12}){1,5}",
            "/docker/[0-9a-f]{64}"
        ]
    }

    fn cgroupfs_pod(prefix: &str, qos: &str, uid: &str) -> String {
        if qos.is_empty() { format!("{prefix}/kubepods/pod{uid}") } else { format!("{prefix}/kubepods/{qos}/pod{uid}") }
    }

    fn systemd_pod(prefix: &str, parent: &str, qos: &str, uid: &str) -> String {
        let uid = uid.replace('-', "_");
        let base = format!("{parent}kubepods");
        if qos.is_empty() {
            format!("{prefix}/{base}.slice/{base}-pod{uid}.slice")
        } else {
            format!("{prefix}/{base}.slice/{base}-{qos}.slice/{base}-{qos}-pod{uid}.slice")
        }
    }

    fn expect(unit: &str, uid: Option<&str>, id: Option<&str>) -> Option<Identity> {
        Some(Identity { unit: unit.to_owned(), pod_uid: uid.map(str::to_owned), container_id: id.map(str::to_owned) })
    }

    #[test]
    fn what_is_neither() {
        for path in [
            "",
            "/",
            "/kubepods",
            "/kubepods/burstable",
            "/kubepods.slice/kubepods-besteffort.slice",
            "/system.slice/ssh.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/system.slice/run-r0123456789abcdef0123456789abcdef.scope",
            "/pods/podium",
        ] {
            assert_eq!(identify(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn cgroupfs_driver(prefix in prefix(), qos in qos(), uid in uid(), id in "[0-9a-f]{64}", inner in inner()) {
            let pod = cgroupfs_pod(&prefix, qos, &uid);
            prop_assert_eq!(identify(&pod), expect(&pod, Some(&uid), None));
            prop_assert_eq!(identify(&format!("{pod}/{id}{inner}")), expect(&pod, Some(&uid), Some(&id)));
            prop_assert_eq!(identify(&format!("{pod}/crio-{id}.scope{inner}")), expect(&pod, Some(&uid), Some(&id)));
        }

        #[test]
        fn systemd_driver(
            prefix in prefix(), parent in proptest::sample::select(vec!["", "kubelet-"]), qos in qos(), uid in uid(),
            runtime in proptest::sample::select(vec!["cri-containerd", "crio", "docker"]), id in "[0-9a-f]{64}",
            inner in inner(),
        ) {
            let pod = systemd_pod(&prefix, parent, qos, &uid);
            prop_assert_eq!(identify(&pod), expect(&pod, Some(&uid), None));
            let container = format!("{pod}/{runtime}-{id}.scope");
            prop_assert_eq!(identify(&format!("{container}{inner}")), expect(&pod, Some(&uid), Some(&id)));
        }

        #[test]
        fn names_with_colons(qos in qos(), uid in uid(), id in "[0-9a-f]{64}") {
            let slice = systemd_pod("", "", qos, &uid);
            let slice = slice.rsplit('/').next().expect("a name");
            let path = format!("/system.slice/containerd.service/{slice}:cri-containerd:{id}");
            prop_assert_eq!(identify(&path), expect(&path, Some(&uid), Some(&id)));
        }

        #[test]
        fn static_pods(hash in "[0-9a-f]{32}", id in "[0-9a-f]{64}") {
            let pod = format!("/kubepods/burstable/pod{hash}");
            prop_assert_eq!(identify(&format!("{pod}/{id}")), expect(&pod, Some(&hash), Some(&id)));
        }

        #[test]
        fn helpers_of_a_runtime_are_no_containers(uid in uid(), id in "[0-9a-f]{64}") {
            let pod = systemd_pod("", "", "burstable", &uid);
            let conmon = format!("{pod}/crio-conmon-{id}.scope");
            prop_assert_eq!(identify(&conmon), expect(&pod, Some(&uid), None));
            prop_assert_eq!(identify(&format!("/machine.slice/libpod-conmon-{id}.scope")), None);
        }

        #[test]
        fn containers_outside_pods(id in "[0-9a-f]{64}", inner in inner(), form in 0..4) {
            let container = match form {
                0 => format!("/docker/{id}"),
                1 => format!("/system.slice/docker-{id}.scope"),
                2 => format!("/machine.slice/libpod-{id}.scope"),
                _ => format!("/default/{id}"),
            };
            prop_assert_eq!(identify(&format!("{container}{inner}")), expect(&container, None, Some(&id)));
        }

        #[test]
        fn any_path_is_read(path in "\\PC{0,80}") {
            if let Some(identity) = identify(&path) {
                prop_assert!(path.starts_with(&identity.unit));
            }
        }

        #[test]
        fn any_path_of_likely_parts_is_read(parts in proptest::collection::vec(proptest::sample::select(vec![
            "/", "pod", "kubepods", "-", ".slice", ".scope", ":", "crio-conmon-", "libpod-",
            "0123456789abcdef0123456789abcdef", "é",
        ]), 0..12)) {
            let path = parts.concat();
            if let Some(identity) = identify(&path) {
                prop_assert!(path.starts_with(&identity.unit));
            }
        }
    }
}
