//! What filters do to a text.

use std::{borrow::Cow, cmp::Ordering};

use super::{Count, Cut, Filter, Grep, Key, Sort};
use crate::executor::command::{OUTPUT_BYTES, flags::Arguments, is_full, work::Stop};

impl Filter {
    /// What comes of a text, hardly more than [`OUTPUT_BYTES`] of it, and the exit code; nothing if it is stopped.
    pub(crate) fn apply(&self, text: &str, stop: &Stop) -> Option<(String, i32)> {
        let shown = match self {
            Self::Grep(grep) => grep.apply(text, stop),
            Self::Head(count) => (count.head(text).to_owned(), 0),
            Self::Tail(count) => (count.tail(text).to_owned(), 0),
            Self::Wc(flags) => (word_count(text, flags), 0),
            Self::Sort(sort) => (sort.apply(text, stop), 0),
            Self::Uniq(flags) => (unique(text, flags, stop), 0),
            Self::Cut(cut) => (cut.apply(text, stop), 0),
        };
        (!stop.is_set()).then_some(shown)
    }
}

/// The lines, as long as somebody waits.
fn lines<'a>(text: &'a str, stop: &Stop) -> impl Iterator<Item = &'a str> {
    text.split_terminator('\n').take_while(|_| !stop.is_set())
}

fn joined<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> String {
    let mut text = String::new();
    for line in lines {
        if is_full(&text) {
            break;
        }
        text.push_str(line.as_ref());
        text.push('\n');
    }
    text
}

impl Count {
    fn head(self, text: &str) -> &str {
        let Self { number, is_bytes, is_signed } = self;
        let whole = if is_bytes { text.len() } else { text.split_terminator('\n').count() };
        let wanted = if is_signed { whole.saturating_sub(number) } else { number };
        if is_bytes { &text[..text.floor_char_boundary(wanted)] } else { &text[..after_lines(text, wanted)] }
    }

    fn tail(self, text: &str) -> &str {
        let Self { number, is_bytes, is_signed } = self;
        let whole = if is_bytes { text.len() } else { text.split_terminator('\n').count() };
        let left_out = if is_signed { number.saturating_sub(1) } else { whole.saturating_sub(number) };
        if is_bytes {
            &text[text.ceil_char_boundary(left_out.min(text.len()))..]
        } else {
            &text[after_lines(text, left_out)..]
        }
    }
}

/// Where so many lines end.
fn after_lines(text: &str, count: usize) -> usize {
    match count {
        0 => 0,
        _ => text.match_indices('\n').nth(count - 1).map_or(text.len(), |(place, _)| place + 1),
    }
}

impl Grep {
    fn apply(&self, text: &str, stop: &Stop) -> (String, i32) {
        let [invert, number, count, only] =
            ["invert-match", "line-number", "count", "only-matching"].map(|name| self.flags.has(name));
        let lines: Vec<&str> = lines(text, stop).collect();
        let is_hit = |line: &str| self.patterns.iter().any(|pattern| pattern.find(line, 0, stop).is_some());
        let hits: Vec<usize> = lines
            .iter()
            .enumerate()
            .take_while(|_| !stop.is_set())
            .filter(|(_, line)| is_hit(line) != invert)
            .map(|(place, _)| place)
            .take(self.most)
            .collect();
        let code = i32::from(hits.is_empty());
        if count {
            return (format!("{}\n", hits.len()), code);
        }
        let mut shown = String::new();
        let mut last: Option<usize> = None;
        let show = |shown: &mut String, place: usize, sign: &str, line: &str| {
            if number {
                shown.push_str(&format!("{}{sign}", place + 1));
            }
            shown.push_str(line);
            shown.push('\n');
        };
        for (nth, place) in hits.iter().copied().enumerate() {
            if shown.len() > OUTPUT_BYTES || stop.is_set() {
                break;
            }
            if only {
                let patterns = self.patterns.iter().filter(|_| !invert);
                for range in patterns.flat_map(|pattern| pattern.all(lines[place], stop)) {
                    show(&mut shown, place, ":", &lines[place][range]);
                    if shown.len() > OUTPUT_BYTES {
                        break;
                    }
                }
                continue;
            }
            let from = place.saturating_sub(self.before).max(last.map_or(0, |last| last + 1));
            if last.is_some_and(|last| from > last + 1) && (self.before > 0 || self.after > 0) {
                shown.push_str("--\n");
            }
            (from..place).for_each(|context| show(&mut shown, context, "-", lines[context]));
            if last.is_none_or(|last| place > last) {
                show(&mut shown, place, ":", lines[place]);
            }
            let next = hits.get(nth + 1).copied().unwrap_or(lines.len());
            let to = (place.saturating_add(self.after)).min(next.saturating_sub(1)).min(lines.len() - 1);
            (place + 1..=to).for_each(|context| show(&mut shown, context, "-", lines[context]));
            last = Some(to.max(place));
        }
        (shown, code)
    }
}

fn word_count(text: &str, flags: &Arguments) -> String {
    let counts = [
        ("lines", text.matches('\n').count()),
        ("words", text.split_whitespace().count()),
        ("bytes", text.len()),
    ];
    let all = counts.iter().all(|(name, _)| !flags.has(name));
    let chosen: Vec<usize> =
        counts.into_iter().filter(|(name, _)| all || flags.has(name)).map(|(_, count)| count).collect();
    match &chosen[..] {
        [one] => format!("{one}\n"),
        more => more.iter().map(|count| format!("{count:7}")).collect::<Vec<_>>().join(" ") + "\n",
    }
}

