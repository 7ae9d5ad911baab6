//! What a program's `check` tells a person: a line for each thing that was tried, with the remedy where it does not
//! work, and a code that says whether all went well.

use std::{fmt, io, process::ExitCode};

/// What came of one trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    subject: &'static str,
    outcome: Outcome,
    said: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    Note,
    Caution,
    Failed,
}

impl Finding {
    /// It works; what was found.
    pub fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, outcome: Outcome::Ok, said: found.into() }
    }

    /// Nothing was tried, because nobody asked for it; how it is asked for.
    pub fn note(subject: &'static str, what: impl Into<String>) -> Self {
        Self { subject, outcome: Outcome::Note, said: what.into() }
    }

    /// It works, but not as it should.
    pub fn caution(subject: &'static str, why: impl Into<String>) -> Self {
        Self { subject, outcome: Outcome::Caution, said: why.into() }
    }

    /// It does not work; why, and what is to be done.
    pub fn failed(subject: &'static str, problem: impl Into<String>) -> Self {
        Self { subject, outcome: Outcome::Failed, said: problem.into() }
    }

    /// It works, or not: the error names its remedy.
    pub fn of(subject: &'static str, result: Result<String, String>) -> Self {
        match result {
            Ok(found) => Self::ok(subject, found),
            Err(problem) => Self::failed(subject, problem),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Note => "note",
            Outcome::Caution => "caution",
            Outcome::Failed => "FAILED",
        };
        write!(f, "{word:<8}{}: {}", self.subject, self.said)
    }
}

/// Writes findings as they come.
pub struct Report<'a> {
    out: &'a mut dyn io::Write,
    has_failed: bool,
}

impl<'a> Report<'a> {
    /// Nothing was tried so far.
    pub fn new(out: &'a mut dyn io::Write) -> Self {
        Self { out, has_failed: false }
    }

    /// A line each.
    ///
    /// # Errors
    /// They can't be written.
    pub fn say(&mut self, findings: impl IntoIterator<Item = Finding>) -> io::Result<()> {
        for finding in findings {
            self.has_failed |= finding.outcome == Outcome::Failed;
            writeln!(self.out, "{finding}")?;
        }
        self.out.flush()
    }

    /// With what the program ends: a failure if anything failed.
    pub fn code(&self) -> ExitCode {
        if self.has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_failed_makes_the_code_one() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        let findings =
            [Finding::ok("a", "well"), Finding::note("b", "not asked for"), Finding::caution("c", "nearly")];
        report.say(findings).unwrap();
        assert_eq!(report.code(), ExitCode::SUCCESS);
        report.say([Finding::of("d", Err("no; do this".to_owned()))]).unwrap();
        report.say([Finding::of("e", Ok("yes".to_owned()))]).unwrap();
        assert_eq!(report.code(), ExitCode::FAILURE);
        let text = String::from_utf8(out).unwrap();
        let expected = "ok      a: well\nnote    b: not asked for\ncaution c: nearly\nFAILED  d: no; do this\nok      e: yes\n";
        assert_eq!(text, expected);
    }
}
