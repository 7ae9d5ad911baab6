//! Reads of a node by the words of its own tools: `kubectl debug node/NAME -- COMMAND`. No pod is made and no
//! program started: the words become one of the kinds of reads that the node's agent knows, before anything is
//! sent, and the agent answers from what the kernel shows.

mod reads;
mod tools;

use std::time::Duration;

use kestrel_proto::node::v1::host_read::What;

pub(super) use self::tools::{NOT_ANSWERED, TOOLS};

use self::{
    reads::{is_name, malformed},
    tools::Tool,
};
use super::{
    Output,
    flags::Arguments,
    kubectl::Kubectl,
    other_program,
    refused::ENTERS,
    session::{Session, Trouble},
};
use crate::executor::reason::{Reason, Refused};

/// A read takes milliseconds; one that looks names up, some seconds.
const TIME: Duration = Duration::from_secs(15);
/// What a capture takes beyond its own time.
const MORE: Duration = Duration::from_secs(5);

/// A read of a node.
#[derive(Clone, Debug)]
pub(crate) struct HostCommand {
    node: String,
    what: What,
    /// How long it may take.
    time: Duration,
}

impl HostCommand {
    /// Reads the arguments of `kubectl debug`.
    ///
    /// # Errors
    /// It is no read of a node.
    pub(crate) fn parse(debug: &Arguments) -> Result<Self, Refused> {
        let (node, tool, arguments) = understood(debug)?;
        let what = (tool.read)(&arguments)?;
        let time = match arguments.value("wait").map(str::parse) {
            None => match &what {
                What::Packets(read) => Duration::from_secs(read.seconds.into()) + MORE,
                _ => TIME,
            },
            Some(Ok(seconds @ 1..=15)) => Duration::from_secs(seconds),
            Some(_) => return malformed("-w takes seconds, from 1 to 15"),
        };
        Ok(Self { node: node.to_owned(), what, time })
    }
}

/// The node, the tool, and its arguments by the tool's table.
fn understood(debug: &Arguments) -> Result<(&str, &'static Tool, Arguments), Refused> {
    const FORM: &str = "it is kubectl debug node/NAME -- COMMAND";
    let (before, behind) = debug.apart();
    let [target] = before[..] else { return malformed(FORM) };
    let Some(node) = target.strip_prefix("node/").or_else(|| target.strip_prefix("nodes/")) else {
        return Err(Refused::new(Reason::Acts, ENTERS));
    };
    if !is_name(node) {
        return malformed(format!("{node:?} is not the name of a node"));
    }
    let Some(behind) = behind else { return malformed(FORM) };
    let Some((word, rest)) = behind.split_first() else { return malformed(FORM) };
    let Some(tool) = TOOLS.iter().find(|tool| tool.word == word) else {
        return Err(match NOT_ANSWERED.iter().find(|(names, ..)| names.contains(&word.as_str())) {
            Some((_, reason, why)) => Refused::new(*reason, format!("{word} is not run: {why}")),
            None => other_program(word),
        });
    };
    Ok((node, tool, Arguments::parse(rest, tool.flags, &[tool.never])?))
}

/// Asks the node's agent.
///
/// # Errors
/// There is no answer.
pub(super) async fn run(session: &Session<'_>, kubectl: &Kubectl) -> Result<Output, Trouble> {
    let Some(HostCommand { node, what, time, .. }) = &kubectl.host else {
        return Err(Trouble::said("it names no node"));
    };
    let asked = session.nodes.ask(node, what.clone(), *time, session.deadline).await;
    let answer = asked.map_err(|silent| Trouble::said(silent.to_string()))?;
    let mut output = Output::of(session.cluster.cleaned_lines(answer.text));
    if answer.is_cut {
        output.warn("there was more than 1 MiB: ask for less");
    }
    if !answer.problem.is_empty() {
        let problem = session.cluster.cleaned_lines(answer.problem);
        output.fails(&Trouble::said(format!("node {node}: {problem}")));
    }
    Ok(output)
}

#[cfg(test)]
mod tests;
