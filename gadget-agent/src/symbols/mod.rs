//! Names for the stacks of programs.
//!
//! Which file of a process an address lies in the agent looks up itself. What the file says is read by a process of its own, without rights
//! and with little memory: anybody can have made the file.
//!
//! - [`process`]: what is mapped where in a process, and the root that its paths begin at; [`programs`]: those that were looked at
//! - [`beginning`]: where stacks end
//! - [`queue`]: whose turn it is
//! - [`lookup`]: what the reader is asked about a process, and what is made of it; [`harm`]: what it is not asked any more
//! - [`child`]: the reader, as the agent sees it; [`reader`]: what it does itself; [`message`]: what they say to each other
//!
//! All of it is away from the threads that read rings: whoever has a stack asks, and gets the answer when there is one.

mod beginning;
mod child;
mod harm;
mod lookup;
mod message;
mod process;
mod programs;
mod queue;
pub(crate) mod reader;

use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use gadgets::wire::StackFrame;

use crate::error::AgentError;
use lookup::Lookup;
use programs::Programs;
use queue::{Queue, Task};

/// Stacks that may wait for their names.
const WAITING: usize = 4096;
/// The reader ends, and what did it harm is forgotten, if there is nothing to read for so long.
const IDLE: Duration = Duration::from_secs(30);

/// What a process is from one exec to the next: `struct gadget_program` of `stack.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProgramId {
    pub(crate) pid: u32,
    /// When the process has, CLOCK_BOOTTIME, ns.
    pub(crate) started: u64,
    pub(crate) stack_end: u64,
    pub(crate) data_end: u64,
}

/// A stack whose frames have no names yet.
pub(crate) struct Unnamed {
    pub(crate) number: u64,
    pub(crate) program: ProgramId,
    /// Innermost first.
    pub(crate) addresses: Vec<u64>,
    /// Who wants to know.
    pub(crate) answer: Sender<Named>,
}

/// What is known of a stack.
pub(crate) struct Named {
    pub(crate) number: u64,
    /// Innermost first; what the compiler has put into another function has a frame of its own.
    pub(crate) frames: Vec<Arc<StackFrame>>,
    /// There were more.
    pub(crate) cut: bool,
    /// They end before where their thread began.
    pub(crate) short: bool,
    /// Why they have no names.
    pub(crate) problem: Option<String>,
}

impl Named {
    /// A stack without names, and why.
    pub(crate) fn nothing(number: u64, problem: impl Into<String>) -> Self {
        Self { number, frames: vec![Arc::default()], cut: false, short: false, problem: Some(problem.into()) }
    }
}

/// The thread that finds names, for all gadgets that run.
#[derive(Clone)]
pub(crate) struct Symbols(SyncSender<Unnamed>);

impl Symbols {
    /// Starts it. The reader is started when it is needed.
    ///
    /// # Errors
    /// If there can be no other thread.
    pub(crate) fn start() -> Result<Self, AgentError> {
        let (sender, inbox) = sync_channel(WAITING);
        let work = move || run(&inbox);
        let thread = std::thread::Builder::new().name("symbols".into()).spawn(work);
        thread.map_err(|error| AgentError::internal("start a thread", error))?;
        Ok(Self(sender))
    }

    /// Asks for names. Returns whether there will be an answer.
    pub(crate) fn ask(&self, stack: Unnamed) -> bool {
        self.0.try_send(stack).is_ok()
    }
}

/// Names what comes, until nobody can ask any more.
fn run(inbox: &Receiver<Unnamed>) {
    let (mut lookup, mut programs, mut queue) = (Lookup::default(), Programs::default(), Queue::default());
    let mut asked = Instant::now();
    loop {
        let rest = match (queue.is_empty(), programs.is_empty()) {
            (false, _) => Duration::ZERO,
            (true, false) => programs::KEPT,
            (true, true) => IDLE,
        };
        if queue.room() > 0 {
            match inbox.recv_timeout(rest) {
                Ok(first) => {
                    asked = Instant::now();
                    let all = iter::once(first).chain(inbox.try_iter()).take(queue.room());
                    take_in(all, &mut programs, &mut queue);
                }
                Err(RecvTimeoutError::Timeout) if queue.is_empty() && asked.elapsed() >= IDLE => {
                    (lookup, programs, queue) = Default::default();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        if let Some(task) = queue.pop() {
            go_on(task, &mut lookup, &programs, &mut queue);
        }
        // Those that are asked about in what still waits were looked at a while ago.
        if queue.is_empty() {
            programs.forget_ended();
        }
    }
}

/// Looks at the programs whose stacks have come, at all before the next file is read: they may end meanwhile.
fn take_in(stacks: impl Iterator<Item = Unnamed>, programs: &mut Programs, queue: &mut Queue) {
    let mut by_program: BTreeMap<ProgramId, Vec<Unnamed>> = BTreeMap::new();
    stacks.for_each(|stack| by_program.entry(stack.program).or_default().push(stack));
    for (program, stacks) in by_program {
        programs.look_at(program, stacks.iter().flat_map(|stack| stack.addresses.iter().copied()));
        match programs.get(program) {
            Ok(process) => queue.push(Task::new(program, process, stacks)),
            Err(problem) => queue::refuse(&stacks, problem),
        }
    }
}

/// Looks up some of what a task needs. It is answered, or put back.
fn go_on(mut task: Task, lookup: &mut Lookup, programs: &Programs, queue: &mut Queue) {
    let begin = Instant::now();
    match programs.get(task.program) {
        Ok(process) => task.search.go_on(lookup, process),
        Err(problem) => return task.refuse(problem),
    }
    queue.spend(&task, begin.elapsed());
    if task.search.is_over() {
        task.answer();
    } else {
        queue.put_back(task);
    }
}
