//! Why something that the cloud asked for is not done.

use std::{borrow::Cow, fmt};

/// The kinds of reasons; their words are labels of metrics and of the audit, and stand in answers.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is not what the grammar describes.
    Malformed,
    /// It is encoded wrongly, or more than once.
    Encoding,
    /// It has characters that look like others, or that a terminal obeys.
    Characters,
    /// It is larger, longer or deeper than anything that is asked for in earnest.
    TooLarge,
    /// It is a path, a command, a flag or a key of a query that is not in the table.
    Unknown,
    /// It is a Secret, and the owner did not allow their hashes.
    Secret,
    /// It would do something inside a container, or hand out a credential.
    Acts,
    /// It would never end.
    Endless,
    /// It would speak to another server, or as somebody else.
    Elsewhere,
    /// It would need a shell.
    Shell,
    /// It would read or write a file.
    File,
    /// It would change the cluster.
    Write,
    /// The namespace's logs and events stay in the cluster.
    Kept,
    /// The owner of the cluster switched it off.
    Off,
    /// This version does not have it.
    Unsupported,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Malformed,
        Self::Encoding,
        Self::Characters,
        Self::TooLarge,
        Self::Unknown,
        Self::Secret,
        Self::Acts,
        Self::Endless,
        Self::Elsewhere,
        Self::Shell,
        Self::File,
        Self::Write,
        Self::Kept,
        Self::Off,
        Self::Unsupported,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Encoding => "encoding",
            Self::Characters => "characters",
            Self::TooLarge => "too-large",
            Self::Unknown => "unknown",
            Self::Secret => "secret",
            Self::Acts => "acts",
            Self::Endless => "endless",
            Self::Elsewhere => "elsewhere",
            Self::Shell => "shell",
            Self::File => "file",
            Self::Write => "write",
            Self::Kept => "kept",
            Self::Off => "off",
            Self::Unsupported => "unsupported",
        }
    }

    /// The status that an answer carries for it.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::Encoding | Self::Characters | Self::Unknown | Self::Endless => 400,
            Self::TooLarge => 413,
            Self::Secret
            | Self::Acts
            | Self::Elsewhere
            | Self::Shell
            | Self::File
            | Self::Write
            | Self::Kept => 403,
            Self::Off => 503,
            Self::Unsupported => 501,
        }
    }
}

/// A reason, and the sentence for who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its kind.
    pub reason: Reason,
    /// What is wrong, and what to ask for instead.
    pub why: Cow<'static, str>,
}

impl Refused {
    pub(crate) fn new(reason: Reason, why: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, why: why.into() }
    }

    pub(crate) fn status(&self) -> u16 {
        self.reason.status()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused ({}): {}", self.reason.as_str(), self.why)
    }
}
