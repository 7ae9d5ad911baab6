use proptest::prelude::*;

use super::*;

fn redact(text: &str) -> String {
    let mut redactor = Redactor::new(Expressions::default());
    redactor.redact(text).map_or_else(|| text.to_owned(), str::to_owned)
}

const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";

#[test]
fn secrets_are_taken_out_and_the_rest_stays() {
    for (text, expected) in [
        ("login password=hunter2 ok", "login password=[redacted] ok"),
        ("Password: hunter2", "Password: [redacted]"),
        (r#"{"user":"a","password":"hu\"nter2","n":1}"#, r#"{"user":"a","password":"[redacted]","n":1}"#),
        (r#"{"msg":"{\"api_key\":\"abc\",\"n\":1}"}"#, r#"{"msg":"{\"api_key\":\"[redacted]\",\"n\":1}"}"#),
        ("DB_PASSWD='a b' x", "DB_PASSWD='[redacted]' x"),
        ("AWS_SECRET_ACCESS_KEY = wJalrXUtnFEMI/K7", "AWS_SECRET_ACCESS_KEY = [redacted]"),
        (
            "Server=db;User Id=sa;Password=p@ss;Timeout=3",
            "Server=db;User Id=sa;Password=[redacted];Timeout=3",
        ),
        ("AccountName=a;AccountKey=abc+/==;x", "AccountName=a;AccountKey=[redacted];x"),
        ("GET /cb?access_token=abc&state=1 200", "GET /cb?access_token=[redacted]&state=1 200"),
        ("postgres://app:s3cr3t@db:5432/shop?x=1", "postgres://app:[redacted]@db:5432/shop?x=1"),
        ("amqp://u:p@@rabbit", "amqp://u:[redacted]@rabbit"),
        ("Authorization: Basic dTpw", "Authorization: Basic [redacted]"),
        (r#""authorization":"ApiKey abc def","x":1"#, r#""authorization":"ApiKey [redacted]","x":1"#),
        ("set-cookie: session=abc; Path=/", "set-cookie: [redacted]"),
        ("bad header Bearer 0123456789abcdef01", "bad header Bearer [redacted]"),
        ("key AKIAIOSFODNN7EXAMPLE used", "key [redacted] used"),
        ("push with glpat-abcdefghij0123456789.", "push with [redacted]"),
        ("token: 8f14e45fceea167a", "token: [redacted]"),
        ("cfg.ApiKey=x1, PassWord = x2", "cfg.ApiKey=[redacted], PassWord = [redacted]"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\\nMIIE\\n-----END",
            "-----BEGIN RSA PRIVATE KEY-----[redacted]-----END",
        ),
        ("MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn/ygWyF8PbnGy0AHB7MfszQ8Kl2H9oNn1v", "[redacted]"),
        ("grüße password=ä€ü!", "grüße password=[redacted]"),
    ] {
        assert_eq!(redact(text), expected);
    }
    assert_eq!(redact(&format!("got {JWT}, sent")), "got [redacted], sent");
    assert_eq!(redact(&format!("Authorization: Bearer {JWT}")), "Authorization: Bearer [redacted]");
}

#[test]
fn what_is_no_secret_stays() {
    for text in [
        "the password is wrong",
        "invalid token: signature mismatch",
        "Unexpected token: <",
        "max_tokens=4096 secretName=tls tokenizer=bpe",
        "primary key: id, foreign key: owner",
        "key=value keyboard=us monkey: 3",
        "password= user=a",
        r#"{"password":null,"token":"","secret":"***"}"#,
        "password=[redacted] token=\"<nil>\"",
        "http://example.com:80/a@b https://user@host/",
        "Basic functionality works, the bearer of this",
        "if token == other",
        "sha 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 ok",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "keyJoin is eyJust",
        "",
    ] {
        assert_eq!(redact(text), text);
    }
}

#[test]
fn a_clusters_own_expressions_come_after_ours() {
    let mut redactor = Redactor::new("card (\\d{4})\\d+\n\n (?i)internal-[a-z]+ \n".parse().unwrap());
    assert_eq!(
        redactor.redact("card 12345678 of Internal-abc password=x"),
        Some("card [redacted]5678 of [redacted] password=[redacted]")
    );
    assert_eq!(redactor.count(), 3);
    assert_eq!(redactor.redact("nothing here"), None);
    let many = "a\n".repeat(33);
    let large = "(a{100}){100}".repeat(9);
    for (wrong, word) in [("(", "unclosed"), ("a*", "empty"), (&large, "size"), (&many, "33")] {
        let error = wrong.parse::<Expressions>().unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

/// Texts with much of what the rules look for.
#[test]
fn expressions_that_find_something_everywhere_make_no_text_grow_without_bound() {
    let mut redactor = Redactor::new("\\d\n[a-z]\n[a-z]+".parse().unwrap());
    let digits = "1a".repeat(100_000);
    let text = redactor.redact(&digits).unwrap();
    assert!(text.len() <= 2 * digits.len() + GROWTH, "{}", text.len());
    assert!(text.ends_with(MARK) && !text.contains('1') && !text.replace(MARK, "").contains('a'));
    // A mark is no secret.
    assert_eq!(redactor.redact("7 b"), Some("[redacted] [redacted]"));
}

fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => prop::sample::select(vec![
            "password", "TOKEN", "api-key", "Authorization", "=", ":", "\"", "\\", "\\\"", "'", " ", "://", "@", "/",
            "eyJ", ".", "Bearer ", "Basic ", "AKIA", "-----BEGIN PRIVATE KEY-----", "-----END", "abc", "0123456789", "ü€",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_text_is_survived_and_what_is_clean_stays_clean(text in text()) {
        let once = redact(&text);
        prop_assert_eq!(redact(&once), once);
    }

    #[test]
    fn a_password_never_survives(
        before in "[a-z ,]{0,20}", name in "(db_|X-)?(password|PASSWORD|Passwd|secret|API_KEY|access-token)",
        sign in "( = |=|\\\\\": \\\\\"|\": \")", secret in "[A-Za-z]{3}[0-9]{4}[!-+][a-z]{3}",
    ) {
        prop_assume!(!secret.contains(['"', '\'', ',', '&', ')']));
        let text = format!("{before} {name}{sign}{secret}");
        prop_assert!(!redact(&text).contains(&secret), "{}", redact(&text));
    }
}
