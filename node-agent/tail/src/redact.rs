//! Secrets in what programs write: taken out before a record leaves the engine.
//!
//! One fast search finds the places where a secret could be, and only these are looked at
//! closer: what has the shape of a secret ([`shape`]), and the value of what is named like
//! one ([`assignment`]).

mod assignment;
mod shape;

use std::{ops::Range, str::FromStr};

use aho_corasick::{AhoCorasick, MatchKind};
use regex::{Regex, RegexBuilder};
use thiserror::Error;

/// What stands in the place of a secret.
pub const MARK: &str = "[redacted]";

/// The most expressions of a cluster's own.
const MOST_EXPRESSIONS: usize = 32;

/// Bytes that one compiled expression may take.
const EXPRESSION_BYTES: usize = 1 << 20;

/// What a place that was found may be.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The end of a name such as `password`.
    Name,
    /// A token that issuers give a prefix of their own.
    Issued(&'static shape::Issued),
    /// The beginning of a JSON Web Token.
    Jwt,
    /// `://`: an address may hold a password.
    Address,
    /// A scheme of HTTP authentication.
    Scheme,
    /// The head of a private key in PEM.
    PrivateKey,
}

impl Place {
    /// The secret's bytes, if it is one. `at`: what the search found.
    fn secret(self, text: &str, at: Range<usize>) -> Option<Range<usize>> {
        match self {
            Self::Name => assignment::value(text, at),
            Self::Issued(issued) => shape::issued(text, at, issued),
            Self::Jwt => shape::jwt(text, at),
            Self::Address => shape::password_in_address(text, at),
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
}

impl Redactor {
    /// One that also takes out what `expressions` say.
    #[expect(clippy::expect_used, reason = "what is searched for is constant and little")]
    pub fn new(expressions: Expressions) -> Self {
        let names = assignment::NAMES.iter().map(|needle| (*needle, Place::Name));
        let issued = shape::ISSUED.iter().map(|issued| (issued.prefix, Place::Issued(issued)));
        let others = [
            ("eyJ", Place::Jwt),
            ("://", Place::Address),
            ("earer ", Place::Scheme),
            ("EARER ", Place::Scheme),
            ("asic ", Place::Scheme),
            ("ATE KEY-----", Place::PrivateKey),
        ];
        let (needles, places): (Vec<_>, _) = names.chain(issued).chain(others).unzip();
        let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&needles);
        let search = search.expect("a few short words make a search");
        Self { search, places, expressions, text: String::new(), next: String::new(), count: 0 }
    }

    /// `text` with [`MARK`] in the place of every secret; `None` if there is none in it.
    pub fn redact(&mut self, text: &str) -> Option<&str> {
        let before = self.count;
        self.text.clear();
        let mut kept = 0;
        if shape::is_key_material(text) {
            take_out(&mut self.text, text, &mut kept, 0..text.len(), &mut self.count);
        }
        for found in self.search.find_iter(text) {
            // Within what was taken out already, or of the one that is.
            if found.start() < kept {
                continue;
            }
            let place = self.places.get(found.pattern().as_usize());
            if let Some(secret) = place.and_then(|place| place.secret(text, found.range())) {
                take_out(&mut self.text, text, &mut kept, secret, &mut self.count);
            }
        }
        if kept > 0 {
            self.text.push_str(&text[kept..]);
        }
        for expression in &self.expressions.0 {
            let text = if self.count > before { self.text.as_str() } else { text };
            let mut kept = 0;
            self.next.clear();
            for found in expression.captures_iter(text) {
                if let Some(secret) = found.get(1).or(found.get(0)).filter(|secret| !secret.is_empty()) {
                    take_out(&mut self.next, text, &mut kept, secret.range(), &mut self.count);
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

/// Copies `text` up to a secret, and the mark in the secret's place. Both ends of a secret
/// lie next to ASCII or at an end of the text, so between characters.
fn take_out(to: &mut String, text: &str, kept: &mut usize, secret: Range<usize>, count: &mut u64) {
    if secret.start < *kept || secret.is_empty() {
        return;
    }
    if let Some(before) = text.get(*kept..secret.start) {
        to.push_str(before);
        to.push_str(MARK);
        *kept = secret.end;
        *count += 1;
    }
}

#[cfg(test)]
mod tests;
