//! What looks like a secret: by its name, or by its shape. Pure; no regular expressions, which would
//! cost the program more than all of this.

use std::ops::Range;

/// Words in a name that stand for a secret.
const SECRET: [&str; 18] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "pass",
    "secret",
    "secrets",
    "token",
    "tokens",
    "apikey",
    "credential",
    "credentials",
    "accesskey",
    "privatekey",
    "secretkey",
    "pat",
    "dsn",
];
/// `key` after one of these is a secret too.
const KEY_OF: [&str; 12] = [
    "api",
    "access",
    "private",
    "secret",
    "encryption",
    "signing",
    "master",
    "account",
    "shared",
    "license",
    "auth",
    "session",
];
/// A name with one of these at its end speaks of a secret without being one.
const ABOUT: [&str; 52] = [
    "name",
    "names",
    "ref",
    "refs",
    "file",
    "files",
    "path",
    "paths",
    "dir",
    "namespace",
    "length",
    "min",
    "max",
    "ttl",
    "expiry",
    "expiration",
    "seconds",
    "minutes",
    "hours",
    "timeout",
    "type",
    "kind",
    "id",
    "ids",
    "url",
    "uri",
    "host",
    "port",
    "endpoint",
    "enabled",
    "disabled",
    "policy",
    "issuer",
    "audience",
    "audiences",
    "count",
    "size",
    "limit",
    "mount",
    "version",
    "algorithm",
    "rotation",
    "interval",
    "provider",
    "store",
    "class",
    "required",
    "format",
    "resource",
    "header",
    "field",
    "prefix",
];

/// Whether a value with this name is a secret: `DB_PASSWORD`, `apiKey`, `github-token`; not `secretName`,
/// `TOKEN_TTL`, `PASSWORD_FILE`.
pub(crate) fn is_name(name: &str) -> bool {
    let words = words(name);
    if words.last().is_none_or(|last| ABOUT.contains(&last.as_str())) {
        return false;
    }
    words.iter().any(|word| SECRET.contains(&word.as_str()))
        || words.windows(2).any(|pair| pair[1] == "key" && KEY_OF.contains(&pair[0].as_str()))
}

/// The words of a name in lower case, whether signs, digits or capitals separate them.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut open, mut was_lower) = (false, false);
    let mut chars = name.chars().take(256).peekable();
    while let Some(char) = chars.next() {
        if !char.is_ascii_alphabetic() {
            open = false;
            continue;
        }
        let starts = char.is_ascii_uppercase()
            && (was_lower || (open && chars.peek().is_some_and(char::is_ascii_lowercase)));
        if !open || starts {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(char.to_ascii_lowercase());
        }
        (open, was_lower) = (true, char.is_ascii_lowercase());
    }
    words
}

/// Prefixes that issuers give to their tokens, and how many characters follow at least.
const ISSUED: [(&str, usize); 26] = [
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 30),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("glsa_", 20),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("xoxa-", 10),
    ("xoxs-", 10),
    ("xapp-", 10),
    ("sk_live_", 10),
    ("rk_live_", 10),
    ("sk-", 20),
    ("npm_", 20),
    ("dckr_pat_", 20),
    ("hvs.", 20),
    ("SG.", 20),
    ("ya29.", 20),
    ("pypi-", 20),
    ("AGE-SECRET-KEY-", 20),
];

/// The head of a JSON Web Token is shorter. It bounds what is looked at again and again.
const JWT_HEAD: usize = 2048;

/// Where a text has secrets, in order and without overlaps.
pub(crate) fn find(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let secret = match bytes[at] {
            b'-' => private_key(text, at),
            b':' if text[at..].starts_with("://") => credentials_of_url(bytes, at + 3),
            b'=' | b':' => assigned(text, at),
            byte if byte.is_ascii_alphabetic() && (at == 0 || !is_word(bytes[at - 1])) => {
                token(text, at).or_else(|| scheme(text, at))
            }
            _ => None,
        };
        match secret {
            Some(secret) if !secret.is_empty() => {
                at = secret.end;
                found.push(secret);
            }
            _ => at += 1,
        }
    }
    found
}

