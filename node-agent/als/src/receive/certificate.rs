//! The certificate that is shown to proxies, and the authority of theirs: files that somebody else renews.

use std::{sync::Arc, time::Duration};

use kestrel_runtime::tls::{mounted::Mounted, pem, roots, server::mutual};
use rustls::ServerConfig;
use tokio::{sync::watch, time::sleep};
use tracing::{error, info, warn};

use super::Tls;

/// From one look at files that could not be used to the next.
const AGAIN: Duration = Duration::from_secs(10);

/// Offers what its folder holds, and what it holds later, for ever.
pub(super) async fn keep(Tls { folder, name }: Tls, offered: watch::Sender<Option<Arc<ServerConfig>>>) {
    let mut mounted = Mounted::new(folder);
    let mut said = String::new();
    loop {
        match read(&mut mounted, &name) {
            Ok(config) => {
                info!("proxies are shown the certificate in {}", mounted.folder().display());
                offered.send_replace(Some(config));
                said.clear();
                mounted.changed().await;
            }
            Err(problem) => {
                let problem = format!(
                    "the certificate in {} (KESTREL_ALS_TLS_DIR) can't be used: {problem}",
                    mounted.folder().display()
                );
                if problem != said {
                    if offered.borrow().is_none() {
                        error!("no access logs are received: {problem}");
                    } else {
                        warn!("the one before is shown: {problem}");
                    }
                    said = problem;
                }
                sleep(AGAIN).await;
            }
        }
    }
}

fn read(mounted: &mut Mounted, name: &str) -> Result<Arc<ServerConfig>, String> {
    let offered = mounted.look(&[name.to_owned()]).map_err(|error| error.to_string())?;
    let clients =
        roots(pem::join(&offered.authorities).as_bytes()).map_err(|error| format!("ca.crt {error}"))?;
    mutual(offered.certificate, clients, &["h2"]).map_err(|error| error.to_string())
}
