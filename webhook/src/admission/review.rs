//! AdmissionReview (`admission.k8s.io/v1`), as text in and text out.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    cluster::Cluster,
    inject::{self, Add, Verdict, pod::Pod},
};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// Most patches are shorter, and need not grow while they are written.
const PATCH_BYTES: usize = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(borrow)]
    resource: Resource<'a>,
    #[serde(borrow, default)]
    sub_resource: Cow<'a, str>,
    object: Option<Pod>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow)]
    group: Cow<'a, str>,
    #[serde(borrow)]
    resource: Cow<'a, str>,
}

/// What is answered, and how it is counted.
#[derive(Debug)]
pub struct Admission {
    /// The AdmissionReview that goes back. It always allows.
    pub body: Vec<u8>,
    /// Why the pod was left alone, as a metric's label; `None` if it was injected.
    pub skipped: Option<&'static str>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The body is not the JSON of an AdmissionReview of a pod.
    #[error("the body is not an AdmissionReview of a pod: {0}")]
    NotAReview(serde_json::Error),
    /// It is of another kind or version.
    #[error("the body is {0} of {1}, not {KIND} of {API_VERSION}")]
    Kind(String, String),
    /// The answer can't be written, which is our fault.
    #[error("the answer cannot be written: {0}")]
    Answer(serde_json::Error),
}

/// Answers the AdmissionReview in `body`.
///
/// # Errors
/// See [`AdmitError`].
pub fn admit(body: &[u8], cluster: &Cluster) -> Result<Admission, AdmitError> {
    let Question { api_version, kind, request } =
        serde_json::from_slice(body).map_err(AdmitError::NotAReview)?;
    if (&*api_version, &*kind) != (API_VERSION, KIND) {
        return Err(AdmitError::Kind(kind.into_owned(), api_version.into_owned()));
    }
    let Some(pod) = request.object.as_ref().filter(|_| request.creates_a_pod()) else {
        return answer(&request.uid, &[], &[], Some("not-a-new-pod"));
    };
    let Verdict { skipped, patch, warnings, .. } = inject::judge(pod, &request.namespace, cluster);
    answer(&request.uid, &patch, &warnings, skipped.map(|skip| skip.label()))
}

/// Written by hand for the patch's sake: most of the answer is its base64, in which nothing has to be escaped.
fn answer(
    uid: &str,
    patch: &[Add],
    warnings: &[String],
    skipped: Option<&'static str>,
) -> Result<Admission, AdmitError> {
    let (uid, warnings) = (json(&uid)?, json(&warnings)?);
    let mut body = format!(
        r#"{{"apiVersion":"{API_VERSION}","kind":"{KIND}","response":{{"uid":{uid},"allowed":true,"warnings":{warnings}"#
    );
    if !patch.is_empty() {
        let mut text = Vec::with_capacity(PATCH_BYTES);
        serde_json::to_writer(&mut text, patch).map_err(AdmitError::Answer)?;
        body.reserve_exact(2 * text.len());
        body.push_str(r#","patchType":"JSONPatch","patch":""#);
        STANDARD.encode_string(text, &mut body);
        body.push('"');
    }
    body.push_str("}}");
    Ok(Admission { body: body.into_bytes(), skipped })
}

fn json(value: &impl Serialize) -> Result<String, AdmitError> {
    serde_json::to_string(value).map_err(AdmitError::Answer)
}

impl Request<'_> {
    /// A configuration with other rules may ask about other things.
    fn creates_a_pod(&self) -> bool {
        self.operation == "CREATE"
            && self.resource.group.is_empty()
            && self.resource.resource == "pods"
            && self.sub_resource.is_empty()
    }
}
