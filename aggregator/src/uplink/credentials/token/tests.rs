use proptest::prelude::*;
use serde_json::json;

use super::*;

fn jwt(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn sentence(token: &str) -> String {
    let parsed = Token::parse(token, Setting::AuthTokenFile);
    match parsed.and_then(|token| token.check(at(1_000)).map(|()| token)) {
        Ok(token) => format!("tenant {}", token.tenant.to_str().unwrap()),
        Err(problem) => problem.to_string(),
    }
}

#[test]
fn a_good_token_gives_its_tenant_and_a_header_that_prints_nothing() {
    assert_eq!(sentence(&format!(" {}\n", jwt(r#"{"tenant":"acme","exp":1001.5}"#))), "tenant acme");
    let token = Token::parse(&jwt(r#"{"tenant":"acme","iat":"?"}"#), Setting::AuthToken).unwrap();
    assert_eq!(format!("{:?}", token.bearer().unwrap()), "Sensitive");
    assert_eq!((token.issued, token.ends), (None, None));
}

#[test]
fn every_bad_token_gets_a_sentence_that_names_the_setting() {
    for (token, part) in [
        (String::new(), "it is empty"),
        ("one.two".to_owned(), "not three parts"),
        ("a.%.b".to_owned(), "not base64url"),
        (jwt("[]"), "claims can't be understood"),
        (jwt(r#"{"exp":2000}"#), "no tenant claim"),
        (jwt(r#"{"tenant":"acme","exp":1000}"#), "expired at 1970-01-01T00:16:40Z"),
        (jwt("{\"tenant\":\"a\\nb\"}"), "no header can carry"),
    ] {
        let sentence = sentence(&token);
        assert!(sentence.contains(part) && sentence.contains("AUTH_TOKEN_FILE"), "{part}: {sentence}");
        assert!(token.len() < 8 || !sentence.contains(&token), "{sentence}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}", claims in "\\PC{0,60}") {
        sentence(&text);
        sentence(&jwt(&claims));
    }
}

/// Of tenant `acme`, made and ending at these seconds.
fn token(setting: Setting, issued: impl Into<Option<i64>>, ends: impl Into<Option<i64>>) -> Token {
    let claims = json!({ "tenant": "acme", "iat": issued.into(), "exp": ends.into() });
    Token::parse(&jwt(&claims.to_string()), setting).unwrap()
}

fn chosen(
    given: Result<Token, Problem>,
    runtime: Vec<Token>,
    refused: &mut Refused,
) -> (String, Vec<String>) {
    let runtime = runtime.into_iter().map(Ok).collect();
    let (chosen, remarks) = choose(given, runtime, refused, at(1_000));
    let chosen = chosen.map_or_else(|problem| problem.to_string(), |token| token.setting.to_string());
    (chosen, remarks.iter().map(ToString::to_string).collect())
}

#[test]
fn the_newest_valid_token_wins_wherever_it_is_from() {
    use Setting::{AuthTokenFile as Given, Renewal, RuntimeSecret as Kept};
    let none = || Err(Problem::NoTenant(Given));
    for (given, runtime, expected) in [
        (Ok(token(Given, 900, 2_000)), vec![token(Kept, 800, 3_000)], "AUTH_TOKEN_FILE"),
        (Ok(token(Given, 800, 2_000)), vec![token(Kept, 900, 1_500)], "the Secret"),
        (Ok(token(Given, 800, 2_000)), vec![token(Kept, 900, 1_000)], "AUTH_TOKEN_FILE"),
        (Ok(token(Given, 800, 1_000)), vec![token(Kept, 700, 1_500)], "the Secret"),
        (Ok(token(Given, None, 2_000)), vec![token(Kept, 900, 1_500)], "AUTH_TOKEN_FILE"),
        (Ok(token(Given, None, 1_500)), vec![token(Kept, None, 2_000)], "the Secret"),
        (Ok(token(Given, None, None)), vec![token(Kept, None, 2_000)], "AUTH_TOKEN_FILE"),
        // Made in the same second.
        (Ok(token(Given, 900, 2_000)), vec![token(Renewal, 900, 2_000)], "the last renewal"),
        (none(), vec![token(Kept, 700, 1_500)], "the Secret"),
        // None is valid by our clock.
        (none(), vec![token(Kept, 700, 1_000)], "the Secret"),
        (Ok(token(Given, 800, 1_000)), vec![token(Kept, 900, 999)], "the Secret"),
        (Ok(token(Given, 800, 1_000)), vec![], "AUTH_TOKEN_FILE"),
        (none(), vec![], "no tenant claim"),
    ] {
        let (chosen, _) = chosen(given, runtime, &mut Refused::default());
        assert!(chosen.contains(expected), "{expected}: {chosen}");
    }
}

#[test]
fn only_what_somebody_must_mend_is_said() {
    let old = token(Setting::AuthTokenFile, 1, 2);
    let kept = token(Setting::RuntimeSecret, 900, 2_000);
    assert!(chosen(Ok(old), vec![kept.clone()], &mut Refused::default()).1.is_empty());
    let (_, remarks) =
        chosen(Err(Problem::NoTenant(Setting::AuthTokenFile)), vec![kept], &mut Refused::default());
    assert!(remarks[0].contains("AUTH_TOKEN_FILE"), "{remarks:?}");
    let ended = token(Setting::AuthTokenFile, 1, 999);
    let (_, remarks) = chosen(Ok(ended), Vec::new(), &mut Refused::default());
    assert!(remarks[0].contains("expired at") && remarks[0].contains("clock"), "{remarks:?}");
}

#[test]
fn a_token_of_another_tenant_is_never_used_silently() {
    let foreign = |claims| Token::parse(&jwt(claims), Setting::RuntimeSecret).unwrap();
    let other = r#"{"tenant":"other","iat":999}"#;
    // Even one that has ended says whose all must be.
    for ends in [1_000, 2_000] {
        let given = token(Setting::AuthTokenFile, 900, ends);
        let (chosen, remarks) = chosen(Ok(given), vec![foreign(other)], &mut Refused::default());
        assert!(chosen.contains("AUTH_TOKEN_FILE"), "{chosen}");
        assert!(
            remarks[0].contains("is not used") && remarks[0].contains("kestrel-operator-jwt-runtime"),
            "{remarks:?}"
        );
    }
}

#[test]
fn a_refused_token_gives_way_to_another_valid_one() {
    let (given, kept) =
        (token(Setting::AuthTokenFile, 800, 2_000), token(Setting::RuntimeSecret, 900, 2_000));
    let mut refused = Refused::default();
    let mut next = |old: Option<&Token>| {
        old.inspect(|old| refused.add(old.fingerprint));
        chosen(Ok(given.clone()), vec![kept.clone()], &mut refused).0
    };
    assert!(next(None).contains("the Secret"));
    assert!(next(Some(&kept)).contains("AUTH_TOKEN_FILE"));
    assert!(next(Some(&given)).contains("the Secret"), "both were refused: a new round");
}
