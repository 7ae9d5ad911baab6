//! Hubble's flows, as Cilium's agent serves those of its node and Relay those of all, over a connection that the
//! caller has made.
//!
//! Versions of Cilium from 1.14 on are understood: a server that does not know a field that is asked for is asked
//! for those that earlier ones have.

mod call;
mod resume;
mod scan;

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kestrel_proto::hubble::{
    flow::{EventTypeFilter, FlowFilter, LostEvent, Verdict},
    observer::{
        GetFlowsRequest, NodeState, NodeStatusEvent, ServerStatusRequest, ServerStatusResponse,
        get_flows_request::Experimental,
    },
};
use prost_types::{FieldMask, Timestamp};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::yield_now,
    time::timeout,
};
use tonic::{Code, Status};

use crate::{
    counts::{Counts, Tally},
    flow::{Flow, Line, NameFailure, Source},
    window::Window,
};
use call::Call;
use resume::Resume;
use scan::Message;

/// A server that is well gives a sign of life at once.
const ANSWER: Duration = Duration::from_secs(10);

/// And says so by then if it does not do what it is asked for; else it may say nothing until it has a flow.
const REFUSAL: Duration = Duration::from_secs(1);

/// What Hubble lost, and which nodes Relay does not reach, is told this often at most.
const WAVE: Duration = Duration::from_secs(300);

/// Names of nodes that are told; of more only the number is.
const NAMES: usize = 5;

/// Of records of L7 (Cilium's `MessageTypeAccessLog`). What a proxy let pass, packets have told; what it
/// refused, nothing else tells, nor does anything else tell what name servers answer.
const ACCESS_LOG: i32 = 129;

/// Of packets and sockets (`MessageTypeDrop` to `MessageTypeTraceSock`), whose replies say nothing new.
const PACKETS: std::ops::RangeInclusive<i32> = 1..=7;

/// Of which L7 what passed is not asked for.
const TOLD_BY_PACKETS: [&str; 2] = ["http", "kafka"];

/// What is read of a flow, what Cilium has had longest first.
const FIELDS: [&str; 16] = [
    "time",
    "verdict",
    "IP",
    "l4",
    "l7",
    "source",
    "destination",
    "destination_names",
    "destination_service",
    "traffic_direction",
    "drop_reason_desc",
    "is_reply",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
];

/// How many of [`FIELDS`] the versions of Cilium know, the newest first: 1.17, 1.15, 1.14, and one that knows no
/// masks.
const KNOWN: [usize; 4] = [FIELDS.len(), 14, 12, 0];

/// Something for people that happened while flows were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The server has answered: from now on flows are read.
    Answers,
    /// Flows are missing, and why.
    Missing(String),
    /// They are missing no more.
    Well(String),
}

/// Why flows are not read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The server does not know a field; asked again at once, it is asked for fewer.
    Fields,
    /// The server lives and has shown nothing. Who asks Cilium's while its ring is empty is never shown anything: it is
    /// to be asked again.
    Silent,
    /// A sentence for people.
    Problem(String),
}

/// What was read of a server, over all connections to it.
pub struct Hubble {
    source: Source,
    counts: Counts,
    resume: Resume,
    /// Place in [`KNOWN`].
    version: usize,
    /// Events, since that was told.
    lost: u64,
    lost_told: Option<Instant>,
    /// Nodes that Relay does not reach.
    unreached: BTreeSet<String>,
    unreached_told: Option<Instant>,
}

impl Hubble {
    /// Of a node's own server. What was before now is not read.
    pub fn of_node(counts: Counts) -> Self {
        Self::new(Source::Hubble, counts, Resume::exactly(now()))
    }

    /// Of Relay, which has flows of many nodes in about their order.
    pub fn of_relay(counts: Counts) -> Self {
        Self::new(Source::HubbleRelay, counts, Resume::about(now()))
    }

    fn new(source: Source, counts: Counts, resume: Resume) -> Self {
        let (unreached, unreached_told) = (BTreeSet::new(), None);
        Self { source, counts, resume, version: 0, lost: 0, lost_told: None, unreached, unreached_told }
    }

