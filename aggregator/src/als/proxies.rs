//! Asks proxies what they count of their own access logs, where Envoy shows it without a shell in its pod: at the port for Prometheus.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, header::HOST};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::traffic::requests::{
    Requests,
    losses::{self, Counted},
};

/// From one round to the next.
const ROUND: Duration = Duration::from_secs(60);
/// Proxies that are asked at a time.
const AT_A_TIME: usize = 16;
/// A proxy must have answered within this time.
const ANSWER: Duration = Duration::from_secs(2);
/// An answer of a few lines is not longer.
const MOST_BYTES: usize = 256 * 1024;
/// The metrics of access logs alone.
const PATH: &str = "/stats/prometheus?filter=grpc_access_log";

/// Asks all proxies of which something was heard, on `port`, again and again.
pub(crate) async fn ask(requests: Requests, port: u16) {
    let mut round = interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        let asked = stream::iter(requests.proxies())
            .map(|address| async move {
                let answer = timeout(ANSWER, counted(address, port)).await;
                Some((address, answer.ok()?.ok()??))
            })
            .buffer_unordered(AT_A_TIME);
        requests.counted(asked.filter_map(std::future::ready).collect().await);
    }
}

/// `None`: it does not show them.
async fn counted(address: IpAddr, port: u16) -> anyhow::Result<Option<Counted>> {
    let stream = TcpStream::connect((address, port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(PATH).header(HOST, "proxy").body(Empty::<Bytes>::new())?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await?;
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
    Ok(losses::read(&String::from_utf8_lossy(&body)))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_proxy_says_what_it_has_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = tokio::spawn(async move {
            for body in ["envoy_access_logs_grpc_access_log_logs_written{} 9\n", "up 1\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(
                    request[..read].starts_with(b"GET /stats/prometheus?filter=grpc_access_log HTTP/1.1\r\n")
                );
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let said = counted(address.ip(), address.port()).await.unwrap();
        assert_eq!(said, Some(Counted { written: 9, dropped: 0 }));
        assert_eq!(counted(address.ip(), address.port()).await.unwrap(), None);
        proxy.await.unwrap();
        counted(address.ip(), address.port()).await.unwrap_err();
    }
}
