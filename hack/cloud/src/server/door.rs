//! The port: open to handshakes, or as a fault wants it.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use kestrel_runtime::tls;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::server::TlsStream;

use crate::{faults::Door, hub::Hub};

/// Connections whose handshake has succeeded.
pub(super) type Accepted = mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>;

/// Keeps the door until the cloud ends.
///
/// # Errors
/// The port, after it was closed, can't be bound again.
pub(super) async fn keep(
    first: TcpListener,
    config: Arc<ServerConfig>,
    hub: Arc<Hub>,
    accepted: Accepted,
) -> anyhow::Result<()> {
    let address = first.local_addr()?;
    let mut listener = Some(first);
    let mut faults = hub.watch_faults();
    while !hub.stop.is_cancelled() {
        let door = faults.borrow_and_update().door;
        let over = hub.stop.child_token();
        let change = async {
            over.run_until_cancelled(faults.wait_for(|faults| faults.door != door)).await;
            over.cancel();
        };
        let as_asked = async {
            if door == Door::Closed {
                listener = None;
                return anyhow::Ok(());
            }
            let open = match listener.take() {
                Some(open) => open,
                None => TcpListener::bind(address).await.with_context(|| format!("{address} again"))?,
            };
            if matches!(door, Door::RefuseTls | Door::Silent) {
                over.run_until_cancelled(without_tls(&open, door)).await;
                listener = Some(open);
            } else {
                let refusals = Arc::clone(&hub);
                let refused = move |peer, reason| refusals.refuse(peer, "handshake", reason);
                tls::server::accept(open, Arc::clone(&config), over.clone(), accepted.clone(), refused).await;
            }
            Ok(())
        };
        tokio::join!(as_asked, change).0?;
    }
    Ok(())
}

/// Takes connections and never says a word: keeps them, or closes them at once.
async fn without_tls(listener: &TcpListener, door: Door) {
    let mut kept = Vec::new();
    while let Ok((connection, _)) = listener.accept().await {
        if door == Door::Silent {
            kept.push(connection);
        }
    }
}
