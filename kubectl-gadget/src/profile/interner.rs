//! Things that come again and again, kept once, under small numbers.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Keeps each thing once.
#[derive(Debug)]
pub(super) struct Interner<T> {
    numbers: HashMap<Arc<T>, u32>,
    things: Vec<Arc<T>>,
    most: usize,
}

impl<T: Eq + Hash> Interner<T> {
    /// With room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self { numbers: HashMap::new(), things: Vec::new(), most }
    }

    /// The number of a thing. `None` if there is no room for another.
    pub(super) fn number(&mut self, thing: T) -> Option<u32> {
        if let Some(number) = self.numbers.get(&thing) {
            return Some(*number);
        }
        let number = u32::try_from(self.things.len()).ok().filter(|_| self.things.len() < self.most)?;
        let thing = Arc::new(thing);
        self.things.push(Arc::clone(&thing));
        self.numbers.insert(thing, number);
        Some(number)
    }

    /// What has a number.
    pub(super) fn thing(&self, number: u32) -> Option<&T> {
        self.things.get(usize::try_from(number).ok()?).map(AsRef::as_ref)
    }

    /// All there are, in the order of their numbers.
    pub(super) fn things(&self) -> impl ExactSizeIterator<Item = &T> {
        self.things.iter().map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_kept_once_and_no_more_than_there_is_room_for() {
        let mut words = Interner::new(2);
        assert_eq!([words.number("a"), words.number("b"), words.number("a")], [Some(0), Some(1), Some(0)]);
        assert_eq!((words.number("c"), words.thing(1), words.thing(2)), (None, Some(&"b"), None));
        assert_eq!(words.things().count(), 2);
    }
}
