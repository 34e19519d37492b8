//! The names of a process's functions: what the reader is asked, and what is made of its answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gadgets::wire::StackFrame;

use super::child::Child;
use super::harm::{Harm, Harmful};
use super::message::{Question, Silence, Source};
use super::process::{Process, Spot};

/// Addresses in a file that the reader is asked about at once: it answers in time.
const IN_FILE: usize = 32;
/// The same for a list of what a process has made, which is read from its beginning each time.
const IN_LIST: usize = 2048;

/// Why functions have no names, said of their processes.
const REPLACED: &str = "a file that they run was removed or replaced since they began";
const UNREADABLE: &str = "a file that they run cannot be read as a program";
const DEAR: &str = "a file that they run takes too much memory or time to read";
const MADE: &str = "they run code that was made meanwhile, which no /tmp/perf-PID.map names";
const UNREAD: &str = "the agent could not start the process that reads files";
const NOWHERE: &str = "they ran code that is not there any more";

/// What is known of files, and who reads them: started when it is needed. Dropping it ends that.
#[derive(Default)]
pub(super) struct Lookup {
    reader: Option<Child>,
    harmful: Harmful,
}

/// What was found in a place: by address the functions; or why there are none.
type Found = Result<HashMap<u64, Vec<StackFrame>>, &'static str>;

impl Lookup {
    /// For each stack of addresses its frames, innermost first, and if none of them has a name, why, if that is known.
    pub(super) fn names(
        &mut self,
        process: &Process,
        stacks: &[&[u64]],
    ) -> Vec<(Vec<StackFrame>, Option<&'static str>)> {
        // All but the innermost are where a call will return to: the call is before that.
        let of_call = |(at, address): (usize, &u64)| if at == 0 { *address } else { address.saturating_sub(1) };
        let spots = |stack: &&[u64]| -> Vec<Spot> {
            stack.iter().enumerate().map(of_call).map(|address| process.spot(address)).collect()
        };
        let stacks: Vec<Vec<Spot>> = stacks.iter().map(spots).collect();
        let mut wanted: BTreeMap<&Source, BTreeSet<u64>> = BTreeMap::new();
        for spot in stacks.iter().flatten() {
            if let Some(source) = &spot.source {
                wanted.entry(source).or_default().insert(spot.address);
            }
        }
        let found = wanted.into_iter().map(|(source, addresses)| (source, self.find(process, source, addresses)));
        let found: HashMap<&Source, Found> = found.collect();
        stacks.iter().map(|spots| frames(spots, &found)).collect()
    }

    fn find(&mut self, process: &Process, source: &Source, addresses: BTreeSet<u64>) -> Found {
        let at_once = match source {
            Source::File { .. } => IN_FILE,
            Source::PerfMap { .. } => IN_LIST,
        };
        let addresses: Vec<u64> = addresses.into_iter().collect();
        let mut all = HashMap::new();
        for addresses in addresses.chunks(at_once) {
            let question = Question { source: source.clone(), addresses: addresses.to_vec(), lines: true };
            match self.ask(process, question) {
                Ok(names) => all.extend(addresses.iter().copied().zip(names)),
                Err(why) if all.is_empty() => return Err(why),
                // What was found stays.
                Err(_) => break,
            }
        }
        Ok(all)
    }

    /// Asks the reader; and again without lines if it did not survive that: most of what it needs memory for are these.
    fn ask(&mut self, process: &Process, mut question: Question) -> Result<Vec<Vec<StackFrame>>, &'static str> {
        let Some(root) = process.root_id(&question.source) else { return Err(UNREADABLE) };
        let known = self.harmful.known(root, &question.source);
        for (lines, harm) in [(true, Harm::Lines), (false, Harm::Names)] {
            if known >= Some(harm) {
                continue;
            }
            question.lines = lines;
            match self.reader()?.ask(process.root_of(&question.source), &question) {
                Ok(Ok(frames)) => return Ok(frames),
                Ok(Err(silence)) => {
                    tracing::debug!("{}: {silence:?}", question.source);
                    return Err(reason(&question.source, &silence));
                }
                Err(error) => {
                    tracing::warn!(
                        "the reader of symbols has ended with {} (lines: {lines}): {error}",
                        question.source
                    );
                    self.reader = None;
                    self.harmful.remember(root, &question.source, harm);
                }
            }
        }
        Err(DEAR)
    }

    fn reader(&mut self) -> Result<&mut Child, &'static str> {
        match &mut self.reader {
            Some(reader) => Ok(reader),
            none => {
                let started = Child::start()
                    .inspect_err(|error| tracing::warn!("the reader of symbols cannot be started: {error}"));
                Ok(none.insert(started.map_err(|_| UNREAD)?))
            }
        }
    }
}

fn reason(source: &Source, silence: &Silence) -> &'static str {
    match (source, silence) {
        (Source::PerfMap { .. }, Silence::Missing) => MADE,
        (Source::File { .. }, Silence::Missing) => REPLACED,
        (_, Silence::Unreadable(_)) => UNREADABLE,
    }
}

/// The frames of a stack, and if none has a name, why the innermost has none.
fn frames(spots: &[Spot], found: &HashMap<&Source, Found>) -> (Vec<StackFrame>, Option<&'static str>) {
    let mut frames = Vec::new();
    for spot in spots {
        let found = spot.source.as_ref().and_then(|source| found.get(source)?.as_ref().ok()?.get(&spot.address));
        frames.extend(spot.frames(found.cloned().unwrap_or_default()));
    }
    let is_named = frames.iter().any(|frame| frame.function.is_some());
    let innermost = spots.first().filter(|_| !is_named);
    let problem = innermost.and_then(|spot| match &spot.source {
        Some(source) => match (found.get(source)?, source) {
            (Err(why), _) => Some(*why),
            (Ok(_), Source::PerfMap { .. }) => Some(MADE),
            (Ok(_), Source::File { .. }) => None,
        },
        None => spot.is_nowhere().then_some(NOWHERE),
    });
    (frames, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source::File { path: "/app/hot".into(), device: "00:2d".into(), inode: 1 }
    }

    fn spot(source: Source, address: u64) -> Spot {
        Spot { source: Some(source), address, ..Spot::default() }
    }

    fn named(name: &str) -> Vec<StackFrame> {
        vec![StackFrame { function: Some(name.into()), ..StackFrame::default() }]
    }

    #[test]
    fn why_there_are_no_names_is_said_only_if_there_are_none() {
        let (file, made) = (source(), Source::PerfMap { pid: 1 });
        let found: HashMap<&Source, Found> =
            [(&file, Ok([(1, named("main"))].into())), (&made, Ok(HashMap::new()))].into();
        let spots = [spot(made.clone(), 7), spot(file.clone(), 1)];
        let (all, problem) = frames(&spots, &found);
        assert_eq!((all.len(), all[1].function.as_deref(), problem), (2, Some("main"), None));
        assert_eq!(frames(&spots[..1], &found).1, Some(MADE));
        // A program without names is nothing out of the ordinary.
        assert_eq!(frames(&[spot(file.clone(), 2)], &found).1, None);
        assert_eq!(frames(&[Spot::default()], &found).1, Some(NOWHERE));
        let found: HashMap<&Source, Found> = [(&file, Err(REPLACED))].into();
        assert_eq!(frames(&[spot(file.clone(), 1)], &found).1, Some(REPLACED));
    }
}
