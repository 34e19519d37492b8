//! Tools of others, from Debian; `tests/bench/fetch` gets them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::Tool;

/// What it is, what `fetch` calls it, the program, its arguments, and what it prints once it begins, if it says so.
type Known = (&'static str, &'static str, &'static str, &'static [&'static str], Option<&'static str>);

/// Those that watch opens.
const OF_OPENS: [Known; 3] = [
    ("libbpf-tools", "libbpf-tools-bookworm", "usr/sbin/opensnoop", &[], None),
    ("libbpf-tools", "libbpf-tools-sid", "usr/sbin/opensnoop-libbpf", &[], None),
    ("bpftrace", "bpftrace-sid", "usr/bin/bpftrace", &["-e", OPENS], None),
];

/// One that looks at processors.
const OF_PROCESSORS: [Known; 1] = [("bpftrace", "bpftrace-sid", "usr/bin/bpftrace", &["-e", PROFILE], Some("begun"))];

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
    root: PathBuf,
    program: &'static str,
    args: &'static [&'static str],
    announces: Option<&'static str>,
}

impl Rivals {
    /// Fetches them, unless they are there.
    pub(crate) fn fetch() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/fetch");
        let output = Command::new(script).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "cannot fetch the tools to compare with: {}", output.status);
        let lines = String::from_utf8(output.stdout)?;
        let rival = |(name, folder, program, args, announces): Known| {
            let mut found =
                lines.lines().map(|line| line.splitn(3, ' ')).filter(|words| words.clone().next() == Some(folder));
            let mut words = found.next().with_context(|| format!("{folder} was not fetched"))?.skip(1);
            let (version, root) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            Ok(Rival { name: format!("{name} {}", short(version)), root: root.into(), program, args, announces })
        };
        let of_opens = OF_OPENS.into_iter().map(rival).collect::<Result<_>>()?;
        Ok(Self { of_opens, of_processors: OF_PROCESSORS.into_iter().map(rival).collect::<Result<_>>()? })
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
        let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = self.root.join("usr/lib").join(triple);
        let is_loader = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("ld-linux")
        };
        let files = libraries.read_dir().with_context(|| libraries.display().to_string())?;
        let loader = files.flatten().map(|entry| entry.path()).find(is_loader).context("no loader")?;
        let mut command = Command::new(loader);
        command.arg("--library-path").arg(&libraries).arg(self.root.join(self.program)).args(self.args);
        // Paths that are longer than it usually shows.
        command.env("BPFTRACE_MAX_STRLEN", "200").stdin(Stdio::null());
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