/// Whether all of a value is one blob of base64, as keys and releases of Helm are: long, and of letters of
/// both cases and digits.
pub(crate) fn is_blob(value: &str) -> bool {
    let value = value.trim().trim_end_matches('=');
    let is = |test: fn(&u8) -> bool| value.as_bytes().iter().any(test);
    value.len() >= 40
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'\n'))
        && is(u8::is_ascii_uppercase)
        && is(u8::is_ascii_lowercase)
        && is(u8::is_ascii_digit)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn run(bytes: &[u8], from: usize, allowed: impl Fn(u8) -> bool) -> usize {
    bytes[from.min(bytes.len())..].iter().take_while(|byte| allowed(**byte)).count()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// A token with the prefix of its issuer, or a JSON Web Token.
fn token(text: &str, at: usize) -> Option<Range<usize>> {
    let (rest, bytes) = (&text[at..], text.as_bytes());
    if rest.starts_with("eyJ") {
        let head = run(&bytes[..bytes.len().min(at + JWT_HEAD)], at, is_token);
        let is_jwt = head >= 10 && bytes.get(at + head) == Some(&b'.');
        let body = run(bytes, at + head + 1, |byte| is_token(byte) || byte == b'.');
        return (is_jwt && body >= 4).then_some(at..at + head + 1 + body);
    }
    let (prefix, least) = ISSUED.iter().find(|(prefix, _)| rest.starts_with(prefix))?;
    let length = run(bytes, at + prefix.len(), |byte| is_token(byte) || byte == b'.');
    (length >= *least).then_some(at..at + prefix.len() + length)
}

/// What follows `Bearer` or `Basic`.
fn scheme(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = text.get(at..at + 7).or_else(|| text.get(at..at + 6))?.to_ascii_lowercase();
    let begin = if rest.starts_with("bearer ") {
        at + 7
    } else if rest.starts_with("basic ") {
        at + 6
    } else {
        return None;
    };
    let length = run(text.as_bytes(), begin, |byte| {
        is_token(byte) || matches!(byte, b'.' | b'+' | b'/' | b'=' | b'~')
    });
    (length >= 8).then_some(begin..begin + length)
}

/// From the head of a private key to its end, or to the end of the text.
fn private_key(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = &text[at..];
    let head = rest.strip_prefix("-----BEGIN ")?;
    let kind = &head[..head.find("-----")?];
    if !kind.ends_with("PRIVATE KEY") && !kind.ends_with("PRIVATE KEY BLOCK") {
        return None;
    }
    let end = format!("-----END {kind}-----");
    Some(at..rest.find(&end).map_or(text.len(), |place| at + place + end.len()))
}

/// The password in `scheme://user:password@host`.
fn credentials_of_url(bytes: &[u8], begin: usize) -> Option<Range<usize>> {
    let length = run(bytes, begin, |byte| {
        byte.is_ascii_graphic() && !matches!(byte, b'/' | b'"' | b'\'' | b'<' | b'>' | b'\\')
    });
    let authority = &bytes[begin..begin + length];
    let at = authority.iter().rposition(|byte| *byte == b'@')?;
    let colon = authority[..at].iter().position(|byte| *byte == b':')?;
    Some(begin + colon + 1..begin + at)
}

/// The value behind `=` or `:`, if a secret's name is before it: `password=x`, `"apiKey": "x"`, `--token=x`.
fn assigned(text: &str, sign: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let before = text[..sign].trim_end_matches([' ', '\t']);
    let quote = before.chars().next_back().filter(|char| matches!(char, '"' | '\''));
    let before = before.trim_end_matches(['"', '\'', '\\']);
    let begin =
        before.bytes().rposition(|byte| !(is_token(byte) || byte == b'.')).map_or(0, |place| place + 1);
    if !is_name(&before[begin..]) {
        return None;
    }
    let mut at = sign + 1 + run(bytes, sign + 1, |byte| matches!(byte, b' ' | b'\t'));
    if bytes.get(at) == Some(&b'\\') {
        at += 1;
    }
    let opened = bytes.get(at).copied().filter(|byte| matches!(byte, b'"' | b'\''));
    let value = at + usize::from(opened.is_some());
    let length = match opened {
        Some(closing) => quoted(bytes, value, closing),
        // In JSON, a value that is not quoted is no text.
        None if quote.is_some() && bytes[sign] == b':' => 0,
        None => run(bytes, value, |byte| {
            !byte.is_ascii_whitespace() && !matches!(byte, b',' | b';' | b'&' | b'"' | b'\'')
        }),
    };
    let text = text.get(value..value + length)?;
    let is_reference =
        text.starts_with("$(") || text.starts_with("${") || text.starts_with("{{") || text.starts_with('*');
    let is_word = matches!(text, "true" | "false" | "null" | "nil" | "none" | "|" | "|-" | ">" | ">-");
    (length > 0 && !is_reference && !is_word && !text.starts_with("[hidden:"))
        .then_some(value..value + length)
}

/// Up to the sign that closes it, in its line.
fn quoted(bytes: &[u8], from: usize, closing: u8) -> usize {
    let mut length = 0;
    while let Some(byte) = bytes.get(from + length) {
        match byte {
            b'\n' => break,
            byte if *byte == closing => {
                // JSON in JSON: \" closes what \" opened.
                return if length > 0
                    && bytes[from + length - 1] == b'\\'
                    && bytes.get(from.wrapping_sub(2)) == Some(&b'\\')
                {
                    length - 1
                } else {
                    length
                };
            }
            b'\\' if bytes.get(from.wrapping_sub(2)) != Some(&b'\\') => length += 2,
            _ => length += 1,
        }
    }
    length.min(bytes.len().saturating_sub(from))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_names_about_them() {
        for name in [
            "PASSWORD",
            "DB_PASSWORD",
            "dbPassword",
            "db.password",
            "MYSQL_ROOT_PASSWORD_2",
            "API_KEY",
            "apiKey",
            "APIKey",
            "SECRET_KEY_BASE",
            "github-token",
            "client_secret",
            "clientSecret",
            "AWS_SECRET_ACCESS_KEY",
            "pgpass.pwd",
            "GITHUB_PAT",
            "SENTRY_DSN",
            "auth.token",
            "DATADOG_APIKEY",
            "private_key",
            "ACCOUNT_KEY",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "secretName",
            "secretKeyRef",
            "TOKEN_TTL",
            "PASSWORD_FILE",
            "topologyKey",
            "key",
            "passthrough",
            "compass",
            "tokenExpirationSeconds",
            "AWS_ACCESS_KEY_ID",
            "patch",
            "PATH",
            "credentialName",
            "automount",
            "token-issuer",
        ] {
            assert!(!is_name(name), "{name}");
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
            ("\"automountServiceAccountToken\": false", "\"automountServiceAccountToken\": false"),
            ("tokens: 5; a sketch of sk-", "tokens: #; a sketch of sk-"),
            ("image: app@sha256:0123", "image: app@sha256:0123"),
        ] {
            assert_eq!(hidden(text), expected);
        }
        assert!(is_blob(&"aB3".repeat(20)) && !is_blob(&"ab3".repeat(20)) && !is_blob("aB3"));
    }

    proptest! {
        #[test]
        fn whatever_the_text_the_ranges_are_of_whole_characters_in_order(
            text in "(\\PC|password|token|[=: \"'\\\\]|://|:|@|eyJ|-----BEGIN RSA PRIVATE KEY-----|Bearer ){0,30}"
        ) {
            let mut end = 0;
            for secret in find(&text) {
                prop_assert!(secret.start >= end && text.get(secret.clone()).is_some(), "{:?} of {:?}", secret, text);
                end = secret.end;
            }
        }
    }
}
