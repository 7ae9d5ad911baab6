//! What looks like a secret: by its [name], or by its shape. Pure; no regular expressions, which would
//! cost the program more than all of this.

mod layout;
mod name;

use std::ops::Range;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use self::layout::{Brackets, Layout, time_length};
pub(crate) use self::name::{is_about, is_name, is_number_name};
use super::hidden::hidden_length;

/// Whether `value` is a secret by its name, or by its name and its shape.
pub(crate) fn is_named(name: &str, value: &str) -> bool {
    is_name(name) || (name == "auth" && is_pair(value))
}

/// A user and a password in base64, as registries are logged in to.
fn is_pair(value: &str) -> bool {
    let pair = BASE64_STANDARD.decode(value.get(..value.len().min(PAIR)).unwrap_or_default());
    pair.is_ok_and(|pair| pair.contains(&b':'))
}

/// Characters of a pair: a multiple of four.
const PAIR: usize = 4096;

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

/// A private key in base64, as kubeconfigs have it, begins so …
const ENCODED_KEY: &str = "LS0tLS1CRUdJTi";
/// … and what is no secret: certificates and public keys.
const ENCODED_OTHER: [&str; 3] =
    ["LS0tLS1CRUdJTiBDRVJUSUZJQ0FUR", "LS0tLS1CRUdJTiBQVUJMSUMg", "LS0tLS1CRUdJTiBUUlVTVEVEI"];

/// Words of configurations behind which a blank and a password stand.
const DIRECTIVES: [&str; 2] = ["requirepass ", "masterauth "];

