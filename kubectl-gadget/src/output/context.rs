//! What the records of a node's stream need to be understood: filled by the frames before them.

use std::collections::HashMap;

use gadgets::record::Record;
use gadgets::schema::{Schema, Stream};
use gadgets::wire::{CgroupEntry, Clock, Dictionary, Heartbeat, Hello, Node};

/// What is known of a node's stream.
pub(super) struct Context {
    pub(super) node: Node,
    pub(super) clock: Clock,
    /// Everything before this has come, in ns since 1970.
    pub(super) complete_to: u64,
    pub(super) schema: Option<Schema>,
    cgroups: HashMap<u64, CgroupEntry>,
    nobody: CgroupEntry,
}

impl Context {
    /// Before the stream begins, only the node's name is known; that of a host is not.
    pub(super) fn new(name: String) -> Self {
        Self {
            node: Node { name, ..Node::default() },
            clock: Clock::default(),
            complete_to: 0,
            schema: None,
            cgroups: HashMap::new(),
            nobody: CgroupEntry::default(),
        }
    }

    /// The stream begins (anew).
    pub(super) fn begin(&mut self, hello: Hello) {
        if let Some(node) = hello.node {
            self.clock = node.clock;
            self.complete_to = node.clock.wall_ns;
            // The cluster's word on which node it is counts more than the agent's.
            let known = std::mem::take(&mut self.node.name);
            let name = if known.is_empty() { node.name } else { known };
            self.node = Node { name, ..node };
        }
        self.cgroups.clear();
    }

    /// A sign of life.
    pub(super) fn hear(&mut self, heartbeat: Heartbeat) {
        self.clock = heartbeat.clock.unwrap_or(self.clock);
        if let Some(boot_ns) = heartbeat.complete_to_ns {
            self.complete_to = self.clock.wall(boot_ns);
        }
    }

    /// Takes in names, and forgets those that nobody needs any more.
    pub(super) fn learn(&mut self, dictionary: Dictionary) {
        dictionary.gone.iter().for_each(|id| _ = self.cgroups.remove(id));
        self.cgroups.extend(dictionary.cgroups.into_iter().map(|entry| (entry.cgroup, entry)));
    }

    /// What a record is of.
    pub(super) fn stream(&self, record: &Record<'_>) -> Option<&Stream> {
        self.schema.as_ref()?.stream(record.header.stream)
    }

    /// Who a cgroup belongs to.
    pub(super) fn cgroup(&self, id: u64) -> &CgroupEntry {
        self.cgroups.get(&id).unwrap_or(&self.nobody)
    }
}
