//! Secrets in what programs write: taken out before a record leaves the engine.
//!
//! Two fast searches find the places where a secret could be, and only these are looked at
//! closer: what begins like a secret ([`shape`]), and the signs between a name and its value,
//! where the name may be a secret's ([`assignment`]). Names themselves are not searched for: their
//! letters are those of most words.

mod assignment;
mod shape;
mod signs;

use std::{ops::Range, str::FromStr};

use aho_corasick::{AhoCorasick, MatchKind};
use memchr::memmem;
use regex::{Regex, RegexBuilder};
use thiserror::Error;

use self::signs::Signs;

/// What stands in the place of a secret.
pub const MARK: &str = "[redacted]";

/// By so many bytes, beside its own length, marks may make a text longer.
const GROWTH: usize = 4096;

/// The most expressions of a cluster's own.
const MOST_EXPRESSIONS: usize = 32;

/// Bytes that one compiled expression may take.
const EXPRESSION_BYTES: usize = 1 << 20;

/// What a place that was found may be.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// A token that issuers give a prefix of their own.
    Issued(&'static shape::Issued),
    /// The beginning of a JSON Web Token.
    Jwt,
    /// A scheme of HTTP authentication.
    Scheme,
    /// The head of a private key in PEM.
    PrivateKey,
}

impl Place {
    /// The secret's bytes, if it is one. `at`: what the search found.
    fn secret(self, text: &str, at: Range<usize>) -> Option<Range<usize>> {
        match self {
            Self::Issued(issued) => shape::issued(text, at, issued),
            Self::Jwt => shape::jwt(text, at),
            Self::Scheme => shape::credentials(text, at),
            Self::PrivateKey => shape::private_key(text, at),
        }
    }
}

/// Expressions of a cluster's own, in the syntax of the `regex` crate: taken out is their first
/// group, or all that they match if they have none.
#[derive(Clone, Debug, Default)]
pub struct Expressions(Vec<Regex>);

/// Expressions that can't be used.
#[derive(Debug, Error)]
pub enum BadExpression {
    /// There are more than allowed.
    #[error("{0} expressions are more than the {MOST_EXPRESSIONS} that are possible")]
    TooMany(usize),
    /// It is none, or too large a one.
    #[error("{0}")]
    Unusable(#[from] regex::Error),
    /// It would take out everything.
    #[error("the expression {0:?} matches the empty text, and so finds something in every line")]
    MatchesEmpty(String),
}

impl FromStr for Expressions {
    type Err = BadExpression;

    /// One a line.
    fn from_str(text: &str) -> Result<Self, BadExpression> {
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
        match lines().count() {
            0..=MOST_EXPRESSIONS => lines().map(compile).collect::<Result<_, _>>().map(Self),
            count => Err(BadExpression::TooMany(count)),
        }
    }
}

fn compile(expression: &str) -> Result<Regex, BadExpression> {
    let compiled = RegexBuilder::new(expression).size_limit(EXPRESSION_BYTES).build()?;
    if compiled.is_match("") {
        return Err(BadExpression::MatchesEmpty(expression.to_owned()));
    }
    Ok(compiled)
}

/// Takes secrets out of text; holds the buffers for it.
#[derive(Debug)]
pub struct Redactor {
    search: AhoCorasick,
    places: Vec<Place>,
    expressions: Expressions,
    text: String,
    /// What the expressions make of it.
    next: String,
    count: u64,
    /// Where in the window that was glanced at a secret could be, in order, and how many of these places are
    /// behind.
    suspects: Vec<usize>,
    behind: usize,
}

impl Redactor {
    /// One that also takes out what `expressions` say.
    #[expect(clippy::expect_used, reason = "what is searched for is constant and little")]
    pub fn new(expressions: Expressions) -> Self {
        let issued = shape::ISSUED.iter().map(|issued| (issued.prefix, Place::Issued(issued)));
        let others = [
            ("eyJ", Place::Jwt),
            ("earer ", Place::Scheme),
            ("EARER ", Place::Scheme),
            ("asic ", Place::Scheme),
            ("ATE KEY-----", Place::PrivateKey),
        ];
        let (needles, places): (Vec<_>, _) = issued.chain(others).unzip();
        let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&needles);
        let search = search.expect("a few short words make a search");
        let (text, next, suspects) = (String::new(), String::new(), Vec::new());
        Self { search, places, expressions, text, next, count: 0, suspects, behind: 0 }
    }

    /// Looks over many lines at once, which takes a fraction of what it takes to look at each of them; from
    /// then on [`redact_line`](Self::redact_line) knows which of them to look at.
    pub fn glance(&mut self, window: &[u8]) {
        self.behind = 0;
        self.suspects.clear();
        self.suspects.extend(Signs::of(window).filter(|sign| is_interesting(window, *sign)));
        // Nothing that is found reaches over the end of a line.
        self.suspects.extend(self.search.find_iter(window).map(|found| found.start()));
        self.suspects.sort_unstable();
    }

