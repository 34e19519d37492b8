//! Tools of others, from Debian; `tests/bench/fetch` gets them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::Tool;

/// What they are, what `fetch` calls them, the program, and its arguments.
const RIVALS: [(&str, &str, &str, &[&str]); 3] = [
    ("libbpf-tools", "libbpf-tools-bookworm", "usr/sbin/opensnoop", &[]),
    ("libbpf-tools", "libbpf-tools-sid", "usr/sbin/opensnoop-libbpf", &[]),
    ("bpftrace", "bpftrace-sid", "usr/bin/bpftrace", &["-e", ONE_LINER]),
];

/// What people write to watch opens.
const ONE_LINER: &str = r#"
tracepoint:syscalls:sys_enter_open, tracepoint:syscalls:sys_enter_openat { @path[tid] = args.filename; }
tracepoint:syscalls:sys_exit_open, tracepoint:syscalls:sys_exit_openat /@path[tid]/
{ printf("%d %s %d %s\n", pid, comm, args.ret, str(@path[tid])); delete(@path, tid); }"#;

/// Those that were fetched.
pub(crate) struct Rivals(Vec<Rival>);

/// One of them.
struct Rival {
    /// With its version.
    name: String,
    root: PathBuf,
    program: &'static str,
    args: &'static [&'static str],
}

impl Rivals {
    /// Fetches them, unless they are there.
    pub(crate) fn fetch() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/fetch");
        let output = Command::new(script).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "cannot fetch the tools to compare with: {}", output.status);
        let lines = String::from_utf8(output.stdout)?;
        let rival = |(name, folder, program, args)| {
            let mut found =
                lines.lines().map(|line| line.splitn(3, ' ')).filter(|words| words.clone().next() == Some(folder));
            let mut words = found.next().with_context(|| format!("{folder} was not fetched"))?.skip(1);
            let (version, root) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            Ok(Rival { name: format!("{name} {}", short(version)), root: root.into(), program, args })
        };
        RIVALS.into_iter().map(rival).collect::<Result<_>>().map(Self)
    }

    /// None at all.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &dyn Tool> {
        self.0.iter().map(|rival| rival as &dyn Tool)
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

    /// "lost 5 events on CPU #0", "Lost 5 events".
    fn lost(&self, said: &str) -> Result<u64> {
        let counts = said.to_lowercase();
        let counts =
            counts.match_indices("lost ").filter_map(|(at, _)| counts[at + 5..].split(' ').next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }
}
