//! The patterns of `grep`: basic and extended regular expressions, matched in time that is linear in the
//! line, by a machine of a few instructions.

use std::ops::Range;

use super::work::Stop;
use crate::executor::reason::{Reason, Refused};

/// A pattern is no longer: it is taken apart by functions that call themselves.
const PATTERN_BYTES: usize = 500;
/// Instructions of a pattern.
const INSTRUCTIONS: usize = 600;
/// Characters of a line from one look to the next at whether anybody waits.
const LOOK: usize = 4096;
/// Groups within groups.
const DEPTH: usize = 20;

/// A pattern that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    program: Vec<Step>,
    fold: bool,
    whole: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Char(char),
    Any,
    /// One of these, or none of these.
    Class(Vec<(char, char)>, bool),
    Begin,
    End,
    Boundary,
    Split(usize, usize),
    Jump(usize),
    Found,
}

#[derive(Clone, Debug)]
enum Node {
    Empty,
    Step(Step),
    Both(Box<Node>, Box<Node>),
    Either(Box<Node>, Box<Node>),
    /// At least so often, and whether more often.
    Repeat(Box<Node>, bool, bool),
}

impl Pattern {
    /// Reads a pattern as `grep` does: `fixed` (`-F`), `extended` (`-E`), `fold` (`-i`), `whole` (`-w`).
    ///
    /// # Errors
    /// It is no pattern, or too large.
    pub(crate) fn parse(
        source: &str,
        fixed: bool,
        extended: bool,
        fold: bool,
        whole: bool,
    ) -> Result<Self, Refused> {
        if source.len() > PATTERN_BYTES {
            return Err(Refused::new(Reason::TooLarge, "the pattern is longer than 500 bytes"));
        }
        let node = if fixed {
            source.chars().map(|char| Node::Step(Step::Char(char))).fold(Node::Empty, both)
        } else {
            let mut parser = Parser {
                rest: source.chars().collect::<Vec<_>>().into_iter().peekable(),
                extended,
                depth: 0,
            };
            let node = parser.either()?;
            if parser.rest.peek().is_some() {
                return Err(malformed("a parenthesis is closed that was not opened"));
            }
            node
        };
        let mut program = Vec::new();
        emit(&node, &mut program)?;
        program.push(Step::Found);
        Ok(Self { program, fold, whole })
    }

    /// The first place in `line` from `from` on where it matches, the longest there.
    pub(crate) fn find(&self, line: &str, from: usize, stop: &Stop) -> Option<Range<usize>> {
        let mut threads: Vec<(usize, usize)> = Vec::new();
        let mut best: Option<Range<usize>> = None;
        let mut seen = vec![false; self.program.len()];
        let mut before = line[..from].chars().next_back();
        let (mut at, mut looked) = (from, 0_usize);
        loop {
            looked += 1;
            if looked.is_multiple_of(LOOK) && stop.is_set() {
                return None;
            }
            let char = line[at..].chars().next();
            seen.fill(false);
            let mut ready = Vec::new();
            let around = Around { before, after: char };
            for (step, begin) in threads.drain(..) {
                self.follow(step, begin, around, &mut seen, &mut ready);
            }
            if best.is_none() {
                self.follow(0, at, around, &mut seen, &mut ready);
            }
            for (step, begin) in ready {
                match &self.program[step] {
                    Step::Found => {
                        let is_whole = !self.whole
                            || (!line[..begin].chars().next_back().is_some_and(is_word)
                                && !char.is_some_and(is_word));
                        let is_better = best
                            .as_ref()
                            .is_none_or(|best| begin < best.start || (begin == best.start && at > best.end));
                        if is_whole && is_better {
                            best = Some(begin..at);
                        }
                    }
                    step_kind => {
                        if char.is_some_and(|char| self.takes(step_kind, char)) {
                            threads.push((step + 1, begin));
                        }
                    }
                }
            }
            let Some(char) = char else { return best };
            if threads.is_empty() && best.is_some() {
                return best;
            }
            before = Some(char);
            at += char.len_utf8();
        }
    }

    /// All places that do not overlap and are not empty.
    pub(crate) fn all<'a>(
        &'a self,
        line: &'a str,
        stop: &'a Stop,
    ) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || {
            loop {
                let found = self.find(line, from, stop)?;
                from = found.end;
                if !found.is_empty() {
                    return Some(found);
                }
                from += line[from..].chars().next()?.len_utf8();
            }
        })
    }

    fn takes(&self, step: &Step, char: char) -> bool {
        let one = |char: char| match step {
            Step::Char(wanted) => *wanted == char,
            Step::Any => true,
            Step::Class(ranges, negated) => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&char)) != *negated
            }
            _ => false,
        };
        if !self.fold {
            return one(char);
        }
        match step {
            Step::Char(wanted) => wanted.eq_ignore_ascii_case(&char),
            Step::Class(_, true) => one(char.to_ascii_lowercase()) && one(char.to_ascii_uppercase()),
            _ => one(char.to_ascii_lowercase()) || one(char.to_ascii_uppercase()),
        }
    }

    /// The steps that take a character, or have found, which are reached from one without a character.
    fn follow(
        &self,
        step: usize,
        begin: usize,
        around: Around,
        seen: &mut [bool],
        ready: &mut Vec<(usize, usize)>,
    ) {
        let mut open = vec![step];
        while let Some(step) = open.pop() {
            if std::mem::replace(&mut seen[step], true) {
                continue;
            }
            match &self.program[step] {
                Step::Jump(to) => open.push(*to),
                Step::Split(one, other) => open.extend([*other, *one]),
                Step::Begin if around.before.is_none() => open.push(step + 1),
                Step::End if around.after.is_none() => open.push(step + 1),
                Step::Boundary if around.before.is_some_and(is_word) != around.after.is_some_and(is_word) => {
                    open.push(step + 1);
                }
                Step::Begin | Step::End | Step::Boundary => {}
                _ => ready.push((step, begin)),
            }
        }
    }
}

