//! What the objects cannot say about themselves: one entry a gadget, one file an entry.

mod bindsnoop;
mod capabilities;
mod execsnoop;
mod flows;
mod opensnoop;
mod profile;
mod requirement;
mod snapshot_file;
mod snapshot_process;
mod snapshot_socket;
mod syscalls;
mod tcptop;
mod tcptracer;
mod traceloop;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::schema::{Schema, SchemaError};

pub use requirement::{
    ASSOCIATION_REQUESTS, CAPABILITY_TRACEPOINT, CHARGED_TO_CGROUPS, DEFERRED_DATAGRAMS, FREED_DATAGRAMS, KPROBES,
    OLDEST, PERF_EVENTS, READABLE_SOCKETS, REQUIREMENTS, Release, Requirement, SOCKET_HOOKS, SOCKET_STORAGE,
    SYSCALL_TRACEPOINTS, TICK_TRACEPOINT, TRACEPOINTS, TRAMPOLINES, TYPED_TRACEPOINTS, URING_TRACEPOINTS,
};

/// The gadgets of this version.
pub static CATALOGUE: Catalogue = Catalogue(&[
    &execsnoop::EXECSNOOP,
    &opensnoop::OPENSNOOP,
    &bindsnoop::BINDSNOOP,
    &capabilities::CAPABILITIES,
    &syscalls::SYSCALLS,
    &tcptracer::TCPTRACER,
    &tcptop::TCPTOP,
    &flows::FLOWS,
    &traceloop::TRACELOOP,
    &profile::PROFILE,
    &snapshot_process::SNAPSHOT_PROCESS,
    &snapshot_socket::SNAPSHOT_SOCKET,
    &snapshot_file::SNAPSHOT_FILE,
]);

/// Columns that every gadget has, before its own: where an event happened, and when.
pub static COMMON_COLUMNS: [(&str, &str); 5] = [
    ("node", "node, or host"),
    ("namespace", "namespace of the pod"),
    ("pod", "name of the pod"),
    ("container", "name of the container"),
    ("time", "time of day; in JSON date and time in UTC"),
];

/// Columns that every gadget has and no table shows unless it is asked to.
pub static EXTRA_COLUMNS: [(&str, &str); 2] =
    [("owner", "what the pod belongs to, as in Deployment/web"), ("labels", "labels of the pod")];

/// A set of gadgets. The agent and the client each work on one and know none by name.
#[derive(Clone, Copy, Debug)]
pub struct Catalogue(pub &'static [&'static Gadget]);

/// One gadget.
#[derive(Debug)]
pub struct Gadget {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// What it shows, in a line.
    pub summary: &'static str,
    /// What a user must know to read its output.
    pub description: &'static str,
    /// The ELF object, aligned to 8 bytes.
    pub object: fn() -> &'static [u8],
    /// What a user can set.
    pub parameters: &'static [Parameter],
    /// The columns of its own that are shown by default, in their order. Others can be asked for.
    pub columns: &'static [&'static str],
    /// What it shows, and when.
    pub shows: Shows,
    /// What it can say of all events together, at the end.
    pub report: Option<Report>,
    /// What it attaches to.
    pub hooks: &'static [Hook],
}

/// What a gadget shows, and when.
#[derive(Clone, Copy, Debug)]
pub enum Shows {
    /// Each event, when it happens.
    Events,
    /// Each thing when it happens for the first time: it remembers what it has shown, for each session anew.
    Once,
    /// What came in an interval.
    Sums(Sampled),
    /// Where time goes, by stacks: agents add it up, and what follows is shown at the end.
    Profile(Profiled),
    /// The last events, which it keeps in a recorder, at the end.
    Past,
    /// What there is, and that is the end.
    Present,
}

impl Shows {
    /// What is added up, if it shows sums.
    pub fn sums(&self) -> Option<Sampled> {
        if let Self::Sums(sampled) = self { Some(*sampled) } else { None }
    }

    /// What it shows of time, if it does.
    pub fn profile(&self) -> Option<Profiled> {
        if let Self::Profile(profiled) = self { Some(*profiled) } else { None }
    }

    /// Whether agents give something out at each interval.
    pub fn has_intervals(&self) -> bool {
        matches!(self, Self::Sums(_) | Self::Profile(_))
    }

    /// Whether it has a recorder.
    pub fn is_past(&self) -> bool {
        matches!(self, Self::Past)
    }

    /// Whether it ends by itself.
    pub fn is_present(&self) -> bool {
        matches!(self, Self::Present)
    }
}

/// What a gadget shows of each interval: sums.
#[derive(Clone, Copy, Debug)]
pub struct Sampled {
    /// The columns that are added up, the most important first. The others say of what.
    pub measures: &'static [&'static str],
}

/// What a gadget shows of time: sums of samples that are the same else. One of these is a time, and another a number of samples.
#[derive(Clone, Copy, Debug)]
pub struct Profiled {
    /// The columns that are added up.
    pub measures: &'static [&'static str],
    /// The parameter with which it is waiting that takes time.
    pub waiting: &'static str,
}

