//! A container runtime that has a version and one container, and knows nothing but lists.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService},
};
use tonic_prost::ProstCodec;
use tower::service_fn;

#[derive(Clone)]
struct Runtime;

/// `ListContainersRequest` and its answer, of which requests have nothing.
#[derive(Clone, PartialEq, prost::Message)]
struct List {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int32, tag = "6")]
    state: i32,
    #[prost(btree_map = "string, string", tag = "8")]
    labels: BTreeMap<String, String>,
}

/// `VersionRequest` and its answer.
#[derive(Clone, PartialEq, prost::Message)]
struct Version {
    #[prost(string, tag = "2")]
    runtime_name: String,
    #[prost(string, tag = "3")]
    runtime_version: String,
}

/// Serves at this path until the test ends.
pub(crate) fn serve(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let server = tonic::transport::Server::builder().add_service(Runtime);
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
}

impl NamedService for Runtime {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl tower::Service<http::Request<Body>> for Runtime {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let version = service_fn(|_: Request<Version>| async {
                let (runtime_name, runtime_version) = ("containerd".to_owned(), "2.1.0".to_owned());
                Ok::<_, Status>(Response::new(Version { runtime_name, runtime_version }))
            });
            let list = service_fn(|_: Request<List>| async {
                let labels = [("io.kubernetes.pod.namespace", "shop"), ("io.kubernetes.pod.name", "web-1")];
                let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
                let containers = vec![Container { id: "0a1b2c".to_owned(), state: 1, labels }];
                Ok::<_, Status>(Response::new(List { containers }))
            });
            Ok(match request.uri().path() {
                "/runtime.v1.RuntimeService/Version" => {
                    Grpc::new(ProstCodec::<Version, Version>::default()).unary(version, request).await
                }
                "/runtime.v1.RuntimeService/ListContainers" => {
                    Grpc::new(ProstCodec::<List, List>::default()).unary(list, request).await
                }
                _ => Status::unimplemented("only lists").into_http(),
            })
        })
    }
}
