//! What is broken on purpose: one value that the query API, the command line
//! and tests set, and that every part of the server asks.

use std::{fmt, str::FromStr, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use crate::wire::Stream;

/// What is broken on purpose. The default is nothing.
///
/// Setting it replaces what was set before. `cut`, `goaway`, `flap` and resets
/// at [`When::Now`] happen once; the rest lasts until it is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Ends streams: STREAMS=CODE@WHEN[*TIMES], such as logs,events=UNAVAILABLE@now or
    /// all=INTERNAL@open*3. WHEN is now, open (the RPC is refused), a number (after so many
    /// messages of an opening; 0: after the headers), or within:BYTES (while a message of at least
    /// that size is coming). Repeatable.
    #[arg(long = "reset", value_name = "RESET")]
    pub resets: Vec<Reset>,
    /// Streams of which nothing is read: their flow control stays shut.
    #[arg(long, value_name = "STREAM", value_delimiter = ',')]
    pub stall: Vec<Stream>,
    /// Streams without heartbeats.
    #[arg(long, value_name = "STREAM", value_delimiter = ',')]
    pub quiet: Vec<Stream>,
    /// What a new connection meets.
    #[arg(long, value_enum, default_value_t)]
    pub door: Door,
    /// Bytes that are read of each connection in a second.
    #[arg(long, value_name = "BYTES")]
    pub read_rate: Option<u32>,
    /// Refuses every token.
    #[arg(long)]
    pub refuse_tokens: bool,
    /// How far the clock is ahead that tokens are judged by, such as 2h or -10m.
    #[arg(long, default_value = "0s", allow_hyphen_values = true)]
    pub clock: SignedDuration,
    /// Cuts every connection without a word.
    #[arg(long)]
    pub cut: bool,
    /// Asks every connection to end (GOAWAY).
    #[arg(long)]
    pub goaway: bool,
    /// Cuts the connections that were asked to end and did not within this time.
    #[arg(long, requires = "goaway")]
    pub grace: Option<SignedDuration>,
    /// Cuts every connection again and again: TIMES/PERIOD, such as 100/1m.
    #[arg(long, value_name = "TIMES/PERIOD")]
    pub flap: Option<Flap>,
    /// Everything is well again after this time.
    #[arg(long = "for", value_name = "TIME")]
    #[serde(rename = "for")]
    pub lasts: Option<SignedDuration>,
}

impl Faults {
    /// Nothing but this reset.
    pub fn reset(streams: impl Into<Vec<Stream>>, code: Code, when: When) -> Self {
        Self { resets: vec![Reset { streams: streams.into(), code, when, times: None }], ..Self::default() }
    }

    /// Streams that are not offered.
    pub fn unimplemented(streams: impl Into<Vec<Stream>>) -> Self {
        Self::reset(streams, Code::Unimplemented, When::Open)
    }

    /// Nothing but one cut of every connection.
    pub fn cut() -> Self {
        Self { cut: true, ..Self::default() }
    }

    /// Whether a stream is ended at this moment. A reset that was asked for a
    /// number of times is used up by it.
    pub(crate) fn strike(&mut self, stream: Stream, moment: Moment) -> Option<Status> {
        let place =
            self.resets.iter().position(|reset| reset.when.is(moment) && reset.streams.contains(&stream))?;
        let reset = self.resets.get_mut(place)?;
        let status = status(reset.code);
        if let Some(times) = &mut reset.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.resets.remove(place);
            }
        }
        Some(status)
    }
}

/// A status that says where it comes from.
pub(crate) fn status(code: Code) -> Status {
    Status::new(code, "a fault that was asked for")
}

/// An end of streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reset {
    /// Whose.
    pub streams: Vec<Stream>,
    /// The status; `Ok` ends the stream without an error.
    pub code: Code,
    /// When.
    pub when: When,
    /// How often; `None`: always.
    pub times: Option<u32>,
}

/// When a stream is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once, if it is open; once.
    Now,
    /// Before it is open: the RPC is refused.
    Open,
    /// After this many messages of one opening; after 0 the operator has seen
    /// the headers and nothing else.
    Received(u64),
    /// While a message of at least this many bytes is coming in: when its
    /// first bytes have come.
    Within(u64),
}

impl When {
    fn is(self, moment: Moment) -> bool {
        match (self, moment) {
            (Self::Open, Moment::Open) => true,
            (Self::Received(wanted), Moment::Received(count)) => wanted == count,
            (Self::Within(least), Moment::Within(bytes)) => bytes >= least,
            _ => false,
        }
    }
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// It is asked for.
    Open,
    /// This many messages came.
    Received(u64),
    /// A part of a message of this many bytes came.
    Within(u64),
}

impl FromStr for Reset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not STREAMS=CODE@WHEN[*TIMES], such as logs=UNAVAILABLE@now");
        let (streams, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (code, rest) = rest.split_once('@').ok_or_else(wrong)?;
        let (when, times) = match rest.split_once('*') {
            Some((when, times)) => (when, Some(times.parse().ok().filter(|&n| n > 0).ok_or_else(wrong)?)),
            None => (rest, None),
        };
        let streams = match streams {
            "all" => Stream::ALL.to_vec(),
            streams => streams.split(',').map(str::parse).collect::<Result<_, _>>()?,
        };
        let when = match (when, when.strip_prefix("within:")) {
            ("now", _) => When::Now,
            ("open", _) => When::Open,
            (_, Some(bytes)) => When::Within(bytes.parse().map_err(|_| wrong())?),
            (count, None) => When::Received(count.parse().map_err(|_| wrong())?),
        };
        Ok(Self { streams, code: code_of(code)?, when, times })
    }
}

