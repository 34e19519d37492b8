//! Tools of others, from Debian.

use std::process::{Command, Stdio};

use anyhow::Result;
use tests::Package;

use super::Tool;

/// What Debian calls it, the suite, the program, its arguments, and what it prints once it begins, if it says so.
type Known = (&'static str, &'static str, &'static str, &'static [&'static str], Option<&'static str>);

/// Those that watch opens.
const OF_OPENS: [Known; 3] = [
    ("libbpf-tools", "bookworm", "usr/sbin/opensnoop", &[], None),
    ("libbpf-tools", "sid", "usr/sbin/opensnoop-libbpf", &[], None),
    ("bpftrace", "sid", "usr/bin/bpftrace", &["-e", OPENS], None),
];

/// One that looks at processors.
const OF_PROCESSORS: [Known; 1] = [("bpftrace", "sid", "usr/bin/bpftrace", &["-e", PROFILE], Some("begun"))];

/// What people write to watch opens.
const OPENS: &str = r#"
tracepoint:syscalls:sys_enter_open, tracepoint:syscalls:sys_enter_openat { @path[tid] = args.filename; }
tracepoint:syscalls:sys_exit_open, tracepoint:syscalls:sys_exit_openat /@path[tid]/
{ printf("%d %s %d %s\n", pid, comm, args.ret, str(@path[tid])); delete(@path, tid); }"#;

/// What people write to see where time goes, of the generator alone.
const PROFILE: &str = r#"
BEGIN { printf("begun\n"); }
profile:hz:49 /comm == "generator"/ { @[kstack, ustack, comm, pid] = count(); }"#;

/// Those that were fetched.
pub(crate) struct Rivals {
    of_opens: Vec<Rival>,
    of_processors: Vec<Rival>,
}

/// One of them.
struct Rival {
    /// With its version.
    name: String,
    package: Package,
    program: &'static str,
    args: &'static [&'static str],
    announces: Option<&'static str>,
}

impl Rivals {
    /// Fetches them, unless they are there.
    pub(crate) fn fetch() -> Self {
        let rival = |(name, suite, program, args, announces): Known| {
            let package = Package::fetch(suite, name);
            Rival { name: format!("{name} {}", short(&package.version)), package, program, args, announces }
        };
        Self { of_opens: OF_OPENS.map(rival).into(), of_processors: OF_PROCESSORS.map(rival).into() }
    }

    /// None at all.
    pub(crate) fn none() -> Self {
        Self { of_opens: Vec::new(), of_processors: Vec::new() }
    }

    /// Those that watch opens.
    pub(crate) fn of_opens(&self) -> impl Iterator<Item = &dyn Tool> {
        self.of_opens.iter().map(|rival| rival as &dyn Tool)
    }

    /// Those that look 49 times a second at what runs on processors.
    pub(crate) fn of_processors(&self) -> impl Iterator<Item = &dyn Tool> {
        self.of_processors.iter().map(|rival| rival as &dyn Tool)
    }
}

/// The first two numbers of a Debian version.
fn short(version: &str) -> String {
    version.split(|c: char| !c.is_ascii_digit()).take(2).collect::<Vec<_>>().join(".")
}

impl Tool for Rival {
    fn name(&self) -> String {
        self.name.clone()
    }

    /// With the loader and the libraries that it was built for.
    fn command(&self) -> Result<Command> {
        let mut command = self.package.command(self.program);
        // Paths that are longer than it usually shows.
        command.args(self.args).env("BPFTRACE_MAX_STRLEN", "200").stdin(Stdio::null());
        Ok(command)
    }

    fn announces(&self) -> Option<&'static str> {
        self.announces
    }

    /// "lost 5 events on CPU #0", "Lost 5 events".
    fn lost(&self, said: &str) -> Result<u64> {
        let counts = said.to_lowercase();
        let counts =
            counts.match_indices("lost ").filter_map(|(at, _)| counts[at + 5..].split(' ').next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }
}
