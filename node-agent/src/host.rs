//! The node as its host shows it: samples, and conditions made of them.

pub mod condition;
pub mod runtime;
pub mod sample;

use std::{path::PathBuf, time::Duration};

use tokio::sync::mpsc;

use sample::Sample;

/// How often the host is looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks at the host until nobody takes the samples any more.
///
/// # Errors
/// None; a source that cannot be read is part of the sample.
pub async fn watch(
    logs: PathBuf,
    runtime_socket: Option<PathBuf>,
    samples: mpsc::Sender<Sample>,
) -> anyhow::Result<()> {
    let look = async {
        loop {
            let mut sample = Sample::of_host(&logs);
            if let Some(socket) = &runtime_socket {
                sample.runtime = Some(runtime::version(socket).await);
            }
            if samples.send(sample).await.is_err() {
                break;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::select! {
        () = look => {}
        () = samples.closed() => {}
    }
    Ok(())
}