/// The code of a name such as `RESOURCE_EXHAUSTED` or `ResourceExhausted`.
fn code_of(name: &str) -> Result<Code, String> {
    let plain = name.replace('_', "");
    (0..=16)
        .map(Code::from)
        .find(|code| format!("{code:?}").eq_ignore_ascii_case(&plain))
        .ok_or_else(|| format!("{name:?} is no gRPC code"))
}

impl fmt::Display for Reset {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let streams: Vec<&str> = self.streams.iter().map(|stream| stream.name()).collect();
        write!(out, "{}={:?}@", streams.join(","), self.code)?;
        match self.when {
            When::Now => out.write_str("now"),
            When::Open => out.write_str("open"),
            When::Received(count) => write!(out, "{count}"),
            When::Within(bytes) => write!(out, "within:{bytes}"),
        }?;
        self.times.map_or(Ok(()), |times| write!(out, "*{times}"))
    }
}

impl TryFrom<String> for Reset {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Reset> for String {
    fn from(reset: Reset) -> Self {
        reset.to_string()
    }
}

/// What a new connection meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// A server.
    #[default]
    Open,
    /// A closed port.
    Closed,
    /// TCP is accepted and closed before TLS.
    RefuseTls,
    /// TLS, but every client certificate is refused as expired.
    RefuseCertificates,
    /// TCP is accepted and nothing said.
    Silent,
    /// TLS is done, but no word of HTTP/2 said.
    Mute,
}

/// Connections that are cut again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Flap {
    /// How often.
    pub times: u32,
    /// Within what time.
    pub period: SignedDuration,
}

impl Flap {
    /// From one cut to the next.
    pub(crate) fn interval(self) -> Duration {
        self.period.unsigned_abs() / self.times.max(1)
    }
}

impl FromStr for Flap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(times, period)| {
            Some(Self { times: times.parse().ok()?, period: period.parse().ok()? })
        });
        parts.ok_or_else(|| format!("{text:?} is not TIMES/PERIOD, such as 100/1m"))
    }
}

impl TryFrom<String> for Flap {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Flap> for String {
    fn from(Flap { times, period }: Flap) -> Self {
        format!("{times}/{period:#}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reset_reads_as_it_is_written() {
        let texts = [
            "logs=Unavailable@now",
            "data,events=ResourceExhausted@open*3",
            "control=Unimplemented@0",
            "flows=Internal@17",
            "data=Aborted@within:1000000*1",
        ];
        for text in texts {
            assert_eq!(text.parse::<Reset>().unwrap().to_string(), text);
        }
        let all: Reset = "all=RESOURCE_EXHAUSTED@open".parse().unwrap();
        assert_eq!((all.streams.len(), all.code), (5, Code::ResourceExhausted));
        for text in ["logs", "logs=OK", "logs=NO@now", "pods=OK@now", "logs=OK@later", "logs=OK@now*0"] {
            assert!(text.parse::<Reset>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_reset_strikes_its_streams_at_its_moment_as_often_as_asked() {
        let mut faults =
            Faults { resets: vec!["logs,data=ABORTED@within:100*2".parse().unwrap()], ..Faults::default() };
        assert!(faults.strike(Stream::Flows, Moment::Within(100)).is_none());
        assert!(faults.strike(Stream::Logs, Moment::Within(99)).is_none());
        assert!(faults.strike(Stream::Logs, Moment::Received(100)).is_none());
        assert_eq!(faults.strike(Stream::Logs, Moment::Within(100)).unwrap().code(), Code::Aborted);
        assert!(faults.strike(Stream::Data, Moment::Within(1_000)).is_some());
        assert!(faults.strike(Stream::Data, Moment::Within(1_000)).is_none());
        let mut faults = Faults::unimplemented([Stream::Events]);
        assert!((0..9).all(|_| faults.strike(Stream::Events, Moment::Open).is_some()));
    }

    #[test]
    fn everything_has_a_place_in_json() {
        let faults = Faults {
            resets: vec!["logs=OK@now".parse().unwrap()],
            quiet: vec![Stream::Data],
            door: Door::RefuseCertificates,
            clock: SignedDuration::from_hours(-2),
            flap: Some("100/1m".parse().unwrap()),
            lasts: Some(SignedDuration::from_secs(3)),
            ..Faults::default()
        };
        let json = json!(faults);
        assert_eq!(
            (&json["door"], &json["resets"][0]),
            (&json!("refuse-certificates"), &json!("logs=Ok@now"))
        );
        assert_eq!(serde_json::from_value::<Faults>(json).unwrap(), faults);
        assert_eq!(serde_json::from_value::<Faults>(json!({})).unwrap(), Faults::default());
        assert!(serde_json::from_value::<Faults>(json!({ "flap": "often" })).is_err());
    }
}
