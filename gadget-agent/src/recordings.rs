//! What is recorded for whoever asks: it belongs to the agent, and goes on when the session that began it has ended. An agent that is
//! started in the place of another goes on with its recordings, without what they had.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use gadgets::spec::{Past, RunSpec, Selector};
use gadgets::wire::{Gap, Recording, RecordingsRequest, is_recording_id};
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::clock;
use crate::error::AgentError;
use crate::instance::{Kept, Owner};
use crate::request::Request;
use crate::sync::lock;

/// All recordings of this agent.
#[derive(Default)]
pub(crate) struct Recordings {
    by_id: Mutex<BTreeMap<String, Entry>>,
    /// Where those are written down that the next agent is to go on with; nowhere, if this one serves one session.
    file: Option<PathBuf>,
}

/// What is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Begun {
    run: RunSpec,
    /// When the first agent began, ns since 1970.
    began_wall_ns: u64,
}

impl Begun {
    /// From its beginning until now, for this reason.
    fn gap(&self, reason: &str) -> Gap {
        let now = clock::now();
        let from_ns = now.boot_ns.saturating_sub(now.wall_ns.saturating_sub(self.began_wall_ns));
        Gap { from_ns, to_ns: now.boot_ns, reason: reason.to_owned() }
    }
}

struct Entry {
    begun: Begun,
    /// Or why it does not go on.
    running: Result<(Request, Kept), String>,
}

impl Recordings {
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { by_id: Mutex::default(), file }
    }

    /// Goes on with what another agent has begun.
    pub(crate) fn resume(&self, agent: &Agent) {
        let Some(file) = &self.file else { return };
        let begun: BTreeMap<String, Begun> = match fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!("{} does not say what was recorded: {error}", file.display());
                BTreeMap::new()
            }),
            Err(_) => return,
        };
        let mut by_id = self.lock();
        for (id, begun) in begun {
            let gap = begun.gap("the agent was started again: what it had recorded is lost");
            let running = start(agent, &id, &begun.run, vec![gap]).map_err(|error| error.to_string());
            if let Err(error) = &running {
                tracing::warn!("recording {id} does not go on: {error}");
            }
            by_id.insert(id, Entry { begun, running });
        }
    }

    /// Does what a client wants, and says what there is then.
    ///
    /// # Errors
    /// If it makes no sense, or cannot be recorded.
    pub(crate) fn answer(&self, agent: &Agent, request: RecordingsRequest) -> Result<Vec<Recording>, AgentError> {
        match request {
            RecordingsRequest::List => {}
            RecordingsRequest::Start { id, run } => self.start(agent, id, *run)?,
            RecordingsRequest::Stop { id } => {
                let mut by_id = self.lock();
                by_id.remove(&id);
                self.write_down(&by_id)?;
            }
        }
        let by_id = self.lock();
        by_id.iter().map(|(id, entry)| entry.describe(id)).collect()
    }

    fn start(&self, agent: &Agent, id: String, run: RunSpec) -> Result<(), AgentError> {
        if self.file.is_none() {
            return Err(AgentError::Usage(
                "this agent serves one session and ends: there is nothing to start in it".into(),
            ));
        }
        if !is_recording_id(&id) {
            let message = format!("a recording cannot be called {id:?}: 1 to 63 small letters, digits and dashes");
            return Err(AgentError::Usage(message));
        }
        let mut by_id = self.lock();
        if by_id.contains_key(&id) {
            return Err(AgentError::Usage(format!(
                "there is a recording {id} already: stop it, or choose another name"
            )));
        }
        let running = Ok(start(agent, &id, &run, Vec::new())?);
        let begun = Begun { run, began_wall_ns: clock::now().wall_ns };
        by_id.insert(id, Entry { begun, running });
        self.write_down(&by_id)
    }

    /// What somebody wants who asks for a recording.
    ///
    /// # Errors
    /// If there is none of this id.
    pub(crate) fn request(&self, agent: &Agent, past: &Past, run: RunSpec) -> Result<Request, AgentError> {
        let by_id = self.lock();
        let entry = by_id.get(&past.id).ok_or_else(|| {
            AgentError::NotFound(format!("there is no recording {:?}: see kubectl gadget traceloop list", past.id))
        })?;
        let (request, _) = entry.running.as_ref().map_err(|why| AgentError::Unsupported(why.clone()))?;
        let is_for_all = run.selector == Selector::default();
        request.with_selector(agent, if is_for_all { request.selector.clone() } else { run.selector })
    }

    /// For the next agent. What cannot be written down is recorded nevertheless.
    fn write_down(&self, by_id: &BTreeMap<String, Entry>) -> Result<(), AgentError> {
        let Some(file) = &self.file else { return Ok(()) };
        let begun: BTreeMap<&String, &Begun> = by_id.iter().map(|(id, entry)| (id, &entry.begun)).collect();
        let new = file.with_extension("new");
        let written =
            serde_json::to_vec(&begun).map_err(std::io::Error::other).and_then(|bytes| fs::write(&new, bytes));
        written.and_then(|()| fs::rename(&new, file)).map_err(|error| {
            let doing = format!("write down what is recorded, in {}", file.display());
            AgentError::internal(&doing, error)
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        lock(&self.by_id)
    }
}

impl Entry {
    fn describe(&self, id: &str) -> Result<Recording, AgentError> {
        let (known, bytes) = match &self.running {
            Ok((request, kept)) => (kept.describe()?, request.key.ring_bytes),
            Err(why) => (Recording { gaps: vec![self.begun.gap(why)], ..Recording::default() }, 0),
        };
        Ok(Recording {
            id: id.to_owned(),
            gadget: self.begun.run.gadget.clone(),
            parameters: self.begun.run.parameters.clone(),
            selector: self.begun.run.selector.clone(),
            began_wall_ns: self.begun.began_wall_ns,
            bytes: bytes.into(),
            ..known
        })
    }
}

/// Begins to record, after such gaps.
fn start(agent: &Agent, id: &str, run: &RunSpec, gaps: Vec<Gap>) -> Result<(Request, Kept), AgentError> {
    let mut request = Request::of(agent, run.clone())?;
    if !request.gadget.shows.is_past() {
        return Err(AgentError::Usage(format!("{} shows what happens, and records nothing", request.gadget.name)));
    }
    request.key.owner = Owner::Recording(id.to_owned());
    let kept = agent.instances.keep(request.gadget, &request.key, request.selector.clone(), gaps)?;
    Ok((request, kept))
}
