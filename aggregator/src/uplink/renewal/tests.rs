use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::uplink::{
    credentials::{Bootstrap, TokenSource},
    problem::Setting,
};

fn jwt(tenant: &str, issued: Option<i64>, ends: Option<i64>) -> String {
    let claims = json!({ "tenant": tenant, "iat": issued, "exp": ends }).to_string();
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

fn token(issued: impl Into<Option<i64>>, ends: impl Into<Option<i64>>) -> Token {
    Token::parse(&jwt("acme", issued.into(), ends.into()), Setting::AuthToken).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_token_is_due_at_two_thirds_of_its_life_whatever_the_clock_does() {
    let (token, begun) = (token(0, 30_000), Instant::now());
    let mut schedule = Schedule::default();
    let due = schedule.wait(&token, at(1_000), begun) + seconds(1_000);
    assert!((seconds(18_600)..=seconds(21_000)).contains(&due), "{due:?}");
    assert_eq!(schedule.wait(&token, at(11_000), begun + seconds(10_000)), due - seconds(11_000));
    // The clock is set forward: renewed too early is better than too late.
    assert_eq!(schedule.wait(&token, at(21_000), begun + seconds(10_000)), Duration::ZERO);
    // It is set back: the time that passed counts.
    assert_eq!(schedule.wait(&token, at(0), begun + seconds(20_000)), Duration::ZERO);
    assert!(schedule.wait(&token, at(0), begun + seconds(10_000)) <= seconds(10_000));
}

#[test]
fn a_token_without_a_beginning_or_an_end_is_handled() {
    let begun = Instant::now();
    let mut schedule = Schedule::default();
    assert_eq!(schedule.wait(&token(0, None), at(1_000), begun), Duration::MAX);
    let wait = schedule.wait(&token(None, 4_000), at(1_000), begun);
    assert!((seconds(1_860)..=seconds(2_100)).contains(&wait), "{wait:?}");
    schedule.want();
    assert_eq!(schedule.wait(&token(0, None), at(1_000), begun), Duration::ZERO);
}

/// How many attempts there are in an hour if each ends so.
fn attempts(outcome: Outcome, refused_again: bool) -> u32 {
    let token = token(0, 10_000);
    let (mut schedule, begun) = (Schedule::default(), Instant::now());
    let (mut now, mut count) = (begun, 0);
    schedule.want();
    while now < begun + seconds(3_600) {
        let wait = schedule.wait(&token, at(0), now);
        if wait.is_zero() {
            schedule.attempted(outcome, now);
            count += 1;
            if refused_again {
                schedule.want();
            }
        }
        now += wait.max(Duration::from_millis(1));
    }
    count
}

#[test]
fn no_answer_of_the_server_makes_a_storm() {
    for (outcome, most) in [(Outcome::Failed, 400), (Outcome::Renewed, 400), (Outcome::NotOffered, 2)] {
        let count = attempts(outcome, true);
        assert!((1..=most).contains(&count), "{outcome:?}: {count}");
    }
    assert_eq!(attempts(Outcome::Renewed, false), 1);
}

proptest! {
    #[test]
    fn no_claims_and_no_clock_make_it_panic(
        issued in any::<Option<i64>>(), ends in any::<Option<i64>>(), clock in any::<Vec<i32>>(),
    ) {
        let (token, mut instant, mut schedule) = (token(issued, ends), Instant::now(), Schedule::default());
        for now in clock {
            instant += seconds(1);
            if schedule.wait(&token, at(now.into()), instant).is_zero() {
                schedule.attempted(Outcome::Renewed, instant);
                prop_assert!(schedule.wait(&token, at(now.into()), instant) >= PAUSE);
            }
        }
    }
}

/// A server that gives these answers, one after another, then none.
struct Server {
    answers: Mutex<Vec<Result<String, Code>>>,
    asked: Mutex<Vec<String>>,
}

impl Server {
    fn new(mut answers: Vec<Result<String, Code>>) -> Self {
        answers.reverse();
        Self { answers: Mutex::new(answers), asked: Mutex::default() }
    }

    fn asked(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap()
    }
}

impl Renew for Server {
    async fn renew(&self, token: &Token) -> Result<SecretString, Status> {
        self.asked().push(token.secret.expose_secret().to_owned());
        let answer = self.answers.lock().unwrap().pop();
        match answer {
            Some(answer) => answer.map(SecretString::from).map_err(|code| Status::new(code, "no")),
            None => std::future::pending().await,
        }
    }
}

fn credentials(token: &str) -> Credentials {
    Credentials::new(Bootstrap {
        client_certificate: PathBuf::new(),
        client_key: PathBuf::new(),
        authority: PathBuf::new(),
        token: TokenSource::Text(token.into()),
        insecure: false,
        look: seconds(30),
    })
}

/// Runs the renewal until the server was asked as often as it answers, and once more.
async fn run(credentials: &Credentials, answers: Vec<Result<String, Code>>) -> Vec<String> {
    let (times, server) = (answers.len() + 1, Server::new(answers));
    let asked = async {
        while server.asked().len() < times {
            sleep(seconds(1)).await;
        }
    };
    tokio::select! {
        never = keep_renewed(credentials, &server) => match never {},
        () = asked => {}
    }
    server.asked.into_inner().unwrap()
}

/// A token that is due.
fn due(tenant: &str, id: i64) -> String {
    let now = Timestamp::now().as_second();
    jwt(tenant, Some(now - 3_000 + id), Some(now + 600))
}

#[tokio::test(start_paused = true)]
async fn the_renewed_token_is_used_from_then_on() {
    let (first, second) = (due("acme", 0), due("acme", 1));
    let credentials = credentials(&first);
    let asked = run(&credentials, vec![Err(Code::Unavailable), Ok(second.clone())]).await;
    assert_eq!(asked, [first.clone(), first, second.clone()]);
    assert_eq!(credentials.token().await.unwrap().secret.expose_secret(), second);
    assert!(credentials.ends().token.is_some());
    assert!(credentials.cautions().is_empty(), "the failure before is mended");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_gives_is_not_taken_if_it_is_of_no_use() {
    let first = due("acme", 0);
    let credentials = credentials(&first);
    let ended = jwt("acme", Some(1), Some(2));
    let answers = vec![Ok(ended), Ok(due("other", 1)), Ok("nonsense".to_owned()), Ok(String::new())];
    assert_eq!(run(&credentials, answers).await, vec![first; 5]);
    assert!(credentials.cautions()[0].contains("it is empty"), "the last failure");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_hinders_no_renewal() {
    let (first, second) = (jwt("acme", Some(1), Some(2)), jwt("acme", Some(3), Some(4)));
    assert_eq!(run(&credentials(&first), vec![Ok(second.clone())]).await, vec![first, second]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_server_does_not_take_is_renewed_at_once() {
    let now = Timestamp::now().as_second();
    let (first, second) =
        (jwt("acme", Some(now), Some(now + 3_600)), jwt("acme", Some(now), Some(now + 7_200)));
    let (credentials, server) = (credentials(&first), Server::new(vec![Ok(second.clone())]));
    let begun = Instant::now();
    let story = async {
        sleep(seconds(100)).await;
        assert!(server.asked().is_empty());
        let token = credentials.token().await.unwrap();
        credentials.refused(&token);
        while credentials.token().await.unwrap().secret.expose_secret() != second {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        never = keep_renewed(&credentials, &server) => match never {},
        () = story => {}
    }
    assert_eq!(begun.elapsed(), seconds(100));
}
