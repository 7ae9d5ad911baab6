//! An API server that keeps one Secret.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kestrel_aggregator::uplink::credentials::RuntimeSecret;
use kube::{Client, client::Body};
use serde_json::json;

#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<Option<Secret>>>);

impl Server {
    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        Client::new(tower::service_fn(move |request| server.clone().answer(request)), "ns")
    }

    pub(crate) fn secret(&self) -> RuntimeSecret {
        RuntimeSecret::new(self.client(), "ns", None)
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut kept = self.0.lock().unwrap();
        if parts.method != Method::GET {
            *kept = Some(serde_json::from_slice(&body).unwrap());
        }
        let (status, answer) = match &*kept {
            Some(secret) => (200, json!(secret)),
            None => (404, json!({ "code": 404, "reason": "NotFound", "message": "no", "status": "Failure" })),
        };
        let body = Full::new(Bytes::from(answer.to_string()));
        Ok(Response::builder().status(status).body(body).unwrap())
    }

    pub(crate) fn put(&self, key: &str, text: &str) {
        let mut kept = self.0.lock().unwrap();
        let data = kept.get_or_insert_default().data.get_or_insert_default();
        data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let kept = self.0.lock().unwrap();
        let value = kept.as_ref()?.data.as_ref()?.get(key)?.0.clone();
        Some(String::from_utf8(value).unwrap())
    }
}
