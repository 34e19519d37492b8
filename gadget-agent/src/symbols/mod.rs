//! Names for the stacks of programs.
//!
//! Which file of a process an address lies in the agent looks up itself. What the file says is read by a process of its own, without rights
//! and with little memory: anybody can have made the file.
//!
//! - [`process`]: what is mapped where in a process, and the root that its paths begin at; [`programs`]: those that were looked at
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
mod programs;
pub(crate) mod reader;

use std::collections::BTreeMap;
use std::iter;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use gadgets::wire::StackFrame;

use crate::error::AgentError;
use lookup::Lookup;
use process::Process;
use programs::Programs;

/// Stacks that may wait for their names.
const WAITING: usize = 4096;
/// Of these, how many are looked up together: what they share is looked up once.
const TOGETHER: usize = 256;
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
    let (mut lookup, mut programs) = (Lookup::default(), Programs::default());
    let mut asked = Instant::now();
    loop {
        match inbox.recv_timeout(if programs.is_empty() { IDLE } else { programs::KEPT }) {
            Ok(first) => {
                asked = Instant::now();
                let mut by_program: BTreeMap<ProgramId, Vec<Unnamed>> = BTreeMap::new();
                for stack in iter::once(first).chain(inbox.try_iter()).take(TOGETHER) {
                    by_program.entry(stack.program).or_default().push(stack);
                }
                // All are looked at before the first file is read: they may end meanwhile.
                for (program, stacks) in &by_program {
                    programs.look_at(*program, stacks.iter().flat_map(|stack| stack.addresses.iter().copied()));
                }
                // Those that are asked about in what still waits were looked at a while ago.
                if by_program.values().map(Vec::len).sum::<usize>() < TOGETHER {
                    programs.forget_ended();
                }
                for (program, stacks) in by_program {
                    answer(&mut lookup, programs.get(program), &stacks);
                }
            }
            Err(RecvTimeoutError::Timeout) if asked.elapsed() < IDLE => programs.forget_ended(),
            Err(RecvTimeoutError::Timeout) => (lookup, programs) = (Lookup::default(), Programs::default()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Names stacks of one program.
fn answer(lookup: &mut Lookup, process: Result<&Process, &str>, stacks: &[Unnamed]) {
    let named: Vec<Named> = match process {
        Ok(process) => {
            let addresses: Vec<&[u64]> = stacks.iter().map(|stack| stack.addresses.as_slice()).collect();
            let found = lookup.names(process, &addresses);
            let named = |(stack, (mut frames, problem)): (&Unnamed, (Vec<StackFrame>, Option<&str>))| {
                let short = beginning::cut(&mut frames);
                Named { number: stack.number, frames, short, problem: problem.map(str::to_owned) }
            };
            stacks.iter().zip(found).map(named).collect()
        }
        Err(problem) => stacks.iter().map(|stack| Named::nothing(stack.number, problem)).collect(),
    };
    // Whoever has asked may have ended.
    stacks.iter().zip(named).for_each(|(stack, named)| _ = stack.answer.send(named));
}
