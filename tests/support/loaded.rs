//! What is loaded into the kernel, and whose turn it is to load.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{PATIENCE, wait_for};

/// What is loaded into the kernel, by bpftool's account.
#[derive(Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Kind, id and name of each.
    pub objects: BTreeSet<String>,
}

impl Loaded {
    /// As of now, once nothing changes any more: the kernel frees objects a moment after their last user is gone, and
    /// libbpf tries out features with objects of its own.
    pub fn now() -> Self {
        let mut before = Self::list();
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = Self::list();
            if now == before {
                return now;
            }
            before = now;
        }
    }

    fn list() -> Self {
        let objects = ["prog", "map", "link"].iter().flat_map(|kind| {
            let output = Command::new("bpftool").args(["-j", kind, "list"]).output().unwrap();
            let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let ids = list.as_array().cloned().unwrap_or_default();
            ids.into_iter().map(move |object| format!("{kind} {} {}", object["id"], object["name"]))
        });
        Self { objects: objects.collect() }
    }

    /// How many loaded programs have this name.
    pub fn programs_named(name: &str) -> usize {
        let output = Command::new("bpftool").args(["-j", "prog", "list"]).output().unwrap();
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list.as_array().unwrap().iter().filter(|program| program["name"] == name).count()
    }

    /// Waits until nothing is loaded but what was by then, or what of it is left: the kernel may have been about to free some.
    pub fn wait_for(&self, when: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let more: Vec<_> = Self::list().objects.difference(&self.objects).cloned().collect();
            if more.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still loaded {when}: {more:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

static LOADING: RwLock<()> = RwLock::new(());

/// For tests that load programs.
pub fn loads_programs() -> RwLockReadGuard<'static, ()> {
    LOADING.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// For tests that compare what is loaded: nobody else loads meanwhile.
pub fn compares_loaded() -> RwLockWriteGuard<'static, ()> {
    let guard = LOADING.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    // An agent whose client a test has just ended is a moment behind.
    wait_for("earlier agents to end", || Loaded::programs_named("cgroup_made") == 0);
    guard
}
