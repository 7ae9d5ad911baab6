use proptest::prelude::*;

use super::*;

thread_local! {
    static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts bytes that were read ahead.
pub(super) fn looked_at(bytes: usize) {
    LOOKED_AT.set(LOOKED_AT.get() + bytes);
}

/// Bytes that are read ahead to find the secrets of a text.
fn work(text: &str) -> usize {
    LOOKED_AT.set(0);
    find(text);
    LOOKED_AT.get()
}

#[test]
fn no_text_is_looked_at_again_and_again() {
    for piece in [
        "eyJ-",
        "eyJ.",
        "eyJaaaaaaaaaa.",
        "eyJaaaaaaaaaa.a ",
        "password=$(",
        "password=${",
        "password=*",
        "password=\"$(",
        "auth=",
        "auth=\"",
        "auth='",
        "auth='auth=\"",
        "password=[hidden]",
        "token: ",
        "LS0tLS1CRUdJTi/",
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0/",
        "Basic ",
        "Bearer x",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY",
        "https://",
        "://a:",
        "requirepass [hidden]",
        "requirepass ",
        "sk-",
        "password=\\\"",
        "\n",
        "- ",
        "2026-01-02T03:04:05Z ",
        "password=[hidden",
        "password={{ x ",
        "-----END ",
        "-----END PRIVATE KEY-----",
        "password: |\n ",
        "password: |\n",
        "token:\n x\n",
        "token:\n  ",
        "token: {",
        "token: [a ",
        "token: {a: ",
        "token: {a: b} ",
        "name: token value: ",
        "\"token\":1",
        "\"token\":a.",
    ] {
        let text = piece.repeat(20_000 / piece.len());
        assert!(work(&text) <= 4 * text.len(), "{piece:?}: {} of {}", work(&text), text.len());
    }
}

fn hidden(text: &str) -> String {
    let mut hidden = String::new();
    let mut kept = 0;
    for secret in find(text) {
        hidden.push_str(&text[kept..secret.start]);
        hidden.push('#');
        kept = secret.end;
    }
    hidden + &text[kept..]
}

#[test]
fn secrets_are_found_by_their_shape_and_by_their_name() {
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";
    for (text, expected) in [
        ("password=hunter2 next", "password=# next"),
        ("password: hunter2\nuser: me", "password: #\nuser: me"),
        ("{\"apiKey\": \"a\\\"b\", \"n\": 1}", "{\"apiKey\": \"#\", \"n\": 1}"),
        ("{\\\"apiKey\\\":\\\"abc\\\",\\\"n\\\":1}", "{\\\"apiKey\\\":\\\"#\\\",\\\"n\\\":1}"),
        ("--db-password=x --port=5", "--db-password=# --port=5"),
        ("postgres://me:s3cr@t@db:5432/x", "postgres://me:#@db:5432/x"),
        ("https://example.com:8080/a@b", "https://example.com:8080/a@b"),
        (&format!("token is {jwt}, so"), "token is #, so"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer #"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY----- b", "a # b"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ),
        ("AKIAIOSFODNN7EXAMPLE", "#"),
        ("password: $(DB_PASSWORD)", "password: $(DB_PASSWORD)"),
        (
            "password=${A.b}, token: {{ .Values.x | quote }}",
            "password=${A.b}, token: {{ .Values.x | quote }}",
        ),
        (
            "password=*x9 pwd={{x token=$(x pass=${A:-hunter2} pw=$(A)hunter2",
            "password=# pwd=# token=# pass=# pw=#",
        ),
        (
            "name: DB_PASSWORD\n  value: hunter2\n- name: A\n  value: b",
            "name: DB_PASSWORD\n  value: #\n- name: A\n  value: b",
        ),
        (
            r#"[{"name":"DB_PASSWORD","value":"hunter2"},{"name":"A","value":"b"}]"#,
            r##"[{"name":"DB_PASSWORD","value":"#"},{"name":"A","value":"b"}]"##,
        ),
        (r#"{\"key\":\"token\",\"value\":\"hunter2\"}"#, r##"{\"key\":\"token\",\"value\":\"#\"}"##),
        (
            "Name:  \"DB_PASSWORD\",\n- Value: \"hunter2\",\n+ Value: \"x\",",
            "Name:  \"DB_PASSWORD\",\n- Value: \"#\",\n+ Value: \"#\",",
        ),
        ("a:\n  password: |-\n    hunter2\n\n    more\n  user: me", "a:\n  password: |-\n    #\n  user: me"),
        ("- password: >2\n    hunter2\n  user: me", "- password: >2\n    #\n  user: me"),
        ("loaded token: |\n  hunter2\nuser: me", "loaded token: |\n  #\nuser: me"),
        (
            "secrets:\n  db: hunter2\n  name: x\n  list:\n  - hunter2\nuser: me",
            "secrets:\n  db: #\n  name: x\n  list:\n  - #\nuser: me",
        ),
        ("tokens:\n- hunter2\nuser: me", "tokens:\n- #\nuser: me"),
        (
            "{\n\t\"secrets\": {\n\t\t\"db\": \"hunter2\"\n\t},\n\t\"user\": \"me\"\n}",
            "{\n\t\"secrets\": {\n\t\t\"db\": \"#\"\n\t},\n\t\"user\": \"me\"\n}",
        ),
        (
            r#"{"secrets":{"db":"hunter2","name":"x"},"user":"me"}"#,
            r##"{"secrets":{"db":"#","name":"x"},"user":"me"}"##,
        ),
        ("tokens: [hunter2, x], imagePullSecrets: [regcred]", "tokens: [#], imagePullSecrets: [regcred]"),
        ("password: {hunter2", "password: #"),
        (
            "volumes:\n- secret:\n    secretName: tls\n  name: tls",
            "volumes:\n- secret:\n    secretName: tls\n  name: tls",
        ),
        (
            "can't verify the token:\n\tat a.B.c(B.java:5)\n\tat x",
            "can't verify the token:\n\tat a.B.c(B.java:5)\n\tat x",
        ),
        ("-----END RSA PRIVATE KEY----- b", "# b"),
        ("password=x AAAA\n-----END PRIVATE KEY-----\nb", "#\nb"),
        ("\"automountServiceAccountToken\": false", "\"automountServiceAccountToken\": false"),
        ("tokens: 5; a sketch of sk-", "tokens: #; a sketch of sk-"),
        ("image: app@sha256:0123", "image: app@sha256:0123"),
        ("PGPASSWORD=x psql", "PGPASSWORD=# psql"),
        ("requirepass hunter2\nport 6379", "requirepass #\nport 6379"),
        ("users:\n- client-key-data: LS0tLS1CRUdJTiBSU0E=\n", "users:\n- client-key-data: #\n"),
        ("key LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo= end", "key # end"),
        (
            "caBundle: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==",
            "caBundle: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==",
        ),
        (
            r#"{"auths":{"r.example":{"auth":"bWU6aHVudGVyMg=="}}}"#,
            r##"{"auths":{"r.example":{"auth":"#"}}}"##,
        ),
        ("auth: failed for a user", "auth: failed for a user"),
        (r#"{"password": 12345678, "port": 5432}"#, r##"{"password": #, "port": 5432}"##),
        (r#"{\"pwd\":-1,\"apiKey\":42}"#, r##"{\"pwd\":#,\"apiKey\":#}"##),
        ("\"password\": 12345678\nuser: me", "\"password\": #\nuser: me"),
        (
            r#"{"maxTokens": 4096, "tokenTTL": 3600, "token": true, "secret": 0.5}"#,
            r#"{"maxTokens": 4096, "tokenTTL": 3600, "token": true, "secret": 0.5}"#,
        ),
    ] {
        assert_eq!(hidden(text), expected);
    }
    assert!(is_blob(&"aB3".repeat(20)) && !is_blob(&"ab3".repeat(20)) && !is_blob("aB3"));
}

proptest! {
    #[test]
    fn a_number_is_found_where_it_is_a_password_also_in_json_in_json(number: i64, is_deep: bool) {
        let object = serde_json::json!({"maxTokens": number, "password": number, "port": number});
        let text = object.to_string();
        let text = if is_deep { serde_json::Value::from(text).to_string() } else { text };
        let found: Vec<_> = find(&text).into_iter().map(|place| (&text[..place.start], &text[place])).collect();
        prop_assert_eq!(found.len(), 1, "{}", text);
        prop_assert!(found[0].0.trim_end_matches(['"', '\\', ':']).ends_with("password"), "{}", text);
        prop_assert_eq!(found[0].1, number.to_string());
    }

    #[test]
    fn whatever_the_text_the_ranges_are_of_whole_characters_in_order(
        text in "(\\PC|password|token|[=: \"'\\\\]|requirepass |auth|LS0tLS1CRUdJTi|://|:|@|eyJ|-----BEGIN RSA PRIVATE KEY-----|-----END RSA PRIVATE KEY-----|Bearer |\\n  |- |[{}\\[\\]|]|name: |value: |2026-01-02T03:04:05Z ){0,30}"
    ) {
        let mut end = 0;
        for secret in find(&text) {
            prop_assert!(secret.start >= end && text.get(secret.clone()).is_some(), "{:?} of {:?}", secret, text);
            end = secret.end;
        }
    }
}
