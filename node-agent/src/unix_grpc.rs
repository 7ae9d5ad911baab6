//! gRPC with a server of the node that listens on a Unix socket.

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

/// A client over `stream`, which its caller connects: the transport's own error hides the reason.
///
/// # Errors
/// The server does not speak HTTP/2, or has gone.
pub(crate) async fn client(stream: UnixStream) -> Result<Grpc<Channel>, String> {
    let mut stream = Some(TokioIo::new(stream));
    let connect = service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| std::io::Error::other("the connection was lost"));
        async move { stream }
    });
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(connect)
        .await
        .map_err(|error| error.to_string())?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    Ok(client)
}
