//! What may stand behind a pipe: the few filters of text that investigations use, without their programs.

mod apply;

use super::{
    flags::{Arguments, Flag, flag, value},
    pattern::Pattern,
};
use crate::executor::reason::{Reason, Refused};

/// A filter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filter {
    Grep(Grep),
    Head(Count),
    Tail(Count),
    Wc(Arguments),
    Sort(Sort),
    Uniq(Arguments),
    Cut(Cut),
}

/// The program, its flags and what it does, for the documentation.
pub(crate) const FILTERS: [(&str, &[Flag]); 7] = [
    ("grep", GREP),
    ("head", COUNT),
    ("tail", COUNT),
    ("wc", WC),
    ("sort", SORT),
    ("uniq", UNIQ),
    ("cut", CUT),
];

const GREP: &[Flag] = &[
    flag("ignore-case", Some('i')),
    flag("invert-match", Some('v')),
    flag("count", Some('c')),
    flag("line-number", Some('n')),
    flag("word-regexp", Some('w')),
    flag("fixed-strings", Some('F')),
    flag("extended-regexp", Some('E')),
    flag("only-matching", Some('o')),
    value("regexp", Some('e')),
    value("after-context", Some('A')),
    value("before-context", Some('B')),
    value("context", Some('C')),
    value("max-count", Some('m')),
];
const COUNT: &[Flag] = &[value("lines", Some('n')), value("bytes", Some('c'))];
const WC: &[Flag] = &[flag("lines", Some('l')), flag("words", Some('w')), flag("bytes", Some('c'))];
const SORT: &[Flag] = &[
    flag("reverse", Some('r')),
    flag("numeric-sort", Some('n')),
    flag("unique", Some('u')),
    flag("ignore-case", Some('f')),
    value("key", Some('k')),
    value("field-separator", Some('t')),
];
const UNIQ: &[Flag] = &[flag("count", Some('c')), flag("repeated", Some('d')), flag("unique", Some('u'))];
const CUT: &[Flag] =
    &[value("delimiter", Some('d')), value("fields", Some('f')), value("characters", Some('c'))];

/// So many lines or bytes, from the near end; with a sign, all but those, or from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    number: usize,
    is_bytes: bool,
    is_signed: bool,
}

/// Lines with a pattern, or without.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grep {
    flags: Arguments,
    patterns: Vec<Pattern>,
    before: usize,
    after: usize,
    most: usize,
}

/// Lines in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sort {
    /// The first one counts most; whole lines count last.
    keys: Vec<Key>,
    separator: Option<char>,
    is_reverse: bool,
    is_unique: bool,
}

/// What lines are compared by: from one of their fields to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    from: usize,
    to: usize,
    is_number: bool,
    is_reverse: bool,
    is_folded: bool,
}

/// Fields or characters of each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    delimiter: Option<char>,
    ranges: Vec<(usize, usize)>,
}

