//! Requests like those of the corpora, but for a few bytes: what a property test of a grammar is tried with.
//! `PROPTEST_CASES=100000 cargo test -p kestrel-aggregator --lib mutated` tries as many of each.

use proptest::{prelude::*, sample::Index};
use serde_json::Value;

/// The requests of a corpus, path or command alone.
pub(crate) fn requests(corpus: &str) -> Vec<String> {
    let parts = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let of = |request: &str, parts: &str| line[request][parts].as_array().cloned().unwrap_or_default();
        [of("kubernetes_api_request", "api_paths"), of("shell_command_request", "commands")].concat()
    };
    corpus.lines().flat_map(parts).filter_map(|part| part.as_str().map(str::to_owned)).collect()
}

/// What is done to a request.
#[derive(Clone, Debug)]
enum Change {
    /// A piece goes, from here, so many characters.
    Remove(Index, usize),
    /// A piece stands twice.
    Repeat(Index, usize),
    /// A piece comes in.
    Insert(Index, String),
    /// It ends as another one ends.
    Splice(Index, Index, Index),
}

fn change(dictionary: &'static [&'static str]) -> impl Strategy<Value = Change> {
    let any = any::<Index>;
    prop_oneof![
        (any(), 1..6_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any(), 1..12_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
        (any(), proptest::sample::select(dictionary))
            .prop_map(|(at, text)| Change::Insert(at, text.to_owned())),
        (any(), "\\PC|[\\x00-\\x1f]").prop_map(|(at, text)| Change::Insert(at, text)),
        (any(), any(), any()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ]
}

/// A request of one of the corpora with up to four changes.
pub(crate) fn mutated(
    corpora: &[&str],
    dictionary: &'static [&'static str],
) -> impl Strategy<Value = String> + use<> {
    let known: Vec<String> =
        corpora.iter().flat_map(|corpus| requests(corpus)).filter(|text| text.len() < 2000).collect();
    let changes = proptest::collection::vec(change(dictionary), 0..5);
    (any::<Index>(), changes).prop_map(move |(first, changes)| {
        let mut chars: Vec<char> = first.get(&known).chars().collect();
        for change in changes {
            match change {
                Change::Remove(at, length) => {
                    let at = at.index(chars.len() + 1);
                    chars.drain(at..(at + length).min(chars.len()));
                }
                Change::Repeat(at, length) => {
                    let at = at.index(chars.len() + 1);
                    let piece = chars[at..(at + length).min(chars.len())].to_vec();
                    chars.splice(at..at, piece);
                }
                Change::Insert(at, text) => {
                    let at = at.index(chars.len() + 1);
                    chars.splice(at..at, text.chars());
                }
                Change::Splice(at, other, from) => {
                    let other: Vec<char> = other.get(&known).chars().collect();
                    chars.truncate(at.index(chars.len() + 1));
                    chars.extend(&other[from.index(other.len() + 1)..]);
                }
            }
        }
        chars.into_iter().collect()
    })
}
