//! A seccomp profile, as runtimes and the Security Profiles Operator take it, and what it does with a system call.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

const ALLOW: &str = "SCMP_ACT_ALLOW";
/// Refuses with EPERM.
const ERRNO: &str = "SCMP_ACT_ERRNO";
/// Actions that let a call through.
const LETS_THROUGH: [&str; 2] = [ALLOW, "SCMP_ACT_LOG"];

/// Architectures: as events name them, and as profiles do. The second of each pair is that of programs of 32 bits.
const ARCHITECTURES: [(&str, &str); 4] = [
    ("x86_64", "SCMP_ARCH_X86_64"),
    ("x86", "SCMP_ARCH_X86"),
    ("aarch64", "SCMP_ARCH_AARCH64"),
    ("arm", "SCMP_ARCH_ARM"),
];

/// System calls by the architecture of who makes them, as events name both.
pub(super) type Calls = BTreeMap<String, BTreeSet<String>>;

/// What a file of a profile has, of what matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    default_action: String,
    #[serde(default)]
    architectures: Vec<String>,
    /// As Docker writes it.
    #[serde(default, skip_serializing)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    names: Vec<String>,
    action: String,
    /// Conditions; what they are does not matter, since nobody has seen the arguments.
    #[serde(default, skip_serializing, deserialize_with = "is_list")]
    args: bool,
}

/// The object around a profile that the Security Profiles Operator has.
#[derive(Deserialize)]
struct SeccompProfile {
    spec: Profile,
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// That depends on its arguments.
    Depends,
    /// With this action.
    Refused(String),
}

/// Whether there is a list with something in it.
fn is_list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let list = Option::<Vec<serde::de::IgnoredAny>>::deserialize(deserializer)?;
    Ok(list.is_some_and(|list| !list.is_empty()))
}

impl Profile {
    /// Lets these through and refuses all else.
    pub(super) fn of(calls: &Calls) -> Self {
        let known = |architecture: &String| {
            ARCHITECTURES.iter().find(|(name, _)| name == architecture).map(|(_, name)| (*name).to_owned())
        };
        let names: BTreeSet<&String> = calls.values().flatten().collect();
        Self {
            default_action: ERRNO.to_owned(),
            architectures: calls.keys().filter_map(known).collect::<BTreeSet<_>>().into_iter().collect(),
            arch_map: Vec::new(),
            syscalls: vec![Rule { names: names.into_iter().cloned().collect(), action: ALLOW.to_owned(), args: false }],
        }
    }

    /// Reads a profile (JSON), or an object of the Security Profiles Operator (YAML or JSON).
    ///
    /// # Errors
    /// If it is neither.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        if let Ok(object) = serde_saphyr::from_str::<SeccompProfile>(text) {
            return Ok(object.spec);
        }
        serde_saphyr::from_str(text).context("it is no seccomp profile")
    }

    /// The calls that it lets through whatever their arguments.
    pub(super) fn allowed(&self) -> BTreeSet<String> {
        let rules = self.syscalls.iter().filter(|rule| !rule.args && lets_through(&rule.action));
        rules.flat_map(|rule| &rule.names).cloned().collect()
    }

    /// What becomes of a call of a program for this architecture.
    pub(super) fn verdict(&self, architecture: &str, call: &str) -> Verdict {
        if !self.covers(architecture) {
            // The kernel ends who makes calls of an architecture that the filter does not know.
            return Verdict::Refused("SCMP_ACT_KILL".to_owned());
        }
        let rules: Vec<&Rule> =
            self.syscalls.iter().filter(|rule| rule.names.iter().any(|name| name == call)).collect();
        let unconditional = rules.iter().find(|rule| !rule.args);
        let action = unconditional.map_or(&self.default_action, |rule| &rule.action);
        let differs = |rule: &&&Rule| rule.args && lets_through(&rule.action) != lets_through(action);
        match (rules.iter().any(|rule| differs(&rule)), lets_through(action)) {
            (true, _) => Verdict::Depends,
            (false, true) => Verdict::Allowed,
            (false, false) => Verdict::Refused(action.clone()),
        }
    }

    /// A runtime adds the node's own architecture to a profile that names none.
    fn covers(&self, architecture: &str) -> bool {
        let name = ARCHITECTURES.iter().find(|(name, _)| *name == architecture).map(|(_, name)| *name);
        let mapped = self.arch_map.iter().flat_map(|map| map.sub_architectures.iter().chain([&map.architecture]));
        let mut named = self.architectures.iter().chain(mapped).peekable();
        if named.peek().is_none() {
            return is_native(architecture);
        }
        named.any(|named| Some(named.as_str()) == name)
    }
}

/// Whether it is a kernel's own, and not that of programs of 32 bits.
pub(super) fn is_native(architecture: &str) -> bool {
    matches!(architecture, "x86_64" | "aarch64")
}

fn lets_through(action: &str) -> bool {
    LETS_THROUGH.contains(&action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(of: &[(&str, &[&str])]) -> Calls {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        of.iter().map(|(architecture, list)| ((*architecture).to_owned(), names(list))).collect()
    }

    #[test]
    fn what_was_seen_is_let_through_and_nothing_else() {
        let profile = Profile::of(&calls(&[("x86_64", &["write", "read"]), ("x86", &["socketcall"])]));
        let text = serde_json::to_string(&profile).expect("JSON");
        assert_eq!(
            text,
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86","SCMP_ARCH_X86_64"],"syscalls":[{"names":["read","socketcall","write"],"action":"SCMP_ACT_ALLOW"}]}"#
        );
        let profile = Profile::parse(&text).expect("a profile");
        assert_eq!(profile.verdict("x86_64", "read"), Verdict::Allowed);
        assert_eq!(profile.verdict("x86_64", "mount"), Verdict::Refused(ERRNO.into()));
        assert_eq!(profile.verdict("aarch64", "read"), Verdict::Refused("SCMP_ACT_KILL".into()));
    }

    #[test]
    fn profiles_of_others_are_understood() {
        let docker = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}, {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_MASKED_EQ"}]}, {"names": ["log"], "action": "SCMP_ACT_LOG", "args": null}]}"#;
        let docker = Profile::parse(docker).expect("a profile");
        assert_eq!(docker.verdict("x86", "read"), Verdict::Allowed);
        assert_eq!(docker.verdict("x86_64", "clone"), Verdict::Depends);
        assert_eq!(docker.verdict("x86_64", "log"), Verdict::Allowed);
        assert_eq!(docker.allowed().into_iter().collect::<Vec<_>>(), ["log", "read"]);
        let open = "apiVersion: security-profiles-operator.x-k8s.io/v1beta1\nkind: SeccompProfile\nspec:\n  \
                    defaultAction: SCMP_ACT_ALLOW\n  syscalls:\n  - names: [mount]\n    action: SCMP_ACT_KILL_PROCESS\n";
        let open = Profile::parse(open).expect("a profile");
        assert_eq!(open.verdict("x86_64", "read"), Verdict::Allowed);
        assert_eq!(open.verdict("x86_64", "mount"), Verdict::Refused("SCMP_ACT_KILL_PROCESS".into()));
        assert!(Profile::parse("kind: Pod").is_err() && Profile::parse("[").is_err());
    }
}