impl Filter {
    /// Reads a command behind a pipe.
    ///
    /// # Errors
    /// It is no filter that there is, or would read a file.
    pub(crate) fn parse(words: &[String]) -> Result<Self, Refused> {
        let (program, arguments) =
            words.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
        let Some((_, table)) = FILTERS.iter().find(|(name, _)| *name == program) else {
            let known: Vec<&str> = FILTERS.iter().map(|(name, _)| *name).collect();
            let why = format!(
                "behind a pipe there are {}, and not {program:?}; fields are picked with -o jsonpath or -o custom-columns",
                known.join(", ")
            );
            return Err(Refused::new(Reason::Unknown, why));
        };
        // As they have been written since there were no flags: head -5.
        let arguments: Vec<String> = match (program, arguments) {
            ("head" | "tail", [first, rest @ ..])
                if first.len() > 1
                    && first[1..].bytes().all(|byte| byte.is_ascii_digit())
                    && first.starts_with('-') =>
            {
                [vec!["-n".to_owned(), first[1..].to_owned()], rest.to_vec()].concat()
            }
            _ => arguments.to_vec(),
        };
        let parsed = Arguments::parse(&arguments, table, &[])?;
        let files = |allowed: usize| match parsed.words().get(allowed) {
            Some(file) => Err(Refused::new(Reason::File, format!("there are no files, so no {file:?}"))),
            None => Ok(()),
        };
        if program != "grep" {
            files(0)?;
        }
        Ok(match program {
            "grep" => {
                let (words, mut sources): (Vec<&str>, Vec<&str>) =
                    (parsed.words(), parsed.values("regexp").collect());
                let by_flag = !sources.is_empty();
                files(usize::from(!by_flag))?;
                if !by_flag {
                    sources.extend(words.first());
                }
                if sources.is_empty() {
                    return Err(Refused::new(Reason::Malformed, "grep has no pattern"));
                }
                let (fixed, extended, fold, whole) = (
                    parsed.has("fixed-strings"),
                    parsed.has("extended-regexp"),
                    parsed.has("ignore-case"),
                    parsed.has("word-regexp"),
                );
                let patterns = sources
                    .into_iter()
                    .map(|source| Pattern::parse(source, fixed, extended, fold, whole))
                    .collect::<Result<_, _>>()?;
                let number = |name| parsed.value(name).map_or(Ok(None), |text| number(text).map(Some));
                let around = number("context")?.unwrap_or(0);
                let before = number("before-context")?.unwrap_or(around);
                let after = number("after-context")?.unwrap_or(around);
                let most = number("max-count")?.unwrap_or(usize::MAX);
                Self::Grep(Grep { patterns, before, after, most, flags: parsed })
            }
            "head" | "tail" => {
                let (text, is_bytes) = match (parsed.value("bytes"), parsed.value("lines")) {
                    (Some(bytes), _) => (bytes, true),
                    (None, lines) => (lines.unwrap_or("10"), false),
                };
                let sign = if program == "head" { '-' } else { '+' };
                let (number_text, is_signed) = match text.strip_prefix(sign) {
                    Some(rest) => (rest, true),
                    None => (text, false),
                };
                let count = Count { number: number(number_text)?, is_bytes, is_signed };
                if program == "head" { Self::Head(count) } else { Self::Tail(count) }
            }
            "wc" => Self::Wc(parsed),
            "sort" => {
                let whole = Key {
                    from: 1,
                    to: usize::MAX,
                    is_number: parsed.has("numeric-sort"),
                    is_reverse: parsed.has("reverse"),
                    is_folded: parsed.has("ignore-case"),
                };
                let keys = parsed.values("key").map(|key| sort_key(key, whole));
                let mut keys = keys.collect::<Result<Vec<_>, _>>()?;
                if keys.is_empty() {
                    keys.push(whole);
                }
                let separator = parsed.value("field-separator").and_then(|text| text.chars().next());
                let (is_reverse, is_unique) = (whole.is_reverse, parsed.has("unique"));
                Self::Sort(Sort { keys, separator, is_reverse, is_unique })
            }
            "uniq" => Self::Uniq(parsed),
            _ => {
                let (text, delimiter) = match (parsed.value("characters"), parsed.value("fields")) {
                    (Some(characters), _) => (characters, None),
                    (None, Some(fields)) => {
                        let delimiter = parsed.value("delimiter").unwrap_or("\t");
                        let mut chars = delimiter.chars();
                        match (chars.next(), chars.next()) {
                            (Some(char), None) => (fields, Some(char)),
                            _ => return Err(Refused::new(Reason::Malformed, "cut -d takes one character")),
                        }
                    }
                    _ => return Err(Refused::new(Reason::Malformed, "cut needs -f or -c")),
                };
                Self::Cut(Cut { delimiter, ranges: ranges(text)? })
            }
        })
    }
}

fn number(text: &str) -> Result<usize, Refused> {
    match text.parse::<u32>() {
        Ok(number) if !text.starts_with('+') => Ok(number as usize),
        _ => Err(Refused::new(Reason::Malformed, format!("{text:?} is not a number"))),
    }
}

