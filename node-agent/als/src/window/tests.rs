use super::*;
use crate::entry::{Address, Protocol};

const ROOM: usize = 64 << 20;

fn reporter() -> Reporter {
    Reporter { number: 1, address: (*b"10.0.0.1").into() }
}

fn entry(path: &str) -> Entry<'_> {
    Entry {
        protocol: Protocol::Http,
        cluster: b"outbound|80||web.shop.svc.cluster.local",
        upstream: Address { ip: b"10.0.0.2", port: 8080 },
        path: path.as_bytes(),
        code: 200,
        start: 1_000_000_000,
        duration: 2_000_000,
        request_bytes: 10,
        response_bytes: 20,
        ..Entry::default()
    }
}

#[test]
fn entries_of_one_route_are_one_row() {
    let mut window = Window::default();
    for number in 0..5000 {
        let path = format!("/orders/{number}");
        let entry = Entry { start: number * 1000, why: b"TLS", ..entry(&path) };
        assert_eq!(window.add(&reporter(), &entry, ROOM), Fold::Nothing);
    }
    let rows: Vec<_> = window.rows().collect();
    assert_eq!(rows.len(), 1);
    let (key, counts) = rows[0];
    assert_eq!(
        (key.template, counts.count, counts.sent, counts.received),
        (&b"/orders/:id"[..], 5000, 50_000, 100_000)
    );
    assert_eq!((counts.first, counts.last, counts.took), (0, 4_999_000 + 2_000_000, 10_000_000));
    assert_eq!((counts.times.quantile(0.99), counts.why.as_deref()), (1984 + 32, Some(&b"TLS"[..])));
}

/// Names that no template folds.
fn word(mut number: u32) -> String {
    let mut word = String::from("/");
    for _ in 0..6 {
        word.push((b'g' + (number % 20) as u8).into());
        number /= 20;
    }
    word
}

#[test]
fn paths_that_are_all_different_end_in_one_row_and_no_entry_is_lost() {
    let mut window = Window::default();
    let mut folded = 0;
    for number in 0..20_000 {
        folded += u64::from(window.add(&reporter(), &entry(&word(number)), ROOM) != Fold::Nothing);
    }
    assert_eq!((window.len(), folded), (MOST_PATHS as usize + 1, 19_000));
    assert_eq!(window.rows().map(|(_, counts)| counts.count).sum::<u64>(), 20_000);
    let other = window.rows().find(|(key, _)| key.template == crate::template::OTHER.as_bytes()).unwrap();
    assert_eq!((other.1.count, other.0.code, other.0.peer), (19_000, 200, &b"10.0.0.2"[..]));
}

#[test]
fn entries_that_are_counted_together_are_counted_as_one_by_one() {
    let paths: Vec<String> = (0..5000).map(|number| word(number * 7 % 1300)).collect();
    let (mut one_by_one, mut together) = (Window::default(), Window::default());
    for paths in paths.chunks(32) {
        let entries: Vec<_> = paths.iter().map(|path| entry(path)).collect();
        let mut apart = |entry: &&Entry<'_>| one_by_one.add(&reporter(), entry, ROOM) == Fold::Nothing;
        let folded = entries.len() - entries.iter().filter(|entry| apart(entry)).count();
        assert_eq!(together.add_all(&reporter(), &entries, ROOM, &Headers::default()), folded as u64);
    }
    assert!(one_by_one.rows().eq(together.rows()));
    assert_eq!((together.len(), one_by_one.bytes()), (MOST_PATHS as usize + 1, together.bytes()));
}

#[test]
fn a_destination_of_any_cardinality_and_a_full_window_are_bounded() {
    let mut window = Window::default();
    let hosts: Vec<String> =
        (0..3000).map(|number| format!("10.{}.{}.1", number / 250, number % 250)).collect();
    for host in &hosts {
        let upstream = Address { ip: host.as_bytes(), port: 80 };
        window.add(&reporter(), &Entry { upstream, ..entry("/") }, ROOM);
    }
    assert_eq!(window.len(), MOST_PEERS as usize + 1, "then one that says nothing of the host");
    let mut window = Window::default();
    let mut last = Fold::Nothing;
    for number in 0..5000 {
        let cluster = word(number);
        last = window.add(&reporter(), &Entry { cluster: cluster.as_bytes(), ..entry("/") }, 100_000);
    }
    assert_eq!(last, Fold::All);
    assert!(window.bytes() < 102_000, "{}", window.bytes());
    assert_eq!(window.rows().map(|(_, counts)| counts.count).sum::<u64>(), 5000);
}

