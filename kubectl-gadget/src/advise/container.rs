//! Whose events are: a container of a workload, and the pods that it was seen in.

use std::collections::{BTreeMap, BTreeSet};

use gadgets::format::escaped;
use serde::{Deserialize, Serialize};

/// Who an event is of, as it stands there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Whose {
    #[serde(flatten)]
    container: Container,
    pod: Option<String>,
    /// It is of the pod's sandbox.
    sandbox: bool,
}

/// A container of all pods of a workload; of one pod, if that belongs to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Container {
    pub(super) namespace: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) container: Option<String>,
}

impl Container {
    /// In words, for a line of a comment.
    pub(super) fn in_words(&self) -> String {
        let (Some(owner), Some(container)) = (&self.owner, &self.container) else {
            return "outside of pods".into();
        };
        let namespace = self.namespace.as_deref().unwrap_or_default();
        escaped(&format!("{namespace}: {owner}, container {container}"))
    }

    /// As the name of an object or a file: lowercase letters, digits and dashes.
    pub(super) fn as_name(&self) -> String {
        let owner = self.owner.as_deref().map(|owner| owner.rsplit('/').next().unwrap_or(owner));
        let words: Vec<&str> = owner.into_iter().chain(self.container.as_deref()).collect();
        let mut name = String::new();
        for character in words.join("-").to_ascii_lowercase().chars() {
            match character {
                'a'..='z' | '0'..='9' => name.push(character),
                _ if name.ends_with('-') || name.is_empty() => {}
                _ => name.push('-'),
            }
        }
        let name = name.trim_end_matches('-');
        if name.is_empty() { "host".to_owned() } else { name.to_owned() }
    }
}

/// What was found of each container.
pub(super) struct Containers<T>(BTreeMap<Container, Found<T>>);

/// What was found of one.
#[derive(Default)]
pub(super) struct Found<T> {
    pub(super) pods: BTreeSet<String>,
    pub(super) what: T,
}

impl<T> Default for Containers<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Default> Containers<T> {
    /// That of whom an event is of; none if it is of a pod's sandbox.
    pub(super) fn of(&mut self, whose: Whose) -> Option<&mut T> {
        let Whose { mut container, pod, sandbox } = whose;
        if sandbox {
            return None;
        }
        if let Some(pod) = &pod {
            container.owner.get_or_insert_with(|| format!("Pod/{pod}"));
        }
        let found = self.0.entry(container).or_default();
        found.pods.extend(pod);
        Some(&mut found.what)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Container, &Found<T>)> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Found<T> {
    /// How many pods, in words behind a name.
    pub(super) fn in_pods(&self) -> String {
        match self.pods.len() {
            0 => String::new(),
            1 => ", 1 pod".to_owned(),
            pods => format!(", {pods} pods"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(json: serde_json::Value) -> Whose {
        serde_json::from_value(json).expect("an event")
    }

    #[test]
    fn replicas_are_one_and_sandboxes_none() {
        let mut found = Containers::<u32>::default();
        for pod in ["web-1", "web-2"] {
            let event =
                serde_json::json!({"namespace": "shop", "pod": pod, "container": "app", "owner": "Deployment/web"});
            *found.of(whose(event)).expect("a container") += 1;
        }
        assert!(found.of(whose(serde_json::json!({"namespace": "shop", "pod": "web-1", "sandbox": true}))).is_none());
        let bare = serde_json::json!({"namespace": "shop", "pod": "bare", "container": "app"});
        *found.of(whose(bare)).expect("a container") += 1;
        *found.of(whose(serde_json::json!({"pod": null, "container": null}))).expect("the host") += 1;
        let all: Vec<_> = found.iter().map(|(container, found)| (container.in_words(), found.what)).collect();
        let words = |words: &str| words.to_owned();
        assert_eq!(
            all,
            [
                (words("outside of pods"), 1),
                (words("shop: Deployment/web, container app"), 2),
                (words("shop: Pod/bare, container app"), 1)
            ]
        );
    }

    #[test]
    fn names_are_fit_for_files() {
        let name = |owner: Option<&str>, container: Option<&str>| {
            let [owner, container] = [owner, container].map(|name| name.map(str::to_owned));
            Container { namespace: None, owner, container }.as_name()
        };
        assert_eq!(name(Some("Deployment/web"), Some("app")), "web-app");
        assert_eq!(name(Some("Pod/../../etc"), Some("\n_.")), "etc");
        assert_eq!((name(None, Some("box")), name(None, None)), ("box".into(), "host".into()));
    }

    #[test]
    fn names_cannot_break_out_of_their_line() {
        let odd = Container { namespace: None, owner: Some("Pod/a\nb".into()), container: Some("\u{1b}[2J".into()) };
        assert_eq!(odd.in_words(), ": Pod/a\\nb, container \\e[2J");
    }
}
