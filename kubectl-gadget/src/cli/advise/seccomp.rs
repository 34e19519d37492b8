//! Flags of `advise seccomp-profile`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueHint};

use crate::advise::seccomp::{Base, Form, Options, Profile};

#[derive(Args)]
#[command(next_help_heading = "What is said")]
pub(super) struct SeccompArgs {
    /// What profiles are written as
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Form,
    /// Let through what programs need to start, too; with a FILE, what that profile lets through
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, value_hint = ValueHint::FilePath)]
    base: Option<Option<PathBuf>>,
    /// Write a file for each container into this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// Instead of new profiles: show what this one would have refused (then the exit code is 4)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["base", "dir"], value_hint = ValueHint::FilePath)]
    check: Option<PathBuf>,
}

impl SeccompArgs {
    pub(super) fn options(self) -> anyhow::Result<Options> {
        let base = match self.base {
            None => None,
            Some(None) => Some(Base::Start),
            Some(Some(path)) => Some(Base::Of(read(&path)?)),
        };
        let check = self.check.as_deref().map(read).transpose()?;
        Ok(Options { form: self.output, base, check, directory: self.dir })
    }
}

fn read(path: &Path) -> anyhow::Result<Profile> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Profile::parse(&text).with_context(|| path.display().to_string())
}
