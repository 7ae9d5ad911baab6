//! The agent's one loop: files, link, host and story.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use anyhow::bail;
use http::Uri;
use kestrel_link::{
    Event,
    pods::{Pods, Unnamed},
    ship::{Notice, Shipper},
    wake::Wake,
};
use kestrel_proto::node::v1::{HostReport, RequestReport};
use kestrel_runtime::admin::Ready;
use kestrel_tail::{
    budget::Limits,
    discover::{Layout, Source},
    engine::{Engine, Policy},
    position::store::Store,
    redact::Redactor,
};
use tokio::{
    sync::mpsc,
    task::yield_now,
    time::{MissedTickBehavior, interval, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    flows::Outbox,
    host::{self, condition::Conditions, event::Events, kubelet::Kubelet, sample::Sample},
    metrics::Metrics,
    reads::Reads,
    status::{Moment, Question},
    story::{Sentence, Story},
};

/// How often directories are looked at.
const SCAN: Duration = Duration::from_secs(1);

/// The host is reported of this often also if nothing changes: numbers do, and the answer says what time it is.
const REPORT: Duration = Duration::from_mins(5);

/// How it stands is told this often, if it stands otherwise.
const SUMMARY: Duration = Duration::from_mins(10);

/// Of a pod that the aggregator does not name.
const UNNAMED: Unnamed = Unnamed { after: Duration::from_secs(30), policy: Policy::Errors };

/// At the end the aggregator gets this long to take what was sent.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Everything the agent knows.
pub struct Agent {
    node: String,
    begun: Instant,
    endpoint: Uri,
    limits: Limits,
    pod_logs: PathBuf,
    shipper: Shipper,
    pods: Pods,
    conditions: Conditions,
    /// Seconds that are added to this node's clock where it is compared.
    clock_ahead: i64,
    /// The aggregator has not been told of the conditions as they are.
    report_due: bool,
    /// When the report that has no answer yet was sent.
    reported: Option<Instant>,
    next_report: Instant,
    events: Events,
    reads: Reads,
    story: Story,
    metrics: Metrics,
    linked: Ready,
    /// What proxies logged.
    requests: mpsc::Receiver<RequestReport>,
}

impl Agent {
    /// An agent that goes on where the stored positions say, and tells of `requests` too.
    pub fn new(
        config: &Config,
        metrics: Metrics,
        linked: Ready,
        requests: mpsc::Receiver<RequestReport>,
    ) -> Self {
        let mut beginning = beginning(config);
        let positions = config.state.join("positions");
        let (store, look_back) = match Store::load(&positions) {
            Ok(store) => (store, Some(config.look_back)),
            Err(problem) => {
                beginning.push(Sentence::Warning(format!("{problem}; all retained logs are read again")));
                (Store::empty(&positions), None)
            }
        };
        beginning.iter().for_each(Sentence::tell);
        let layout = Layout::Pods { except: config.own_pod.clone() };
        let source = Source { directory: config.pod_logs.clone(), layout };
        let mut engine = Engine::new(vec![source], store, Redactor::new(config.redact.clone()));
        engine.limit(config.limits);
        Self {
            node: config.node.clone(),
            begun: Instant::now(),
            endpoint: config.endpoint.clone(),
            limits: config.limits,
            pod_logs: config.pod_logs.clone(),
            shipper: Shipper::new(
                match look_back {
                    Some(look_back) => engine.looking_back(look_back, false, SystemTime::now()),
                    None => engine,
                },
                Instant::now(),
            ),
            pods: Pods::new(UNNAMED, config.excluded.clone()),
            conditions: Conditions::new(config.host.pressure, Kubelet::new(config.host.probes)),
            clock_ahead: config.host.clock_ahead,
            report_due: false,
            reported: None,
            next_report: Instant::now(),
            events: Events::default(),
            reads: Reads::new(config.host.reads()),
            story: Story::default(),
            metrics,
            linked,
            requests,
        }
    }

    /// Works until the drain, then hands over what was read and writes positions. Who asks meanwhile is told
    /// what it is doing.
    ///
    /// # Errors
    /// The link ended by itself, which it never does.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut samples: mpsc::Receiver<Sample>,
        mut flows: Outbox,
        mut questions: mpsc::Receiver<Question>,
        drain: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut scan = interval(SCAN);
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut summaries = interval_at(tokio::time::Instant::now() + SUMMARY, SUMMARY);
        let wake = Wake::watch(&mut self.shipper.engine);
        let mut pause = Duration::ZERO;
        while !drain.is_cancelled() {
            if pause.is_zero() {
                yield_now().await;
            }
            tokio::select! {
                () = drain.cancelled() => {}
                event = events.recv() => match event {
                    Some(event) => {
                        self.on_event(event);
                        flows.arrived.send_if_modified(|arrived| {
                            std::mem::replace(arrived, self.shipper.arrived()) != *arrived
                        });
                    }
                    None => bail!("the agent link ended"),
                },
                Some(sample) = samples.recv() => self.on_sample(&sample),
                Some(report) = flows.reports.recv(), if self.shipper.has_room() => self.shipper.tell(&report),
                Some(report) = self.requests.recv(), if self.shipper.has_room_for_requests() => {
                    self.shipper.tell_requests(&report);
                }
                Some(question) = questions.recv() => {
                    let _nobody_waits = question.send(self.moment(&flows).text());
                }
                _ = scan.tick() => self.scan(),
                _ = summaries.tick() => {
                    let moment = self.moment(&flows);
                    let (state, summary) = (moment.state(), moment.summary());
                    tell(self.story.summary(state, summary, Instant::now()));
                }
                () = wake.wait(pause) => {}
            }
            self.report();
            pause = self.shipper.pump(Instant::now(), SystemTime::now());
        }
        self.end(&mut events).await;
        Ok(())
    }

    fn on_event(&mut self, event: Event) {
        match self.shipper.take(event) {
            Some(Notice::Connected { clock, .. }) => {
                self.pods.connected(Instant::now());
                if let Some((theirs, asked)) = clock {
                    self.compare_clocks(theirs, asked);
                }
                self.report_due = true;
                self.events.connected();
                self.reported = None;
                self.linked.set(true);
                self.story.connected(&self.endpoint).tell();
            }
            Some(Notice::Disconnected { reason, retry_in }) => {
                self.pods.disconnected();
                self.reads.end_all();
                tell(self.story.disconnected(&reason, retry_in, Instant::now()));
            }
            Some(Notice::Pods(update)) => {
                self.pods.update(update);
                self.pods.assign(&mut self.shipper.engine, Instant::now());
            }
            Some(Notice::Asked(read, reply)) => self.reads.begin(*read, reply),
            Some(Notice::Unasked(id)) => self.reads.end(id),
            Some(Notice::Clock(theirs)) => {
                if let Some(asked) = self.reported.take() {
                    self.compare_clocks(theirs, asked);
                }
            }
            None => {}
        }
    }

    /// The aggregator's clock showed `theirs` after it was `asked`.
    fn compare_clocks(&mut self, theirs: SystemTime, asked: Instant) {
        let now = (SystemTime::now(), Instant::now());
        let ours = host::ahead(now.0, self.clock_ahead);
        self.report_due |= self.conditions.compare_clocks(theirs, ours, asked.elapsed(), now);
    }

    fn on_sample(&mut self, sample: &Sample) {
        let (changed, events) = self.conditions.update(sample);
        self.report_due |= changed;
        let now = Instant::now();
        self.story.conditions(self.conditions.current(), now).iter().for_each(Sentence::tell);
        events.iter().for_each(|event| tell(self.story.happened(event, now)));
        self.story.repeated(now).iter().for_each(Sentence::tell);
        self.events.add(events);
    }

    fn scan(&mut self) {
        let now = Instant::now();
        let engine = &mut self.shipper.engine;
        engine.scan(now);
        self.pods.assign(engine, now);
        tell(self.story.pods(engine.origins(), &self.pod_logs, now));
        self.story.problems(engine.news(), now).iter().for_each(Sentence::tell);
        tell(self.story.lost(&engine.stats().bytes_lost, now));
        tell(self.story.positions(self.shipper.save_error().map(ToString::to_string)));
        self.metrics.update(&self.shipper, &self.conditions, &self.events);
    }

    fn moment(&self, flows: &Outbox) -> Moment<'_> {
        Moment {
            node: &self.node,
            age: self.begun.elapsed(),
            endpoint: &self.endpoint,
            shipper: &self.shipper,
            limits: self.limits,
            flows: (flows.sources.names(), self.metrics.flows.told()),
            conditions: self.conditions.current(),
        }
    }

    fn report(&mut self) {
        let is_due = self.report_due || self.events.are_due() || Instant::now() >= self.next_report;
        if is_due && !self.conditions.current().is_empty() && self.shipper.is_connected() {
            let now = SystemTime::now();
            let conditions =
                self.conditions.current().iter().map(|condition| condition.to_wire(now)).collect();
            let events = self.events.due(now);
            if self.shipper.report(HostReport { conditions, events }) {
                self.report_due = false;
                self.events.sent();
                self.reported.get_or_insert_with(Instant::now);
                self.next_report = Instant::now() + REPORT;
            }
        }
    }

    /// Nothing more is read; what was read is handed over if the aggregator
    /// takes it. What it does not take is read again after the restart.
    async fn end(&mut self, events: &mut mpsc::Receiver<Event>) {
        self.shipper.engine.close_removed(Instant::now());
        self.shipper.add_counts(Instant::now());
        let hand_over = async {
            while self.shipper.is_connected() {
                self.shipper.add_requests();
                let is_whole = self.requests.is_closed() && self.requests.is_empty();
                if self.shipper.flush() && is_whole && self.shipper.is_delivered() {
                    break;
                }
                tokio::select! {
                    Some(report) = self.requests.recv() => self.shipper.tell_requests(&report),
                    event = timeout(Duration::from_millis(100), events.recv()) => match event {
                        Ok(Some(event)) => drop(self.shipper.take(event)),
                        Ok(None) => break,
                        Err(_) => {}
                    }
                }
            }
        };
        let _handed_over = timeout(LAST_WAIT, hand_over).await;
        self.shipper.save();
        self.metrics.update(&self.shipper, &self.conditions, &self.events);
        tell(self.story.positions(self.shipper.save_error().map(ToString::to_string)));
        let waiting = self.shipper.engine.in_flight();
        let text = format!(
            "the agent of node {} ends; {} lines were sent, {waiting} ranges of files were not acknowledged yet and will be read again where the files still are",
            self.node,
            self.shipper.shipped().lines
        );
        Sentence::Note(text).tell();
    }
}

/// What it is about to do, as its settings say.
pub(crate) fn beginning(config: &Config) -> Vec<Sentence> {
    let mut beginning = vec![Sentence::Note(format!(
        "the agent of node {} reads the logs in {} and keeps positions in {}",
        config.node,
        config.pod_logs.display(),
        config.state.display()
    ))];
    if let Some((namespace, name)) = &config.own_pod {
        beginning.push(Sentence::Note(format!("not following {namespace}/{name}: that is this log")));
    }
    if !config.excluded.is_empty() {
        let names = config.excluded.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let text = format!("not following what stays in the cluster: the logs of all pods of {names}");
        beginning.push(Sentence::Note(text));
    }
    let left_out = config.host.left_out();
    if !left_out.is_empty() {
        beginning.push(Sentence::Note(format!("of this node, not watched: {}", left_out.join(", "))));
    }
    beginning
}

fn tell(sentence: Option<Sentence>) {
    sentence.iter().for_each(Sentence::tell);
}
