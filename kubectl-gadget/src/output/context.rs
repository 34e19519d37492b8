//! What the records of a node's stream need to be understood: filled by the frames before them.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use gadgets::call::Signature;
use gadgets::capture::CALLS;
use gadgets::record::Record;
use gadgets::schema::{Schema, Stream};
use gadgets::wire::{
    CgroupEntry, Clock, Dictionary, Heartbeat, Hello, Loss, Node, StackEntry, StackFrame, Stage, UserStackEntry,
};

use super::now;
use crate::peers::{Identity, Peers};

/// Stacks of programs that are known at once, and frames of them; of more there is nothing to show.
const STACKS: usize = 1 << 20;

/// What is known of a node's stream.
pub(super) struct Context {
    pub(super) node: Node,
    pub(super) clock: Clock,
    /// Everything before this has come, in ns since 1970.
    pub(super) complete_to: u64,
    pub(super) schema: Option<Schema>,
    cgroups: HashMap<u64, Owner>,
    stacks: HashMap<u64, StackEntry>,
    user_stacks: HashMap<u64, UserStackEntry>,
    /// What these consist of.
    frames: HashMap<u64, StackFrame>,
    /// By their numbers.
    signatures: HashMap<u32, Signature>,
    nobody: Owner,
    peers: Option<Peers>,
}

/// Who records are of.
#[derive(Default)]
pub(super) struct Owner {
    pub(super) entry: CgroupEntry,
    /// How the JSON of each of its records begins, once there was one.
    pub(super) json: OnceCell<Vec<u8>>,
}

impl From<CgroupEntry> for Owner {
    fn from(entry: CgroupEntry) -> Self {
        Self { entry, json: OnceCell::new() }
    }
}

impl Context {
    /// Before the stream begins, only the node's name is known; that of a host is not.
    pub(super) fn new(name: String, peers: Option<Peers>) -> Self {
        Self {
            node: Node { name, ..Node::default() },
            clock: Clock::default(),
            complete_to: 0,
            schema: None,
            cgroups: HashMap::new(),
            stacks: HashMap::new(),
            user_stacks: HashMap::new(),
            frames: HashMap::new(),
            signatures: HashMap::new(),
            nobody: Owner::default(),
            peers,
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
        self.forget_stacks();
        self.signatures.clear();
        self.nobody = Owner::default();
    }

    fn forget_stacks(&mut self) {
        self.stacks.clear();
        self.user_stacks.clear();
        self.frames.clear();
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
        self.cgroups.extend(dictionary.cgroups.into_iter().map(|entry| (entry.cgroup, entry.into())));
        if dictionary.stacks_anew {
            self.forget_stacks();
        }
        self.stacks.extend(dictionary.stacks.into_iter().map(|stack| (stack.number, stack)));
        let room = STACKS.saturating_sub(self.frames.len());
        self.frames.extend(dictionary.frames.into_iter().take(room).map(|entry| (entry.id, entry.frame)));
        let room = STACKS.saturating_sub(self.user_stacks.len());
        let user_stacks = dictionary.user_stacks.into_iter().take(room);
        self.user_stacks.extend(user_stacks.map(|stack| (stack.number, stack)));
        let signatures = dictionary.syscalls.into_iter().filter(|call| call.number < CALLS).filter_map(Signature::new);
        self.signatures.extend(signatures.map(|signature| (signature.number(), signature)));
    }

    /// A loss that is noticed on this side, since the last sign of life.
    pub(super) fn loss(&self, stage: Stage, reason: &str, count: u64) -> Loss {
        let from_ns = self.clock.boot_ns;
        let to_ns = from_ns + now().saturating_sub(self.clock.wall_ns);
        Loss { stage, reason: reason.to_owned(), namespace: None, pod: None, from_ns, to_ns, count }
    }

    /// What a record is of.
    pub(super) fn stream(&self, record: &Record<'_>) -> Option<&Stream> {
        self.schema.as_ref()?.stream(record.header.stream)
    }

    /// Who has an address, if that is wanted and known.
    pub(super) fn who_is(&self, address: IpAddr) -> Option<Arc<Identity>> {
        self.peers.as_ref()?.who_is(address)
    }

    /// A stack of the kernel, if anything is known of it.
    pub(super) fn stack(&self, number: u64) -> Option<&StackEntry> {
        self.stacks.get(&number).filter(|stack| !stack.frames.is_empty())
    }

    /// A program's stack, if it is known.
    pub(super) fn user_stack(&self, number: u64) -> Option<&UserStackEntry> {
        self.user_stacks.get(&number)
    }

    /// The frames of a program's stack, innermost first. Of one that the agent has not told of nothing is known.
    pub(super) fn frames(&self, stack: &UserStackEntry) -> impl ExactSizeIterator<Item = &StackFrame> {
        static UNKNOWN: StackFrame = StackFrame {
            function: None,
            module: None,
            offset: None,
            file: None,
            line: None,
            inlined: false,
            jit: false,
        };
        stack.frames.iter().map(|id| self.frames.get(id).unwrap_or(&UNKNOWN))
    }

    /// What a system call is given, if that is known.
    pub(super) fn signature(&self, number: i32) -> Option<&Signature> {
        self.signatures.get(&u32::try_from(number).ok()?)
    }

    /// Who a cgroup belongs to.
    pub(super) fn owner(&self, id: u64) -> &Owner {
        self.cgroups.get(&id).unwrap_or(&self.nobody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_forgotten_when_the_agent_begins_anew() {
        let mut context = Context::new(String::new(), None);
        let stack = |number| UserStackEntry { number, ..UserStackEntry::default() };
        let cgroups = vec![CgroupEntry { cgroup: 1, pod: Some("web".into()), ..CgroupEntry::default() }];
        context.learn(Dictionary { cgroups, user_stacks: vec![stack(7)], ..Dictionary::default() });
        context.learn(Dictionary { user_stacks: vec![stack(8)], ..Dictionary::default() });
        assert!(context.user_stack(7).is_some() && context.user_stack(8).is_some());
        context.learn(Dictionary { stacks_anew: true, user_stacks: vec![stack(9)], ..Dictionary::default() });
        assert!(context.user_stack(7).is_none() && context.user_stack(9).is_some());
        assert!(context.cgroups.contains_key(&1));
    }
}
