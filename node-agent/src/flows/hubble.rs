//! Hubble on this node: the socket of Cilium's agent, or of whatever else serves its API there.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use kestrel_flows::{
    counts::Counts,
    hubble::{End, Hubble, News},
    window::Window,
};
use kestrel_link::outage::Outage;
use tokio::{
    net::UnixStream,
    time::{Instant, sleep},
};

use super::sources::Sources;
use crate::story::Sentence;

/// Waits between attempts at a socket that is there.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How often it is looked for a socket that is not.
const LOOK: Duration = Duration::from_secs(1);

/// Counts what Hubble shows into `window`, whenever its socket is there, for as long as it is polled.
pub(super) async fn follow(socket: PathBuf, window: Arc<Mutex<Window>>, counts: Counts, sources: Sources) {
    let name = format!("Hubble at {}", socket.display());
    let mut hubble = Hubble::of_node(counts);
    let (mut outage, mut wait, mut was_there) = (Outage::default(), RETRY.0, None);
    loop {
        let is_there = socket.exists();
        if was_there.is_none() {
            sources.looked((!is_there).then(|| name.clone()));
        }
        if was_there != Some(is_there) {
            // That it came is told when it has answered.
            if let (false, Some(_)) = (is_there, was_there) {
                sources.went(&name);
            }
            was_there = Some(is_there);
            // Another one may understand more.
            hubble.forget_version();
        }
        if !is_there {
            wait = RETRY.0;
            sleep(LOOK).await;
            continue;
        }
        let begun = Instant::now();
        let end = match UnixStream::connect(&socket).await {
            Ok(stream) => {
                let heard = |news| match news {
                    News::Answers => sources.came(&name),
                    News::Missing(text) => Sentence::Warning(text).tell(),
                    News::Well(text) => Sentence::Note(text).tell(),
                };
                hubble.read(stream, "http://localhost", &window, heard).await
            }
            Err(error) => End::Problem(error.to_string()),
        };
        let End::Problem(problem) = end else { continue };
        if begun.elapsed() >= RETRY.1 {
            wait = RETRY.0;
            outage.up();
            hubble.forget_version();
        }
        if outage.down(&problem, Instant::now().into_std()) && socket.exists() {
            sources.fails(&name, &problem);
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

#[cfg(test)]
mod tests;
