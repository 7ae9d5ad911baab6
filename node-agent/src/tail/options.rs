//! The words after `tail`.

use std::{path::PathBuf, time::Duration};

use http::Uri;
use kestrel_runtime::config::duration;
use kestrel_tail::{engine::Policy, redact::Expressions};

/// What `kestrel-node-agent tail --help` says.
pub const USAGE: &str = "\
usage: kestrel-node-agent tail --root DIR [--sink SINK] [--until-end] [--positions FILE]
                               [--look-back TIME] [--policy all | errors] [--redact EXPRESSION]...

Reads container logs without Kubernetes, as the agent does: over rotation, with pieces joined,
invalid text cleaned and secrets taken out. Ends with a line that says what was read and what
that took: lines, bytes, processor time, memory.

  --root DIR        laid out like /var/log/pods: NAMESPACE_POD_UID/CONTAINER/0.log
  --sink SINK       stdout (default): the lines; json: an object a line, with where it comes from;
                    discard: nothing; link=HOST:PORT: an aggregator's agent link, with NODE_NAME
                    and KESTREL_LINK_{TOKEN,CA}_FILE as the agent has them
  --until-end       ends when everything that is there has been read
  --positions FILE  goes on from there, and keeps in it how far it came
  --look-back TIME  begins so long ago (90s, 10m, 2h) in files that are there and have no position;
                    otherwise at their beginning
  --policy POLICY   all (default), or errors: warnings and errors with the lines around them
  --redact EXPR     what is a secret beside what always is
";

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Discard,
    Stdout,
    Json,
    /// An aggregator, `https://host:port`.
    Link(Uri),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) root: PathBuf,
    pub(super) sink: Target,
    pub(super) until_end: bool,
    pub(super) positions: Option<PathBuf>,
    pub(super) look_back: Option<Duration>,
    pub(super) policy: Policy,
    pub(super) redact: Expressions,
}

impl Options {
    /// Reads the words.
    ///
    /// # Errors
    /// A sentence about the first that can't be used.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut root = None;
        let mut redact = Vec::new();
        let mut options = Self {
            root: PathBuf::new(),
            sink: Target::Stdout,
            until_end: false,
            positions: None,
            look_back: None,
            policy: Policy::All,
            redact: Expressions::default(),
        };
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let (name, given) =
                word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let mut value = || given.or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value"));
            match name {
                "--root" => root = Some(PathBuf::from(value()?)),
                "--sink" => options.sink = target(value()?)?,
                "--until-end" if given.is_none() => options.until_end = true,
                "--positions" => options.positions = Some(PathBuf::from(value()?)),
                "--look-back" => {
                    let text = value()?;
                    let time = duration(text).ok_or_else(|| {
                        format!("--look-back {text}: it has to be a number with s, m or h, such as 10m")
                    })?;
                    options.look_back = Some(time);
                }
                "--policy" => {
                    options.policy = match value()? {
                        "all" => Policy::All,
                        "errors" => Policy::Errors,
                        other => return Err(format!("--policy {other}: it has to be all or errors")),
                    }
                }
                "--redact" => redact.push(value()?),
                _ => return Err(format!("{word} is not known")),
            }
        }
        options.redact = redact.join("\n").parse().map_err(|error| format!("--redact: {error}"))?;
        options.root = root.ok_or("--root is missing: it names the folder to read")?;
        Ok(options)
    }
}

fn target(text: &str) -> Result<Target, String> {
    match text {
        "discard" => Ok(Target::Discard),
        "stdout" => Ok(Target::Stdout),
        "json" => Ok(Target::Json),
        _ => {
            let uri = text.strip_prefix("link=").and_then(|to| format!("https://{to}").parse::<Uri>().ok());
            let uri = uri.filter(|uri| uri.port().is_some() && uri.path() == "/");
            uri.map(Target::Link)
                .ok_or_else(|| format!("--sink {text}: it has to be discard, stdout, json or link=HOST:PORT"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(&words.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn good_words_are_understood() {
        let options = parse("--root /logs").unwrap();
        assert_eq!((options.sink, options.until_end, options.policy), (Target::Stdout, false, Policy::All));
        let words = "--sink=link=agg:8443 --root=/logs --until-end --positions p --look-back 2h --policy errors --redact a --redact b";
        let options = parse(words).unwrap();
        assert_eq!(options.sink, Target::Link(Uri::from_static("https://agg:8443")));
        assert_eq!(options.positions, Some(PathBuf::from("p")));
        assert_eq!(options.look_back, Some(Duration::from_hours(2)));
        assert!(options.until_end && options.policy == Policy::Errors);
    }

    #[test]
    fn bad_words_are_named() {
        for (words, part) in [
            ("--until-end", "--root is missing"),
            ("--root", "--root needs a value"),
            ("--root x --sink file", "discard, stdout, json or link=HOST:PORT"),
            ("--root x --sink link=agg", "link=HOST:PORT"),
            ("--root x --policy off", "all or errors"),
            ("--root x --look-back long", "such as 10m"),
            ("--root x --redact (", "--redact: "),
            ("--root x --until-end=yes", "--until-end=yes is not known"),
            ("--root x --follow", "--follow is not known"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
