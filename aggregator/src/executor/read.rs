//! Reads the Kubernetes API for the cloud: one batch of GETs, one answer.

use std::time::Duration;

use kestrel_proto::cloud::v1::{KubernetesApiRequest, KubernetesApiResponse, KubernetesApiResult};
use serde_json::json;
use tokio::time::timeout_at;

use super::{
    audit::{Decision, Part},
    cluster::{Cluster, Failure, READ_BYTES, apart, narrower},
    path::{Form, Readable},
    places::Place,
    query::LOG_LINES,
    reason::{Reason, Refused},
    rules::Rules,
};

/// The answers of a batch together, in equal shares. Below the wire's limit by
/// enough for paths and sentences.
pub(super) const ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Paths in one request; with more, the shares would be of no use.
pub(crate) const PATHS: usize = 100;
/// A path, and a sentence of the API server, is echoed up to here.
pub(crate) const TEXT_BYTES: usize = 4 * 1024;
/// For a batch that names no time.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// For a batch that names too much time.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a batch may take, from its arrival, if it names so many seconds.
pub(super) fn limit(timeout_seconds: i32, default: Duration) -> Duration {
    match u64::try_from(timeout_seconds) {
        Ok(seconds @ 1..) => Duration::from_secs(seconds).min(LONGEST_TIMEOUT),
        _ => default,
    }
}

/// How long `request` may take.
pub(super) fn limit_of(request: &KubernetesApiRequest) -> Duration {
    limit(request.timeout_seconds, DEFAULT_TIMEOUT)
}

/// Runs the GETs of `request` one after another, until the deadline of `place`, which others have in between. Says of
/// each what was decided.
pub(super) async fn answer(
    cluster: &Cluster,
    rules: Rules,
    request: KubernetesApiRequest,
    place: &mut Place<'_>,
) -> (KubernetesApiResponse, Vec<Part>) {
    let (limit, deadline) = (limit_of(&request), place.deadline);
    let KubernetesApiRequest { request_id, api_paths, .. } = request;
    if api_paths.len() > PATHS {
        let why = format!("{} paths in one request are too many: at most {PATHS}", api_paths.len());
        let refused = Refused::new(Reason::TooLarge, why);
        let global_error_message = refused.to_string();
        let response = KubernetesApiResponse { request_id, results: Vec::new(), global_error_message };
        return (response, vec![Part::refused("", &refused)]);
    }
    let share = ANSWER_BYTES / api_paths.len().max(1);
    let mut results = Vec::with_capacity(api_paths.len());
    let mut parts = Vec::with_capacity(api_paths.len());
    let mut held = 0;
    for path in api_paths {
        let readable = Readable::parse(&path).and_then(|readable| readable.under(rules, &cluster.excluded));
        let (outcome, decision) = match readable {
            Err(refused) => {
                (Outcome::failed(refused.status(), refused.to_string()), Decision::Refused(refused.reason))
            }
            Ok(readable) => {
                let work = async {
                    if !results.is_empty() {
                        place.pass(held).await;
                    }
                    get(cluster, &readable, share).await
                };
                let outcome = match timeout_at(deadline, work).await {
                    Ok(outcome) => outcome
                        .unwrap_or_else(|Failure { status, message, .. }| Outcome::failed(status, message)),
                    Err(_) => {
                        let why = format!("no answer within the {} s of this request", limit.as_secs());
                        Outcome::failed(504, why)
                    }
                };
                (outcome, Decision::Allowed)
            }
        };
        held += outcome.data.len();
        parts.push(Part {
            what: path.clone(),
            decision,
            status: outcome.status.into(),
            bytes: outcome.data.len(),
        });
        results.push(outcome.result(path));
    }
    (KubernetesApiResponse { request_id, results, global_error_message: String::new() }, parts)
}

/// What became of one GET.
struct Outcome {
    status: u16,
    data: String,
    /// Why it failed, or what is missing in `data` and how to get it.
    message: String,
}

impl Outcome {
    fn failed(status: u16, message: String) -> Self {
        Self { status, data: String::new(), message }
    }

    fn result(self, mut api_path: String) -> KubernetesApiResult {
        let Self { status, data, mut message } = self;
        cut(&mut message, TEXT_BYTES);
        cut(&mut api_path, TEXT_BYTES);
        KubernetesApiResult {
            api_path,
            success: (200..300).contains(&status),
            response_data: data,
            error_message: message,
            status_code: status.into(),
        }
    }
}

