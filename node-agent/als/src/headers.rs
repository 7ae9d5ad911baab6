//! Headers that may be told: those that somebody listed, of one request of each row, and never what lets somebody in.

use std::sync::Arc;

use crate::{
    entry::Entry,
    template::{before_parameter, before_query},
    wire::{Fields, Malformed},
};

/// Names that are taken of a list; a value's bytes that are kept.
const MOST_NAMES: usize = 16;
const MOST_BYTES: usize = 128;

/// Names with one of these in them are of what lets somebody in, or is signed by it. Listing them changes nothing.
const NEVER: [&str; 14] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "passw",
    "credential",
    "session",
    "jwt",
    "signature",
    "api-key",
    "apikey",
    "access-key",
    "client-cert",
    "assertion",
];

/// Headers that are addresses, also without a `/`.
const ADDRESSES: [&str; 3] = ["referer", "location", "content-location"];

/// Which headers may be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    request: Vec<Arc<str>>,
    response: Vec<Arc<str>>,
}

/// Headers of one request and its answer: names as they were listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Of the request.
    pub request: Vec<(Arc<str>, Box<str>)>,
    /// Of the answer.
    pub response: Vec<(Arc<str>, Box<str>)>,
}

/// Why a name can't be listed.
pub fn refusal(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let is_name = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_name {
        Some("it is no name of a header")
    } else if name.starts_with("x-kestrel-") {
        Some("the operator's own names begin so")
    } else if NEVER.iter().any(|word| name.contains(word)) {
        Some("what lets somebody in is never told")
    } else {
        None
    }
}

impl Headers {
    /// Those that are listed and can be: the first few of each list.
    pub fn new<'a>(
        request: impl IntoIterator<Item = &'a str>,
        response: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        fn names<'a>(list: impl IntoIterator<Item = &'a str>) -> Vec<Arc<str>> {
            let allowed = list.into_iter().filter(|name| refusal(name).is_none());
            allowed.map(|name| name.to_ascii_lowercase().into()).take(MOST_NAMES).collect()
        }
        Self { request: names(request), response: names(response) }
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }

    /// Those of an entry; `None`: it has none of them.
    pub(crate) fn of(&self, entry: &Entry<'_>) -> Option<Box<Sample>> {
        if self.is_empty() {
            return None;
        }
        let mut sample = Sample::default();
        // What can't be read here was read before, or the entry would be malformed.
        let _request = Self::read(&self.request, entry.request, request_header, &mut sample.request);
        let _response = Self::read(&self.response, entry.response, response_header, &mut sample.response);
        (sample != Sample::default()).then(|| Box::new(sample))
    }

    fn read(
        names: &[Arc<str>],
        message: &[u8],
        name_of: fn(u32) -> Option<&'static str>,
        found: &mut Vec<(Arc<str>, Box<str>)>,
    ) -> Result<(), Malformed> {
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            let (name, text) = match name_of(field) {
                None => continue,
                Some("") => header(value.bytes())?,
                Some(name) => (name.as_bytes(), value.bytes()),
            };
            let Some(listed) = names.iter().find(|listed| listed.as_bytes().eq_ignore_ascii_case(name))
            else {
                continue;
            };
            let is_there = found.iter().any(|(known, _)| known == listed);
            if let Some(text) = told(listed, text).filter(|_| !is_there) {
                found.push((Arc::clone(listed), text));
            }
        }
        Ok(())
    }
}

impl Sample {
    /// Bytes on the heap, about.
    pub(crate) fn heap(&self) -> usize {
        let each = |(_, text): &(Arc<str>, Box<str>)| size_of::<(Arc<str>, Box<str>)>() + text.len() + 16;
        size_of::<Self>() + self.request.iter().chain(&self.response).map(each).sum::<usize>()
    }
}

/// Which header a field of `HTTPRequestProperties` is; empty: any, by its name.
fn request_header(field: u32) -> Option<&'static str> {
    match field {
        3 => Some("host"),
        6 => Some("user-agent"),
        7 => Some("referer"),
        8 => Some("x-forwarded-for"),
        9 => Some("x-request-id"),
        13 => Some(""),
        _ => None,
    }
}

/// Likewise of `HTTPResponseProperties`, trailers among them.
fn response_header(field: u32) -> Option<&'static str> {
    matches!(field, 4 | 5).then_some("")
}

/// An entry of a map.
pub(crate) fn header(message: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut fields, mut key, mut text) = (Fields::new(message), &[][..], &[][..]);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => key = value.bytes(),
            2 => text = value.bytes(),
            _ => {}
        }
    }
    Ok((key, text))
}

