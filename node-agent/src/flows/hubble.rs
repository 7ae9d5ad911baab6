//! Hubble on this node: the socket of Cilium's agent, or of whatever else serves its API there.

mod scan;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf as _, Bytes};
use http::uri::PathAndQuery;
use kestrel_link::outage::Outage;
use kestrel_proto::hubble::{
    flow::{EventTypeFilter, FlowFilter, LostEvent, Verdict},
    observer::{GetFlowsRequest, get_flows_request::Experimental},
};
use prost_types::{FieldMask, Timestamp};
use tokio::{
    net::UnixStream,
    time::{Instant, sleep, timeout},
};
use tonic::{
    Code, Request, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::{
    counts::Counts,
    flow::{Flow, Line, Source},
    sources::Sources,
    window::Window,
};
use crate::{story::Sentence, unix_grpc};
use scan::Message;

/// Waits between attempts at a socket that is there.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How often it is looked for a socket that is not.
const LOOK: Duration = Duration::from_secs(1);

/// A server that is well answers at once.
const ANSWER: Duration = Duration::from_secs(10);

/// What Hubble lost is told this often at most.
const WAVE: Duration = Duration::from_secs(300);

/// Of records of L7 (Cilium's `MessageTypeAccessLog`). What a proxy let pass, packets have told; what it
/// refused, nothing else tells.
const ACCESS_LOG: i32 = 129;

/// What is read of a flow.
const FIELDS: [&str; 11] = [
    "time",
    "verdict",
    "IP",
    "l4",
    "source",
    "destination",
    "destination_names",
    "traffic_direction",
    "is_reply",
    "egress_allowed_by",
    "ingress_allowed_by",
];

/// Counts what Hubble shows into `window`, whenever its socket is there, for as long as it is polled.
pub(super) async fn follow(socket: PathBuf, window: Arc<Mutex<Window>>, counts: Counts, sources: Sources) {
    let since = now();
    let name = format!("Hubble at {}", socket.display());
    let (lost, lost_told) = (0, None);
    let mut hubble = Hubble { socket, window, counts, since, is_masked: true, lost, lost_told };
    let (mut outage, mut wait, mut was_there) = (Outage::default(), RETRY.0, None);
    loop {
        let is_there = hubble.socket.exists();
        if was_there != Some(is_there) {
            match (is_there, was_there) {
                // It is told when it has answered.
                (true, _) => {}
                (false, Some(_)) => sources.went(&name),
                (false, None) => {
                    Sentence::Note(format!("there is no {name}; one that comes is read")).tell();
                }
            }
            was_there = Some(is_there);
            // Another one may understand more.
            hubble.is_masked = true;
        }
        if !is_there {
            wait = RETRY.0;
            sleep(LOOK).await;
            continue;
        }
        let begun = Instant::now();
        let problem = hubble.attempt(|| sources.came(&name)).await;
        if begun.elapsed() >= RETRY.1 {
            wait = RETRY.0;
            outage.up();
            hubble.is_masked = true;
        }
        if outage.down(&problem, Instant::now().into_std()) && hubble.socket.exists() {
            sources.fails(&name, &problem);
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

struct Hubble {
    socket: PathBuf,
    window: Arc<Mutex<Window>>,
    counts: Counts,
    /// Nanoseconds since 1970, from which on flows were not seen.
    since: u64,
    /// The server understands which fields are wanted, or passes over it.
    is_masked: bool,
    /// Events, since that was told.
    lost: u64,
    lost_told: Option<Instant>,
}

impl Hubble {
    /// Reads on until the stream ends; why it did. `answers` is called when it begins.
    async fn attempt(&mut self, answers: impl FnOnce()) -> String {
        let mut stream = match timeout(ANSWER, self.open()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(problem)) => return problem,
            Err(_) => return format!("no answer in {} s", ANSWER.as_secs()),
        };
        answers();
        loop {
            match stream.message().await {
                Ok(Some(message)) => self.take(&message),
                Ok(None) => return "it ended the stream".to_owned(),
                Err(status) => return self.refused(&status),
            }
        }
    }

    async fn open(&mut self) -> Result<Streaming<Bytes>, String> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| error.to_string())?;
        let mut client = unix_grpc::client(stream).await?;
        let path = PathAndQuery::from_static("/observer.Observer/GetFlows");
        match client.server_streaming(Request::new(self.request()), path, Raw).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(self.refused(&status)),
        }
    }

    /// What comes from where we were on, without what is not counted.
    fn request(&self) -> GetFlowsRequest {
        let mask = || FieldMask { paths: FIELDS.iter().map(ToString::to_string).collect() };
        let undecided = [Verdict::Unknown, Verdict::Traced, Verdict::Translated].map(Into::into);
        let passed = [Verdict::Forwarded, Verdict::Redirected, Verdict::Audit].map(Into::into);
        GetFlowsRequest {
            follow: true,
            blacklist: vec![
                FlowFilter { reply: vec![true], ..FlowFilter::default() },
                FlowFilter { verdict: undecided.to_vec(), ..FlowFilter::default() },
                FlowFilter {
                    event_type: vec![EventTypeFilter { r#type: ACCESS_LOG }],
                    verdict: passed.to_vec(),
                    ..FlowFilter::default()
                },
            ],
            // A clock that was set back since leaves no gap.
            since: Some(timestamp(self.since.min(now()))),
            field_mask: self.is_masked.then(mask),
            experimental: self.is_masked.then(|| Experimental { field_mask: Some(mask()) }),
        }
    }

    fn refused(&mut self, status: &Status) -> String {
        // One whose flows have not all of the fields, which Cilium says without a code of its own.
        self.is_masked &= !matches!(status.code(), Code::InvalidArgument | Code::Unknown);
        format!("{} ({:?})", status.message(), status.code())
    }

    fn take(&mut self, message: &[u8]) {
        match scan::read(message) {
            Message::Line(line) => {
                if let Line::Flow(Flow { time, .. }) = line {
                    self.since = self.since.max(time.saturating_add(1));
                }
                let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
                self.counts.count(Source::Hubble, line, &mut window);
            }
            Message::Lost(lost) => self.lost(&lost),
        }
    }

    fn lost(&mut self, lost: &LostEvent) {
        let by = self.counts.lost(lost.source(), lost.num_events_lost);
        self.lost = self.lost.saturating_add(lost.num_events_lost);
        if self.lost_told.is_none_or(|told| told.elapsed() >= WAVE) {
            Sentence::Warning(format!(
                "Hubble lost {} events before anybody could read them, the last in its {by}: flows are missing; larger rings are a setting of Cilium (hubble.eventBufferCapacity, bpf.events)",
                self.lost
            ))
            .tell();
            (self.lost, self.lost_told) = (0, Some(Instant::now()));
        }
    }
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

/// Answers as they are on the wire.
struct Raw;

impl Codec for Raw {
    type Encode = GetFlowsRequest;
    type Decode = Bytes;
    type Encoder = ProstEncoder<GetFlowsRequest>;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<GetFlowsRequest, ()>::default().encoder()
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

#[cfg(test)]
mod tests;
