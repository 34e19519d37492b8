//! What every row works with.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::cgroup::Cgroup;
use crate::tools::Rivals;

/// The places of a run, which end with it, and its size.
pub(crate) struct Stage {
    /// All cgroups of the run are in it.
    pub(crate) root: Cgroup,
    /// What tools watch, if they watch the load.
    pub(crate) watched: Cgroup,
    /// What they watch otherwise, or what runs beside it.
    pub(crate) other: Cgroup,
    /// For files.
    pub(crate) folder: PathBuf,
    /// Tools of others, if they were fetched.
    pub(crate) rivals: Rivals,
    /// How often everything is measured, in turns.
    pub(crate) rounds: usize,
    /// How many tools there were.
    tools: Cell<u32>,
    /// Only to see that it works.
    pub(crate) quick: bool,
}

impl Stage {
    /// Sets it.
    pub(crate) fn set(rounds: usize, quick: bool) -> Result<Self> {
        end_in_order()?;
        mount_tracefs().context("this needs root: BPF programs and cgroups")?;
        let root = Cgroup::root()?;
        root.remove_on_panic();
        let folder = std::env::temp_dir().join(root.path().trim_start_matches('/'));
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let rivals = if quick { Rivals::none() } else { Rivals::fetch() };
        let (watched, other) = (root.child("watched")?, root.child("other")?);
        Ok(Self { root, watched, other, folder, rivals, rounds, tools: Cell::new(0), quick })
    }

    /// A cgroup for a tool.
    pub(crate) fn tool_cgroup(&self) -> Result<Cgroup> {
        ensure!(!IS_INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        let number = self.tools.get();
        self.tools.set(number + 1);
        self.root.child(&format!("tool-{number}"))
    }

    /// A number of events, or few of them if that is enough.
    pub(crate) fn events(&self, count: u64) -> u64 {
        if self.quick { count / 20 } else { count }
    }
}

/// Where tools look for tracepoints. In a mount namespace of the bench's own: nobody else sees it, and it goes with it.
fn mount_tracefs() -> Result<()> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tracefs"), "/sys/kernel/tracing", Some("tracefs"), MsFlags::empty(), none)?;
    // Older tools know it in this place alone.
    mount(Some("debugfs"), "/sys/kernel/debug", Some("debugfs"), MsFlags::empty(), none)?;
    Ok(())
}

static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: i32) {
    IS_INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Has Ctrl-C end the run by an error, before the next tool at the latest. (Tools that run have it from the terminal, too.)
fn end_in_order() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores a flag.
        unsafe { sigaction(signal, &action)? };
    }
    Ok(())
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
