//! One of the five streams: opened, listened to, and opened again alone when
//! it ends.

use std::time::Duration;

use h2::Reason;
use jiff::Timestamp;
use kestrel_proto::cloud::v1::{
    StreamControlResponse, StreamDataResponse, StreamEventsResponse, StreamFlowsResponse, StreamLogsResponse,
};
use kestrel_runtime::backoff::Backoff;
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    Uplink,
    call::{Call, Event, Failed},
    credentials::Token,
    lanes::Over,
    outbound::{Cargo, Outbound},
    problem::{Problem, reason},
    pulse::Pulse,
    request::Response,
    session::{Session, lock},
    state::Phase,
};

/// The resend window is looked at this many times while a message is in it.
const SWEEPS: u32 = 8;
/// A peer that takes nothing for this many times the hold never will.
const STUCK: u32 = 4;

/// The streams of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Data,
    Control,
    Flows,
    Events,
    Logs,
}

impl Stream {
    pub(crate) const ALL: [Self; 5] = [Self::Data, Self::Control, Self::Flows, Self::Events, Self::Logs];

    /// Its name for people and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Control => "control",
            Self::Flows => "flows",
            Self::Events => "events",
            Self::Logs => "logs",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Data => "/cloud.v1.StreamService/StreamData",
            Self::Control => "/cloud.v1.StreamService/StreamControl",
            Self::Flows => "/cloud.v1.StreamService/StreamFlows",
            Self::Events => "/cloud.v1.StreamService/StreamEvents",
            Self::Logs => "/cloud.v1.StreamService/StreamLogs",
        }
    }
}

/// Times between attempts.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Ceiling of the first wait.
    pub first: Duration,
    /// Ceiling of every wait.
    pub most: Duration,
    /// Until a stream that the server did not offer is tried again.
    pub absent: Duration,
}

/// How a stream ended.
enum End {
    /// With its connection, or for the sake of the next one.
    Connection,
    /// The server does not offer it.
    Unimplemented,
    /// Alone.
    Problem(Problem),
}

