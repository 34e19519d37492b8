//! What has ended the reader: it is not asked for that again.

use std::collections::HashMap;

use super::message::Source;
use super::process::RootId;

/// Files below one root that may do harm before nothing below it is read that way any more: each takes time which others wait for, and
/// whoever can write files can write any number.
const MOST_OF_ROOT: usize = 8;
/// Roots that are remembered.
const ROOTS: usize = 1024;

/// What the reader does not survive being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Harm {
    /// Names with the lines of the source.
    Lines,
    /// Names.
    Names,
}

/// By root, and where there.
#[derive(Default)]
pub(super) struct Harmful(HashMap<RootId, HashMap<Source, Harm>>);

impl Harmful {
    pub(super) fn remember(&mut self, root: RootId, source: &Source, harm: Harm) {
        if self.0.len() >= ROOTS && !self.0.contains_key(&root) {
            self.0.clear();
        }
        self.0.entry(root).or_default().insert(source.clone(), harm);
    }

    /// What is not to be asked for.
    pub(super) fn known(&self, root: RootId, source: &Source) -> Option<Harm> {
        let of_root = self.0.get(&root)?;
        let is_too_often = |harm: &Harm| of_root.values().filter(|other| *other >= harm).count() >= MOST_OF_ROOT;
        let of_all = [Harm::Names, Harm::Lines].into_iter().find(is_too_often);
        of_root.get(source).copied().max(of_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: usize) -> Source {
        Source::File { path: format!("/app/{number}"), device: "00:2d".into(), inode: number as u64 }
    }

    #[test]
    fn harm_is_that_of_a_file_and_of_its_root() {
        let (mine, others) = ((1, 1), (1, 2));
        let mut harmful = Harmful::default();
        harmful.remember(mine, &Source::PerfMap { pid: 1 }, Harm::Names);
        assert_eq!(harmful.known(mine, &Source::PerfMap { pid: 1 }), Some(Harm::Names));
        // Each container has a process that calls itself 1.
        assert_eq!(harmful.known(others, &Source::PerfMap { pid: 1 }), None);
        assert_eq!(harmful.known(mine, &file(0)), None);
    }

    #[test]
    fn a_root_with_much_that_does_harm_is_left_alone() {
        let mine = (1, 1);
        let mut harmful = Harmful::default();
        (1..MOST_OF_ROOT).for_each(|number| harmful.remember(mine, &file(number), Harm::Lines));
        assert_eq!((harmful.known(mine, &file(0)), harmful.known(mine, &file(1))), (None, Some(Harm::Lines)));
        harmful.remember(mine, &file(MOST_OF_ROOT), Harm::Names);
        assert_eq!(harmful.known(mine, &file(0)), Some(Harm::Lines));
        assert_eq!(harmful.known(mine, &file(MOST_OF_ROOT)), Some(Harm::Names));
        (1..MOST_OF_ROOT).for_each(|number| harmful.remember(mine, &file(number), Harm::Names));
        assert_eq!((harmful.known(mine, &file(0)), harmful.known((1, 2), &file(0))), (Some(Harm::Names), None));
    }
}