/// Where a text has secrets, in order and without overlaps. No byte is looked at more than a few times,
/// whatever the text.
pub(crate) fn find(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut layout = Layout::default();
    layout.line(bytes, 0);
    let (mut at, mut head_end) = (0, 0);
    while at < bytes.len() {
        let secret = match bytes[at] {
            b'\n' => layout.line(bytes, at + 1),
            b'-' => private_key(text, at),
            b':' if text[at..].starts_with("://") => credentials_of_url(bytes, at + 3),
            b'=' | b':' => assigned(text, at, &mut layout),
            byte if byte.is_ascii_alphabetic() && (at == 0 || !is_word(bytes[at - 1])) => {
                token(text, at, &mut head_end).or_else(|| scheme(text, at))
            }
            _ => None,
        };
        match secret {
            Some(secret) if !secret.is_empty() => {
                if let Some(newline) = bytes[at + 1..secret.end].iter().rposition(|byte| *byte == b'\n') {
                    layout.line(bytes, at + 1 + newline + 1);
                }
                at = secret.end;
                found.truncate(found.partition_point(|before| before.end <= secret.start));
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

/// Whether a text is not empty and may be the rest of a blob.
pub(crate) fn is_base64_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_base64)
}

/// What begins a line of a log, if it is a time (RFC 3339) with a blank behind it, and the rest.
pub(crate) fn split_time(line: &str) -> (&str, &str) {
    line.split_at(time_length(line.as_bytes()))
}

/// Whether all of a value is the name of a variable, or of what a template puts there: `$(NAME)`.
pub(crate) fn is_reference(value: &str) -> bool {
    reference(value, 0) == Some(value.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn run(bytes: &[u8], from: usize, mut allowed: impl FnMut(u8) -> bool) -> usize {
    let length = bytes[from.min(bytes.len())..].iter().take_while(|byte| allowed(**byte)).count();
    #[cfg(test)]
    tests::looked_at(length);
    length
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// A token with the prefix of its issuer, or a JSON Web Token. `head_end`: where the last one's head ended, as
/// all that begin before it end there.
fn token(text: &str, at: usize, head_end: &mut usize) -> Option<Range<usize>> {
    let (rest, bytes) = (&text[at..], text.as_bytes());
    if rest.starts_with("eyJ") {
        if *head_end <= at {
            *head_end = at + run(bytes, at, is_token);
        }
        if *head_end - at < 10 || bytes.get(*head_end) != Some(&b'.') {
            return None;
        }
        let body = run(bytes, *head_end + 1, |byte| is_token(byte) || byte == b'.');
        return (body >= 4).then_some(at..*head_end + 1 + body);
    }
    if rest.starts_with(ENCODED_KEY) {
        let is_other = ENCODED_OTHER.iter().any(|other| rest.starts_with(other));
        return (!is_other).then(|| at..at + run(bytes, at, is_base64));
    }
    let (prefix, least) = ISSUED.iter().find(|(prefix, _)| rest.starts_with(prefix))?;
    let length = run(bytes, at + prefix.len(), |byte| is_token(byte) || byte == b'.');
    (length >= *least).then_some(at..at + prefix.len() + length)
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// What follows `Bearer`, `Basic` or a directive.
fn scheme(text: &str, at: usize) -> Option<Range<usize>> {
    if let Some(directive) = DIRECTIVES.iter().find(|directive| text[at..].starts_with(**directive)) {
        let begin = at + directive.len();
        let length = run(text.as_bytes(), begin, |byte| !byte.is_ascii_whitespace());
        return Some(begin..begin + length);
    }
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

/// From the head of a private key to its end, or to the end of the text; up to an end without a head from the begin of the
/// text, as that of a log may be within one.
fn private_key(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = &text[at..];
    let head = rest.strip_prefix("-----BEGIN ");
    let behind = head.or_else(|| rest.strip_prefix("-----END "))?;
    let kind = &behind[..behind.find("-----")?];
    if !kind.ends_with("PRIVATE KEY") && !kind.ends_with("PRIVATE KEY BLOCK") {
        return None;
    }
    let end = format!("-----END {kind}-----");
    if head.is_none() {
        return Some(0..at + end.len());
    }
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

/// The end of a reference, or of what stands for a secret, that begins there.
fn reference(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    if let Some(length) = hidden_length(rest) {
        return Some(at + length);
    }
    let is_inner = |byte| is_token(byte) || matches!(byte, b'.' | b' ' | b'|' | b'$');
    [("$(", ")"), ("${", "}"), ("{{", "}}")].into_iter().find(|(open, _)| rest.starts_with(open)).and_then(
        |(_, close)| {
            let end = at + 2 + run(text.as_bytes(), at + 2, is_inner);
            text[end..].starts_with(close).then_some(end + close.len())
        },
    )
}

/// The value behind `=` or `:`, if a secret's name is before it: `password=x`, `"apiKey": "x"`, `--token=x`; or the name of one
/// beside it, or around it.
fn assigned(text: &str, sign: usize, layout: &mut Layout) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let before = text[..sign].trim_end_matches([' ', '\t']);
    let quote = before.chars().next_back().filter(|char| matches!(char, '"' | '\''));
    let before = before.trim_end_matches(['"', '\'', '\\']);
    let begin =
        before.bytes().rposition(|byte| !(is_token(byte) || byte == b'.')).map_or(0, |place| place + 1);
    let name = &before[begin..];
    let mut at = sign + 1 + run(bytes, sign + 1, |byte| matches!(byte, b' ' | b'\t'));
    if bytes.get(at) == Some(&b'\\') {
        at += 1;
    }
    let opened = bytes.get(at).copied().filter(|byte| matches!(byte, b'"' | b'\''));
    let value = at + usize::from(opened.is_some());
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    if is("name") || is("key") {
        let told = value..value + run(bytes, value, |byte| is_token(byte) || byte == b'.');
        layout.names_secret = is_name(&text[told]);
    }
    let is_secret = is_name(name)
        || layout.names_secret && is("value")
        || layout.is_below(sign) && !name.is_empty() && !is_about(name);
    let is_auth = name == "auth" && !is_secret;
    if !is_secret && !is_auth {
        return None;
    }
    // Judged before its end is looked for: of one that stays, the rest is looked at as well.
    let ends = |at: usize| {
        bytes.get(at).is_none_or(|byte| byte.is_ascii_whitespace() || b"\"'\\,;&)]}".contains(byte))
    };
    if reference(text, value).is_some_and(ends) {
        return None;
    }
    if is_secret && opened.is_none() && bytes[sign] == b':' {
        if let Some(lines) = layout.lines(bytes, begin, value) {
            return Some(lines);
        }
        match layout.brackets(bytes, begin, value) {
            // Ports and counts; names of secrets.
            Brackets::Values(values)
                if quote.is_some() && !bytes[values.clone()].iter().any(u8::is_ascii_alphabetic) =>
            {
                return None;
            }
            Brackets::Values(_) if name.to_ascii_lowercase().ends_with("secrets") => return None,
            Brackets::Values(values) => return Some(values),
            Brackets::Names => return None,
            Brackets::None => {}
        }
    }
    let length = match opened {
        None if is_auth => 0,
        Some(closing) => quoted(bytes, value, closing),
        // In JSON, a value that is not quoted is no text, but may be a number.
        None if quote.is_some() && bytes[sign] == b':' => {
            if is_number_name(name) {
                whole_number(bytes, value)
            } else {
                0
            }
        }
        None => run(bytes, value, |byte| {
            !byte.is_ascii_whitespace() && !matches!(byte, b',' | b';' | b'&' | b'"' | b'\'')
        }),
    };
    let text = text.get(value..value + length)?;
    let is_word = matches!(text, "true" | "false" | "null" | "nil" | "none");
    (length > 0 && !is_word && (!is_auth || is_pair(text))).then_some(value..value + length)
}

/// The length of a whole number; 0 if it is something else.
fn whole_number(bytes: &[u8], from: usize) -> usize {
    let length = run(bytes, from, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-'));
    let text = &bytes[from.min(bytes.len())..][..length];
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.iter().all(u8::is_ascii_digit) { length } else { 0 }
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
    #[cfg(test)]
    tests::looked_at(length);
    length.min(bytes.len().saturating_sub(from))
}

#[cfg(test)]
mod tests;
