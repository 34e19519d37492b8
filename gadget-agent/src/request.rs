//! What a client asks to run, checked.

use std::sync::Arc;

use gadgets::catalogue::Gadget;
use gadgets::spec::{
    Host, INTERVAL_MS_DEFAULT, INTERVAL_MS_MAX, INTERVAL_MS_MIN, RING_BYTES_MAX, RING_BYTES_MIN, RunSpec, Selector,
};
use gadgets::tasks::MAX_VALUES;

use crate::agent::Agent;
use crate::calls;
use crate::error::AgentError;
use crate::instance::{Key, Owner};
use crate::pods::tracker::Tracker;
use crate::sizes;

/// A run that makes sense. Cgroups that it names are followed as long as it exists.
pub(crate) struct Request {
    pub(crate) gadget: &'static Gadget,
    pub(crate) key: Key,
    pub(crate) selector: Selector,
    _followed: Followed,
}

impl Request {
    /// Checks a run.
    ///
    /// # Errors
    /// If it makes no sense here.
    pub(crate) fn of(agent: &Agent, run: RunSpec) -> Result<Self, AgentError> {
        let gadget = agent.catalogue.get(&run.gadget).ok_or_else(|| {
            let known: Vec<_> = agent.catalogue.0.iter().map(|gadget| gadget.name).collect();
            AgentError::NotFound(format!("this agent has no gadget {:?}; it has: {}", run.gadget, known.join(", ")))
        })?;
        let ring_bytes = run.limits.ring_bytes.unwrap_or_else(|| sizes::buffer(gadget));
        if !ring_bytes.is_power_of_two() || !(RING_BYTES_MIN..=RING_BYTES_MAX).contains(&ring_bytes) {
            return Err(AgentError::Usage(format!(
                "a ring of {ring_bytes} bytes: it must be a power of two from {RING_BYTES_MIN} to {RING_BYTES_MAX}"
            )));
        }
        let interval_ms = interval_ms(gadget, run.interval_ms)?;
        let constants = gadget.constants(&run.parameters)?;
        if run.tasks.value_count() > MAX_VALUES {
            return Err(AgentError::Usage(format!(
                "{} processes, users and names: at most {MAX_VALUES} together",
                run.tasks.value_count()
            )));
        }
        if !run.calls.is_any() && !gadget.shows.is_past() {
            return Err(AgentError::Usage(format!("{} records no system calls, and has no list of them", gadget.name)));
        }
        let (tasks, calls, variants) = (run.tasks, calls::numbers(&run.calls)?, run.variants);
        let owner = Owner::Everybody;
        let key = Key { gadget: gadget.name, constants, tasks, calls, variants, ring_bytes, interval_ms, owner };
        let (selector, followed) = followed(agent, run.selector)?;
        Ok(Self { gadget, key, selector, _followed: followed })
    }

    /// The same instance, for somebody else.
    ///
    /// # Errors
    /// If a cgroup that is named is not there.
    pub(crate) fn with_selector(&self, agent: &Agent, selector: Selector) -> Result<Self, AgentError> {
        let (selector, followed) = followed(agent, selector)?;
        Ok(Self { gadget: self.gadget, key: self.key.clone(), selector, _followed: followed })
    }
}

/// Cgroups that are followed because somebody has named them.
struct Followed {
    tracker: Arc<Tracker>,
    paths: Vec<String>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.paths.iter().for_each(|path| self.tracker.unfollow(path));
    }
}

/// Follows what a selector names.
fn followed(agent: &Agent, mut selector: Selector) -> Result<(Selector, Followed), AgentError> {
    // A node that shares its kernel with others is not all that the kernel runs.
    if selector.host != Host::None && !agent.tracker.owns_kernel() {
        selector.cgroups = vec![agent.tracker.root().to_owned()];
        if selector.host == Host::All {
            selector.host = Host::None;
        }
    }
    let mut followed = Followed { tracker: Arc::clone(&agent.tracker), paths: Vec::new() };
    for path in &mut selector.cgroups {
        *path = agent.tracker.follow(path)?;
        followed.paths.push(path.clone());
    }
    Ok((selector, followed))
}

/// How often a gadget is sampled; 0 if it never is.
fn interval_ms(gadget: &Gadget, wanted: Option<u32>) -> Result<u32, AgentError> {
    let given = INTERVAL_MS_MIN..=INTERVAL_MS_MAX;
    match (gadget.shows.has_intervals(), wanted) {
        (false, None) => Ok(0),
        (false, Some(_)) => Err(AgentError::Usage(format!("{} is not sampled, and has no interval", gadget.name))),
        (true, None) => Ok(INTERVAL_MS_DEFAULT),
        (true, Some(wanted)) if given.contains(&wanted) => Ok(wanted),
        (true, Some(wanted)) => Err(AgentError::Usage(format!(
            "an interval of {wanted} ms: it must be from {INTERVAL_MS_MIN} to {INTERVAL_MS_MAX}"
        ))),
    }
}
