//! The words of the command line.

use std::{net::SocketAddr, path::PathBuf};

/// What `kestrel-webhook --help` says.
pub const USAGE: &str = "\
usage: kestrel-webhook [serve | explain | --version | --help]

  (nothing)  the daemon in a cluster; its environment variables are in docs/interfaces.md

kestrel-webhook serve --listen ADDRESS:PORT --tls-cert FILE --tls-key FILE [--profiles DIR]
  Serves POST /mutate without an API server, by the same rules as in a cluster.

kestrel-webhook explain -f FILE [--profile FILE]...
  Prints decision, reason and patch of every pod and pod template in FILE (- is the standard input).

  --listen ADDRESS:PORT  such as 127.0.0.1:8443
  --tls-cert FILE        the server's certificate and its chain, PEM
  --tls-key FILE         its key, PEM
  --profiles DIR         YAML or JSON files with InjectionProfiles, and Namespaces (for their labels),
                         LimitRanges and ResourceQuotas; other kinds are passed over
  --profile FILE         one such file

The variables of the daemon that say what collectors are made of hold for both; without
KESTREL_COLLECTOR_IMAGE and the agent link's CA (KESTREL_LINK_CA_FILE) the patch names no real ones. Of profiles
the images count as some that have run on a node. explain leaves out what does not match
KESTREL_NAMESPACE_SELECTOR and KESTREL_OBJECT_SELECTOR (JSON, as the chart sets them for the webhook).
";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// The daemon.
    Daemon,
    /// Admission without an API server.
    Serve(Serve),
    /// One explanation.
    Explain(Explain),
    /// The program's version.
    Version,
    /// [`USAGE`].
    Help,
}

/// The words after `serve`.
#[derive(Debug, PartialEq, Eq)]
pub struct Serve {
    /// Where.
    pub listen: SocketAddr,
    /// PEM file of the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
    /// Folder with profiles.
    pub profiles: Option<PathBuf>,
}

/// The words after `explain`.
#[derive(Debug, PartialEq, Eq)]
pub struct Explain {
    /// The pods; `-` is the standard input.
    pub file: PathBuf,
    /// Files with profiles.
    pub profiles: Vec<PathBuf>,
}

impl Command {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// A sentence about what cannot be used.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let Some((command, options)) = words.split_first() else { return Ok(Self::Daemon) };
        if options.iter().any(|word| word == "--help") {
            return Ok(Self::Help);
        }
        match command.as_str() {
            "help" | "--help" | "-h" => Ok(Self::Help),
            "--version" => Ok(Self::Version),
            "serve" => {
                let [listen, certificate, key, folder] =
                    values(options, ["--listen", "--tls-cert", "--tls-key", "--profiles"])?;
                let listen =
                    one(listen, "--listen")?.ok_or("--listen is missing: it says where to listen")?;
                let listen = listen.parse().map_err(|_| {
                    format!("--listen {listen}: it has to be ADDRESS:PORT, such as 127.0.0.1:8443")
                })?;
                let file = |values, name: &str| -> Result<PathBuf, String> {
                    Ok(one(values, name)?
                        .ok_or_else(|| format!("{name} is missing: it names a PEM file"))?
                        .into())
                };
                Ok(Self::Serve(Serve {
                    listen,
                    certificate: file(certificate, "--tls-cert")?,
                    key: file(key, "--tls-key")?,
                    profiles: one(folder, "--profiles")?.map(PathBuf::from),
                }))
            }
            "explain" => {
                let [file, profiles] = values(options, ["-f", "--profile"])?;
                let file = one(file, "-f")?.ok_or("-f is missing: it names the file with the pod")?;
                Ok(Self::Explain(Explain {
                    file: file.into(),
                    profiles: profiles.into_iter().map(PathBuf::from).collect(),
                }))
            }
            other => Err(format!("{other} is not known")),
        }
    }
}

/// The values of options that all have one, in the order of `names`.
fn values<'a, const N: usize>(words: &'a [String], names: [&str; N]) -> Result<[Vec<&'a str>; N], String> {
    let mut found = [const { Vec::new() }; N];
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (name, given) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let Some(place) = names.iter().position(|known| *known == name) else {
            return Err(format!("{word} is not known"));
        };
        found[place].push(given.or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value"))?);
    }
    Ok(found)
}

fn one<'a>(values: Vec<&'a str>, name: &str) -> Result<Option<&'a str>, String> {
    match values[..] {
        [] => Ok(None),
        [value] => Ok(Some(value)),
        _ => Err(format!("{name} is there twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn commands_and_options_are_understood() {
        assert_eq!(parse(""), Ok(Command::Daemon));
        assert_eq!(parse("--version"), Ok(Command::Version));
        for line in ["--help", "-h", "serve --help"] {
            assert_eq!(parse(line), Ok(Command::Help));
        }
        let serve = Serve {
            listen: ([127, 0, 0, 1], 8443).into(),
            certificate: "c".into(),
            key: "k".into(),
            profiles: Some("p".into()),
        };
        let line = "serve --listen 127.0.0.1:8443 --tls-cert=c --tls-key k --profiles p";
        assert_eq!(parse(line), Ok(Command::Serve(serve)));
        let explain = Explain { file: "-".into(), profiles: vec!["a".into(), "b".into()] };
        assert_eq!(parse("explain -f - --profile a --profile b"), Ok(Command::Explain(explain)));
    }

    #[test]
    fn a_mistake_is_a_sentence() {
        for (line, expected) in [
            ("sevre", "sevre is not known"),
            ("serve", "--listen is missing: it says where to listen"),
            ("serve --listen 8443", "--listen 8443: it has to be ADDRESS:PORT, such as 127.0.0.1:8443"),
            ("serve --listen 127.0.0.1:1", "--tls-cert is missing: it names a PEM file"),
            ("explain pod.yaml", "pod.yaml is not known"),
            ("explain -f", "-f needs a value"),
            ("explain -f a -f b", "-f is there twice"),
        ] {
            assert_eq!(parse(line), Err(expected.to_owned()), "{line}");
        }
    }
}