/// A value without what follows a `?` or `#`, also a percent-encoded one, as in an address, and without the parameters of a path; `None`:
/// nothing is left, or it is an address with somebody's name and password, or a host with them.
fn told(name: &str, value: &[u8]) -> Option<Box<str>> {
    // `;` stands in other values too, behind words (`Mozilla/5.0 (X11; …`).
    let is_path = |before: &[u8]| {
        ADDRESSES.contains(&name)
            || !before.contains(&b' ')
                && (before.contains(&b'/') || before.windows(3).any(|sign| sign.eq_ignore_ascii_case(b"%2f")))
    };
    let mut text = String::from_utf8_lossy(value).into_owned();
    text.retain(|sign| !sign.is_control());
    text.truncate(before_query(text.as_bytes()).len());
    if text.rsplit_once('@').is_some_and(|(before, _)| before.contains(':')) {
        return None;
    }
    text.truncate(text.floor_char_boundary(MOST_BYTES));
    text.truncate(before_parameter(text.as_bytes(), is_path).len());
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use prost::Message as _;

    use kestrel_proto::envoy::data::accesslog::v3::{HttpRequestProperties, HttpResponseProperties};

    use super::*;

    fn sample(
        headers: &Headers,
        request: &HttpRequestProperties,
        response: &HttpResponseProperties,
    ) -> Sample {
        let (request, response) = (request.encode_to_vec(), response.encode_to_vec());
        let entry = Entry { request: &request, response: &response, ..Entry::default() };
        headers.of(&entry).map(|sample| *sample).unwrap_or_default()
    }

    fn pairs(of: &[(Arc<str>, Box<str>)]) -> Vec<(&str, &str)> {
        of.iter().map(|(name, text)| (&**name, &**text)).collect()
    }

    #[test]
    fn what_is_listed_is_told_and_nothing_else() {
        let request = HttpRequestProperties {
            authority: "shop.example.com".to_owned(),
            request_headers: [
                ("x-tenant", "acme"),
                ("x-other", "no"),
                ("Cookie", "id=1"),
                ("authorization", "Bearer x"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..HttpRequestProperties::default()
        };
        let response = HttpResponseProperties {
            response_headers: [
                ("location", "/login?next=/&token=secret"),
                ("x-back", "https://a%3Ftoken=x"),
                ("x-url", "https://jane:pw@example.com/"),
                ("x-host", "jane:pw@example.com"),
                ("x-from", "https://shop/cart;jsessionid=ABC/items"),
                ("x-uri", "%2Fcart%253Bjsessionid=ABC"),
                ("content-location", "cart;jsessionid=ABC"),
                ("x-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
                ("x-list", "a;q=1, b"),
                ("x-control", "/a%\u{1}3Ftoken=ABC"),
                ("set-cookie", "id=2"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..HttpResponseProperties::default()
        };
        let listed = ["X-Tenant", "host", "cookie", "Authorization", "x-kestrel-latency-p50-ms", "a b"];
        let of_answers =
            "Location,x-url,x-host,x-back,Set-Cookie,x-from,x-uri,Content-Location,x-agent,x-list,x-control";
        let headers = Headers::new(listed, of_answers.split(','));
        let found = sample(&headers, &request, &response);
        assert_eq!(pairs(&found.request), [("host", "shop.example.com"), ("x-tenant", "acme")]);
        let expected = [
            ("content-location", "cart"),
            ("location", "/login"),
            ("x-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
            ("x-back", "https://a"),
            ("x-control", "/a"),
            ("x-from", "https://shop/cart"),
            ("x-list", "a;q=1, b"),
            ("x-uri", "%2Fcart"),
        ];
        assert_eq!(pairs(&found.response), expected);
        assert_eq!(sample(&Headers::new(["x-none"], []), &request, &response), Sample::default());
        assert!(Headers::new(["authorization"], ["set-cookie"]).is_empty());
        let long = HttpRequestProperties { authority: "ä".repeat(100), ..HttpRequestProperties::default() };
        assert_eq!(sample(&headers, &long, &response).request[0].1.len(), MOST_BYTES);
    }

    proptest! {
        /// Whatever is listed and logged, nothing that lets somebody in, no query and no parameter of a path leaves, and what is beside them does.
        #[test]
        fn nothing_that_lets_somebody_in_is_told(
            never in prop::sample::subsequence(NEVER.to_vec(), 1..5), before in "x-[a-z]{0,4}", is_upper: bool,
            path in "/[a-z/]{0,8}", sign in prop::sample::select(vec!["?", "#", ";", "%3F", "%23", "%3b", "%253B"]),
        ) {
            let name = |word: &&str| format!("{before}{}", if is_upper { word.to_ascii_uppercase() } else { (*word).to_owned() });
            let mut names: Vec<String> = never.iter().map(name).collect();
            let mut map: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), "SECRET".to_owned())).collect();
            map.insert("x-from".to_owned(), format!("{path}{sign}SECRET"));
            names.push("x-from".to_owned());
            let request = HttpRequestProperties { request_headers: map, ..HttpRequestProperties::default() };
            let headers = Headers::new(names.iter().map(String::as_str), []);
            let found = sample(&headers, &request, &HttpResponseProperties::default());
            prop_assert_eq!(pairs(&found.request), [("x-from", &*path)]);
        }
    }
}
