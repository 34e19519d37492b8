//! Names for the stacks of programs.
//!
//! Which file of a process an address lies in the agent looks up itself. What the file says is read by a process of its own, without rights
//! and with little memory: anybody can have made the file.
//!
//! - [`process`]: what is mapped where in a process, and the root that its paths begin at
//! - [`beginning`]: where stacks end
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
pub(crate) mod reader;

use std::collections::BTreeMap;
use std::iter;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::time::Duration;

use gadgets::wire::StackFrame;

use crate::error::AgentError;
use lookup::Lookup;
use process::Process;

/// Stacks that may wait for their names.
const WAITING: usize = 4096;
/// Of these, how many are looked up together: what they share is looked up once.
const TOGETHER: usize = 256;
/// The reader ends, and what did it harm is forgotten, if there is nothing to read for so long.
const IDLE: Duration = Duration::from_secs(30);

/// A stack whose frames have no names yet.
pub(crate) struct Unnamed {
    pub(crate) number: u64,
    /// Whose it is.
    pub(crate) pid: u32,
    /// Innermost first.
    pub(crate) addresses: Vec<u64>,
    /// Who wants to know.
    pub(crate) answer: Sender<Named>,
}

/// What is known of a stack.
pub(crate) struct Named {
    pub(crate) number: u64,
    /// Innermost first; what the compiler has put into another function has a frame of its own.
    pub(crate) frames: Vec<StackFrame>,
    /// They end before where their thread began.
    pub(crate) short: bool,
    /// Why they have no names.
    pub(crate) problem: Option<String>,
}

impl Named {
    /// A stack without names, and why.
    pub(crate) fn nothing(number: u64, problem: impl Into<String>) -> Self {
        Self { number, frames: vec![StackFrame::default()], short: false, problem: Some(problem.into()) }
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
    let mut lookup = Lookup::default();
    loop {
        match inbox.recv_timeout(IDLE) {
            Ok(first) => {
                let mut by_process: BTreeMap<u32, Vec<Unnamed>> = BTreeMap::new();
                for stack in iter::once(first).chain(inbox.try_iter()).take(TOGETHER) {
                    by_process.entry(stack.pid).or_default().push(stack);
                }
                // All are looked at before the first file is read: they may end meanwhile.
                let processes: Vec<_> =
                    by_process.into_iter().map(|(pid, stacks)| (Process::look_at(pid), stacks)).collect();
                processes.into_iter().for_each(|(process, stacks)| answer(&mut lookup, process, &stacks));
            }
            Err(RecvTimeoutError::Timeout) => lookup = Lookup::default(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Names stacks of one process.
fn answer(lookup: &mut Lookup, process: Result<Process, String>, stacks: &[Unnamed]) {
    let named: Vec<Named> = match process {
        Ok(process) => {
            let addresses: Vec<&[u64]> = stacks.iter().map(|stack| stack.addresses.as_slice()).collect();
            let found = lookup.names(&process, &addresses);
            let named = |(stack, (mut frames, problem)): (&Unnamed, (Vec<StackFrame>, Option<&str>))| {
                let short = beginning::cut(&mut frames);
                Named { number: stack.number, frames, short, problem: problem.map(str::to_owned) }
            };
            stacks.iter().zip(found).map(named).collect()
        }
        Err(problem) => stacks.iter().map(|stack| Named::nothing(stack.number, problem.clone())).collect(),
    };
    // Whoever has asked may have ended.
    stacks.iter().zip(named).for_each(|(stack, named)| _ = stack.answer.send(named));
}
