//! What was learned lately.

use std::collections::HashMap;

/// By number. It is forgotten by halves: what nobody asked for between two times.
pub(super) struct Recent<T> {
    latest: HashMap<u64, Learned<T>>,
    former: HashMap<u64, Learned<T>>,
    /// Bytes that the latest take.
    size: usize,
}

struct Learned<T> {
    what: T,
    size: usize,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { latest: HashMap::new(), former: HashMap::new(), size: 0 }
    }
}

impl<T> Recent<T> {
    /// What has this number, if that was not forgotten.
    pub(super) fn get(&mut self, number: u64) -> Option<&T> {
        if let Some(former) = self.former.remove(&number) {
            self.insert(number, former.what, former.size);
        }
        self.latest.get(&number).map(|learned| &learned.what)
    }

    /// Whether it was not forgotten.
    pub(super) fn has(&self, number: u64) -> bool {
        self.latest.contains_key(&number) || self.former.contains_key(&number)
    }

    /// Learns something that takes so many bytes.
    pub(super) fn insert(&mut self, number: u64, what: T, size: usize) {
        self.former.remove(&number);
        self.size += size;
        if let Some(before) = self.latest.insert(number, Learned { what, size }) {
            self.size -= before.size;
        }
    }

    /// What was learned, or asked for, since something was last forgotten.
    pub(super) fn latest(&self) -> impl Iterator<Item = (u64, &T)> {
        self.latest.iter().map(|(number, learned)| (*number, &learned.what))
    }

    /// How many these are.
    pub(super) fn count(&self) -> usize {
        self.latest.len()
    }

    /// Bytes that these take.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Forgets what nobody has asked for since it was called before. Returns the numbers.
    pub(super) fn forget_former(&mut self) -> impl Iterator<Item = u64> {
        self.size = 0;
        std::mem::replace(&mut self.former, std::mem::take(&mut self.latest)).into_keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_not_forgotten() {
        let mut recent = Recent::default();
        recent.insert(1, "a", 10);
        recent.insert(2, "b", 5);
        assert_eq!((recent.forget_former().count(), recent.size()), (0, 0));
        assert_eq!((recent.get(1).copied(), recent.has(2)), (Some("a"), true));
        assert_eq!((recent.count(), recent.size()), (1, 10));
        assert_eq!(recent.forget_former().collect::<Vec<_>>(), [2]);
        assert_eq!((recent.get(1).copied(), recent.get(2).copied()), (Some("a"), None));
        recent.insert(1, "c", 7);
        assert_eq!((recent.get(1).copied(), recent.size()), (Some("c"), 7));
    }
}
