use std::time::SystemTime;

use super::{pace::FIRST, *};
use crate::host::condition::Finding;

fn text(sentence: Option<Sentence>) -> String {
    match sentence {
        Some(Sentence::Note(text) | Sentence::Warning(text)) => text,
        None => String::new(),
    }
}

#[test]
fn pods_are_told_in_waves() {
    let origin = |pod: &str, container: &str| Origin {
        namespace: "ns".into(),
        pod: pod.into(),
        uid: "1".into(),
        container: container.into(),
    };
    let mut story = Story::default();
    let start = Instant::now();
    let tell = |story: &mut Story, origins: &[(Origin, Option<Policy>)], after: u64| {
        let origins = origins.iter().map(|(origin, policy)| (origin, *policy));
        text(story.pods(origins, Path::new("/var/log/pods"), start + Duration::from_secs(after)))
    };
    assert_eq!(tell(&mut story, &[], 0), "following 0 containers of 0 pods in /var/log/pods");
    let two = [(origin("a", "x"), Some(Policy::All)), (origin("a", "y"), Some(Policy::All))];
    assert_eq!(tell(&mut story, &two, 1), "");
    assert_eq!(tell(&mut story, &two, 6), "following 2 containers of 1 pod in /var/log/pods; new: ns/a");
    assert_eq!(tell(&mut story, &two, 60), "");
    let other = [(origin("b", "x"), None), (origin("off", "x"), Some(Policy::Off))];
    assert_eq!(
        tell(&mut story, &other, 70),
        "following 1 container of 1 pod in /var/log/pods; 1 pod to be decided by the aggregator; new: ns/b; gone: ns/a"
    );
}

#[test]
fn what_cannot_be_seen_for_one_reason_is_told_once() {
    let condition = |kind, status, message: &str| {
        let (reason, message) = ("R".into(), message.to_owned());
        Condition { finding: Finding { kind, status, reason, message }, since: SystemTime::now() }
    };
    let (mut story, mut now) = (Story::default(), Instant::now());
    let unseen = [
        condition("kestrel.ai/A", Status::Unknown, "no right"),
        condition("kestrel.ai/B", Status::False, "fine"),
        condition("kestrel.ai/C", Status::Unknown, "no right"),
    ];
    let together = Sentence::Warning("kestrel.ai/A, kestrel.ai/C are Unknown: no right".into());
    let fine = Sentence::Note("watched and as it should be: kestrel.ai/B".into());
    assert_eq!(story.conditions(&unseen, now), [fine, together]);
    assert_eq!(story.conditions(&unseen, now), []);
    now += FIRST;
    let trouble = [condition("kestrel.ai/B", Status::True, "no")];
    assert_eq!(story.conditions(&trouble, now), [Sentence::Warning("kestrel.ai/B is True: no".into())]);
}

#[test]
fn a_condition_that_flaps_is_told_ever_more_rarely_with_how_often() {
    let (mut story, start) = (Story::default(), Instant::now());
    let mut told = Vec::new();
    for look in 0..360 {
        let status = if look % 2 == 0 { Status::True } else { Status::False };
        let (reason, message) = ("R".into(), "m".to_owned());
        let finding = Finding { kind: "kestrel.ai/A", status, reason, message };
        let condition = Condition { finding, since: SystemTime::now() };
        told.extend(story.conditions(&[condition], start + Duration::from_secs(10 * look)));
    }
    let told: Vec<_> = told.into_iter().map(|sentence| text(Some(sentence))).collect();
    assert_eq!(told[..2], ["kestrel.ai/A is True: m", "kestrel.ai/A is False: m"]);
    assert!(told.len() <= 10, "{told:#?}");
    assert!(told.last().unwrap().contains(" times since it was told)"), "{told:#?}");
}

#[test]
fn what_happens_every_minute_is_told_ever_more_rarely() {
    let event = |pod: &str, number: u64| Event {
        kind: "OOMKilled",
        id: number.to_string(),
        time: SystemTime::now(),
        message: format!("kill {number} in {pod}"),
        pod: Some(pod.to_owned()),
    };
    let (mut story, start) = (Story::default(), Instant::now());
    let mut told = Vec::new();
    for minute in 0..24 * 60 {
        let now = start + Duration::from_mins(minute);
        told.extend(story.repeated(now));
        if minute <= 600 {
            told.extend(story.happened(&event("a", minute), now));
        }
        if minute == 30 {
            told.extend(story.happened(&event("b", minute), now));
        }
    }
    let told: Vec<_> = told.into_iter().map(|sentence| text(Some(sentence))).collect();
    assert_eq!(told[0], "kill 0 in a");
    assert!(told.contains(&"kill 30 in b".to_owned()), "another pod's is told at once: {told:#?}");
    assert!(told.last().unwrap().ends_with(": kill 600 in a") && told.len() < 20, "{told:#?}");
    let later = start + Duration::from_hours(30);
    assert!(story.repeated(later).is_empty() && story.happened.is_empty());

    // Each pod of a Job is another one.
    let mut told = 0;
    for minute in 0..24 * 60 {
        let now = later + Duration::from_mins(minute);
        told += story.repeated(now).len();
        told += usize::from(story.happened(&event(&format!("job-{minute}"), minute), now).is_some());
    }
    assert!((10..40).contains(&told), "{told}");
}

#[test]
fn files_that_cannot_be_followed_are_told_together() {
    let (mut story, start) = (Story::default(), Instant::now());
    let news = |path: usize, problem: Option<&str>| News {
        path: PathBuf::from(format!("/logs/{path:03}")),
        problem: problem.map(str::to_owned),
    };
    let all = (0..200).map(|path| news(path, Some("Permission denied"))).collect();
    let told: Vec<_> = story.problems(all, start).into_iter().map(|sentence| text(Some(sentence))).collect();
    assert_eq!((told.len(), told[0].as_str()), (6, "/logs/000: Permission denied"));
    assert_eq!(told[5], "likewise 195 other files; kestrel-node-agent status says how they stand");
    assert_eq!(story.problems(vec![news(1, None)], start), []);
    let told = story.problems(Vec::new(), start + FIRST);
    assert_eq!(told, [Sentence::Note("/logs/001: no problem any more".into())]);
}

#[test]
fn a_state_is_told_once() {
    let mut story = Story::default();
    let start = Instant::now();
    let down = |story: &mut Story| story.disconnected("refused", Duration::from_secs(1), start).is_some();
    assert!(down(&mut story));
    assert!(!down(&mut story));
    story.connected(&http::Uri::from_static("https://x:1"));
    assert!(down(&mut story));

    assert!(story.summary("well".into(), "all is well with 3 pods".into(), start).is_some());
    assert!(story.summary("well".into(), "all is well with 4 pods".into(), start + FIRST).is_none());
    assert!(story.summary("not".into(), "it is not".into(), start + FIRST).is_some());

    assert!(story.positions(None).is_none());
    assert!(story.positions(Some("disk full".into())).is_some());
    assert!(story.positions(Some("disk full".into())).is_none());
    assert_eq!(story.positions(None), Some(Sentence::Note("positions are kept again".into())));

    let lost = |damaged| LostBytes::from([0, 5, damaged, 0]);
    assert_eq!(story.lost(&LostBytes::default(), start), None);
    assert!(text(story.lost(&lost(0), start)).starts_with("logs are missing: 5 bytes of removed files"));
    assert!(story.lost(&lost(20), start).is_none(), "waves");
    assert_eq!(
        text(story.lost(&lost(20), start + FIRST)),
        "logs are missing: 20 bytes of files that are damaged"
    );
}
