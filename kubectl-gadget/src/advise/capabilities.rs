//! Which capabilities containers need, from checks: events with `capability`, `syscall`, `ret` and `audit`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use gadgets::format::escaped;
use serde::Deserialize;
use serde_json::{Value, json};

use super::container::{Container, Containers, Found, Whose};
use super::{Advice, Advisor, event};

/// What manifests leave out of a capability's name.
const PREFIX: &str = "CAP_";

/// By container, from what was checked.
pub(crate) struct Capabilities {
    containers: Containers<Needs>,
    is_json: bool,
}

/// Capabilities, as manifests have them, by the calls that asked for them.
#[derive(Default)]
struct Needs {
    used: BTreeMap<String, BTreeSet<String>>,
    lacked: BTreeMap<String, BTreeSet<String>>,
}

/// An event.
#[derive(Deserialize)]
struct Check {
    #[serde(flatten)]
    whose: Whose,
    /// Names; numbers, where there is none.
    capability: Value,
    syscall: Value,
    ret: i64,
    audit: String,
}

impl Advisor for Capabilities {
    fn take(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let Check { whose, capability, syscall, ret, audit } = event(line)?;
        // Nothing depends on it.
        if audit == "no" {
            return Ok(());
        }
        if let Some(needs) = self.containers.of(whose) {
            let capability = text(&capability);
            let name = capability.strip_prefix(PREFIX).unwrap_or(&capability).to_owned();
            let found = if ret == 0 { &mut needs.used } else { &mut needs.lacked };
            found.entry(name).or_default().insert(text(&syscall));
        }
        Ok(())
    }

    fn advise(&self) -> anyhow::Result<Advice> {
        let form = if self.is_json { as_json } else { as_yaml };
        let text = self.containers.iter().map(|(container, found)| form(container, found)).collect();
        Ok(Advice { text, ..Advice::default() })
    }
}

impl Capabilities {
    pub(crate) fn new(is_json: bool) -> Self {
        Self { containers: Containers::default(), is_json }
    }
}

/// What to put into a container's manifest, and why.
fn as_yaml(container: &Container, found: &Found<Needs>) -> String {
    let Needs { used, lacked } = &found.what;
    let mut yaml = format!("# {}{}\n", container.in_words(), found.in_pods());
    yaml.push_str("securityContext:\n  capabilities:\n    drop: [ALL]\n");
    if !used.is_empty() {
        yaml.push_str("    add:\n");
    }
    // Writing to a String cannot fail.
    for (name, syscalls) in used {
        let _ = writeln!(yaml, "    - {name} # {}", listed(syscalls));
    }
    for (name, syscalls) in lacked {
        let _ = writeln!(yaml, "# it has no {name}, and asked for it: {}", listed(syscalls));
    }
    yaml.push('\n');
    yaml
}

/// The same as an object of a line.
fn as_json(container: &Container, found: &Found<Needs>) -> String {
    let object = json!({
        "type": "capabilities",
        "namespace": container.namespace,
        "owner": container.owner,
        "container": container.container,
        "pods": found.pods,
        "used": found.what.used,
        "lacked": found.what.lacked,
    });
    format!("{object}\n")
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A name without what could end its line, or a number.
fn text(value: &Value) -> String {
    match value {
        Value::String(name) => escaped(name),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pod: &str, capability: &str, syscall: &str, ret: i64, audit: &str) -> Vec<u8> {
        let event = json!({"type": "event", "namespace": "shop", "pod": pod, "owner": "Deployment/web", "container": "app",
            "capability": capability, "syscall": syscall, "ret": ret, "audit": audit});
        event.to_string().into_bytes()
    }

    #[test]
    fn replicas_are_one_workload() {
        let [mut yaml, mut json] = [false, true].map(Capabilities::new);
        for pod in ["web-1", "web-2"] {
            for (capability, syscall, ret, audit) in [
                ("CAP_CHOWN", "chown", 0, "yes"),
                ("CAP_CHOWN", "fchownat", 0, "unknown"),
                ("CAP_SYS_ADMIN", "mount", -1, "yes"),
                ("CAP_KILL", "kill", 0, "no"),
            ] {
                let line = check(pod, capability, syscall, ret, audit);
                yaml.take(&line).expect("an event");
                json.take(&line).expect("an event");
            }
        }
        let expected = "\
# shop: Deployment/web, container app, 2 pods
securityContext:
  capabilities:
    drop: [ALL]
    add:
    - CHOWN # chown, fchownat
# it has no SYS_ADMIN, and asked for it: mount

";
        assert_eq!(yaml.advise().expect("advice").text, expected);
        let object: Value = serde_json::from_str(&json.advise().expect("advice").text).expect("JSON");
        assert_eq!(object["used"], json!({"CHOWN": ["chown", "fchownat"]}));
        assert_eq!(object["pods"], json!(["web-1", "web-2"]));
    }

    #[test]
    fn names_cannot_break_out_of_their_line() {
        let mut found = Capabilities::new(false);
        found.take(&check("web-1", "CAP_KILL\nadd: ALL", "kill\n", 0, "yes")).expect("an event");
        let text = found.advise().expect("advice").text;
        assert!(text.contains("    - KILL\\nadd: ALL # kill\\n\n"), "{text}");
        assert!(found.take(b"{\"pod\": 1}").is_err());
    }
}
