//! Seccomp profiles for containers, from the system calls that they were seen to make: events with `architecture`, `seccomp`
//! and `syscall`.

mod base;
mod profile;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::container::{Container, Containers, Found, Whose};
use super::{Advice, Advisor, event};
pub(crate) use profile::Profile;
use profile::{Calls, Verdict, is_native};

/// What is to be said of them.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) form: Form,
    /// What else to let through.
    pub(crate) base: Option<Base>,
    /// Instead of new profiles: what this one would refuse.
    pub(crate) check: Option<Profile>,
    /// Where to write a file for each container.
    pub(crate) directory: Option<PathBuf>,
}

/// What profiles are written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// Profiles as runtimes take them, in JSON
    #[default]
    Profile,
    /// Objects of the Security Profiles Operator, in YAML
    Spo,
    /// An object a line, with whose profile it is
    Json,
}

#[derive(Clone, Debug)]
pub(crate) enum Base {
    /// What programs need to start.
    Start,
    /// What this profile lets through.
    Of(Profile),
}

/// By container, from its calls.
#[derive(Default)]
pub(crate) struct SeccompProfiles {
    options: Options,
    containers: Containers<Made>,
}

/// What a container did.
#[derive(Default)]
struct Made {
    calls: Calls,
    /// Its first program was seen to start.
    was_started: bool,
    /// Numbers of calls without a name.
    unnamed: BTreeSet<u64>,
}

/// An event.
#[derive(Deserialize)]
struct Call {
    #[serde(flatten)]
    whose: Whose,
    /// It is a runtime's own.
    #[serde(default)]
    setup: bool,
    architecture: String,
    syscall: Name,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Known(String),
    Unknown(u64),
}

impl Advisor for SeccompProfiles {
    fn take(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let Call { whose, setup, architecture, syscall } = event(line)?;
        let Some(made) = self.containers.of(whose) else { return Ok(()) };
        match syscall {
            Name::Known(name) => {
                made.was_started |= setup && matches!(&*name, "execve" | "execveat");
                made.calls.entry(architecture).or_default().insert(name);
            }
            Name::Unknown(number) => _ = made.unnamed.insert(number),
        }
        Ok(())
    }

    fn advise(&self) -> anyhow::Result<Advice> {
        match &self.options.check {
            Some(profile) => Ok(self.check(profile)),
            None => self.propose(),
        }
    }
}

impl SeccompProfiles {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    fn propose(&self) -> anyhow::Result<Advice> {
        let mut advice = Advice::default();
        let mut names = BTreeSet::new();
        for (container, found) in self.containers.iter() {
            let profile = Profile::of(&self.with_base(&found.what.calls));
            let whose = format!("{}{}", container.in_words(), found.in_pods());
            let mut name = container.as_name();
            while !names.insert((container.namespace.clone(), name.clone())) {
                name.push_str("-x");
            }
            let text = self.write(container, found, &name, &profile)?;
            match &self.options.directory {
                Some(directory) => {
                    let path = directory.join(self.file_name(container, &name));
                    write_file(&path, &text)?;
                    // Writing to a String cannot fail.
                    let _ = writeln!(advice.text, "{}: {whose}", path.display());
                }
                None => {
                    advice.text.push_str(&text);
                    if self.options.form == Form::Profile {
                        advice.remarks.push(format!("profile {}: {whose}", names.len()));
                    }
                }
            }
            if !found.what.was_started && self.options.base.is_none() {
                advice.remarks.push(format!(
                    "{whose}: it was running already, and what it needs to start was not seen: restart it while this \
                     watches, or give --base"
                ));
            }
            if !found.what.unnamed.is_empty() {
                let unnamed = &found.what.unnamed;
                advice.remarks.push(format!("{whose}: calls without a name, which no profile can have: {unnamed:?}"));
            }
        }
        Ok(advice)
    }

    /// What it was seen to do, what every runtime does under its filter, and what the user wants.
    fn with_base(&self, calls: &Calls) -> Calls {
        let mut calls = calls.clone();
        let start = base::START.iter().map(|name| (*name).to_owned());
        let base: BTreeSet<String> = match &self.options.base {
            None => BTreeSet::new(),
            Some(Base::Start) => start.collect(),
            Some(Base::Of(profile)) => profile.allowed(),
        };
        for (architecture, names) in &mut calls {
            names.extend(base.iter().cloned());
            if is_native(architecture) {
                names.extend(base::RUNTIME.iter().map(|name| (*name).to_owned()));
            }
        }
        calls
    }

    fn write(
        &self,
        container: &Container,
        found: &Found<Made>,
        name: &str,
        profile: &Profile,
    ) -> anyhow::Result<String> {
        let Container { namespace, owner, container: own } = container;
        Ok(match self.options.form {
            Form::Profile => serde_json::to_string_pretty(profile)? + "\n",
            Form::Json => {
                let whose = json!({"type": "seccomp-profile", "namespace": namespace, "owner": owner, "container": own,
                    "pods": found.pods, "profile": profile});
                format!("{whose}\n")
            }
            Form::Spo => {
                let object = json!({
                    "apiVersion": "security-profiles-operator.x-k8s.io/v1beta1",
                    "kind": "SeccompProfile",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": profile,
                });
                format!("---\n# {}{}\n{}", container.in_words(), found.in_pods(), serde_saphyr::to_string(&object)?)
            }
        })
    }

    fn file_name(&self, container: &Container, name: &str) -> String {
        let kind = if self.options.form == Form::Spo { "yaml" } else { "json" };
        let namespace = Container { container: container.namespace.clone(), ..Container::default() };
        match &container.namespace {
            Some(_) => format!("{}-{name}.{kind}", namespace.as_name()),
            None => format!("{name}.{kind}"),
        }
    }

    /// What a profile would refuse of what was seen.
    fn check(&self, profile: &Profile) -> Advice {
        let mut advice = Advice::default();
        for (container, found) in self.containers.iter() {
            let calls = found.what.calls.iter();
            let all = calls.flat_map(|(architecture, names)| names.iter().map(move |name| (architecture, name)));
            for (architecture, name) in all {
                let whose = format!("{}: {name} ({architecture})", container.in_words());
                match profile.verdict(architecture, name) {
                    Verdict::Allowed => {}
                    Verdict::Depends => advice.remarks.push(format!("{whose}: allowed or not by its arguments")),
                    Verdict::Refused(action) => {
                        advice.is_refused = true;
                        advice.text.push_str(&self.refusal(container, architecture, name, &action));
                    }
                }
            }
        }
        if !advice.is_refused && !self.containers.is_empty() {
            advice.remarks.push("the profile lets through all calls that were seen".into());
        }
        advice
    }

    fn refusal(&self, container: &Container, architecture: &str, name: &str, action: &str) -> String {
        if self.options.form == Form::Json {
            let Container { namespace, owner, container: own } = container;
            let refusal: Value = json!({"type": "refusal", "namespace": namespace, "owner": owner, "container": own,
                "architecture": architecture, "syscall": name, "action": action});
            return format!("{refusal}\n");
        }
        format!("{}: {name} would be refused ({action}, {architecture})\n", container.in_words())
    }
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
