//! What is watched, on its way into the registers.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::JobStatus;
use kube::Resource;

use super::{
    cron_job::CronJob,
    incident::Subject,
    job::{self, Job},
    register::Register,
};
use crate::inventory::{Sink, convert::Workload, uid};

/// Hands objects of one kind to the register of their signals.
pub(crate) struct Judged<S, F> {
    pub(crate) register: Register<S>,
    /// Makes of an object that is seen now what is judged.
    pub(crate) subject: F,
}

impl<K, S, F> Sink<K> for Judged<S, F>
where
    K: Resource,
    S: Subject,
    F: Fn(&K, Timestamp) -> S + Send + 'static,
{
    fn begin(&self) {
        self.register.begin();
    }

    fn apply(&self, object: &K) {
        let now = Timestamp::now();
        self.register.seen(uid(object), (self.subject)(object, now), now);
    }

    fn remove(&self, object: &K) {
        self.register.gone(uid(object), Timestamp::now());
    }

    fn finish(&self) {
        self.register.finish(Timestamp::now());
    }

    fn hears(&self, does: bool) {
        self.register.hears(does, Timestamp::now());
    }
}

/// Hands Jobs to the register of the Jobs, or to that of the CronJobs if one of
/// those made them: a CronJob keeps Jobs that failed, though others have
/// succeeded since.
pub(crate) struct JobSink {
    pub(crate) jobs: Register<Job>,
    pub(crate) cron_jobs: Register<CronJob>,
}

impl Sink<Workload<JobStatus>> for JobSink {
    fn begin(&self) {
        self.jobs.begin();
    }

    fn apply(&self, object: &Workload<JobStatus>) {
        let now = Timestamp::now();
        let owners = object.metadata.owner_references.iter().flatten();
        let cron_job = owners.into_iter().find(|owner| owner.kind == "CronJob");
        match (cron_job, job::end(object, now)) {
            (None, _) => self.jobs.seen(uid(object), Job::new(object, now), now),
            (Some(owner), Some(end)) => self.cron_jobs.reported(&owner.uid, CronJob::with(end), now),
            (Some(_), None) => {}
        }
    }

    fn remove(&self, object: &Workload<JobStatus>) {
        self.jobs.gone(uid(object), Timestamp::now());
    }

    fn finish(&self) {
        self.jobs.finish(Timestamp::now());
    }
}

#[cfg(test)]
mod tests;
