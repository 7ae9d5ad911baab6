//! The life of a daemon: named tasks, one drain, an exit code that is true.

use std::{collections::HashMap, process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// The tasks of one process. None is detached: the first that ends before the
/// drain began ends the process, and at the drain all of them are awaited.
pub struct Daemon {
    tasks: JoinSet<anyhow::Result<()>>,
    names: HashMap<tokio::task::Id, &'static str>,
    drain: CancellationToken,
}

impl Daemon {
    /// A daemon without tasks.
    #[expect(clippy::new_without_default, reason = "a daemon is started, not defaulted")]
    pub fn new() -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), drain: CancellationToken::new() }
    }

    /// Cancelled when the process should end; every task watches it. A task
    /// that wants the process to end cancels it.
    pub fn drain(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Adds a task. It returns once the drain is over for it, or with the
    /// error that must end the process.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Runs until SIGTERM, SIGINT, a cancelled drain or the first task that
    /// ends; then drains for at most `grace`. A second signal ends it at once.
    ///
    /// Success means that the process was asked to end and all tasks ended well.
    pub async fn run(mut self, grace: Duration) -> ExitCode {
        let (mut terminate, mut interrupt) =
            match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
                (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
                (Err(error), _) | (_, Err(error)) => {
                    error!("cannot listen for signals: {error}");
                    return ExitCode::FAILURE;
                }
            };
        let mut failed = false;
        tokio::select! {
            _ = terminate.recv() => info!("asked to end (SIGTERM), draining"),
            _ = interrupt.recv() => info!("asked to end (SIGINT), draining"),
            () = self.drain.cancelled() => info!("draining"),
            ended = self.tasks.join_next_with_id() => {
                if let Some(ended) = ended && !self.drain.is_cancelled() {
                    failed |= self.report(ended, true);
                }
            }
        }
        self.drain.cancel();
        tokio::select! {
            all_well = timeout(grace, self.join_all()) => failed |= all_well.unwrap_or_else(|_| {
                warn!("not drained within {} s, ending anyway", grace.as_secs());
                true
            }),
            _ = terminate.recv() => failed = true,
            _ = interrupt.recv() => failed = true,
        }
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    async fn join_all(&mut self) -> bool {
        let mut failed = false;
        while let Some(ended) = self.tasks.join_next_with_id().await {
            failed |= self.report(ended, false);
        }
        failed
    }

    /// Says how a task ended; true if that is a failure of the process.
    fn report(
        &self,
        ended: Result<(tokio::task::Id, anyhow::Result<()>), tokio::task::JoinError>,
        early: bool,
    ) -> bool {
        let name = |id| self.names.get(&id).copied().unwrap_or("unnamed");
        match ended {
            Ok((id, Ok(()))) if early => error!("task {} ended before the process was asked to", name(id)),
            Ok((_, Ok(()))) => return false,
            Ok((id, Err(problem))) => error!("task {} failed: {problem:#}", name(id)),
            Err(problem) => error!("task {} panicked: {problem}", name(problem.id())),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_ends_the_process_with_a_failure() {
        let mut daemon = Daemon::new();
        let drain = daemon.drain();
        daemon.spawn("short", async { Ok(()) });
        daemon.spawn("long", async move {
            drain.cancelled().await;
            Ok(())
        });
        assert_eq!(daemon.run(Duration::from_secs(5)).await, ExitCode::FAILURE);
    }

    #[tokio::test]
    async fn a_drain_that_every_task_follows_is_a_success() {
        let mut daemon = Daemon::new();
        let drain = daemon.drain();
        daemon.spawn("asks to end", {
            let drain = drain.clone();
            async move {
                drain.cancel();
                Ok(())
            }
        });
        daemon.spawn("long", async move {
            drain.cancelled().await;
            Ok(())
        });
        assert_eq!(daemon.run(Duration::from_secs(5)).await, ExitCode::SUCCESS);
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_with_a_name() {
        let mut daemon = Daemon::new();
        daemon.spawn("broken", async { panic!("oh") });
        assert_eq!(daemon.run(Duration::from_secs(5)).await, ExitCode::FAILURE);
    }
}