/// What follows from all events of a run: `advise NAME`, or `--summary`.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it says, in a line.
    pub doc: &'static str,
    /// What it is.
    pub form: ReportForm,
    /// Parameters that are set for it.
    pub parameters: &'static [&'static str],
    /// It needs to know of a runtime's own steps on the way into a container.
    pub machinery: bool,
}

/// The reports that there are. Each needs members of certain names in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportForm {
    /// Capabilities that containers need: `capability`, `syscall`, `ret` and `audit`.
    Capabilities,
    /// System calls that containers make: `architecture`, `seccomp` and `syscall`.
    SeccompProfile,
    /// Whom workloads talk to: `direction`, `protocol`, `local` and `peer`.
    NetworkPolicy,
}

/// Something that a user can set: a `const volatile` variable of the object.
#[derive(Debug)]
pub struct Parameter {
    /// The flag, without its dashes.
    pub name: &'static str,
    /// The variable in the object's `.rodata`.
    pub constant: &'static str,
    /// What values it takes.
    pub kind: ParameterKind,
    /// What it does, in a line.
    pub doc: &'static str,
    /// The column that it fills, which is shown if it is set.
    pub column: Option<&'static str>,
    /// If it is set, the gadget shows everything once.
    pub once: bool,
    /// The hook that is attached only if it is set.
    pub hook: Option<&'static str>,
    /// The hook that is attached only if it is not.
    pub instead_of: Option<&'static str>,
    /// The parameter that makes no sense beside it.
    pub excludes: Option<&'static str>,
}

/// What values a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// `false` (the default) or `true`.
    Flag,
    /// A whole number.
    Number {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// If nothing is said.
        default: u64,
    },
}

/// Something in the kernel that a gadget attaches to, in the ways it can.
#[derive(Debug)]
pub struct Hook {
    /// Its name.
    pub name: &'static str,
    /// What is missing where it cannot be had. `None` if the gadget cannot run without it.
    pub without: Option<&'static str>,
    /// The ways, best first. The agent takes the first that loads and attaches.
    pub variants: &'static [Variant],
}

/// One way to attach to a hook.
#[derive(Debug)]
pub struct Variant {
    /// Its name.
    pub name: &'static str,
    /// The programs of the object that make it up.
    pub programs: &'static [&'static str],
    /// What the kernel must be able to do.
    pub requires: &'static [&'static Requirement],
    /// Who pays for it, in words.
    pub cost: &'static str,
    /// What its results lack beside those of a better one, in words; `None` if nothing.
    pub lacks: Option<&'static str>,
}

/// A value that a parameter does not take, or a parameter that does not exist.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParameterError {
    /// The gadget has none of this name.
    #[error("{gadget} has no parameter {name:?}; it has: {known}")]
    Unknown {
        /// The gadget.
        gadget: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The value is none of those that it takes.
    #[error("{name}: {value:?} is not {expected}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it takes.
        expected: String,
    },
}

impl Catalogue {
    /// The gadget of this name or alias.
    pub fn get(&self, name: &str) -> Option<&'static Gadget> {
        self.0.iter().copied().find(|gadget| gadget.name == name || gadget.aliases.contains(&name))
    }
}

impl Gadget {
    /// What its records look like.
    ///
    /// # Errors
    /// If its object does not follow `gadget.h`: a fault of the build.
    pub fn schema(&self) -> Result<Schema, SchemaError> {
        Schema::from_object((self.object)())
    }

    /// Whether each session begins anew, with these values of its constants: nothing of it can be shared.
    pub fn begins_anew(&self, constants: &BTreeMap<&'static str, u64>) -> bool {
        matches!(self.shows, Shows::Once | Shows::Past | Shows::Present)
            || self.parameters.iter().any(|parameter| parameter.once && parameter.is_set(constants))
    }

    /// Whether a hook of it is of use with these values of its constants.
    pub fn uses(&self, hook: &Hook, constants: &BTreeMap<&str, u64>) -> bool {
        self.parameters.iter().all(|parameter| {
            let is_set = parameter.is_set(constants);
            !(parameter.hook == Some(hook.name) && !is_set || parameter.instead_of == Some(hook.name) && is_set)
        })
    }

    /// The values of all parameters as numbers, given some of them as text. By the name of the constant.
    ///
    /// # Errors
    /// If one is unknown or has a value that it does not take.
    pub fn constants(&self, given: &BTreeMap<String, String>) -> Result<BTreeMap<&'static str, u64>, ParameterError> {
        if let Some(name) = given.keys().find(|name| self.parameters.iter().all(|known| known.name != name.as_str())) {
            let known: Vec<_> = self.parameters.iter().map(|parameter| parameter.name).collect();
            return Err(ParameterError::Unknown { gadget: self.name, name: name.clone(), known: known.join(", ") });
        }
        self.parameters
            .iter()
            .map(|parameter| Ok((parameter.constant, parameter.value(given.get(parameter.name).map(String::as_str))?)))
            .collect()
    }
}