    /// Another server may answer from now on, which may know more.
    pub fn forget_version(&mut self) {
        self.set_version(0);
        self.unreached.clear();
    }

    /// With other fields the same flow has other bytes.
    fn set_version(&mut self, version: usize) {
        if self.version != version {
            self.version = version;
            self.resume.forget();
        }
    }

    /// Counts what the server at the other end of `io` shows into `window`, from where it was left, until it ends.
    /// `origin` is what the server is addressed as, such as `http://localhost`.
    pub async fn read<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        io: T,
        origin: &str,
        window: &Mutex<Window>,
        mut heard: impl FnMut(News),
    ) -> End {
        let request = self.request();
        let call = Call::begin(io, origin, "/observer.Observer/GetFlows", &request);
        let mut call = match timeout(ANSWER, call).await {
            Ok(Ok(call)) => call,
            Ok(Err(status)) => return self.end(&status, false),
            Err(_) => return End::Problem(no_answer()),
        };
        if let Ok(Err(status)) = timeout(REFUSAL, call.begun()).await {
            return self.end(&status, false);
        }
        heard(News::Answers);
        match timeout(ANSWER, call.begun()).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => return self.end(&status, false),
            Err(_) => return End::Silent,
        }
        // Cilium's server answers before it has looked at the fields; who has shown something knows them.
        let mut has_shown = false;
        loop {
            if let Err(status) = call.more().await {
                return self.end(&status, has_shown);
            }
            let mut other = Vec::new();
            let read = {
                let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
                self.count(&mut call, &mut window, &mut other, &mut has_shown)
            };
            // What a node refuses, Relay tells as trouble of that node.
            if other.iter().any(Other::is_about_fields) && self.version + 1 < KNOWN.len() {
                self.set_version(self.version + 1);
                return End::Fields;
            }
            other.into_iter().filter_map(|message| self.told(message)).for_each(&mut heard);
            if let Err(status) = read {
                return self.end(&status, has_shown);
            }
            // A server that sends without a pause leaves others theirs.
            yield_now().await;
        }
    }

    /// Counts all flows that have come; `other` gets what is none.
    fn count<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        call: &mut Call<T>,
        window: &mut Window,
        other: &mut Vec<Other>,
        has_shown: &mut bool,
    ) -> Result<(), Status> {
        let (mut tally, now) = (Tally::default(), now());
        let resume = &mut self.resume;
        let read = call.messages(|message| {
            *has_shown = true;
            match scan::read(message, self.source) {
                // A clock that was far ahead for a moment does not have us skip what comes.
                Message::Line(
                    Line::Flow(Flow { time, .. }) | Line::NameFailure(NameFailure { time, .. }),
                ) if !resume.is_new(time.min(now), message) => {}
                Message::Line(line) => tally.count(line, window),
                Message::Lost(lost) => other.push(Other::Lost(lost)),
                Message::Nodes(nodes) => other.push(Other::Nodes(nodes)),
            }
        });
        self.counts.add(self.source, tally);
        read
    }

    /// What comes from where we were on, without what is not counted.
    fn request(&self) -> GetFlowsRequest {
        let fields = &FIELDS[..KNOWN[self.version]];
        let mask = (!fields.is_empty())
            .then(|| FieldMask { paths: fields.iter().map(ToString::to_string).collect() });
        let undecided = [Verdict::Unknown, Verdict::Traced, Verdict::Translated].map(Into::into);
        let passed = [Verdict::Forwarded, Verdict::Redirected, Verdict::Audit].map(Into::into);
        GetFlowsRequest {
            follow: true,
            blacklist: vec![
                FlowFilter {
                    reply: vec![true],
                    event_type: PACKETS.map(|r#type| EventTypeFilter { r#type }).collect(),
                    ..FlowFilter::default()
                },
                FlowFilter { verdict: undecided.to_vec(), ..FlowFilter::default() },
                FlowFilter {
                    event_type: vec![EventTypeFilter { r#type: ACCESS_LOG }],
                    verdict: passed.to_vec(),
                    protocol: TOLD_BY_PACKETS.map(str::to_owned).to_vec(),
                    ..FlowFilter::default()
                },
            ],
            // A clock that was set back since leaves no gap.
            since: Some(timestamp(self.resume.since().min(now()))),
            experimental: mask.clone().map(|mask| Experimental { field_mask: Some(mask) }),
            field_mask: mask,
        }
    }

    fn end(&mut self, status: &Status, has_shown: bool) -> End {
        // One whose flows have not all of the fields, which Cilium says without a code of its own.
        let may_be_fields = matches!(status.code(), Code::InvalidArgument | Code::Unknown);
        if may_be_fields && !has_shown && self.version + 1 < KNOWN.len() {
            self.set_version(self.version + 1);
            return End::Fields;
        }
        End::Problem(words(status))
    }

    fn told(&mut self, other: Other) -> Option<News> {
        match other {
            Other::Lost(lost) => self.lost(&lost),
            Other::Nodes(nodes) => self.nodes(nodes),
        }
    }

    fn lost(&mut self, lost: &LostEvent) -> Option<News> {
        let by = self.counts.lost(lost.source(), lost.num_events_lost);
        self.lost = self.lost.saturating_add(lost.num_events_lost);
        if self.lost_told.is_some_and(|told| told.elapsed() < WAVE) {
            return None;
        }
        let text = format!(
            "Hubble lost {} events before anybody could read them, the last in its {by}: flows are missing; larger rings are a setting of Cilium (hubble.eventBufferCapacity, bpf.events)",
            self.lost
        );
        (self.lost, self.lost_told) = (0, Some(Instant::now()));
        Some(News::Missing(text))
    }

    fn nodes(&mut self, event: NodeStatusEvent) -> Option<News> {
        let was_well = self.unreached.is_empty();
        match event.state_change() {
            NodeState::NodeUnavailable | NodeState::NodeError => self.unreached.extend(event.node_names),
            NodeState::NodeConnected | NodeState::NodeGone => {
                self.unreached.retain(|name| !event.node_names.contains(name));
            }
            NodeState::UnknownNodeState => {}
        }
        if self.unreached.is_empty() {
            let is_told = !was_well && self.unreached_told.take().is_some();
            return is_told.then(|| News::Well("Hubble Relay reaches all nodes again".to_owned()));
        }
        if self.unreached_told.is_some_and(|told| told.elapsed() < WAVE) {
            return None;
        }
        self.unreached_told = Some(Instant::now());
        let names: Vec<_> = self.unreached.iter().take(NAMES).map(String::as_str).collect();
        let more = if self.unreached.len() > NAMES { ", …" } else { "" };
        let why = if event.message.is_empty() { String::new() } else { format!(": {}", event.message) };
        Some(News::Missing(format!(
            "Hubble Relay does not reach {} of its nodes ({}{more}), whose flows are missing{why}; Cilium's agent there may be ending or not serve Hubble",
            self.unreached.len(),
            names.join(", ")
        )))
    }
}

/// What is no flow.
enum Other {
    Lost(LostEvent),
    Nodes(NodeStatusEvent),
}

impl Other {
    fn is_about_fields(&self) -> bool {
        let Self::Nodes(nodes) = self else { return false };
        let message = nodes.message.to_lowercase();
        nodes.state_change() == NodeState::NodeError
            && (message.contains("fieldmask") || message.contains("field mask"))
    }
}

/// What a server says of itself; only Relay knows numbers of nodes.
///
/// # Errors
/// A sentence for people.
pub async fn status<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    origin: &str,
) -> Result<ServerStatusResponse, String> {
    let asked = call::ask(io, origin, "/observer.Observer/ServerStatus", &ServerStatusRequest {});
    match timeout(ANSWER, asked).await {
        Ok(answer) => answer.map_err(|status| words(&status)),
        Err(_) => Err(no_answer()),
    }
}

fn no_answer() -> String {
    format!("no answer in {} s", ANSWER.as_secs())
}

fn words(status: &Status) -> String {
    format!("{} ({:?})", status.message(), status.code())
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn timestamp(nanoseconds: u64) -> Timestamp {
    const SECOND: u64 = 1_000_000_000;
    // Both are small enough.
    Timestamp { seconds: (nanoseconds / SECOND) as i64, nanos: (nanoseconds % SECOND) as i32 }
}

#[cfg(test)]
mod tests;