/// Keeps one stream of a connection open until the connection is dead or left,
/// or the drain is over.
pub(crate) async fn supervise(uplink: &Uplink, session: &Session, stream: Stream, drain: &CancellationToken) {
    // What the stream before it still has on its way must not arrive after anything newer, so that
    // one is brought to its end first, which takes no longer than the farewell. Answers to
    // requests know no order.
    let _turn = match stream {
        Stream::Control => None,
        _ => tokio::select! {
            biased;
            () = session.over() => return,
            turn = uplink.turns[stream as usize].lock() => Some(turn),
        },
    };
    let mut backoff = Backoff::new(uplink.config.retry.first, uplink.config.retry.most);
    let mut failed = false;
    loop {
        let begun = Instant::now();
        let attempt = Attempt { uplink, session, stream, drain, failed };
        let end = match stream {
            Stream::Data => attempt.run::<StreamDataResponse>().await,
            Stream::Control => attempt.run::<StreamControlResponse>().await,
            Stream::Flows => attempt.run::<StreamFlowsResponse>().await,
            Stream::Events => attempt.run::<StreamEventsResponse>().await,
            Stream::Logs => attempt.run::<StreamLogsResponse>().await,
        };
        if drain.is_cancelled() || session.is_over() {
            return;
        }
        let wait = match end {
            // It will be over soon, in one way or the other.
            End::Connection => Duration::MAX,
            End::Unimplemented => {
                uplink.board.phase(stream, Phase::Fallback);
                if uplink.absent.add(stream) {
                    let name = stream.name();
                    uplink.report.news(&format!(
                        "the server does not offer the {name} stream; the data stream carries its messages"
                    ));
                }
                uplink.lanes.ring();
                failed = false;
                uplink.config.retry.absent
            }
            End::Problem(problem) => {
                uplink.board.problem(stream, problem.to_string());
                uplink.report.problem(&problem);
                failed = true;
                backoff.next(begun.elapsed())
            }
        };
        tokio::select! {
            biased;
            () = session.over() => return,
            () = drain.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

/// One opening of a stream.
struct Attempt<'a> {
    uplink: &'a Uplink,
    session: &'a Session,
    stream: Stream,
    drain: &'a CancellationToken,
    /// The attempt before this one failed.
    failed: bool,
}

impl Attempt<'_> {
    async fn run<R: Response>(&self) -> End {
        let Self { uplink, session, stream, .. } = *self;
        let token = match uplink.config.credentials.token().await {
            Ok(token) => token,
            Err(problem) => return End::Problem(problem),
        };
        let board = uplink.board.clone();
        let received = move |bytes| board.received(stream, bytes);
        let call = match session.connection.stream::<R>(stream.path(), &token, Box::new(received)).await {
            Ok(call) => call,
            Err(failed) => return self.ended(failed, &token),
        };
        if session.is_over() {
            return End::Connection;
        }
        lock(session.window(stream)).open();
        if stream == Stream::Data {
            uplink.mirror.restart();
        }
        uplink.board.phase(stream, Phase::Opening);
        let end = self.talk(call, &token).await;
        if !session.left.is_cancelled() {
            uplink.board.phase(stream, Phase::Closed);
            let lost = lock(session.window(stream)).lose();
            self.settle(lost, |cargo| cargo.lost(&uplink.lanes));
        }
        end
    }

    /// Sends and listens until the stream ends.
    async fn talk<R: Response>(&self, call: Call<R>, token: &Token) -> End {
        let Self { uplink, session, stream, drain, .. } = *self;
        let Call { mut answers, mut sender } = call;
        let outbound = Outbound { uplink, session, stream, drain };
        let end = {
            let mut pump = std::pin::pin!(outbound.pump(&mut sender));
            let (mut pulse, mut pumping) = (Pulse::default(), true);
            let mut sweeps = interval(uplink.config.keepalive.hold() / SWEEPS);
            loop {
                tokio::select! {
                    biased;
                    _ = sweeps.tick(), if !session.left.is_cancelled() => if let Some(problem) = self.sweep(&pulse) {
                        break End::Problem(problem);
                    },
                    // If nothing can be sent any more, the answers say why.
                    _ = &mut pump, if pumping => pumping = false,
                    event = answers.next() => match event {
                        Ok(Event::Opened) => self.opened(),
                        Ok(Event::Message(message)) => self.receive(message, &mut pulse),
                        Ok(Event::Ended) => break self.ended(Failed::Status(Status::ok("")), token),
                        Err(failed) => break self.ended(failed, token),
                    },
                    () = session.connection.life.dead.cancelled() => break End::Connection,
                }
            }
        };
        // HTTP/2 must not send any more of what is given back now.
        sender.send_reset(Reason::CANCEL);
        end
    }

    /// The server has answered: the stream exists.
    fn opened(&self) {
        let Self { uplink, session, stream, .. } = *self;
        if session.left.is_cancelled() {
            return;
        }
        uplink.board.phase(stream, Phase::Open(Timestamp::now()));
        uplink.report.solved();
        let name = stream.name();
        if uplink.absent.contains(stream) {
            // What the data stream carried in its stead may not have arrived, and
            // nothing newer may arrive before it.
            let carried = lock(session.window(Stream::Data)).give_up(|cargo| cargo.home() == stream);
            for cargo in carried {
                cargo.lost(&uplink.lanes);
            }
            uplink.absent.remove(stream);
            uplink.report.news(&format!("the server offers the {name} stream now"));
            uplink.lanes.ring();
        } else if self.failed {
            uplink.report.news(&format!("the {name} stream is open again"));
        }
    }

    fn receive(&self, message: impl Response, pulse: &mut Pulse) {
        self.uplink.board.message(self.stream);
        if message.is_heartbeat() {
            pulse.beat(Instant::now());
        } else {
            pulse.heard(Instant::now());
        }
        if let Some(request) = message.request() {
            let over = if self.stream == Stream::Data { Over::Data } else { Over::Control };
            (self.uplink.requests)(request.answered_over(over), request);
        }
    }

    fn ended(&self, failed: Failed, token: &Token) -> End {
        let name = self.stream.name();
        let status = match failed {
            Failed::Connection => return End::Connection,
            Failed::Problem(problem) => return End::Problem(problem),
            Failed::Status(status) => status,
        };
        let reason = || reason(&status, token.secret.expose_secret());
        End::Problem(match (status.code(), self.stream) {
            (Code::Unimplemented, Stream::Data) => {
                Problem::NotKestrel(self.session.connection.server.clone())
            }
            (Code::Unimplemented, _) => return End::Unimplemented,
            (Code::Unauthenticated, _) => {
                self.uplink.config.credentials.refused(token);
                Problem::TokenRefused { setting: token.setting, reason: reason() }
            }
            (Code::Ok, _) => Problem::StreamEnded { stream: name, reason: "the server ended it".to_owned() },
            _ => Problem::StreamEnded { stream: name, reason: reason() },
        })
    }

    /// Lets go what has left the resend window. The answer is why the stream
    /// must be opened again, if it must: the server does not read it or does
    /// not serve it any more.
    fn sweep(&self, pulse: &Pulse) -> Option<Problem> {
        let Self { uplink, session, stream, .. } = *self;
        let (hold, now) = (uplink.config.keepalive.hold(), Instant::now());
        let broken = |reason: &str| Problem::StreamEnded { stream: stream.name(), reason: reason.to_owned() };
        if pulse.missing(now, hold).is_some() {
            return Some(broken("its heartbeats stopped"));
        }
        let mut window = lock(session.window(stream));
        if window.is_stuck(now, hold * STUCK) {
            return Some(broken("the server takes nothing on it any more"));
        }
        let proven = session.connection.life.proven();
        let left = proven.map_or_else(Vec::new, |proven| window.leave(hold, proven));
        drop(window);
        self.settle(left, |cargo| cargo.left(uplink));
        None
    }

    /// Does what must be done for what has come out of the resend window.
    fn settle(&self, cargo: Vec<Cargo>, settle: impl Fn(Cargo)) {
        let Self { uplink, session, stream, .. } = *self;
        let count = lock(session.window(stream)).len();
        uplink.board.unsettled(stream, count);
        cargo.into_iter().for_each(settle);
    }
}
