//! What agents and collectors send.

use kestrel_proto::node::v1::{RequestProtocol, RequestProxy, RequestReport, RequestRow, RequestsTold};
use tokio::sync::mpsc::unbounded_channel;

use super::{super::sent::Sender, *};

/// Requests of the first pod to the third, as its proxy saw them.
fn report(number: u64, count: u64) -> RequestReport {
    // As those that a proxy logs here.
    let now = u64::try_from(Timestamp::now().as_second() - 1).unwrap() * 1_000_000_000 + 20_000_000;
    let row = RequestRow {
        protocol: RequestProtocol::Http.into(),
        method: 1,
        code: 200,
        port: 8080,
        peer: b"10.0.0.3"[..].into(),
        cluster: b"outbound|80||db.shop.svc.cluster.local"[..].into(),
        template: b"/orders/:id"[..].into(),
        count,
        took: count * 20_000,
        times: vec![160, 1, u8::try_from(count).unwrap()].into(),
        first: now,
        last: now,
        ..RequestRow::default()
    };
    let proxy = RequestProxy {
        id: "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local".to_owned(),
        address: vec![10, 0, 0, 1].into(),
        namespace: "shop".to_owned(),
        pod: "web-1".to_owned(),
        folded: 1,
        malformed: 2,
        ..RequestProxy::default()
    };
    RequestReport { run: 7, number, proxies: vec![proxy], rows: vec![row] }
}

/// The same requests, as the proxy of the third saw them.
fn at_server(number: u64, count: u64) -> RequestReport {
    let mut report = report(number, count);
    report.proxies[0] = RequestProxy {
        id: "sidecar~10.0.0.3~db-3.shop~shop.svc.cluster.local".to_owned(),
        address: vec![10, 0, 0, 3].into(),
        namespace: "shop".to_owned(),
        pod: "db-3".to_owned(),
        ..RequestProxy::default()
    };
    let row = &mut report.rows[0];
    (row.at_server, row.peer) = (true, b"10.0.0.1"[..].into());
    row.cluster = b"inbound|8080||"[..].into();
    report
}

fn sum(told: &[(String, i64)]) -> i64 {
    told.iter().map(|(_, count)| count).sum()
}

impl World {
    /// Tells all that is open, as when time has passed.
    fn settle(&self) -> Vec<(String, i64)> {
        self.requests.settle();
        let told = self.flows();
        told.iter().map(|log| (log.http_data.as_ref().unwrap().path.clone(), log.count)).collect()
    }
}

