//! Jobs and CronJobs, in kubectl's own form.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    super::{human, list, logs::selector, number, text},
    page::{Page, moment, or_none},
};

/// Completed indexes are cut behind the number at this place.
const INDEXES_CHARS: usize = 50;

impl Page {
    pub(super) fn job(&mut self, job: &Value) {
        let [spec, status] = [&job["spec"], &job["status"]];
        self.name(job);
        self.field(0, "Selector", selector(&spec["selector"]));
        self.marks(job);
        self.controller(job);
        self.present("Parallelism", &spec["parallelism"], "");
        self.or_unset("Completions", &spec["completions"], "");
        self.present("Completion Mode", &spec["completionMode"], "");
        self.present("Suspend", &spec["suspend"], "");
        self.present("Backoff Limit", &spec["backoffLimit"], "");
        self.present("TTL Seconds After Finished", &spec["ttlSecondsAfterFinished"], "");
        let [start, end] = ["startTime", "completionTime"].map(|field| text(status, &[field]));
        for (title, time) in [("Start Time", start), ("Completed At", end)] {
            self.unless_empty(0, title, &if time.is_empty() { String::new() } else { moment(time) });
        }
        if let (Ok(start), Ok(end)) = (start.parse::<Timestamp>(), end.parse::<Timestamp>()) {
            self.field(0, "Duration", human(end.duration_since(start).as_secs()));
        }
        self.present("Active Deadline Seconds", &spec["activeDeadlineSeconds"], "s");
        let [active, succeeded, failed] =
            ["active", "succeeded", "failed"].map(|field| number(status, &[field]));
        let ready = status["ready"].as_i64().map_or(String::new(), |ready| format!(" ({ready} Ready)"));
        let pods = format!("{active} Active{ready} / {succeeded} Succeeded / {failed} Failed");
        self.field(0, "Pods Statuses", pods);
        if spec["completionMode"] == "Indexed" {
            let indexes = text(status, &["completedIndexes"]);
            let cut = indexes.get(INDEXES_CHARS..).and_then(|rest| rest.find(','));
            self.field(
                0,
                "Completed Indexes",
                match cut {
                    Some(place) => format!("{}...", &indexes[..=INDEXES_CHARS + place]),
                    None => or_none(indexes.to_owned()),
                },
            );
        }
        self.template(&spec["template"]);
    }

    pub(super) fn cron_job(&mut self, cron_job: &Value) {
        let [spec, status] = [&cron_job["spec"], &cron_job["status"]];
        self.name(cron_job);
        self.marks(cron_job);
        self.fields(0, spec, &[("Schedule", "schedule"), ("Concurrency Policy", "concurrencyPolicy")]);
        self.field(
            0,
            "Suspend",
            match spec["suspend"].as_bool() {
                None => "<unset>",
                Some(true) => "True",
                Some(false) => "False",
            },
        );
        self.or_unset("Successful Job History Limit", &spec["successfulJobsHistoryLimit"], "");
        self.or_unset("Failed Job History Limit", &spec["failedJobsHistoryLimit"], "");
        self.or_unset("Starting Deadline Seconds", &spec["startingDeadlineSeconds"], "s");
        let job = &spec["jobTemplate"]["spec"];
        self.field(
            0,
            "Selector",
            match &job["selector"] {
                Value::Null => "<unset>".to_owned(),
                labels => selector(labels),
            },
        );
        self.or_unset("Parallelism", &job["parallelism"], "");
        self.or_unset("Completions", &job["completions"], "");
        self.present("Active Deadline Seconds", &job["activeDeadlineSeconds"], "s");
        self.template(&job["template"]);
        let last = Some(text(status, &["lastScheduleTime"])).filter(|last| !last.is_empty());
        self.field(0, "Last Schedule Time", last.map_or("<unset>".to_owned(), moment));
        let active: Vec<&str> = list(status, &["active"]).iter().map(|job| text(job, &["name"])).collect();
        self.field(0, "Active Jobs", or_none(active.join(", ")));
    }
}
