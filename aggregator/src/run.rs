//! The aggregator's parts, put together.

use std::{future::ready, sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use kestrel_flows::counts::Counts;
use kestrel_runtime::{
    admin::{AdminPort, Readiness},
    daemon::Daemon,
};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    als,
    config::Config,
    executor::{self, Access, Executor, rules::Rules, switch::Switch},
    inventory::{self, Mirror, Objects, Parts, Pods, Watches, pods::Policies},
    istio::{self, Istio, Wanted},
    leader::{Election, standing::Standing},
    link,
    own_logs::{Identity, OwnLogs},
    owner::owner,
    rights::beyond,
    signals::{Signals, clock, event::Mark},
    stats,
    status::Status,
    traffic::{
        self, Traffic,
        relay::Follower,
        requests::{self, Requests},
    },
    uplink::{Retry, Uplink, credentials::RuntimeSecret, drops, lanes::Lanes, metrics::Metrics},
};

/// Ceilings of the waits between attempts to list or watch, and the time until
/// what is forbidden or not there is tried again.
const WATCH_RETRY: Retry = Retry {
    first: Duration::from_millis(500),
    most: Duration::from_secs(10),
    absent: Duration::from_secs(60),
};

/// Builds everything and starts it. What the process says of itself comes from `own_logs`.
///
/// # Errors
/// Something without which nothing can work, in a sentence.
pub async fn start(config: Config, own_logs: OwnLogs) -> anyhow::Result<Daemon> {
    let Config {
        health_port,
        namespace,
        election,
        logs_policy,
        excluded,
        thresholds,
        mesh,
        executor_switch,
        executor_account,
        dry_run_account,
        integrations,
        mut uplink,
        spool,
        link,
        als,
        istio: wanted,
        headers,
        relay,
    } = config;
    let mut cluster = kube::Config::infer()
        .await
        .context("no Kubernetes API server is known: run in a cluster, or set KUBECONFIG")?;
    // The proxy is for the way out of the cluster.
    cluster.proxy_url = None;
    let unusable = "the Kubernetes API server's address can't be used";
    let client = Client::try_from(cluster.clone()).context(unusable)?;
    let acting_as = |account: Option<String>| {
        executor::client_as(cluster.clone(), &namespace, account.as_deref()).context(unusable)
    };
    let (reader, trier) = (acting_as(executor_account.clone())?, acting_as(dry_run_account.clone())?);

    let mut daemon = Daemon::new();
    let drain = daemon.drain();
    let (metrics, link_metrics) = (Metrics::default(), link::metrics::Metrics::default());
    let (mirror, watches) = (Mirror::default(), Watches::default());
    let secret = RuntimeSecret::new(client.clone(), &namespace, owner());
    uplink.credentials = uplink.credentials.kept_in(secret);
    let credentials = uplink.credentials.clone();
    let lanes = spool
        .as_ref()
        .map_or_else(|| Lanes::new(metrics.clone()), |spool| Lanes::with_spool(metrics.clone(), spool));
    let pods = Pods::new(Policies { default: logs_policy, excluded: excluded.clone() });
    let signals = Signals::new(&thresholds, &lanes.signals(), &pods);
    let flow_metrics = traffic::metrics::Metrics::default();
    let traffic = {
        let (edges, lane) = (signals.edges.clone(), lanes.flows());
        Traffic::new(mirror.clone(), excluded.clone(), edges, lane, flow_metrics.clone())
    };
    let relay_counts = Counts::default();
    let relay = relay.map(|relay| Follower::new(relay, traffic.clone(), relay_counts.clone()));
    let (als_metrics, request_metrics) = (als::Metrics::default(), requests::metrics::Metrics::default());
    let requests = Requests::new(
        mirror.clone(),
        excluded.clone(),
        namespace.clone(),
        signals.edges.clone(),
        headers,
        lanes.flows(),
        request_metrics.clone(),
    );
    let istio = als.is_some().then(Istio::default);
    let of_istio = istio::Reader::new(client.clone(), reader.clone(), mesh.clone());
    let nodes = link::Nodes::default();
    let executor_metrics = executor::audit::Metrics::default();
    let acted_as = [(executor_account, reader.clone()), (dry_run_account, trier.clone())];
    let access = Access {
        reader,
        trier,
        switch: match &executor_switch {
            None => Switch::fixed(Rules::default()),
            Some(name) => Switch::config_map(client.clone(), &namespace, name),
        },
        excluded: excluded.clone(),
        nodes: nodes.clone(),
        metrics: executor_metrics.clone(),
    };
    let executor = Executor::new(access, credentials.clone(), lanes.clone(), drain.clone())?;
    let uplink = Uplink::new(uplink, lanes.clone(), mirror.clone(), executor.requests(), metrics.clone());
    let election = election.map(|election| {
        let told = Arc::new((lanes.clone(), mirror.clone(), signals.note.clone(), requests.clone()));
        Arc::new(Election::new(client.clone(), &namespace, election, told, owner()))
    });

    let identity = Identity {
        pod: link.pod_name.clone().unwrap_or_default(),
        namespace: link.namespace.clone(),
        node: link.node_name.clone().unwrap_or_default(),
    };
    let status = Status {
        pod: identity.pod.clone(),
        standing: election.as_deref().map_or_else(Standing::alone, Election::standing),
        view: uplink.view(),
        credentials,
        lanes: lanes.clone(),
        metrics: metrics.clone(),
        spool: spool.map(|spool| spool.bytes),
        watches: watches.clone(),
        requests: requests.clone(),
        serves_proxies: als.is_some(),
        istio: istio.clone(),
    };

    let mut registry = Registry::default();
    let of_the_link = registry.sub_registry_with_prefix("kestrel_link");
    link_metrics.register(of_the_link);
    of_the_link.register(
        "host_events_dropped",
        "Events of hosts that were not told: of a pod of another node, malformed, or too many",
        signals.happened.dropped(),
    );
    executor_metrics.register(registry.sub_registry_with_prefix("kestrel_executor"));
    let of_flows = registry.sub_registry_with_prefix("kestrel_flows");
    flow_metrics.register(of_flows);
    of_flows.register(
        "edges_left_out",
        "Failures between workloads that no incident was made of, because too much failed at a time",
        signals.edges.left_out(),
    );
    relay_counts.register(registry.sub_registry_with_prefix("kestrel_relay"));
    request_metrics.register(registry.sub_registry_with_prefix("kestrel_requests"));
    if als.is_some() {
        als_metrics.register(registry.sub_registry_with_prefix("kestrel_als"));
    }
    let of_the_inventory = registry.sub_registry_with_prefix("kestrel_inventory");
    watches.register(of_the_inventory);
    of_the_inventory.register_collector(Box::new(Objects::new(mirror.clone())));
    let of_the_uplink = registry.sub_registry_with_prefix("kestrel_uplink");
    metrics.register(of_the_uplink);
    of_the_uplink.register(
        "deletions_forgotten",
        "Deletions for which there was no more room before the cloud was told of them",
        mirror.forgotten(),
    );
    of_the_uplink.register(
        "events_forgotten",
        "Warning events that there was no room to remember; when they happen again, they are told as new",
        signals.events.forgotten(),
    );
    of_the_uplink.register_collector(Box::new(status.clone()));
    // Not the cloud: an installation must come to its end while the cloud is
    // away, and a roll-out must not stop for it. Not the lead either: a standby
    // is as ready as it will be.
    let readiness = Readiness::default();
    let listed = readiness.require("the first list of the cluster's pods");
    let lines = status.clone();
    let admin = AdminPort::bind(health_port, readiness, registry, drain.clone()).await?;
    daemon.spawn("admin port", admin.with_text("/status", move || ready(lines.text())).serve());

    tell_of_itself(&mut daemon, (own_logs, identity), status);
    // Known before the first object is seen, and before this replica notes what it knows itself.
    let knows_what_was_open = CancellationToken::new();
    daemon.spawn("inventory", {
        let (election, knows, note) = (election.clone(), knows_what_was_open.clone(), signals.note.clone());
        let watch = inventory::watch(
            client.clone(),
            Parts {
                mirror,
                pods: pods.clone(),
                signals: signals.clone(),
                mesh_root: mesh.root,
                integrations,
            },
            watches.clone(),
            WATCH_RETRY,
            drain.clone(),
        );
        async move {
            if let Some(election) = election {
                note.left(&election.left_open().await, Timestamp::now());
            }
            knows.cancel();
            watch.await
        }
    });
    if let Some(istio) = istio.clone() {
        let (drain, is_wanted) = (drain.clone(), wanted == Wanted::Yes);
        daemon.spawn("istio", async move {
            // Nothing of it has to be brought to an end.
            let _drained = drain.run_until_cancelled(istio.look(of_istio, is_wanted)).await;
            Ok(())
        });
    }
    let mark = mark(election.clone());
    let events = signals.events.clone();
    daemon.spawn(
        "events",
        inventory::watch_events(client.clone(), events, excluded, mark, watches, WATCH_RETRY, drain.clone()),
    );
    daemon.spawn("clock of the signals", {
        let (signals, drain) = (signals.clone(), drain.clone());
        async move {
            clock::run(|now| signals.tick(now), drain).await;
            Ok(())
        }
    });
    daemon.spawn("readiness", {
        let (pods, drain) = (pods.clone(), drain.clone());
        async move {
            if drain.run_until_cancelled(pods.listed()).await.is_some() {
                listed.set(true);
            }
            drain.cancelled().await;
            Ok(())
        }
    });
    daemon.spawn("rights", {
        let (client, namespace, drain) = (client.clone(), namespace.clone(), drain.clone());
        let switch = executor_switch.map(|name| Switch::config_map(client.clone(), &namespace, &name));
        async move {
            let say = async {
                let accounts = beyond::accounts(client, acted_as, switch.as_ref()).await;
                beyond::say(&accounts, &namespace).await;
            };
            drain.run_until_cancelled(say).await;
            drain.cancelled().await;
            Ok(())
        }
    });
    if let Some(pod) = link.pod_name.clone() {
        let (executor, place) = (
            Arc::clone(&executor),
            executor::events::Place { client: client.clone(), namespace: namespace.clone(), pod },
        );
        daemon.spawn("events of the executor", async move {
            executor.tell_events(place).await;
            Ok(())
        });
    }
    let answered = CancellationToken::new();
    let all_answered = answered.clone().drop_guard();
    daemon.spawn("executor", async move {
        let _all_answered = all_answered;
        executor.finish().await;
        Ok(())
    });
    daemon.spawn("leadership", {
        let drain = drain.clone();
        let parts =
            link::Parts { pods, signals, logs: lanes.logs(), traffic, nodes, requests: requests.clone() };
        let place = (client.clone(), link.clone());
        let serve_als = move |drain: CancellationToken| async move {
            let stats_port = als.as_ref().and_then(|als| als.stats_port);
            let _asking = stats_port
                .map(|port| AbortOnDropHandle::new(tokio::spawn(als::proxies::ask(requests.clone(), port))));
            let receiving = async {
                // Nobody listens for the proxies of a mesh that is not there.
                let begins = match istio.filter(|_| wanted == Wanted::WithIstio) {
                    Some(istio) => istio.comes(&drain).await,
                    None => true,
                };
                match als {
                    Some(als) if begins => {
                        als::receive(als, Some(place), &requests, als_metrics, drain).await
                    }
                    _ => {
                        drain.cancelled().await;
                        Ok(())
                    }
                }
            };
            // What agents and collectors send is told also before.
            requests.run_while(receiving).await
        };
        let serve = move |drain: CancellationToken| async move {
            let relay = async {
                if let Some(relay) = relay {
                    relay.run(drain.clone()).await;
                }
                Ok(())
            };
            // Agents and collectors hear on the link what was told until the very end.
            let told = CancellationToken::new();
            let link = link::serve(link, client, parts, link_metrics, told.clone());
            let proxies = async {
                serve_als(drain.clone()).await?;
                told.cancel();
                Ok(())
            };
            tokio::try_join!(link, relay, proxies)?;
            Ok(())
        };
        async move {
            match drain.run_until_cancelled(knows_what_was_open.cancelled()).await {
                Some(()) => lead(election, uplink, serve, drain, answered).await,
                None => Ok(()),
            }
        }
    });
    Ok(daemon)
}

