//! Names for the stacks of programs.
//!
//! Which file of a process an address lies in the agent looks up itself. What the file says is read by a process of its own, without rights
//! and with little memory: anybody can have made the file.
//!
//! - [`process`]: what is mapped where in a process, and the root that its paths begin at
//! - [`beginning`]: where stacks end
//! - [`child`]: the reader, as the agent sees it; [`reader`]: what it does itself; [`message`]: what they say to each other
//!
//! All of it is away from the threads that read rings: whoever has a stack asks, and gets the answer when there is one.

mod beginning;
mod child;
mod message;
mod process;
pub(crate) mod reader;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::time::Duration;

use gadgets::wire::StackFrame;

use crate::error::AgentError;
use child::Child;
use message::{Question, Source};
use process::{Process, Spot};

/// Stacks that may wait for their names.
const WAITING: usize = 4096;
/// The reader ends if there is nothing to read for so long.
const IDLE: Duration = Duration::from_secs(30);
/// Files that have ended the reader which are remembered.
const HARMFUL: usize = 1024;
/// Addresses that it is asked about at once.
const AT_ONCE: usize = 32;

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
        let work = move || Namer::default().run(&inbox);
        let thread = std::thread::Builder::new().name("symbols".into()).spawn(work);
        thread.map_err(|error| AgentError::internal("start a thread", error))?;
        Ok(Self(sender))
    }

    /// Asks for names. Returns whether there will be an answer.
    pub(crate) fn ask(&self, stack: Unnamed) -> bool {
        self.0.try_send(stack).is_ok()
    }
}

/// What of a file ends the reader, and is not asked for again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Harm {
    Lines,
    Names,
}

#[derive(Default)]
struct Namer {
    child: Option<Child>,
    harmful: HashMap<Source, Harm>,
    /// Processes that were looked at since the last time that there was nothing to do.
    processes: HashMap<u32, Result<Process, String>>,
}

impl Namer {
    fn run(&mut self, inbox: &Receiver<Unnamed>) {
        loop {
            let stack = match inbox.try_recv() {
                Ok(stack) => stack,
                Err(_) => {
                    // What they have mapped changes.
                    self.processes.clear();
                    match inbox.recv_timeout(IDLE) {
                        Ok(stack) => stack,
                        Err(RecvTimeoutError::Timeout) => {
                            self.child = None;
                            continue;
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            };
            let Unnamed { number, pid, addresses, answer } = stack;
            let named = match self.name(pid, &addresses) {
                Ok(mut frames) => {
                    let short = beginning::cut(&mut frames);
                    Named { number, frames, short, problem: None }
                }
                Err(problem) => Named::nothing(number, problem),
            };
            // Whoever has asked may have ended.
            let _ = answer.send(named);
        }
    }

    fn name(&mut self, pid: u32, addresses: &[u64]) -> Result<Vec<StackFrame>, String> {
        let Self { child, harmful, processes } = self;
        let process = processes.entry(pid).or_insert_with(|| Process::look_at(pid)).as_ref().map_err(Clone::clone)?;
        // All but the innermost are where a call will return to: the call is before that.
        let of_call = |(at, address): (usize, &u64)| if at == 0 { *address } else { address.saturating_sub(1) };
        let spots: Vec<Spot> = addresses.iter().enumerate().map(of_call).map(|address| process.spot(address)).collect();
        let mut by_source: BTreeMap<&Source, Vec<usize>> = BTreeMap::new();
        for (at, spot) in spots.iter().enumerate() {
            if let Some(source) = &spot.source {
                by_source.entry(source).or_default().push(at);
            }
        }
        let mut names: Vec<Vec<StackFrame>> = vec![Vec::new(); spots.len()];
        for (source, places) in by_source {
            for places in places.chunks(AT_ONCE) {
                let addresses = places.iter().map(|at| spots[*at].address).collect();
                let found = ask(child, harmful, process, Question { source: source.clone(), addresses, lines: true });
                places.iter().zip(found).for_each(|(at, found)| names[*at] = found);
            }
        }
        Ok(spots.iter().zip(names).flat_map(|(spot, names)| spot.frames(names)).collect())
    }
}

/// Asks the reader; and again without lines if it did not survive that: most of what it needs memory for are these.
fn ask(
    child: &mut Option<Child>,
    harmful: &mut HashMap<Source, Harm>,
    process: &Process,
    mut question: Question,
) -> Vec<Vec<StackFrame>> {
    let known = harmful.get(&question.source).copied();
    for (lines, harm) in [(true, Harm::Lines), (false, Harm::Names)] {
        if known == Some(Harm::Names) || known == Some(harm) {
            continue;
        }
        question.lines = lines;
        match ask_once(child, process, &question) {
            Ok(Ok(frames)) => return frames,
            Ok(Err(why)) => {
                tracing::debug!("{}: {why}", question.source);
                return Vec::new();
            }
            Err(error) => {
                tracing::warn!("the reader of symbols has ended with {} (lines: {lines}): {error}", question.source);
                *child = None;
                if harmful.len() >= HARMFUL {
                    harmful.clear();
                }
                harmful.insert(question.source.clone(), harm);
            }
        }
    }
    Vec::new()
}

fn ask_once(child: &mut Option<Child>, process: &Process, question: &Question) -> io::Result<message::Answer> {
    let child = match child {
        Some(child) => child,
        none => none.insert(Child::start()?),
    };
    child.ask(process.root_of(&question.source), question)
}