impl Sort {
    fn apply(&self, text: &str, stop: &Stop) -> String {
        let mut all: Vec<&str> = lines(text, stop).collect();
        // sort's last resort, but where one of several equal lines is shown, which is the first.
        if !self.is_unique {
            all.sort_unstable();
            if self.is_reverse {
                all.reverse();
            }
        }
        // By one key after another, so that what the later ones made of them holds where the first one is equal.
        for key in self.keys.iter().rev() {
            // What a line is sorted by is made once, not with each comparison.
            let keyed = all.into_iter().take_while(|_| !stop.is_set());
            let mut keyed: Vec<_> = keyed.map(|line| (key.of(line, self.separator), line)).collect();
            match key.is_reverse {
                true => keyed.sort_by(|one, other| compare(&other.0, &one.0)),
                false => keyed.sort_by(|one, other| compare(&one.0, &other.0)),
            }
            all = keyed.into_iter().map(|(_, line)| line).collect();
        }
        if self.is_unique {
            let is_same = |key: &Key, one, other| {
                let [one, other] = [one, other].map(|line| key.of(line, self.separator));
                !stop.is_set() && compare(&one, &other).is_eq()
            };
            all.dedup_by(|one, other| self.keys.iter().all(|key| is_same(key, one, other)));
        }
        joined(all)
    }
}

/// A number, or a text.
type Ranked<'a> = (f64, Cow<'a, str>);

fn compare(one: &Ranked<'_>, other: &Ranked<'_>) -> Ordering {
    one.0.total_cmp(&other.0).then_with(|| one.1.cmp(&other.1))
}

impl Key {
    fn of<'a>(&self, line: &'a str, separator: Option<char>) -> Ranked<'a> {
        let begin = field_end(line, self.from - 1, separator).1;
        let end = field_end(line, self.to, separator).0;
        let part = &line[begin..end.max(begin)];
        match part {
            part if self.is_number => (leading_number(part), Cow::Borrowed("")),
            part if self.is_folded => (0.0, part.to_ascii_uppercase().into()),
            part => (0.0, Cow::Borrowed(part)),
        }
    }
}

/// Where the field of this number ends, and where the next one begins. Without a separator, the blanks before a field
/// are of it.
fn field_end(line: &str, number: usize, separator: Option<char>) -> (usize, usize) {
    let Some(before) = number.checked_sub(1) else { return (0, 0) };
    let end = match separator {
        Some(separator) => {
            line.match_indices(separator).nth(before).map(|(end, sign)| (end, end + sign.len()))
        }
        None => {
            let is_blank = |byte: u8| matches!(byte, b' ' | b'\t');
            let ends = line.as_bytes().windows(2).enumerate();
            let mut ends = ends.filter(|(_, pair)| !is_blank(pair[0]) && is_blank(pair[1]));
            ends.nth(before).map(|(place, _)| (place + 1, place + 1))
        }
    };
    end.unwrap_or((line.len(), line.len()))
}

fn leading_number(text: &str) -> f64 {
    let text = text.trim_start();
    let end = text
        .char_indices()
        .take_while(|(place, char)| char.is_ascii_digit() || *char == '.' || (*place == 0 && *char == '-'))
        .map(|(place, _)| place + 1)
        .last()
        .unwrap_or(0);
    text[..end].parse().unwrap_or(0.0)
}

fn unique(text: &str, flags: &Arguments, stop: &Stop) -> String {
    let mut groups: Vec<(usize, &str)> = Vec::new();
    for line in lines(text, stop) {
        match groups.last_mut() {
            Some((count, last)) if *last == line => *count += 1,
            _ => groups.push((1, line)),
        }
    }
    let wanted = |count: usize| (!flags.has("repeated") || count > 1) && (!flags.has("unique") || count == 1);
    joined(
        groups.into_iter().filter(|(count, _)| wanted(*count)).map(|(count, line)| {
            if flags.has("count") { format!("{count:7} {line}") } else { line.to_owned() }
        }),
    )
}

impl Cut {
    fn apply(&self, text: &str, stop: &Stop) -> String {
        joined(lines(text, stop).map(|line| match self.delimiter {
            None => self.wanted(line.split_inclusive(|_| true), "", stop),
            Some(delimiter) if !line.contains(delimiter) => line.to_owned(),
            Some(delimiter) => self.wanted(line.split(delimiter), delimiter.encode_utf8(&mut [0; 4]), stop),
        }))
    }

    /// The parts whose places are asked for, with something between them.
    fn wanted<'a>(&self, parts: impl Iterator<Item = &'a str>, between: &str, stop: &Stop) -> String {
        let (mut shown, mut ranges, mut is_first) = (String::new(), self.ranges.iter().peekable(), true);
        for (place, part) in (1..).zip(parts) {
            while ranges.next_if(|(_, to)| *to < place).is_some() {}
            let Some((from, _)) = ranges.peek() else { break };
            if stop.is_set() {
                break;
            }
            if *from <= place {
                if !std::mem::take(&mut is_first) {
                    shown.push_str(between);
                }
                shown.push_str(part);
            }
        }
        shown
    }
}
