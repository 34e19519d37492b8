//! Programs whose stacks wait for names: whose turn it is.
//!
//! Files may be made to take long. So it is the turn of those in the container for which the least time was spent.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::lookup::{Frames, Search};
use super::process::{Process, RootId};
use super::{Named, ProgramId, Unnamed, beginning};

/// Stacks that may be in it.
const MOST: usize = 256;
/// Containers of which it is known how long was spent.
const CONTAINERS: usize = 1024;
/// How often half of that is forgotten.
const HALVED: Duration = Duration::from_secs(30);

/// Stacks of one program, which are looked up together.
pub(super) struct Task {
    pub(super) program: ProgramId,
    container: Option<RootId>,
    stacks: Vec<Unnamed>,
    pub(super) search: Search,
}

impl Task {
    /// One for a process that was just looked at.
    pub(super) fn new(program: ProgramId, process: &Process, stacks: Vec<Unnamed>) -> Self {
        let search = Search::of(process, stacks.iter().map(|stack| stack.addresses.as_slice()));
        Self { program, container: process.mounts(), stacks, search }
    }

    /// Tells what was found. Whoever has asked may have ended.
    pub(super) fn answer(&self) {
        for (stack, Frames { mut frames, cut, problem }) in self.stacks.iter().zip(self.search.frames()) {
            let short = beginning::cut(&mut frames);
            let problem = problem.map(str::to_owned);
            let _ = stack.answer.send(Named { number: stack.number, frames, cut, short, problem });
        }
    }

    /// Says why there are no names.
    pub(super) fn refuse(&self, problem: &str) {
        refuse(&self.stacks, problem);
    }
}

/// Says why stacks have no names.
pub(super) fn refuse(stacks: &[Unnamed], problem: &str) {
    stacks.iter().for_each(|stack| _ = stack.answer.send(Named::nothing(stack.number, problem)));
}

/// What waits.
#[derive(Default)]
pub(super) struct Queue {
    tasks: VecDeque<Task>,
    spent: HashMap<RootId, Duration>,
    halved: Option<Instant>,
}

impl Queue {
    /// How many stacks have room.
    pub(super) fn room(&self) -> usize {
        MOST.saturating_sub(self.tasks.iter().map(|task| task.stacks.len()).sum())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Behind the others.
    pub(super) fn push(&mut self, task: Task) {
        self.tasks.push_back(task);
    }

    /// Takes out the next.
    pub(super) fn pop(&mut self) -> Option<Task> {
        let spent = |task: &Task| task.container.and_then(|container| self.spent.get(&container)).copied();
        let least = self.tasks.iter().enumerate().min_by_key(|(_, task)| spent(task)).map(|(at, _)| at);
        self.tasks.remove(least?)
    }

    /// Puts back one that was taken out, before the others of its container.
    pub(super) fn put_back(&mut self, task: Task) {
        self.tasks.push_front(task);
    }

    /// So much time was spent for one.
    pub(super) fn spend(&mut self, task: &Task, time: Duration) {
        if let Some(container) = task.container {
            if self.spent.len() >= CONTAINERS && !self.spent.contains_key(&container) {
                self.spent.clear();
            }
            *self.spent.entry(container).or_default() += time;
            if self.halved.get_or_insert_with(Instant::now).elapsed() >= HALVED {
                self.spent.values_mut().for_each(|spent| *spent /= 2);
                self.halved = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_turn_of_those_with_the_least_time() {
        let mut queue = Queue::default();
        let of = |pid, container| {
            let program = ProgramId { pid, started: 0, stack_end: 0, data_end: 0 };
            Task { program, container: Some((1, container)), stacks: Vec::new(), search: Search::nothing() }
        };
        for (pid, container) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
            queue.push(of(pid, container));
        }
        let first = queue.pop().expect("a task");
        queue.spend(&first, Duration::from_secs(10));
        queue.put_back(first);
        let mut next = || {
            let task = queue.pop()?;
            queue.spend(&task, Duration::from_millis(1));
            Some(task.program.pid)
        };
        assert_eq!([next(), next(), next(), next(), next()], [Some(3), Some(4), Some(1), Some(2), None]);
    }
}
