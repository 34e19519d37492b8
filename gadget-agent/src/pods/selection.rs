//! Whether a session wants a cgroup's events.

use gadgets::spec::{Host, Selector};

use super::cgroup::Cgroup;
use super::pod::Pod;

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wanted,
    Unwanted,
    /// The cgroup's names decide, and they are not known yet.
    Pending,
    /// The pod's labels decide, and nobody knows them.
    Undecidable,
}

/// Whether events of a cgroup are wanted; `None` stands for everything that belongs to no container.
pub(crate) fn verdict(selector: &Selector, cgroup: Option<&Cgroup>) -> Verdict {
    let Some(cgroup) = cgroup else {
        let is_host_wanted = match selector.host {
            Host::None => false,
            Host::All => true,
            Host::Outside => selector.cgroups.is_empty(),
        };
        return wanted_if(is_host_wanted || selector.cgroups.iter().any(|path| path == "/"));
    };
    if selector.host == Host::Outside {
        // Of cgroups that are named, if any are; else one is known only because somebody else has named it.
        let is_within_any = || selector.cgroups.iter().any(|path| is_within(&cgroup.path, path));
        return wanted_if(cgroup.identity.is_none() && (selector.cgroups.is_empty() || is_within_any()));
    }
    if cgroup.is_pending() {
        return Verdict::Pending;
    }
    if selector.host == Host::All {
        return Verdict::Wanted;
    }
    let of_pod = match &cgroup.pod {
        _ if !is_selected(selector, cgroup) => Verdict::Unwanted,
        _ if selector.labels.is_empty() && selector.workloads.is_empty() => Verdict::Wanted,
        Some(pod) => pod_verdict(selector, pod),
        None if cgroup.pod_uid().is_some() => Verdict::Undecidable,
        None => Verdict::Unwanted,
    };
    match of_pod {
        Verdict::Wanted if !is_container_among(selector, cgroup) => {
            // The API server may tell its name yet.
            if cgroup.pod.is_some() && cgroup.lacks_name() { Verdict::Undecidable } else { Verdict::Unwanted }
        }
        verdict => verdict,
    }
}

/// Whether a pod is selected by what only the API server knows.
fn pod_verdict(selector: &Selector, pod: &Pod) -> Verdict {
    let is_among = || pod.workloads.iter().any(|workload| selector.workloads.contains(workload));
    if !selector.labels.matches(&pod.labels) {
        Verdict::Unwanted
    } else if selector.workloads.is_empty() || is_among() {
        Verdict::Wanted
    } else if pod.lacks_owner {
        Verdict::Undecidable
    } else {
        Verdict::Unwanted
    }
}

/// Whether a slot must let events through: its cgroups are a pod's, now and to come. A container that is made next may
/// be wanted though none of the present ones is, and a pod whose names nobody knows yet may be any.
pub(crate) fn slot_is_wanted<'a>(selector: &Selector, cgroups: impl Iterator<Item = &'a Cgroup> + Clone) -> bool {
    let in_pod = cgroups.clone().any(|cgroup| cgroup.pod_uid().is_some());
    if selector.host != Host::None || !in_pod {
        return cgroups.into_iter().any(|cgroup| verdict(selector, Some(cgroup)) != Verdict::Unwanted);
    }
    let overlaps = |cgroup: &Cgroup| {
        selector.cgroups.is_empty()
            || selector.cgroups.iter().any(|path| is_within(&cgroup.path, path) || is_within(path, &cgroup.path))
    };
    let name = cgroups.clone().find_map(Cgroup::pod_name);
    let namespace = cgroups.clone().find_map(Cgroup::namespace);
    let pod = cgroups.clone().find_map(|cgroup| cgroup.pod.as_deref());
    cgroups.into_iter().any(overlaps)
        && (name.is_none() || is_among(&selector.pods, &[name]))
        && (namespace.is_none() || is_among(&selector.namespaces, &[namespace]))
        && pod.is_none_or(|pod| pod_verdict(selector, pod) != Verdict::Unwanted)
}

fn wanted_if(wanted: bool) -> Verdict {
    if wanted { Verdict::Wanted } else { Verdict::Unwanted }
}