/// Shortens a text to at most `bytes`, between two characters.
pub(crate) fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}

/// The same between two lines, where there is an end of one. Says if it was longer.
pub(super) fn cut_lines(text: &mut String, bytes: usize) -> bool {
    if text.len() <= bytes {
        return false;
    }
    cut(text, bytes);
    if let Some(end) = text.rfind('\n') {
        text.truncate(end + 1);
    }
    true
}

async fn get(cluster: &Cluster, readable: &Readable, share: usize) -> Result<Outcome, Failure> {
    if readable.form == Form::List {
        return list(cluster, readable, share).await;
    }
    let answer = cluster.get(&readable.uri(), accept(readable)).await?;
    let narrower = narrower(readable.form);
    if readable.form == Form::Log {
        let (whole, is_cut) = (answer.text.len(), answer.is_cut);
        let mut data = cluster.cleaned_log(answer, readable);
        let message = if cut_lines(&mut data, share) || is_cut || whole >= READ_BYTES {
            format!("cut to {} of {whole} bytes: ask for less with {narrower}", data.len())
        } else if readable.query.value("tailLines") == Some(&LOG_LINES.to_string())
            && data.lines().count() >= LOG_LINES as usize
        {
            format!(
                "these are the last {LOG_LINES} lines: ask for others with tailLines, sinceSeconds or sinceTime"
            )
        } else {
            String::new()
        };
        return Ok(Outcome { status: 200, data, message });
    }
    // What is cut is no JSON, from which nothing could be taken out that must not go.
    let data = apart(answer.text.len(), || -> Result<_, Failure> {
        Ok(match readable.form {
            _ if answer.is_cut => answer.text,
            Form::Object => cluster.cleaned_text(&answer.text, readable.holds)?.to_string(),
            _ => cluster.cleaned_schema(answer.text),
        })
    })?;
    if answer.is_cut || data.len() > share {
        let why = format!("more than {share} bytes: ask for it alone, or for less with {narrower}");
        return Err(Failure::own(413, why));
    }
    Ok(Outcome { status: 200, data, message: String::new() })
}

/// As many objects as there is room for: what is cut is still a list.
async fn list(cluster: &Cluster, readable: &Readable, share: usize) -> Result<Outcome, Failure> {
    let (mut items, mut count, mut seen) = (String::new(), 0_u64, 0_u64);
    let (mut api_version, mut kind, mut metadata) = (String::new(), String::new(), json!({}));
    // For all that stands around the items.
    let room = share.saturating_sub(2048);
    cluster
        .pages(readable, accept(readable), |page| {
            for item in &page.items {
                let item = cluster.cleaned(item, readable.holds)?.to_string();
                if items.len() + item.len() >= room {
                    break;
                }
                if count > 0 {
                    items.push(',');
                }
                items.push_str(&item);
                count += 1;
            }
            api_version.clone_from(&page.api_version);
            kind.clone_from(&page.kind);
            metadata = json!({"resourceVersion": page.metadata.resource_version});
            seen += page.items.len() as u64;
            if seen > count {
                seen += page.metadata.remaining.unwrap_or_default();
                return Ok(false);
            }
            if readable.query.value("limit").is_some() && !page.metadata.next.is_empty() {
                metadata["continue"] = page.metadata.next.clone().into();
                metadata["remainingItemCount"] = page.metadata.remaining.into();
            }
            Ok(true)
        })
        .await?;
    let message = match seen > count {
        true => format!(
            "cut to {count} of at least {seen} objects, for want of room: ask for less with {}",
            narrower(Form::List)
        ),
        false => String::new(),
    };
    if count == 0 && seen > 0 {
        return Err(Failure::own(
            413,
            format!("the first object has more than {share} bytes: ask for it alone, or with metadata=true"),
        ));
    }
    let data = format!(
        "{{\"apiVersion\":{},\"items\":[{items}],\"kind\":{},\"metadata\":{metadata}}}",
        json!(api_version),
        json!(kind)
    );
    Ok(Outcome { status: 200, data, message })
}

fn accept(readable: &Readable) -> &'static str {
    match (readable.form, readable.query.metadata_only) {
        (Form::List, true) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        (Form::Object, true) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        (Form::Log | Form::Health, _) => "*/*",
        (Form::List | Form::Object, false) => "application/json",
        (Form::Schema, _) => "application/json, */*",
    }
}

#[cfg(test)]
mod tests;
