//! One line of the kernel's log.

use std::time::Duration;

/// A line, as syslog(2) gives it: `<4>[   12.345678] text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Since the kernel's start.
    pub(super) time: Duration,
    pub(super) text: &'a str,
}

impl<'a> Entry<'a> {
    /// `None`: it has no time, or a program wrote it (through `/dev/kmsg`, which marks it so).
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let (priority, rest) = line.strip_prefix('<')?.split_once('>')?;
        let facility = priority.parse::<u32>().ok()? >> 3;
        let (time, text) = rest.strip_prefix('[')?.split_once(']')?;
        let (seconds, micros) = time.trim_start().split_once('.')?;
        let micros = micros.parse::<u64>().ok().filter(|_| micros.len() == 6)?;
        let time = Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros);
        // With CONFIG_PRINTK_CALLER, who said it: `[  T123]` or `[    C1]`.
        let text = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((_caller, text)) => text,
            None => text,
        };
        (facility == 0).then_some(Self { time, text: text.trim() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_the_kernel_have_a_time_and_those_of_programs_do_not_count() {
        let parse = |line| Entry::parse(line).map(|entry| (entry.time.as_micros(), entry.text));
        assert_eq!(parse("<6>[    0.000000] Linux version 6.18"), Some((0, "Linux version 6.18")));
        assert_eq!(parse("<4>[64298.021171] nodes: up"), Some((64_298_021_171, "nodes: up")));
        assert_eq!(parse("<3>[    1.500000][  T123] hm"), Some((1_500_000, "hm")));
        assert_eq!(parse("<12>[    1.500000] a program's"), None);
        assert_eq!(parse("<6>no time"), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_harm(line in "(<[0-9]{0,12}>)?[\\[\\]0-9. ]{0,30}.{0,10}") {
            let _entry = Entry::parse(&line);
        }
    }
}
