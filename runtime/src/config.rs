//! Configuration from environment variables.
//!
//! Every variable is read before the first mistake is reported, so that one
//! start names them all.

use std::{collections::BTreeMap, env, fmt, path::PathBuf, str::FromStr, time::Duration};

/// Where settings come from: the process environment, or a map in tests.
pub trait Source {
    /// The value of `name`; `None` when unset. An empty value counts as unset,
    /// as charts render empty strings for values that nobody gave.
    fn get(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct Environment;

impl Source for Environment {
    fn get(&self, name: &str) -> Option<String> {
        env::var(name).ok().filter(|value| !value.is_empty())
    }
}

impl Source for BTreeMap<&str, &str> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).filter(|value| !value.is_empty()).map(ToString::to_string)
    }
}

/// Reads settings one by one and collects what is wrong with them.
pub struct Settings<'a> {
    source: &'a dyn Source,
    mistakes: Vec<String>,
}

impl<'a> Settings<'a> {
    /// Begins to read from `source`.
    pub fn new(source: &'a dyn Source) -> Self {
        Self { source, mistakes: Vec::new() }
    }

    /// A value that may be absent.
    pub fn optional(&mut self, name: &str) -> Option<String> {
        self.source.get(name)
    }

    /// A text with a default.
    pub fn text(&mut self, name: &str, default: &str) -> String {
        self.source.get(name).unwrap_or_else(|| default.to_owned())
    }

    /// A path with a default.
    pub fn path(&mut self, name: &str, default: &str) -> PathBuf {
        self.text(name, default).into()
    }

    /// A value without which the process can't work; `purpose` completes the
    /// sentence "`NAME` is not set: it …".
    pub fn required(&mut self, name: &str, purpose: &str) -> String {
        self.source.get(name).unwrap_or_else(|| {
            self.mistakes.push(format!("{name} is not set: it {purpose}"));
            String::new()
        })
    }

    /// Anything that parses from text, with a default.
    pub fn parse<T: FromStr>(&mut self, name: &str, default: T) -> T
    where
        T::Err: fmt::Display,
    {
        match self.source.get(name).map(|text| (text.trim().parse(), text)) {
            None => default,
            Some((Ok(value), _)) => value,
            Some((Err(error), text)) => {
                self.mistakes.push(format!("{name}={text:?} is not usable: {error}"));
                default
            }
        }
    }

    /// A switch: `true` or `false`.
    pub fn flag(&mut self, name: &str, default: bool) -> bool {
        self.parse(name, default)
    }

    /// A duration given in whole seconds, at least one.
    pub fn seconds(&mut self, name: &str, default: u32) -> Duration {
        let seconds = self.parse(name, default);
        if seconds == 0 {
            self.mistake(format!("{name}=0 is not usable: at least 1 second is needed"));
        }
        Duration::from_secs(seconds.max(1).into())
    }

    /// A duration such as `90s`, `10m` or `2h`.
    pub fn duration(&mut self, name: &str, default: Duration) -> Duration {
        let Some(text) = self.optional(name) else { return default };
        duration(&text).unwrap_or_else(|| {
            self.mistake(format!("{name}={text} is not usable: it is a number with s, m or h"));
            default
        })
    }

    /// Adds a mistake that only the caller could see.
    pub fn mistake(&mut self, sentence: String) {
        self.mistakes.push(sentence);
    }

    /// Ends reading.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn finish(self) -> Result<(), Mistakes> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(Mistakes(self.mistakes)) }
    }
}

/// Everything that is wrong with the configuration, a sentence each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Mistakes(pub Vec<String>);

/// A number with its unit: `s`, `m` or `h`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let number: u32 = number.parse().ok()?;
    Some(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_in_one_go() {
        let source = BTreeMap::from([("PORT", "eighty"), ("TLS", "maybe"), ("WAIT", "0"), ("EMPTY", "")]);
        let mut settings = Settings::new(&source);
        assert_eq!(settings.parse("PORT", 80_u16), 80);
        assert!(!settings.flag("TLS", false));
        assert_eq!(settings.required("EMPTY", "names the server"), "");
        settings.seconds("WAIT", 5);
        let text = settings.finish().unwrap_err().to_string();
        for part in ["PORT=\"eighty\"", "TLS=\"maybe\"", "EMPTY is not set: it names the server", "WAIT=0"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn good_values_are_taken() {
        let source = BTreeMap::from([("PORT", " 443 "), ("WAIT", "7")]);
        let mut settings = Settings::new(&source);
        assert_eq!(settings.parse("PORT", 80_u16), 443);
        assert_eq!(settings.seconds("WAIT", 5), Duration::from_secs(7));
        assert_eq!(settings.text("HOST", "cloud"), "cloud");
        settings.finish().unwrap();
    }
}
