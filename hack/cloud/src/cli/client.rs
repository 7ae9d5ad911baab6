//! A client of the query API.

use std::{net::SocketAddr, str::FromStr};

use anyhow::{Context as _, bail};
use axum::{
    body::Body,
    http::{Request, Response, header::CONTENT_TYPE},
};
use futures::{Stream, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// The longest event that `watch` takes: a message of 10 MiB as JSON with every byte escaped.
const MAX_EVENT: usize = 64 << 20;

/// `host:port` of the query API.
#[derive(Clone, Debug)]
pub struct ApiAddress(String);

impl FromStr for ApiAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty() && !host.contains('/'))
            .map(|(_, port)| port);
        if port.is_some_and(|port| port.parse::<u16>().is_ok()) {
            Ok(Self(address.to_owned()))
        } else {
            Err("expected HOST:PORT or http://HOST:PORT".to_owned())
        }
    }
}

impl ApiAddress {
    /// The address as one to bind.
    ///
    /// # Errors
    /// It has a name in it.
    pub fn socket(&self) -> anyhow::Result<SocketAddr> {
        self.0.parse().with_context(|| format!("--api {}: serve needs an IP address and a port", self.0))
    }
}

/// Asks one cloud.
pub struct Api {
    address: String,
    http: Client<HttpConnector, Body>,
}

impl Api {
    /// A client that has not connected yet.
    pub fn new(address: &ApiAddress) -> Self {
        Self { address: address.0.clone(), http: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// `GET path?query`.
    ///
    /// # Errors
    /// Nobody answers, or not with 200.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        let response = self.ask("GET", path, query, Body::empty()).await?;
        json(response).await
    }

    /// `POST path?query` with a JSON body.
    ///
    /// # Errors
    /// Nobody answers, or not with 200.
    pub async fn post(&self, path: &str, query: &[(&str, String)], body: &Value) -> anyhow::Result<Value> {
        let response = self.ask("POST", path, query, Body::from(body.to_string())).await?;
        json(response).await
    }

    /// Everything that happens from now on, until the cloud ends.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn watch(&self) -> anyhow::Result<impl Stream<Item = anyhow::Result<Value>> + use<>> {
        let response = self.ask("GET", "/v1/watch", &[], Body::empty()).await?;
        let events = (response.into_body().into_data_stream(), Lines::default());
        Ok(stream::try_unfold(events, async |(mut body, mut lines)| {
            loop {
                while let Some(line) = lines.next() {
                    // The other lines of server-sent events are comments and separators.
                    if let Some(data) = line.strip_prefix(b"data: ") {
                        let event = serde_json::from_slice(data).context("an event is not JSON")?;
                        return Ok(Some((event, (body, lines))));
                    }
                }
                let Some(bytes) = body.next().await else { return Ok(None) };
                lines.extend(&bytes.context("the connection to the cloud broke")?)?;
            }
        }))
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, String)],
        body: Body,
    ) -> anyhow::Result<Response<Body>> {
        let query = serde_urlencoded::to_string(query)?;
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}?{query}", self.address))
            .header(CONTENT_TYPE, "application/json")
            .body(body)?;
        let response = self.http.request(request).await.with_context(|| {
            format!(
                "no development cloud answers at http://{}: start it, forward its port \
                 (kubectl -n kestrel-cloud port-forward service/kestrel-cloud 50052) or set --api",
                self.address
            )
        })?;
        if response.status().is_success() {
            return Ok(response.map(Body::new));
        }
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        match serde_json::from_slice::<Value>(&body) {
            Ok(Value::Object(problem)) if problem.get("error").is_some_and(Value::is_string) => {
                bail!("{}", problem["error"].as_str().unwrap_or_default())
            }
            _ => bail!("{status}: {}", String::from_utf8_lossy(&body)),
        }
    }
}

async fn json(response: Response<Body>) -> anyhow::Result<Value> {
    let body = response.into_body().collect().await?.to_bytes();
    serde_json::from_slice(&body).context("the answer is not JSON")
}

/// Bytes that come in pieces, as lines.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    /// How much of the buffer was given out, and how much holds no newline.
    taken: usize,
    searched: usize,
}

impl Lines {
    fn extend(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.buffer.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        anyhow::ensure!(
            self.buffer.len() + bytes.len() <= MAX_EVENT,
            "an event is longer than {MAX_EVENT} bytes"
        );
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let rest = self.buffer.get(self.searched..)?;
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let end = self.searched + length;
        let line = self.buffer.get(self.taken..end).map(<[u8]>::to_vec);
        self.taken = end + 1;
        self.searched = end + 1;
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_may_be_a_url() {
        for text in ["127.0.0.1:50052", "http://127.0.0.1:50052/", "http://127.0.0.1:50052"] {
            assert_eq!(text.parse::<ApiAddress>().unwrap().socket().unwrap().port(), 50052);
        }
        assert!("cloud:1".parse::<ApiAddress>().unwrap().socket().is_err());
        for text in ["", "127.0.0.1", "https://a:1", ":80", "a:b"] {
            assert!(text.parse::<ApiAddress>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_are_cut(
            text in "[ab\n]{0,60}",
            cuts in prop::collection::vec(1..9_usize, 60),
        ) {
            let (mut lines, mut found, mut rest) = (Lines::default(), Vec::new(), text.as_bytes());
            for cut in cuts {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                lines.extend(piece).unwrap();
                found.extend(std::iter::from_fn(|| lines.next()));
                rest = later;
            }
            let mut expected: Vec<&[u8]> = text.as_bytes().split(|&byte| byte == b'\n').collect();
            expected.pop();
            prop_assert_eq!(found, expected);
        }
    }
}
