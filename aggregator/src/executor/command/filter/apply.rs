//! What filters do to a text.

use std::{borrow::Cow, cmp::Ordering};

use super::{Count, Cut, Filter, Grep, sort_key};
use crate::executor::command::{OUTPUT_BYTES, flags::Arguments, is_full, work::Stop};

impl Filter {
    /// What comes of a text, hardly more than [`OUTPUT_BYTES`] of it, and the exit code; nothing if it is stopped.
    pub(crate) fn apply(&self, text: &str, stop: &Stop) -> Option<(String, i32)> {
        let shown = match self {
            Self::Grep(grep) => grep.apply(text, stop),
            Self::Head(count) => (count.head(text).to_owned(), 0),
            Self::Tail(count) => (count.tail(text).to_owned(), 0),
            Self::Wc(flags) => (word_count(text, flags), 0),
            Self::Sort(flags) => (sorted(text, flags, stop), 0),
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

fn sorted(text: &str, flags: &Arguments, stop: &Stop) -> String {
    let key = flags.value("key").and_then(|key| sort_key(key).ok());
    let separator = flags.value("field-separator").and_then(|text| text.chars().next());
    let numeric = flags.has("numeric-sort") || key.is_some_and(|key| key.2);
    let reverse = flags.has("reverse") || key.is_some_and(|key| key.3);
    let fold = flags.has("ignore-case");
    let part = |line| -> Cow<'_, str> {
        let Some((from, to, ..)) = key else { return Cow::Borrowed(line) };
        match separator {
            Some(separator) => fields(str::split(line, separator), from, to, stop),
            None => fields(str::split_whitespace(line), from, to, stop),
        }
        .into()
    };
    // What a line is sorted by is made once, not with each comparison.
    let mut all: Vec<(f64, Cow<'_, str>, &str)> = lines(text, stop)
        .map(|line| match part(line) {
            part if numeric => (leading_number(&part), Cow::Borrowed(""), line),
            part if fold => (0.0, part.to_ascii_uppercase().into(), line),
            part => (0.0, part, line),
        })
        .collect();
    let by = |one: &(f64, Cow<'_, str>, &str), other: &(f64, Cow<'_, str>, &str)| -> Ordering {
        one.0.total_cmp(&other.0).then_with(|| one.1.cmp(&other.1))
    };
    all.sort_by(|one, other| {
        let order = by(one, other);
        let order = if reverse { order.reverse() } else { order };
        // sort's last resort.
        order.then_with(|| if reverse { other.2.cmp(one.2) } else { one.2.cmp(other.2) })
    });
    if flags.has("unique") {
        all.dedup_by(|one, other| by(one, other).is_eq());
    }
    joined(all.into_iter().map(|(.., line)| line))
}

/// Those from the one to the other, with blanks between them.
fn fields<'a>(all: impl Iterator<Item = &'a str>, from: usize, to: usize, stop: &Stop) -> String {
    let mut shown = String::new();
    let all = (1..=to).zip(all).skip_while(|(place, _)| *place < from);
    for (place, field) in all.take_while(|_| !stop.is_set()) {
        if place > from {
            shown.push(' ');
        }
        shown.push_str(field);
    }
    shown
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