#[tokio::test]
async fn a_report_counts_once_with_what_streams_brought_and_is_named_when_it_was_told() {
    let world = World::new();
    let (told, mut heard) = unbounded_channel();
    let take = |number, count| {
        world.requests.take("agent n1", Sender::Agent("n1"), &report(number, count), &told);
    };
    world.proxy(1).take(&message(vec![entry(1, 3, Side::Client, "/orders/9", 200)]));
    take(1, 3);
    take(1, 3);
    take(2, 4);
    assert!(heard.try_recv().is_err(), "the cloud knows nothing of it");
    assert_eq!(world.settle(), [("/orders/:id".to_owned(), 8)]);
    let mut numbers = Vec::new();
    while let Ok(RequestsTold { run: 7, number }) = heard.try_recv() {
        numbers.push(number);
    }
    assert_eq!(numbers, [1, 1, 2]);
    let tally = Tally { aggregated: 6, folded: 2, malformed: 4, ..Tally::default() };
    assert_eq!(world.requests.tallies()["shop/web"], tally);
    assert!(world.metrics().contains(r#"left_out_total{reason="Repeated"} 3"#), "{}", world.metrics());
}

/// Scenario: this process stops leading before it has told what an agent sent.
/// Guarantee: it does not tell it, because the agent sends it to the next leader; nor is the agent told so.
#[tokio::test]
async fn what_was_not_told_is_left_to_the_next_leader() {
    let world = World::new();
    let (told, mut heard) = unbounded_channel();
    world.requests.take("agent n1", Sender::Agent("n1"), &report(1, 3), &told);
    assert!(world.told().await.is_empty());
    assert!(heard.try_recv().is_err());
    assert!(world.metrics().contains(r#"left_out_total{reason="SentAgain"} 3"#), "{}", world.metrics());
    // It leads again.
    world.requests.take("agent n1", Sender::Agent("n1"), &report(1, 3), &told);
    assert_eq!(world.settle(), [("/orders/:id".to_owned(), 3)]);
}

/// Scenario: for a minute nobody leads; then one end's agent comes with rows of then and of now, and the other one's with rows that
/// it has counted together.
/// Guarantee: every request is told once.
#[tokio::test]
async fn what_both_ends_agents_kept_while_nobody_led_is_told_once() {
    let world = World::new();
    let (told, mut heard) = unbounded_channel();
    world.requests.begin();
    let mut clients = report(1, 3);
    let lately = clients.rows[0].clone();
    clients.rows[0].first -= 60_000_000_000;
    clients.rows[0].last -= 60_000_000_000;
    clients.rows.insert(0, RequestRow { count: 2, ..lately.clone() });
    let mut servers = at_server(1, 6);
    servers.rows[0].first -= 60_000_000_000;
    world.requests.take("agent a", Sender::Agent("n1"), &clients, &told);
    assert_eq!(sum(&world.settle()), 5, "nobody waits for the other end");
    world.requests.take("agent b", Sender::Agent("n1"), &servers, &told);
    assert_eq!(world.settle(), [("/orders/:id".to_owned(), 1)]);
    assert_eq!([(); 2].map(|()| heard.try_recv().is_ok()), [true; 2]);
    assert!(world.metrics().contains(r#"left_out_total{reason="OtherEnd"} 5"#), "{}", world.metrics());
}

/// Scenario: proxies of one end log to the aggregator, those of the other to their nodes' agents; the leader ends in order, while
/// requests go on, before the agents have reported what ended in the same seconds, and another one leads.
/// Guarantee: both together tell every request once, and of every entry it is known what became of it.
#[tokio::test]
async fn requests_that_both_ends_log_to_different_receivers_are_told_once_over_a_planned_hand_over() {
    let [former, next] = [World::new(), World::new()];
    let (told, mut heard) = unbounded_channel();
    let report_to = |world: &World, number, count| {
        world.requests.take("agent n1", Sender::Agent("n1"), &at_server(number, count), &told);
    };
    let log = |world: &World, count| {
        let entries = vec![entry(1, 3, Side::Client, "/orders/9", 200); count];
        world.proxy(1).take(&message(entries));
    };
    former.requests.begin();
    log(&former, 100);
    report_to(&former, 1, 100);
    assert_eq!(sum(&former.settle()), 100);
    assert_eq!(heard.try_recv().unwrap().number, 1);
    // Of the next ten seconds the agent's report has come in part.
    log(&former, 110);
    report_to(&former, 2, 40);
    assert_eq!(former.told().await.iter().map(|log| log.count).sum::<i64>(), 110);
    assert!(heard.try_recv().is_err());

    next.requests.take_over(former.requests.left());
    next.requests.begin();
    log(&next, 7);
    assert_eq!(sum(&next.settle()), 7);
    log(&next, 3);
    // The agent finds it, with what it has kept and what it has counted since. Twelve of its requests no other proxy saw.
    report_to(&next, 2, 40);
    report_to(&next, 3, 92);
    assert_eq!(sum(&next.settle()), 15);
    assert_eq!([(); 2].map(|()| heard.try_recv().unwrap().number), [2, 3]);
    assert!(next.requests.left().is_empty(), "it leads");
    for (world, told, left_out) in
        [(&former, 210, [r#"OtherEnd"} 100"#, r#"SentAgain"} 40"#]), (&next, 22, [r#"OtherEnd"} 120"#, ""])]
    {
        let metrics = world.metrics();
        assert!(metrics.contains(&format!("told_total {told}\n")), "{metrics}");
        assert!(left_out.iter().all(|line| metrics.contains(line)), "{metrics}");
    }
}

/// Scenario: an agent could reach no leader for an hour; meanwhile the address of one of its proxies went to a pod of another node.
/// Guarantee: what that proxy has logged is told, and what somebody claims of it now is not.
#[tokio::test]
async fn an_agent_speaks_of_who_had_an_address_when_it_was_logged() {
    let world = World::new();
    let (told, _heard) = unbounded_channel();
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
        "metadata": {"name": "new", "namespace": "shop", "uid": "u7", "creationTimestamp": Timestamp::now() - Duration::from_secs(60)},
        "spec": {"nodeName": "n2", "containers": []},
        "status": {"podIPs": [{"ip": "10.0.0.7"}]},
    }))
    .unwrap();
    let mirror = &world.requests.0.mirror;
    mirror.apply_related(Kind::Pod, "u7", &convert::pod(&pod), Relation::Pod(&pod));
    let mut kept = report(1, 3);
    kept.proxies[0].address = vec![10, 0, 0, 7].into();
    world.requests.take("agent n1", Sender::Agent("n1"), &RequestReport { number: 2, ..kept.clone() }, &told);
    assert!(world.metrics().contains(r#"left_out_total{reason="Foreign"} 3"#), "{}", world.metrics());
    kept.rows[0].first -= 3_600_000_000_000;
    kept.rows[0].last -= 3_600_000_000_000;
    world.requests.take("agent n1", Sender::Agent("n1"), &RequestReport { number: 3, ..kept }, &told);
    assert_eq!(world.settle(), [("/orders/:id".to_owned(), 3)]);
}

#[tokio::test]
async fn an_agent_speaks_for_its_node_and_a_collector_for_its_pod() {
    let world = World::new();
    let (told, mut heard) = unbounded_channel();
    world.requests.take("agent n2", Sender::Agent("n2"), &report(1, 3), &told);
    assert!(world.metrics().contains(r#"left_out_total{reason="Foreign"} 3"#), "{}", world.metrics());
    assert_eq!(heard.try_recv().unwrap().number, 1, "nothing of it is open");
    let collector =
        Sender::Collector { namespace: "shop", pod: "web-2", address: IpAddr::from([10, 0, 0, 2]) };
    world.requests.take("collector", collector, &report(1, 3), &told);
    assert_eq!(world.settle().len(), 1);
    assert_eq!(world.requests.tallies().keys().collect::<Vec<_>>(), ["shop/web"]);
}

/// Scenario: a pod says to its node's agent that it is the proxy of a neighbour, of one elsewhere, or of nobody's address; the agent
/// is one of before, which does not say who connected; and a pod of another node connects to the agent.
/// Guarantee: who connected is who reports, and of other nodes' pods nothing is taken.
#[tokio::test]
async fn a_pod_speaks_for_itself_alone_to_an_agent_too() {
    let world = World::new();
    let (told, _heard) = unbounded_channel();
    let take = |number, node, peer: &[u8], address: &[u8], workload: &str| {
        let mut report = report(number, 1);
        let text = str::to_owned;
        report.proxies[0] = RequestProxy {
            peer: peer.to_vec().into(),
            address: address.to_vec().into(),
            namespace: text("shop"),
            kind: text("StatefulSet"),
            workload: text(workload),
            ..RequestProxy::default()
        };
        world.requests.take(node, Sender::Agent(node), &report, &told);
    };
    let web = [10, 0, 0, 1];
    take(1, "n1", &web, &[10, 0, 0, 3], "db");
    take(2, "n1", &web, &[10, 9, 9, 9], "teller");
    take(3, "n1", &web, &web, "db");
    take(4, "n1", &[], &web, "db");
    take(5, "n2", &web, &[10, 9, 9, 9], "web");
    take(6, "n1", &[192, 0, 2, 1], &[10, 0, 0, 3], "db");
    let tallies = world.requests.tallies();
    let received = |name: &str| tallies.get(name).map(|tally| tally.received());
    assert_eq!(tallies.len(), 2, "{tallies:?}");
    assert_eq!([received("shop/web"), received("shop/db")], [Some(4), Some(1)]);
    assert!(world.metrics().contains(r#"left_out_total{reason="Foreign"} 1"#), "{}", world.metrics());
}

/// Scenario: proxies of one workload send here and to their node's agent, and say what they logged.
/// Guarantee: both are asked, and what came in either way is held against what they say.
#[tokio::test]
async fn proxies_are_asked_wherever_they_send_and_what_did_not_come_is_known() {
    let world = World::new();
    let addresses = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
    let (told, _heard) = unbounded_channel();
    let come = |number, count| {
        world.proxy(2).take(&message(vec![entry(2, 3, Side::Client, "/", 200)]));
        world.requests.take("agent n1", Sender::Agent("n1"), &report(number, count), &told);
    };
    let say = |written, dropped| {
        let said = addresses.map(|address| (address, Counted { written, dropped }));
        world.requests.counted(said.into());
    };
    assert_eq!(world.requests.proxies(), [] as [IpAddr; 0]);
    come(1, 3);
    world.settle();
    let mut asked = world.requests.proxies();
    asked.sort();
    assert_eq!(asked, addresses);
    say(100, 0);
    come(2, 4);
    say(104, 2);
    // Two entries of each report are malformed: six had come before, and seven since.
    let loss = Loss { logged: 12, dropped: 4, before: 6 };
    assert_eq!(world.requests.losses(), BTreeMap::from([("shop/web".to_owned(), (loss, 5))]));
}
