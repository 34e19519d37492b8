//! What was learned lately.

use std::collections::HashMap;

/// By number. It is forgotten by halves: what nobody asked for between two times.
pub(super) struct Recent<T> {
    latest: HashMap<u64, T>,
    former: HashMap<u64, T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { latest: HashMap::new(), former: HashMap::new() }
    }
}

impl<T> Recent<T> {
    /// What has this number, if that was not forgotten.
    pub(super) fn get(&mut self, number: u64) -> Option<&T> {
        if let Some(former) = self.former.remove(&number) {
            self.latest.insert(number, former);
        }
        self.latest.get(&number)
    }

    /// Whether it was not forgotten.
    pub(super) fn has(&self, number: u64) -> bool {
        self.latest.contains_key(&number) || self.former.contains_key(&number)
    }

    pub(super) fn insert(&mut self, number: u64, learned: T) {
        self.former.remove(&number);
        self.latest.insert(number, learned);
    }

    /// What was learned, or asked for, since something was last forgotten.
    pub(super) fn latest(&self) -> &HashMap<u64, T> {
        &self.latest
    }

    /// Forgets what nobody has asked for since it was called before.
    pub(super) fn forget_former(&mut self) {
        self.former = std::mem::take(&mut self.latest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_not_forgotten() {
        let mut recent = Recent::default();
        recent.insert(1, "a");
        recent.insert(2, "b");
        recent.forget_former();
        assert_eq!((recent.get(1).copied(), recent.has(2), recent.latest().len()), (Some("a"), true, 1));
        recent.forget_former();
        assert_eq!((recent.get(1).copied(), recent.get(2).copied()), (Some("a"), None));
        recent.insert(1, "c");
        assert_eq!(recent.get(1), Some(&"c"));
    }
}