fn is_selected(selector: &Selector, cgroup: &Cgroup) -> bool {
    let entry = cgroup.entry();
    if !selector.cgroups.is_empty() {
        if !selector.cgroups.iter().any(|path| is_within(&cgroup.path, path)) {
            return false;
        }
    } else if entry.container_id.is_none() && !cgroup.is_whole_pod {
        return false;
    }
    (selector.machinery || !entry.sandbox)
        && is_among(&selector.namespaces, &[entry.namespace.as_deref()])
        && is_among(&selector.pods, &[entry.pod.as_deref()])
}

fn is_container_among(selector: &Selector, cgroup: &Cgroup) -> bool {
    selector.containers.is_empty()
        || is_among(&selector.containers, &[cgroup.container().as_deref(), cgroup.container_id()])
}

fn is_among(wanted: &[String], names: &[Option<&str>]) -> bool {
    wanted.is_empty() || wanted.iter().any(|name| names.contains(&Some(name)))
}

/// Whether a path is this one or below it. Both begin with a slash and end without one, but for the root.
pub(crate) fn is_within(path: &str, ancestor: &str) -> bool {
    let ancestor = ancestor.trim_end_matches('/');
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::bundle::Names;
    use crate::pods::cgroup::Naming;
    use crate::pods::path::identify;
    use gadgets::workload::Workload;
    use std::sync::Arc;

    fn cgroup(naming: Naming) -> Cgroup {
        let path = format!("/kubepods/pod{}/{}", "a".repeat(32), "b".repeat(64));
        let identity = identify(&path);
        Cgroup { id: 7, identity, path, naming, pod: None, made_ns: None, slot: 2, is_whole_pod: false }
    }

    fn web(sandbox: bool) -> Cgroup {
        cgroup(Naming::Done(Names {
            namespace: Some("shop".into()),
            pod: Some("web".into()),
            container: Some("nginx".into()),
            sandbox,
        }))
    }

    fn list(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }

    #[test]
    fn empty_lists_mean_every_container_and_nothing_else() {
        let all = Selector::default();
        assert_eq!(verdict(&all, Some(&web(false))), Verdict::Wanted);
        assert_eq!(verdict(&all, None), Verdict::Unwanted);
        assert_eq!(verdict(&Selector { host: Host::All, ..all }, None), Verdict::Wanted);
    }

    #[test]
    fn every_list_must_agree() {
        let selector = Selector { pods: list("web"), containers: list("nginx"), ..Selector::default() };
        assert_eq!(verdict(&selector, Some(&web(false))), Verdict::Wanted);
        let other = Selector { namespaces: list("bank"), ..selector };
        assert_eq!(verdict(&other, Some(&web(false))), Verdict::Unwanted);
    }

    #[test]
    fn sandboxes_are_shown_when_asked_for() {
        assert_eq!(verdict(&Selector::default(), Some(&web(true))), Verdict::Unwanted);
        let selector = Selector { machinery: true, ..Selector::default() };
        assert_eq!(verdict(&selector, Some(&web(true))), Verdict::Wanted);
    }

    #[test]
    fn names_that_are_not_known_yet_leave_it_open() {
        let pending = cgroup(Naming::Pending { until: std::time::Instant::now() });
        assert_eq!(verdict(&Selector::default(), Some(&pending)), Verdict::Pending);
    }

    #[test]
    fn a_slot_stays_open_for_containers_to_come() {
        let app = Selector { pods: list("web"), containers: list("app"), ..Selector::default() };
        assert!(slot_is_wanted(&app, [web(true)].iter()));
        assert!(!slot_is_wanted(&Selector { pods: list("db"), ..app.clone() }, [web(true)].iter()));
        assert!(slot_is_wanted(&app, [cgroup(Naming::Done(Names::default()))].iter()));
    }

    #[test]
    fn labels_and_owners_decide_as_soon_as_they_are_known() {
        let pod = |app: &str| Pod {
            uid: "a".repeat(32),
            namespace: "shop".into(),
            name: "web".into(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            workloads: vec![Workload::new("Pod", "web"), Workload::new("StatefulSet", app)],
            lacks_owner: false,
        };
        let of_pod = |app: &str| Cgroup { pod: Some(Arc::new(pod(app))), ..web(false) };
        let selector = Selector { labels: "app=web".parse().expect("a selector"), ..Selector::default() };
        assert_eq!(verdict(&selector, Some(&of_pod("web"))), Verdict::Wanted);
        assert_eq!(verdict(&selector, Some(&of_pod("db"))), Verdict::Unwanted);
        assert_eq!(verdict(&selector, Some(&web(false))), Verdict::Undecidable);
        assert!(slot_is_wanted(&selector, [of_pod("web")].iter()) && !slot_is_wanted(&selector, [of_pod("db")].iter()));
        assert!(slot_is_wanted(&selector, [web(false)].iter()));
        let of = |workload: Workload| Selector { workloads: vec![workload], ..Selector::default() };
        for (workload, expected) in [
            (Workload::new("StatefulSet", "web"), Verdict::Wanted),
            (Workload::new("Pod", "web"), Verdict::Wanted),
            (Workload::new("Job", "web"), Verdict::Unwanted),
        ] {
            assert_eq!(verdict(&of(workload), Some(&of_pod("web"))), expected);
        }
        assert_eq!(verdict(&of(Workload::new("Pod", "web")), Some(&web(false))), Verdict::Undecidable);
        let unasked = Cgroup { pod: Some(Arc::new(Pod { lacks_owner: true, ..pod("web") })), ..web(false) };
        assert_eq!(verdict(&of(Workload::new("CronJob", "web")), Some(&unasked)), Verdict::Undecidable);
        assert_eq!(verdict(&of(Workload::new("Pod", "web")), Some(&unasked)), Verdict::Wanted);
    }

    #[test]
    fn a_name_that_may_still_come_leaves_it_open() {
        let pod = Pod {
            uid: "a".repeat(32),
            namespace: "shop".into(),
            name: "web".into(),
            labels: [].into(),
            workloads: Vec::new(),
            lacks_owner: false,
        };
        let unnamed = cgroup(Naming::Done(Names::default()));
        let of_pod = Cgroup { pod: Some(Arc::new(pod)), ..unnamed.clone() };
        let app = Selector { containers: list("app"), ..Selector::default() };
        assert_eq!(verdict(&app, Some(&of_pod)), Verdict::Undecidable);
        // Where nobody asks the API server, it never comes.
        assert_eq!(verdict(&app, Some(&unnamed)), Verdict::Unwanted);
        assert_eq!(verdict(&Selector::default(), Some(&of_pod)), Verdict::Wanted);
    }

    #[test]
    fn what_is_outside_of_containers_can_be_had_alone() {
        let outside = Selector { host: Host::Outside, ..Selector::default() };
        assert_eq!(verdict(&outside, None), Verdict::Wanted);
        assert_eq!(verdict(&outside, Some(&web(false))), Verdict::Unwanted);
        assert!(!slot_is_wanted(&outside, [web(false)].iter()));
        // Another session may have named a cgroup that nobody would know otherwise.
        let named = Cgroup { path: "/user.slice".into(), identity: None, ..web(false) };
        assert_eq!(verdict(&outside, Some(&named)), Verdict::Wanted);
        assert!(slot_is_wanted(&outside, [named].iter()));
        // On a node that shares its kernel it is what is in the node's part.
        let service = Cgroup { path: "/node-a/ssh".into(), identity: None, ..web(false) };
        let outside = Selector { cgroups: list("/node-a"), ..outside };
        assert_eq!(verdict(&outside, None), Verdict::Unwanted);
        assert_eq!(verdict(&outside, Some(&service)), Verdict::Wanted);
        assert_eq!(verdict(&outside, Some(&Cgroup { path: "/node-b/ssh".into(), ..service })), Verdict::Unwanted);
    }

    #[test]
    fn paths_are_compared_by_their_parts() {
        assert!(is_within("/a/b", "/a") && is_within("/a", "/a") && is_within("/a", "/a/") && is_within("/a", "/"));
        assert!(!is_within("/ab", "/a") && !is_within("/", "/a"));
    }
}