/// From when on the cloud has not been told of events.
async fn mark(election: Option<Arc<Election>>) -> Mark {
    let start = Timestamp::now();
    let told = match election {
        Some(election) => election.told_before().await,
        None => None,
    };
    told.map_or(Mark::Start(start), Mark::Told)
}

/// What the process tells the cloud of itself: its warnings, among them what was
/// dropped, and its measurements.
fn tell_of_itself(daemon: &mut Daemon, (own_logs, identity): (OwnLogs, Identity), status: Status) {
    let drain = daemon.drain();
    let (lane, metrics) = (status.lanes.own_logs(), status.metrics.clone());
    daemon.spawn("own logs", own_logs.pass_on(identity, move |logs| lane.send(logs), drain.clone()));
    daemon.spawn("drops", drops::tell(metrics, drain.clone()));
    let lane = status.lanes.stats();
    daemon.spawn("stats", stats::tell(move || status.known(), move |stats| lane.send(stats), drain));
}

/// Waits for the lead, then does what only a leader may: talk to the cloud, and `serve` the
/// agents and proxies and read Relay. The Lease goes back when both have ended.
async fn lead<F: Future<Output = anyhow::Result<()>>>(
    election: Option<Arc<Election>>,
    uplink: Uplink,
    serve: impl FnOnce(CancellationToken) -> F,
    drain: CancellationToken,
    answered: CancellationToken,
) -> anyhow::Result<()> {
    let leadership = match &election {
        None => None,
        Some(election) => match election.win(&drain).await {
            None => return Ok(()),
            leadership => leadership,
        },
    };
    let (quiet, told) = (CancellationToken::new(), CancellationToken::new());
    let work = async {
        let uplink = async {
            // Not before the last answers, flows and requests are in their lanes.
            uplink.run(&told).await;
            anyhow::Ok(())
        };
        let serving = async {
            serve(drain).await?;
            answered.cancelled().await;
            told.cancel();
            anyhow::Ok(())
        };
        tokio::try_join!(uplink, serving)?;
        quiet.cancel();
        Ok(())
    };
    // A task of its own, so that no amount of work can keep it from renewing.
    let hold = async {
        let Some(leadership) = leadership else { return Ok(()) };
        let quiet = quiet.clone();
        AbortOnDropHandle::new(tokio::spawn(async move { leadership.hold(&quiet).await })).await?
    };
    // A lost Lease ends the work at once, in the middle of it.
    tokio::try_join!(work, hold)?;
    Ok(())
}