impl Hook {
    /// The variant of this name.
    pub fn variant(&self, name: &str) -> Option<&'static Variant> {
        self.variants.iter().find(|variant| variant.name == name)
    }
}

impl Parameter {
    /// One that is `false` unless it is given.
    pub const fn flag(name: &'static str, constant: &'static str, doc: &'static str) -> Self {
        Self::new(name, constant, ParameterKind::Flag, doc)
    }

    /// One that takes these values.
    pub const fn new(name: &'static str, constant: &'static str, kind: ParameterKind, doc: &'static str) -> Self {
        Self { name, constant, kind, doc, column: None, once: false, hook: None, instead_of: None, excludes: None }
    }

    /// Whether these values have it set.
    fn is_set(&self, constants: &BTreeMap<&str, u64>) -> bool {
        constants.get(self.constant).is_some_and(|value| *value != 0)
    }

    /// The same, filling a column.
    #[must_use]
    pub const fn with_column(self, column: &'static str) -> Self {
        Self { column: Some(column), ..self }
    }

    /// The same, with which everything is shown once.
    #[must_use]
    pub const fn for_once(self) -> Self {
        Self { once: true, ..self }
    }

    /// The same, without which a hook is left alone.
    #[must_use]
    pub const fn with_hook(self, hook: &'static str) -> Self {
        Self { hook: Some(hook), ..self }
    }

    /// The same, with which a hook is left alone.
    #[must_use]
    pub const fn instead_of(self, hook: &'static str) -> Self {
        Self { instead_of: Some(hook), ..self }
    }

    /// The same, beside which another parameter makes no sense.
    #[must_use]
    pub const fn excluding(self, parameter: &'static str) -> Self {
        Self { excludes: Some(parameter), ..self }
    }

    /// The value as a number, given its text or nothing.
    ///
    /// # Errors
    /// If it is none of those that the parameter takes.
    pub fn value(&self, text: Option<&str>) -> Result<u64, ParameterError> {
        let wrong = |expected: String| ParameterError::Value {
            name: self.name,
            value: text.unwrap_or_default().to_owned(),
            expected,
        };
        match (self.kind, text) {
            (ParameterKind::Flag, None | Some("false")) => Ok(0),
            (ParameterKind::Flag, Some("true")) => Ok(1),
            (ParameterKind::Flag, Some(_)) => Err(wrong("true or false".into())),
            (ParameterKind::Number { default, .. }, None) => Ok(default),
            (ParameterKind::Number { min, max, .. }, Some(number)) => number
                .parse()
                .ok()
                .filter(|value| (min..=max).contains(value))
                .ok_or_else(|| wrong(format!("a number from {min} to {max}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::Btf;

    /// Entries and objects belong together; nothing else would notice a name that is wrong on one side.
    #[test]
    fn entries_match_their_objects() {
        for gadget in CATALOGUE.0 {
            let btf = Btf::from_object((gadget.object)()).expect("BTF");
            let rodata = btf.section(".rodata");
            for parameter in gadget.parameters {
                assert!(rodata.iter().any(|variable| variable.name == parameter.constant), "{}", parameter.constant);
            }
            let schema = gadget.schema().expect("a schema");
            for column in gadget.columns {
                assert!(schema.fields().any(|field| field.name == *column), "{}: {column}", gadget.name);
            }
            for name in gadget.report.iter().flat_map(|report| report.parameters) {
                assert!(gadget.parameters.iter().any(|parameter| parameter.name == *name), "{}: {name}", gadget.name);
            }
            let sums = gadget.shows.sums().map(|sampled| sampled.measures);
            for measure in sums.or(gadget.shows.profile().map(|profiled| profiled.measures)).into_iter().flatten() {
                assert!(schema.fields().any(|field| field.name == *measure), "{}: {measure}", gadget.name);
            }
            let others = gadget.parameters.iter().filter_map(|parameter| parameter.excludes);
            for name in others.chain(gadget.shows.profile().map(|profiled| profiled.waiting)) {
                assert!(gadget.parameters.iter().any(|parameter| parameter.name == name), "{}: {name}", gadget.name);
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = CATALOGUE
            .0
            .iter()
            .flat_map(|gadget| [gadget.name].into_iter().chain(gadget.aliases.iter().copied()))
            .collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn parameters_take_what_they_say() {
        let gadget = CATALOGUE.get("execsnoop").expect("execsnoop");
        let with = |name: &str, value: &str| gadget.constants(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert_eq!(with("failed", "true").expect("a flag")["failed_only"], 1);
        assert_eq!(gadget.constants(&BTreeMap::new()).expect("defaults")["failed_only"], 0);
        assert!(matches!(with("failed", "maybe"), Err(ParameterError::Value { .. })));
        assert!(matches!(with("args-bytes", "99999999"), Err(ParameterError::Value { .. })));
        assert!(matches!(with("colour", "red"), Err(ParameterError::Unknown { .. })));
    }
}
