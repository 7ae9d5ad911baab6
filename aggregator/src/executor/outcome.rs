//! What comes of a request: its answer, and what goes with it until the answer is on its way.

use std::time::Duration;

use kestrel_proto::cloud::v1::stream_control_request::Request as Tool;

use super::{
    audit::{Decision, Part},
    places::{Place, Turn},
    reason::Refused,
    refusal::{self, refuse},
    rules::Rules,
};
use crate::uplink::{Answer, Request};

/// What came of a request.
pub(super) struct Outcome<'a> {
    pub answer: Answer,
    /// What was decided of each part.
    pub parts: Vec<Part>,
    /// The cloud should ask again, and so a repeat is run.
    pub passing: bool,
    /// Taken until the answer is in its lane: until then it holds memory.
    pub place: Option<Place<'a>>,
    /// To wait for room in the lane, likewise.
    pub turn: Option<Turn<'a>>,
    /// What was allowed, if it was read from the cluster.
    pub rules: Option<Rules>,
    /// The process ends itself so long after the answer, if these still hold.
    pub restart: Option<(Duration, Rules)>,
}

impl<'a> Outcome<'a> {
    pub(super) fn lasting(answer: Answer, parts: Vec<Part>) -> Self {
        Self { answer, parts, passing: false, place: None, turn: None, rules: None, restart: None }
    }

    /// What was read or tried, which holds its place.
    pub(super) fn done(answer: Tool, parts: Vec<Part>, place: Place<'a>) -> Self {
        Self { place: Some(place), ..Self::lasting(Answer::Tool(answer), parts) }
    }

    pub(super) fn refused(request: &Request, refused: &Refused) -> Self {
        let parts = refusal::parts_of(request);
        let parts = parts.into_iter().map(|part| Part::refused(part, refused)).collect();
        Self::lasting(refuse(request, refused.status().into(), &refused.to_string()), parts)
    }

    pub(super) fn passing(request: &Request, status: i32, why: &str) -> Self {
        let parts = undecided(request, status);
        Self { passing: true, ..Self::lasting(refuse(request, status, why), parts) }
    }
}

/// The parts of a request that was not refused, and not done either.
pub(super) fn undecided(request: &Request, status: i32) -> Vec<Part> {
    let part = |what: &str| Part { what: what.to_owned(), decision: Decision::Allowed, status, bytes: 0 };
    refusal::parts_of(request).into_iter().map(part).collect()
}
