//! What the agent says of itself when it is asked.

use gadgets::wire::Status;

use crate::agent::Agent;
use crate::programs;

/// The status of an agent now.
pub(crate) fn status(agent: &Agent) -> Status {
    let (containers, pods) = agent.tracker.count();
    // First, so that they are not there twice: finding out how a gadget attaches loads it.
    let (programs, programs_error) = match programs::list() {
        Ok(programs) => (programs, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    Status {
        pods: pods.map(|count| count as u64),
        containers: containers as u64,
        gadgets: agent.catalogue.0.iter().map(|gadget| agent.instances.try_out(gadget)).collect(),
        running: agent.instances.running(),
        programs,
        programs_error,
    }
}