    /// As [`redact`](Self::redact), for a line of the window that was glanced at. `place`: where it lies;
    /// lines come in their order.
    pub fn redact_line(&mut self, text: &str, place: Range<usize>) -> Option<&str> {
        while self.suspects.get(self.behind).is_some_and(|suspect| *suspect < place.start) {
            self.behind += 1;
        }
        let is_suspect = self.suspects.get(self.behind).is_some_and(|suspect| *suspect < place.end);
        if is_suspect || !self.expressions.0.is_empty() || shape::is_key_material(text) {
            self.redact(text)
        } else {
            None
        }
    }

    /// `text` with [`MARK`] in the place of every secret; `None` if there is none in it.
    pub fn redact(&mut self, text: &str) -> Option<&str> {
        let before = self.count;
        let most = 2 * text.len() + GROWTH;
        self.text.clear();
        let mut kept = 0;
        if shape::is_key_material(text) {
            take_out(&mut self.text, text, &mut kept, 0..text.len(), most, &mut self.count);
        }
        let bytes = text.as_bytes();
        let mut signs = Signs::of(bytes).filter(|sign| is_interesting(bytes, *sign)).peekable();
        let mut found = self.search.find_iter(text).peekable();
        // In the order of the text, so that what lies within a secret is known.
        loop {
            let next = found.peek().map_or(usize::MAX, |found| found.start());
            let secret = if let Some(sign) = signs.next_if(|sign| *sign < next) {
                if sign < kept { None } else { secret_after(text, sign) }
            } else if let Some(found) = found.next() {
                let place = self.places.get(found.pattern().as_usize()).filter(|_| found.start() >= kept);
                place.and_then(|place| place.secret(text, found.range()))
            } else {
                break;
            };
            if let Some(secret) = secret {
                take_out(&mut self.text, text, &mut kept, secret, most, &mut self.count);
            }
        }
        if kept > 0 {
            self.text.push_str(&text[kept..]);
        }
        for expression in &self.expressions.0 {
            let text = if self.count > before { self.text.as_str() } else { text };
            let mut kept = 0;
            self.next.clear();
            let mut marks = memmem::find_iter(text.as_bytes(), MARK).map(|at| at..at + MARK.len()).peekable();
            for found in expression.captures_iter(text) {
                if let Some(secret) = found.get(1).or(found.get(0)).filter(|secret| !secret.is_empty()) {
                    // In a mark is nothing more to find.
                    while marks.next_if(|mark| mark.end <= secret.start()).is_some() {}
                    if marks.peek().is_none_or(|mark| secret.end() <= mark.start) {
                        take_out(&mut self.next, text, &mut kept, secret.range(), most, &mut self.count);
                    }
                }
            }
            if kept > 0 {
                self.next.push_str(&text[kept..]);
                std::mem::swap(&mut self.text, &mut self.next);
            }
        }
        (self.count > before).then_some(self.text.as_str())
    }

    /// Secrets that were taken out since the start.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Whether the `:` or `=` may separate a secret from what it is called. Nearly all do not.
#[inline]
fn is_interesting(bytes: &[u8], sign: usize) -> bool {
    let (head, rest) = bytes.split_at(sign);
    match rest {
        [b':', b'/', b'/', ..] => shape::password_in_address(bytes, sign).is_some(),
        _ => assignment::may_name_a_secret(head),
    }
}

/// The secret that a `:` or `=` separates from what it is called.
fn secret_after(text: &str, sign: usize) -> Option<Range<usize>> {
    if text.as_bytes()[sign..].starts_with(b"://") {
        return shape::password_in_address(text.as_bytes(), sign);
    }
    assignment::value(text, sign)
}

/// Copies `text` up to a secret, and the mark in the secret's place. Both ends of a secret
/// lie next to ASCII or at an end of the text, so between characters.
///
/// From where that would make it longer than `most`, all is taken out as one: a mark is longer than what some
/// expressions find, and they may find it everywhere.
fn take_out(
    to: &mut String,
    text: &str,
    kept: &mut usize,
    secret: Range<usize>,
    most: usize,
    count: &mut u64,
) {
    if secret.start < *kept || secret.is_empty() {
        return;
    }
    if let Some(before) = text.get(*kept..secret.start) {
        let rest = text.len() - secret.end;
        let is_too_long = to.len() + before.len() + MARK.len() + rest > most;
        to.push_str(before);
        to.push_str(MARK);
        *kept = if is_too_long { text.len() } else { secret.end };
        *count += 1;
    }
}

#[cfg(test)]
mod tests;