/// Such as `1,3-5,7-`: in their order, and none within another.
fn ranges(text: &str) -> Result<Vec<(usize, usize)>, Refused> {
    let mut all = text
        .split(',')
        .map(|range| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let from = if from.is_empty() { 1 } else { number(from)? };
            let to = if to.is_empty() { usize::MAX } else { number(to)? };
            match from {
                0 => Err(Refused::new(Reason::Malformed, "fields and characters are counted from 1")),
                _ => Ok((from, to)),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable();
    all.dedup_by(|next, before| {
        let is_within = next.0 <= before.1;
        if is_within {
            before.1 = before.1.max(next.1);
        }
        is_within
    });
    Ok(all)
}

/// A key without options of its own has those of `whole`.
fn sort_key(key: &str, whole: Key) -> Result<Key, Refused> {
    let part = |text: &str| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let options = &text[digits..];
        if options.bytes().any(|option| !b"nr".contains(&option)) {
            return Err(Refused::new(Reason::Malformed, "a key of sort is such as 2, 2,2, 2n or 2nr"));
        }
        Ok((number(&text[..digits])?, options.contains('n'), options.contains('r')))
    };
    let (from, to) = match key.split_once(',') {
        Some((from, to)) => (part(from)?, part(to)?),
        None => (part(key)?, (usize::MAX, false, false)),
    };
    if from.0 == 0 {
        return Err(Refused::new(Reason::Malformed, "fields are counted from 1"));
    }
    let (from, to, is_number, is_reverse) = (from.0, to.0, from.1 || to.1, from.2 || to.2);
    Ok(match is_number || is_reverse {
        true => Key { from, to, is_number, is_reverse, is_folded: false },
        false => Key { from, to, ..whole },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::executor::command::{
        OUTPUT_BYTES, words,
        work::{Stop, Waits},
    };

    fn run(line: &str, text: &str) -> (String, i32) {
        let stages = words::split(line).unwrap();
        Filter::parse(&stages[0]).unwrap().apply(text, &Stop::default()).unwrap()
    }

    #[test]
    fn filters_do_what_their_programs_do() {
        let text = "b 2\na 10\nc 2\na 10\n";
        for (line, expected) in [
            ("grep a", "a 10\na 10\n"),
            ("grep -v a", "b 2\nc 2\n"),
            ("grep -c 2", "2\n"),
            ("grep -in B", "1:b 2\n"),
            ("grep -E 'b|c'", "b 2\nc 2\n"),
            ("grep -m 1 a", "a 10\n"),
            ("grep -o '[0-9]*$'", "2\n10\n2\n10\n"),
            ("grep -n -B1 c", "2-a 10\n3:c 2\n"),
            ("grep -A1 -e b -e c", "b 2\na 10\nc 2\na 10\n"),
            ("grep -w 1", ""),
            ("grep -F 'a 1'", "a 10\na 10\n"),
            ("head -n 1", "b 2\n"),
            ("head -2", "b 2\na 10\n"),
            ("head -n -3", "b 2\n"),
            ("head -c 3", "b 2"),
            ("tail -n 1", "a 10\n"),
            ("tail -n +4", "a 10\n"),
            ("tail -1", "a 10\n"),
            ("wc -l", "4\n"),
            ("wc", "      4       8      18\n"),
            ("sort", "a 10\na 10\nb 2\nc 2\n"),
            ("sort -ru", "c 2\nb 2\na 10\n"),
            ("sort -k2n", "b 2\nc 2\na 10\na 10\n"),
            ("sort -t' ' -k 2,2 -r", "c 2\nb 2\na 10\na 10\n"),
            ("sort -k2,2n -k1,1r", "c 2\nb 2\na 10\na 10\n"),
            ("sort -k2nr", "a 10\na 10\nb 2\nc 2\n"),
            ("sort -r -k2,2n", "c 2\nb 2\na 10\na 10\n"),
            ("sort -u -k2,2", "a 10\nb 2\n"),
            ("sort -t' ' -k2 -k3,1", "a 10\na 10\nb 2\nc 2\n"),
            ("uniq", "b 2\na 10\nc 2\na 10\n"),
            ("cut -d' ' -f2", "2\n10\n2\n10\n"),
            ("cut -c1,3-", "b2\na10\nc2\na10\n"),
            ("cut -d: -f1", "b 2\na 10\nc 2\na 10\n"),
            ("cut -c4-4,2,1-2,9-3", "b \na 0\nc \na 0\n"),
            ("cut -d' ' -f2-3,1,1", "b 2\na 10\nc 2\na 10\n"),
        ] {
            assert_eq!(run(line, text).0, expected, "{line}");
        }
        // The blanks before a field are of it, unless a separator is named.
        assert_eq!(run("sort -k2", "a 1\nb  2\n").0, "b  2\na 1\n");
        assert_eq!(run("sort -k2n", "a 2\nb  1\n").0, "b  1\na 2\n");
        assert_eq!(run("uniq -c", "a\na\nb\n").0, "      2 a\n      1 b\n");
        assert_eq!(run("uniq -d", "a\na\nb\n").0, "a\n");
        assert_eq!(run("grep x -A1", "x\n1\n2\nx\n").0, "x\n1\n--\nx\n");
        assert_eq!((run("grep a", text).1, run("grep z", text).1), (0, 1));
    }

    #[test]
    fn what_a_filter_shows_has_an_end_and_nobody_waits_for_one_that_was_stopped() {
        let text = "a".repeat(OUTPUT_BYTES - 1) + "\n";
        let most = OUTPUT_BYTES + 64;
        let (shown, code) = run("grep -on .", &text);
        assert!((OUTPUT_BYTES..most).contains(&shown.len()) && code == 0, "{}", shown.len());
        let (shown, _) = run("uniq -c", &"a\nb\n".repeat(OUTPUT_BYTES / 8));
        assert!((OUTPUT_BYTES..most).contains(&shown.len()), "{}", shown.len());
        let stop = Stop::default();
        drop(Waits(stop.clone()));
        for line in ["grep a", "sort", "uniq", "cut -c1", "head", "tail", "wc"] {
            let stages = words::split(line).unwrap();
            assert_eq!(Filter::parse(&stages[0]).unwrap().apply(&text, &stop), None, "{line}");
        }
    }

    #[test]
    fn a_filter_stops_within_a_line_and_asks_once_for_what_is_named_twice() {
        let line = ",x".repeat(1 << 16) + "\n";
        for filter in
            [&format!("cut -c 9{}", ",9".repeat(7000))[..], "cut -c1-", "cut -d, -f1-", "grep -o -e z -e x"]
        {
            let stages = words::split(filter).unwrap();
            let filter = Filter::parse(&stages[0]).unwrap();
            assert!(filter.apply(&line, &Stop::default()).is_some());
            assert_eq!(filter.apply(&line, &Stop::at_look(8)), None, "{filter:?}");
            if let Filter::Cut(cut) = filter {
                assert_eq!(cut.ranges.len(), 1);
            }
        }
    }

    #[test]
    fn no_filter_reads_a_file_or_runs_a_program() {
        for (line, reason) in [
            ("grep x /etc/passwd", Reason::File),
            ("head /etc/passwd", Reason::File),
            ("sort -o /tmp/x", Reason::Unknown),
            ("grep -f /etc/passwd", Reason::Unknown),
            ("grep -r x", Reason::Unknown),
            ("xargs kubectl delete", Reason::Unknown),
            ("sh", Reason::Unknown),
            ("tee x", Reason::Unknown),
            ("awk '{print $1}'", Reason::Unknown),
            ("tail -f", Reason::Unknown),
            ("cut -f0", Reason::Malformed),
            ("grep", Reason::Malformed),
        ] {
            let stages = words::split(line).unwrap();
            assert_eq!(Filter::parse(&stages[0]).unwrap_err().reason, reason, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_filter(text in "([ab1 \\-]|\n|\\PC){0,40}", place in 0..9_usize) {
            let line = ["grep -n -C1 a", "head -c 5", "tail -c 5", "wc", "sort -k2nr -u", "uniq -c", "cut -d- -f2-", "grep -o '.a*'", "tail -n +2"];
            run(line[place], &text);
        }
    }
}
