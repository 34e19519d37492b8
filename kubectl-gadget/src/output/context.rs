//! What the records of a node's stream need to be understood: filled by the frames before them.

use std::collections::HashMap;

use gadgets::record::Record;
use gadgets::schema::{Schema, Stream};
use gadgets::wire::{CgroupEntry, Clock, Dictionary, Hello, Node};

/// What is known of a node's stream.
pub(super) struct Context {
    pub(super) node: Node,
    pub(super) clock: Clock,
    pub(super) schema: Option<Schema>,
    cgroups: HashMap<u64, CgroupEntry>,
    nobody: CgroupEntry,
}

impl Context {
    /// Before the stream begins, only the node's name is known.
    pub(super) fn new(name: String) -> Self {
        Self {
            node: Node { name, ..Node::default() },
            clock: Clock::default(),
            schema: None,
            cgroups: HashMap::new(),
            nobody: CgroupEntry::default(),
        }
    }

    /// The stream begins (anew).
    pub(super) fn begin(&mut self, hello: Hello) {
        if let Some(node) = hello.node {
            self.clock = node.clock;
            self.node = node;
        }
        self.cgroups.clear();
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