/// The characters on both sides of a place.
#[derive(Clone, Copy)]
struct Around {
    before: Option<char>,
    after: Option<char>,
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn malformed(why: &'static str) -> Refused {
    Refused::new(Reason::Malformed, why)
}

fn both(one: Node, other: Node) -> Node {
    match one {
        Node::Empty => other,
        one => Node::Both(Box::new(one), Box::new(other)),
    }
}

fn emit(node: &Node, program: &mut Vec<Step>) -> Result<(), Refused> {
    if program.len() > INSTRUCTIONS {
        return Err(Refused::new(Reason::TooLarge, "the pattern is too large"));
    }
    match node {
        Node::Empty => {}
        Node::Step(step) => program.push(step.clone()),
        Node::Both(one, other) => {
            emit(one, program)?;
            emit(other, program)?;
        }
        Node::Either(one, other) => {
            let split = program.len();
            program.push(Step::Found);
            emit(one, program)?;
            let jump = program.len();
            program.push(Step::Found);
            program[split] = Step::Split(split + 1, program.len());
            emit(other, program)?;
            program[jump] = Step::Jump(program.len());
        }
        Node::Repeat(inner, at_least_once, more) => {
            if *at_least_once {
                let begin = program.len();
                emit(inner, program)?;
                let split = program.len();
                program.push(Step::Split(begin, split + 1));
            } else {
                let split = program.len();
                program.push(Step::Found);
                emit(inner, program)?;
                if *more {
                    program.push(Step::Jump(split));
                }
                program[split] = Step::Split(split + 1, program.len());
            }
        }
    }
    Ok(())
}

struct Parser {
    rest: std::iter::Peekable<std::vec::IntoIter<char>>,
    extended: bool,
    depth: usize,
}

impl Parser {
    /// The sign, as it is written in this kind of pattern: `|` or `\|`.
    fn sign(&mut self, sign: char) -> bool {
        if self.extended {
            return self.rest.next_if_eq(&sign).is_some();
        }
        let mut ahead = self.rest.clone();
        if ahead.next() == Some('\\') && ahead.next() == Some(sign) {
            self.rest = ahead;
            return true;
        }
        false
    }

    fn is_at(&mut self, sign: char) -> bool {
        let mut ahead = self.rest.clone();
        if self.extended {
            ahead.next() == Some(sign)
        } else {
            ahead.next() == Some('\\') && ahead.next() == Some(sign)
        }
    }