/// Scenario: a window is full, and its rows go on with times of every size and causes of every kind.
/// Guarantee: it takes no more memory, and all are counted.
#[test]
fn rows_of_a_full_window_do_not_grow() {
    const BYTES: usize = 100_000;
    let mut window = Window::default();
    let paths: Vec<String> = (0..1000).map(word).collect();
    for number in 0..200_000_u64 {
        let duration = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (20 + number % 20);
        let entry = Entry { duration, why: b"because", ..entry(&paths[number as usize % paths.len()]) };
        window.add(&reporter(), &entry, BYTES);
    }
    assert!(window.bytes() < BYTES + 10_000, "{}", window.bytes());
    assert_eq!(window.rows().map(|(_, counts)| counts.count).sum::<u64>(), 200_000);
    let most = window.rows().map(|(_, counts)| counts.heap()).sum::<usize>();
    assert!(most < BYTES, "{most}");
}

/// Scenario: one proxy logs more different requests than there is room for, and then all others what they always do.
/// Guarantee: it has as much as nobody needs, and the others are told apart.
#[test]
fn one_reporter_leaves_room_for_the_others() {
    let room = Room { bytes: 1 << 20, each: 1 << 17 };
    let mut window = Window::default();
    for number in 0..20_000 {
        let cluster = word(number);
        window.add(&reporter(), &Entry { cluster: cluster.as_bytes(), ..entry("/") }, room);
    }
    assert!((room.bytes / 2..room.bytes / 2 + 10_000).contains(&window.bytes()), "{}", window.bytes());
    for number in 2..7 {
        let other = Reporter { number, ..reporter() };
        for path in 0..100 {
            assert_eq!(window.add(&other, &entry(&word(path)), room), Fold::Nothing);
        }
    }
    assert_eq!(window.rows().map(|(_, counts)| counts.count).sum::<u64>(), 20_500);
}

/// Scenario: a scanner asks for hosts that it makes up; a host that was there before is asked for again.
/// Guarantee: no more than some of them have rows, and those that have go on.
#[test]
fn hosts_that_are_made_up_are_bounded() {
    let mut window = Window::default();
    let mut ask = |number: u32| {
        let host = word(number);
        let entry = Entry { cluster: b"PassthroughCluster", authority: host.as_bytes(), ..entry("/") };
        window.add(&reporter(), &entry, ROOM)
    };
    let folds: Vec<_> = (0..2000).map(&mut ask).collect();
    let made_up = folds.iter().filter(|fold| **fold == Fold::All).count();
    assert_eq!((made_up, ask(7), ask(1999)), (1500, Fold::Nothing, Fold::All));
    assert_eq!(window.len(), MOST_HOSTS as usize + 1);
}

#[test]
fn headers_are_those_of_one_request_and_take_an_eighth_at_most() {
    use kestrel_proto::envoy::data::accesslog::v3::HttpRequestProperties;
    use prost::Message as _;

    let headers = Headers::new(["x-tenant"], []);
    let request = |tenant: &str| {
        let request_headers = [("x-tenant".to_owned(), tenant.to_owned())].into();
        HttpRequestProperties { request_headers, ..HttpRequestProperties::default() }.encode_to_vec()
    };
    let mut window = Window::default();
    for tenant in ["acme", "other"] {
        let request = request(tenant);
        let entry = Entry { request: &request, ..entry("/") };
        window.add(&reporter(), &entry, ROOM);
        window.sample(&entry, &headers, ROOM);
    }
    let sample = window.rows().next().unwrap().1.sample.clone().unwrap();
    assert_eq!((&*sample.request[0].0, &*sample.request[0].1), ("x-tenant", "acme"));
    let mut window = Window::default();
    for number in 0..1000 {
        let (path, request) = (word(number), request(&"t".repeat(100)));
        let entry = Entry { request: &request, ..entry(&path) };
        window.add(&reporter(), &entry, 800_000);
        window.sample(&entry, &headers, 800_000);
    }
    let sampled = window.rows().filter(|(_, counts)| counts.sample.is_some()).count();
    assert!((100..900).contains(&sampled) && window.samples <= 100_000, "{sampled} in {}", window.samples);
}

#[test]
fn what_was_counted_apart_adds_up() {
    let (mut one, mut other, mut all) = (Window::default(), Window::default(), Window::default());
    for number in 0..100 {
        let entry =
            Entry { duration: number * 1_000_000, start: number, attempts: number as u32, ..entry("/") };
        let part = if number % 3 == 0 { &mut one } else { &mut other };
        part.add(&reporter(), &entry, ROOM);
        all.add(&reporter(), &entry, ROOM);
    }
    let mut merged = one.rows().next().unwrap().1.clone();
    merged.merge(other.rows().next().unwrap().1);
    assert_eq!(&merged, all.rows().next().unwrap().1);
}
