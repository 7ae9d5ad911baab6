//! Jobs and CronJobs, from their two watches to what is told.

use std::time::Duration;

use k8s_openapi::api::batch::v1::CronJobStatus;
use kestrel_proto::cloud::v1::stream_events_request::Request;
use serde_json::{Value, json};

use super::*;
use crate::signals::{
    cron_job::cron_job,
    note::{Note, Voice},
    thresholds::Thresholds,
    told::Told,
};

type CronJobs = Judged<CronJob, fn(&Workload<CronJobStatus>, Timestamp) -> CronJob>;

fn sinks() -> (Told, JobSink, CronJobs) {
    let far = Told::new();
    let jobs = Register::new(Thresholds::default(), far.lane());
    let cron_jobs = Register::new(Thresholds::default(), far.lane());
    let jobs = JobSink { jobs, cron_jobs: cron_jobs.clone() };
    (far, jobs, Judged { register: cron_jobs, subject: cron_job })
}

/// The run of `nightly`, or of nobody, that ended at this minute after ten.
fn job(owner: Option<&str>, end: &str, minute: u32) -> Workload<JobStatus> {
    let owners: Vec<_> = owner.into_iter().map(|uid| json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": uid, "controller": true})).collect();
    let meta = json!({"name": format!("nightly-{minute}"), "namespace": "shop", "uid": format!("u{minute}"), "ownerReferences": owners});
    let time = time(minute);
    let condition =
        json!({"type": end, "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": time});
    let completion = if end == "Complete" { json!(time) } else { Value::Null };
    let status = json!({"conditions": [condition], "completionTime": completion});
    serde_json::from_value(json!({"metadata": meta, "spec": {}, "status": status})).unwrap()
}

fn time(minute: u32) -> String {
    format!("2026-11-21T10:{minute:02}:00Z")
}

fn nightly(succeeded: Option<u32>, suspend: bool) -> Workload<CronJobStatus> {
    let status = json!({"lastSuccessfulTime": succeeded.map(time)});
    let meta = json!({"name": "nightly", "namespace": "shop", "uid": "c"});
    serde_json::from_value(json!({"metadata": meta, "spec": {"suspend": suspend}, "status": status})).unwrap()
}

/// Action, kind, name, state.
fn told(far: &Told) -> Vec<String> {
    let signals = far.next().into_iter().map(|request| {
        let Request::WorkloadRolloutStatus(told) = request else { panic!("{request:?}") };
        let action = told.action().as_str_name().trim_start_matches("ACTION_").to_owned();
        format!("{action} {} {} {}", told.kind, told.name, told.rollout_status)
    });
    signals.collect()
}

const NOTHING: Vec<String> = Vec::new();

#[test]
fn a_job_of_its_own_is_told_until_it_is_gone() {
    let (far, jobs, _) = sinks();
    jobs.apply(&job(None, "Complete", 1));
    jobs.apply(&job(None, "Failed", 2));
    jobs.apply(&job(None, "Failed", 2));
    assert_eq!(told(&far), ["CREATE Job nightly-2 Failed"]);
    jobs.begin();
    jobs.finish();
    assert_eq!(told(&far), ["DELETE Job nightly-2 Failed"]);
}

#[test]
fn a_cron_job_recovers_with_its_next_success() {
    let (far, jobs, cron_jobs) = sinks();
    cron_jobs.apply(&nightly(Some(1), false));
    jobs.apply(&job(Some("c"), "Failed", 2));
    jobs.apply(&job(Some("c"), "Failed", 3));
    jobs.remove(&job(Some("c"), "Failed", 2));
    assert_eq!(told(&far), ["CREATE CronJob nightly Failed"], "one incident, whatever is kept");
    jobs.apply(&job(Some("c"), "Complete", 4));
    assert_eq!(told(&far), ["UPDATE CronJob nightly Complete"]);
    cron_jobs.apply(&nightly(Some(4), false));
    assert_eq!(told(&far), NOTHING);
    jobs.apply(&job(Some("c"), "Failed", 5));
    cron_jobs.apply(&nightly(Some(4), true));
    assert_eq!(
        told(&far),
        ["CREATE CronJob nightly Failed", "UPDATE CronJob nightly Complete"],
        "nobody waits for a suspended one"
    );
    cron_jobs.apply(&nightly(Some(4), false));
    cron_jobs.remove(&nightly(Some(4), false));
    assert_eq!(told(&far), ["CREATE CronJob nightly Failed", "DELETE CronJob nightly Failed"]);
}

#[test]
fn a_start_tells_only_of_failures_that_no_success_followed() {
    let (far, jobs, cron_jobs) = sinks();
    jobs.begin();
    jobs.apply(&job(Some("c"), "Failed", 1));
    jobs.apply(&job(Some("c"), "Complete", 2));
    jobs.apply(&job(Some("d"), "Failed", 3));
    jobs.finish();
    assert_eq!(told(&far), NOTHING, "the CronJobs are not known yet");
    cron_jobs.begin();
    cron_jobs.apply(&nightly(Some(2), false));
    cron_jobs.finish();
    assert_eq!(told(&far), NOTHING, "c has succeeded since, and d is no more");
}

#[test]
fn a_failed_run_is_not_over_before_the_jobs_are_known() {
    for (end, expected) in
        [("Failed", "CREATE CronJob nightly Failed"), ("Complete", "UPDATE CronJob nightly Complete")]
    {
        let (far, note, now) = (Told::new(), Note::default(), Timestamp::now());
        note.left("c", now);
        let voice = Voice { lane: far.lane(), note };
        let cron_jobs = Register::new(Thresholds::default(), voice);
        let jobs =
            JobSink { jobs: Register::new(Thresholds::default(), far.lane()), cron_jobs: cron_jobs.clone() };
        Judged { register: cron_jobs.clone(), subject: cron_job }.apply(&nightly(Some(1), false));
        cron_jobs.tick(now + Duration::from_secs(30));
        assert_eq!(told(&far), NOTHING);
        jobs.apply(&job(Some("c"), end, 2));
        cron_jobs.tick(now + Duration::from_secs(90));
        assert_eq!(told(&far), [expected]);
    }
}