    fn either(&mut self) -> Result<Node, Refused> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Refused::new(Reason::TooLarge, "the pattern is nested too deep"));
        }
        let mut node = self.sequence()?;
        while self.sign('|') {
            node = Node::Either(Box::new(node), Box::new(self.sequence()?));
        }
        self.depth -= 1;
        Ok(node)
    }

    fn sequence(&mut self) -> Result<Node, Refused> {
        let mut node = Node::Empty;
        let mut is_first = true;
        while self.rest.peek().is_some() && !self.is_at('|') && !self.is_at(')') {
            let one = self.repeated(is_first)?;
            node = both(node, one);
            is_first = false;
        }
        Ok(node)
    }

    fn repeated(&mut self, is_first: bool) -> Result<Node, Refused> {
        let mut node = self.one(is_first)?;
        loop {
            let (least, more) = if self.rest.next_if_eq(&'*').is_some() {
                (false, true)
            } else if self.sign('+') {
                (true, true)
            } else if self.sign('?') {
                (false, false)
            } else if self.is_at('{') {
                return Err(malformed("counted repetition is not taken: write it out"));
            } else {
                return Ok(node);
            };
            // What repeats nothing would repeat for ever.
            if !matches!(node, Node::Empty) {
                node = Node::Repeat(Box::new(node), least, more);
            }
        }
    }

    fn one(&mut self, is_first: bool) -> Result<Node, Refused> {
        if self.sign('(') {
            let node = self.either()?;
            return if self.sign(')') { Ok(node) } else { Err(malformed("a parenthesis is not closed")) };
        }
        let step = match self.rest.next() {
            None => return Ok(Node::Empty),
            Some('.') => Step::Any,
            Some('^') if is_first || self.extended => Step::Begin,
            Some('$')
                if self.extended || self.rest.peek().is_none() || self.is_at('|') || self.is_at(')') =>
            {
                Step::End
            }
            Some('[') => self.class()?,
            Some('\\') => match self.rest.next() {
                None => return Err(malformed("a pattern does not end with a backslash")),
                Some('b') => Step::Boundary,
                Some('w') => Step::Class(vec![('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')], false),
                Some('d') => Step::Class(vec![('0', '9')], false),
                Some('s') => Step::Class(vec![(' ', ' '), ('\t', '\t')], false),
                Some('S') => Step::Class(vec![(' ', ' '), ('\t', '\t')], true),
                Some(char) => Step::Char(char),
            },
            Some(char) => Step::Char(char),
        };
        Ok(Node::Step(step))
    }

    fn class(&mut self) -> Result<Step, Refused> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        let mut is_first = true;
        loop {
            match self.rest.next() {
                None => return Err(malformed("a bracket is not closed")),
                Some(']') if !is_first => return Ok(Step::Class(ranges, negated)),
                Some('[') if self.rest.peek() == Some(&':') => {
                    let name: String = self.rest.by_ref().skip(1).take_while(|char| *char != ']').collect();
                    ranges.extend_from_slice(match name.as_str() {
                        "digit:" => &[('0', '9')],
                        "alpha:" => &[('a', 'z'), ('A', 'Z')],
                        "alnum:" => &[('a', 'z'), ('A', 'Z'), ('0', '9')],
                        "space:" => &[(' ', ' '), ('\t', '\t')],
                        "upper:" => &[('A', 'Z')],
                        "lower:" => &[('a', 'z')],
                        "xdigit:" => &[('0', '9'), ('a', 'f'), ('A', 'F')],
                        _ => return Err(malformed("this class of characters is not known")),
                    });
                }
                Some(from) => {
                    let mut ahead = self.rest.clone();
                    match (ahead.next(), ahead.next()) {
                        (Some('-'), Some(to)) if to != ']' => {
                            if to < from {
                                return Err(malformed("a range of characters goes backwards"));
                            }
                            self.rest = ahead;
                            ranges.push((from, to));
                        }
                        _ => ranges.push((from, from)),
                    }
                }
            }
            is_first = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(source: &str, extended: bool, line: &str) -> Option<String> {
        let pattern = Pattern::parse(source, false, extended, false, false).unwrap();
        pattern.find(line, 0, &Stop::default()).map(|range| line[range].to_owned())
    }

    #[test]
    fn patterns_match_as_those_of_grep() {
        for (source, extended, line, expected) in [
            ("a.c", false, "xabcx", Some("abc")),
            ("^b", false, "ab", None),
            ("^a.*c$", false, "abbbc", Some("abbbc")),
            ("a|b", false, "a|b", Some("a|b")),
            ("x\\|b", false, "ab", Some("b")),
            ("a|b", true, "xb", Some("b")),
            ("(ab)+c?", true, "xababd", Some("abab")),
            ("a+", false, "a+", Some("a+")),
            ("a\\+", false, "xaaa", Some("aaa")),
            ("[^0-9]*", true, "ab1", Some("ab")),
            ("[[:digit:]]+", true, "a123b", Some("123")),
            ("[]x]", false, "a]", Some("]")),
            ("\\bpod\\b", false, "a pod x", Some("pod")),
            ("(a|ab)(c|bcd)", true, "abcd", Some("abcd")),
            ("5\\.3", true, "5x3", None),
            ("$x", false, "$x", Some("$x")),
            ("(a*)*b", true, "aaaab", Some("aaaab")),
            ("", false, "abc", Some("")),
        ] {
            assert_eq!(find(source, extended, line).as_deref(), expected, "{source} in {line}");
        }
        let whole = Pattern::parse("pod", true, false, true, true).unwrap();
        let found = |line| whole.find(line, 0, &Stop::default()).is_some();
        assert!(found("a POD b") && !found("pods"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for source in ["(a", "a)", "[a", "a\\", "[b-a]", "a{2}", "[[:nope:]]"] {
            assert_eq!(
                Pattern::parse(source, false, true, false, false).unwrap_err().reason,
                Reason::Malformed,
                "{source}"
            );
        }
        let deep = "(".repeat(100) + &")".repeat(100);
        assert_eq!(Pattern::parse(&deep, false, true, false, false).unwrap_err().reason, Reason::TooLarge);
        assert_eq!(
            Pattern::parse(&"a".repeat(5000), false, true, false, false).unwrap_err().reason,
            Reason::TooLarge
        );
    }

    proptest! {
        #[test]
        fn whatever_the_pattern_a_line_is_searched_in_no_time(
            source in "([ab.*+?|()^$\\\\-]|\\[|\\]|\\PC){0,20}", line in "([ab]|\\PC){0,60}", extended: bool, fold: bool
        ) {
            if let Ok(pattern) = Pattern::parse(&source, false, extended, fold, false) {
                for range in pattern.all(&line, &Stop::default()) {
                    prop_assert!(line.get(range).is_some());
                }
            }
        }
    }
}
