//! Files by pattern.

use std::{fmt, path::Path, str::FromStr};

use super::{Age, Candidate, Order};

/// A relative path in which `*` stands for any part of a name, `?` for one
/// character and a component `**` for any number of directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

/// A pattern that no path can match.
#[derive(Debug, thiserror::Error)]
#[error("the pattern {0:?} must be a relative path without empty or dot components")]
pub struct InvalidPattern(String);

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<_> = text.split('/').map(str::to_owned).collect();
        if parts.iter().any(|part| matches!(part.as_str(), "" | "." | "..")) {
            return Err(InvalidPattern(text.to_owned()));
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl Pattern {
    /// Whether the file `name` in `directory` matches.
    pub fn matches(&self, directory: &Path, name: &str) -> bool {
        let path: Option<Vec<_>> = directory.iter().map(|part| part.to_str()).chain([Some(name)]).collect();
        path.is_some_and(|path| matches_path(&self.0, &path))
    }

    /// Whether something below `directory` may match.
    pub fn enters(&self, directory: &Path) -> bool {
        let mut parts = self.0.iter();
        for component in directory {
            match (parts.next(), component.to_str()) {
                (Some(part), Some(_)) if part == "**" => return true,
                (Some(part), Some(name)) if matches_name(part.as_bytes(), name.as_bytes()) => {}
                _ => return false,
            }
        }
        // At least the file's own name is left over.
        parts.next().is_some()
    }
}

/// A file that a pattern names, or one that was rotated away from such a name
/// (`app.log.1`, `app.log-20261121`, `app-2026-11-21T07-00-00.000.log`): what was not read of it before is read on. So is what was not
/// read of a file before it was packed (`app.log.1.gz`), whatever names it.
pub fn candidate(patterns: &[Pattern], directory: &Path, name: &str) -> Option<Candidate> {
    let named = |name: &str| patterns.iter().any(|pattern| pattern.matches(directory, name));
    let (plain, packed) = name.strip_suffix(".gz").map_or((name, false), |plain| (plain, true));
    let (series, age) = if named(plain) {
        (plain.to_owned(), Age::Live)
    } else {
        let mut cuts = plain.rmatch_indices(['.', '-']).map(|(at, _)| at);
        let cut = cuts.find(|at| named(&plain[..*at]));
        let cut = cut.map(|cut| (plain[..cut].to_owned(), plain[cut..].to_owned()));
        match cut.or_else(|| timed(plain).filter(|(series, _)| named(series))) {
            Some((series, age)) => (series, Age::Rotated(age)),
            // Named with what says that it is packed alone: it never was another file here.
            None => return None,
        }
    };
    Some(Candidate {
        series,
        known_only: packed || age != Age::Live,
        order: Order { instance: 0, age },
        packed,
        name: name.to_owned(),
    })
}

/// The name and the time of a file that was rotated as Go's lumberjack does it, with the time before the extension.
fn timed(name: &str) -> Option<(String, String)> {
    const FORM: &[u8] = b"-0000-00-00T00-00-00.000";
    let (base, extension) = name.rsplit_once('.')?;
    let (stem, time) = base.split_at_checked(base.len().checked_sub(FORM.len())?)?;
    let is_time = time.bytes().zip(FORM).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == *form,
    });
    is_time.then(|| (format!("{stem}.{extension}"), time.to_owned()))
}

fn matches_path(pattern: &[String], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((part, rest)) if part == "**" => (0..=path.len()).any(|skip| matches_path(rest, &path[skip..])),
        Some((part, rest)) => path.split_first().is_some_and(|(name, below)| {
            matches_name(part.as_bytes(), name.as_bytes()) && matches_path(rest, below)
        }),
    }
}

/// Matches one name, going back only to the last `*`: linear in practice and
/// quadratic at worst.
fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    p = star + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        pattern.parse::<Pattern>().unwrap().matches(Path::new(directory), name)
    }

    #[test]
    fn patterns_match_as_a_shell_would() {
        for (pattern, path) in [
            ("**/*.log", "a.log"),
            ("**/*.log", "x/y/a.log"),
            ("*.log", "a.log"),
            ("logs/app-?.txt", "logs/app-1.txt"),
            ("a*b*c", "aXbXbXc"),
            ("logs/**", "logs/x/y"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.log", "x/a.log"),
            ("**/*.log", "a.txt"),
            ("logs/*.log", "log/a.log"),
            ("a?c", "ac"),
            ("a*b", "abc"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
        for wrong in ["", "/abs", "../up", "a//b"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_directories_that_can_hold_a_match_are_entered() {
        let enters = |pattern: &str, path: &str| pattern.parse::<Pattern>().unwrap().enters(Path::new(path));
        assert!(enters("**/*.log", "any/depth"));
        assert!(enters("logs/*.log", "logs"));
        assert!(!enters("logs/*.log", "logs/old"));
        assert!(!enters("*.log", "data"));
        assert!(enters("logs/*/x.log", "logs/a"));
    }

    #[test]
    fn rotated_names_continue_a_series() {
        let patterns = ["**/*.log".parse().unwrap()];
        let found = |name: &str| {
            candidate(&patterns, Path::new(""), name)
                .map(|c| (c.series, c.known_only, c.order.age == Age::Live, c.packed))
        };
        assert_eq!(found("app.log"), Some(("app.log".into(), false, true, false)));
        assert_eq!(found("app.log.1"), Some(("app.log".into(), true, false, false)));
        assert_eq!(found("app.log-2026-11-21"), Some(("app.log".into(), true, false, false)));
        assert_eq!(found("app.log.2.gz"), Some(("app.log".into(), true, false, true)));
        assert_eq!(found("app.log.gz"), Some(("app.log".into(), true, true, true)));
        assert_eq!((found("data.db"), found("data.gz")), (None, None));
        let patterns = ["agent.log".parse().unwrap()];
        let found = |name: &str| {
            candidate(&patterns, Path::new(""), name).map(|c| (c.series, c.known_only, c.order.age, c.packed))
        };
        let age = Age::Rotated("-2026-11-21T07-00-00.000".to_owned());
        let rotated = |packed| Some(("agent.log".to_owned(), true, age.clone(), packed));
        assert_eq!(found("agent-2026-11-21T07-00-00.000.log"), rotated(false));
        assert_eq!(found("agent-2026-11-21T07-00-00.000.log.gz"), rotated(true));
        for other in [
            "agent-2026-11-21.log",
            "x-2026-11-21T07-00-00.000.log",
            "agent-2026-11-21T07-00-00.000.txt",
            "ä.log",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
