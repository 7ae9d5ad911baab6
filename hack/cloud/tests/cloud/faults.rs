//! Every fault, as a plain client meets it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kestrel_dev_cloud::{
    Claims, Cloud, Faults, Stream,
    faults::{Door, Flap, Reset, When},
};
use kestrel_proto::{
    cloud::v1::{KubernetesEvent, StreamDataRequest, StreamDataResponse, stream_data_request},
    server::v1::{RenewClusterTokenRequest, autonp_server_service_client::AutonpServerServiceClient},
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::operator::*;

type Open = (mpsc::Sender<StreamDataRequest>, Streaming<StreamDataResponse>);

async fn open(cloud: &Cloud, channel: Channel) -> Result<Open, Status> {
    open_data(channel, &token(cloud, "acme", 60), "acme").await
}

/// A stream on the channel's next connection: tonic does not move on by itself.
async fn reopened(cloud: &Cloud, channel: &Channel) -> Open {
    loop {
        if let Ok(streams) = open(cloud, channel.clone()).await {
            return streams;
        }
    }
}

fn event(bytes: usize) -> StreamDataRequest {
    let message = "x".repeat(bytes);
    let event = KubernetesEvent { message, ..KubernetesEvent::default() };
    StreamDataRequest { request: Some(stream_data_request::Request::KubernetesEvent(event)) }
}

async fn signals(cloud: &Cloud, count: u64) {
    let came = cloud.wait_for(LIMIT, |record| (record.signals.total() >= count).then_some(()));
    came.await.unwrap();
}

#[tokio::test]
async fn a_stream_is_ended_with_any_code_at_any_moment() {
    let cloud = cloud().await;
    let channel = connect(&cloud).await;
    let reset = |code, when, times| Faults {
        resets: vec![Reset { streams: vec![Stream::Data], code, when, times }],
        ..Faults::default()
    };
    cloud.set_faults(reset(Code::ResourceExhausted, When::Open, Some(1)));
    assert_eq!(open(&cloud, channel.clone()).await.unwrap_err().code(), Code::ResourceExhausted);
    assert!(cloud.faults().resets.is_empty(), "used up");

    let (_up, mut down) = open(&cloud, channel.clone()).await.unwrap();
    cloud.set_faults(reset(Code::Aborted, When::Now, None));
    assert_eq!(down.message().await.unwrap_err().code(), Code::Aborted);
    let (_up, mut down) = open(&cloud, channel.clone()).await.unwrap();
    cloud.set_faults(reset(Code::Ok, When::Now, None));
    assert!(down.message().await.unwrap().is_none());

    for count in [0, 2] {
        cloud.set_faults(reset(Code::Unimplemented, When::Received(count), None));
        let (up, mut down) = open(&cloud, channel.clone()).await.unwrap();
        let before = cloud.read(|record| record.signals.total());
        for _ in 0..count {
            up.send(event(1)).await.unwrap();
        }
        assert_eq!(down.message().await.unwrap_err().code(), Code::Unimplemented);
        assert_eq!(cloud.read(|record| record.signals.total()), before + count);
    }

    cloud.set_faults(reset(Code::Internal, When::Within(9 << 20), None));
    let (up, mut down) = open(&cloud, channel).await.unwrap();
    up.send(event(10)).await.unwrap();
    signals(&cloud, 3).await;
    up.send(event(9 << 20)).await.unwrap();
    assert_eq!(down.message().await.unwrap_err().code(), Code::Internal);
    assert_eq!(cloud.read(|record| record.signals.total()), 3, "the large one was cut short");
    let outcome = cloud.wait_for(LIMIT, |record| {
        let opening = record.connections.openings().back()?;
        opening.closed.map(|_| opening.outcome.clone())
    });
    assert_eq!(outcome.await.unwrap(), "Internal: a fault that was asked for");
    assert_eq!(cloud.read(|record| record.connections.counts().opened), 1);
}

#[tokio::test]
async fn a_stalled_stream_stops_no_other_and_goes_on_afterwards() {
    let cloud = cloud().await;
    cloud.set_faults(Faults { stall: vec![Stream::Data], ..Faults::default() });
    let channel = connect(&cloud).await;
    let (up, _down) = open(&cloud, channel.clone()).await.unwrap();
    for _ in 0..4 {
        up.send(event(1 << 20)).await.unwrap();
    }
    let token = token(&cloud, "acme", 60);
    let _open = send_lines(channel, &token, 1..=10).await;
    cloud.wait_for(LIMIT, |record| (record.logs.total() == 10).then_some(())).await.unwrap();
    assert_eq!(cloud.read(|record| record.signals.total()), 0);
    cloud.set_faults(Faults::default());
    signals(&cloud, 4).await;
}

#[tokio::test]
async fn a_connection_is_read_no_faster_than_asked() {
    let cloud = cloud().await;
    let channel = connect(&cloud).await;
    let (up, _down) = open(&cloud, channel).await.unwrap();
    cloud.set_faults(Faults { read_rate: Some(100_000), ..Faults::default() });
    let begun = Instant::now();
    up.send(event(100_000)).await.unwrap();
    signals(&cloud, 1).await;
    // What TLS had taken in before came at once.
    assert!(begun.elapsed() > Duration::from_millis(500));
}

#[tokio::test]
async fn a_quiet_stream_has_no_heartbeat() {
    let config = kestrel_dev_cloud::Config {
        heartbeat: Duration::from_millis(20),
        ..kestrel_dev_cloud::Config::new(kestrel_dev_cloud::Authority::generate().unwrap())
    };
    let cloud = kestrel_dev_cloud::serve(config).await.unwrap();
    cloud.set_faults(Faults { quiet: vec![Stream::Data], ..Faults::default() });
    let (_up, mut down) = open(&cloud, connect(&cloud).await).await.unwrap();
    assert!(timeout(Duration::from_millis(200), down.message()).await.is_err());
    cloud.set_faults(Faults::default());
    assert!(down.message().await.unwrap().is_some());
}

#[tokio::test]
async fn after_goaway_streams_live_until_the_grace_is_over() {
    let cloud = cloud().await;
    let channel = connect(&cloud).await;
    let (up, mut down) = open(&cloud, channel.clone()).await.unwrap();
    cloud.set_faults(Faults { goaway: true, ..Faults::default() });
    up.send(event(1)).await.unwrap();
    signals(&cloud, 1).await;
    // A new stream gets a new connection.
    let (_up, mut second) = reopened(&cloud, &channel).await;
    let opened = cloud.wait_for(LIMIT, |record| (record.connections.counts().opened == 2).then_some(()));
    opened.await.unwrap();
    drop(up);
    assert!(down.message().await.unwrap().is_none());
    let closed = cloud.wait_for(LIMIT, |record| (record.connections.counts().open == 1).then_some(()));
    closed.await.unwrap();
    let grace = Some(SignedDuration::from_millis(10));
    cloud.set_faults(Faults { goaway: true, grace, ..Faults::default() });
    assert!(second.message().await.is_err(), "cut");
}

#[tokio::test]
async fn every_door_is_as_asked_and_open_again_afterwards() {
    let cloud = cloud().await;
    let client = cloud.authority().client("cluster-1").unwrap();
    let endpoint = endpoint(cloud.address(), cloud.authority().certificate(), Some(&client));
    for door in [Door::Closed, Door::RefuseTls, Door::Silent, Door::Mute, Door::RefuseCertificates] {
        cloud.set_faults(Faults { door, ..Faults::default() });
        match door {
            Door::Closed => {
                while TcpStream::connect(cloud.address()).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            }
            // A connection may still have come through the old door.
            Door::RefuseTls => loop {
                let Ok(mut tcp) = TcpStream::connect(cloud.address()).await else { continue };
                let read = timeout(Duration::from_millis(100), tcp.read(&mut [0])).await;
                if matches!(read, Ok(Ok(0) | Err(_))) {
                    break;
                }
            },
            Door::Silent | Door::Mute => {
                let attempt = timeout(Duration::from_millis(300), async {
                    open(&cloud, endpoint.connect().await.ok()?).await.ok()
                });
                assert!(!matches!(attempt.await, Ok(Some(_))), "{door:?}");
            }
            _ => loop {
                assert!(open(&cloud, endpoint.connect_lazy()).await.is_err());
                let expired = cloud.read(|record| {
                    record.connections.refusals().iter().any(|refusal| refusal.reason.contains("Expired"))
                });
                if expired {
                    break;
                }
            },
        }
        let lasts = Some(SignedDuration::from_millis(1));
        cloud.set_faults(Faults { lasts, door, ..Faults::default() });
        let reopened = async {
            loop {
                if let Ok(channel) = endpoint.connect().await
                    && let Ok(streams) = open(&cloud, channel).await
                {
                    return streams;
                }
            }
        };
        timeout(LIMIT, reopened).await.unwrap();
    }
}

#[tokio::test]
async fn flapping_cuts_as_often_as_asked() {
    let cloud = cloud().await;
    let channel = connect(&cloud).await;
    let flap = Some(Flap { times: 5, period: SignedDuration::from_secs(1) });
    cloud.set_faults(Faults { flap, ..Faults::default() });
    for _ in 0..5 {
        let (_up, mut down) = reopened(&cloud, &channel).await;
        assert!(timeout(LIMIT, down.message()).await.unwrap().is_err());
    }
    reopened(&cloud, &channel).await;
}

#[tokio::test]
async fn a_token_is_judged_and_made_by_the_clock_that_is_asked_for() {
    let cloud = cloud().await;
    let channel = connect(&cloud).await;
    let ahead = SignedDuration::from_hours(1);
    cloud.set_faults(Faults { clock: ahead, ..Faults::default() });
    assert_eq!(open(&cloud, channel.clone()).await.unwrap_err().code(), Code::Unauthenticated);
    cloud.set_faults(Faults { clock: -ahead, ..Faults::default() });
    let current_token = token(&cloud, "acme", -60);
    let mut client = AutonpServerServiceClient::new(channel);
    let renew =
        request(RenewClusterTokenRequest { current_token: current_token.clone() }, &current_token, "acme");
    let renewed = client.renew_cluster_token(renew).await.unwrap().into_inner().access_token;
    let claims: Claims = cloud.authority().tokens().check(&renewed, Timestamp::now() - ahead).unwrap();
    assert!(claims.iat < Timestamp::now().as_second() - 3_000);
}
