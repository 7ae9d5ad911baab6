//! Texts of which many are equal.

use std::{collections::HashSet, sync::Arc};

/// Fewer texts are not worth a look.
const FEW: usize = 1024;

/// Each text once. What is used no more is forgotten in time: there are at most
/// twice as many as are used, or [`FEW`].
#[derive(Default)]
pub(super) struct Texts {
    texts: HashSet<Arc<str>>,
    /// How many were used at the last look.
    used: usize,
}

impl Texts {
    pub(super) fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        if self.texts.len() >= FEW.max(2 * self.used) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.used = self.texts.len();
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_only_while_it_is_used() {
        let mut texts = Texts::default();
        let held: Vec<_> = (0..10).map(|number| texts.intern(&number.to_string())).collect();
        for number in 0..10 * FEW {
            texts.intern(&number.to_string());
        }
        assert!(texts.texts.len() <= FEW);
        assert!(held.iter().all(|text| Arc::ptr_eq(text, &texts.intern(text))));
    }
}
