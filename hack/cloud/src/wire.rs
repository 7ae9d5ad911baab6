//! The contract's messages without a table of them: any member of an envelope
//! can be named, taken apart and turned into JSON and back through the
//! compiled descriptors.
//!
//! In JSON the fields have the names of the contract (`request_id`), enum
//! values are text, times are RFC 3339 and 64-bit numbers are numbers.

use std::{str::FromStr, sync::LazyLock};

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage as _, SerializeOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "compiled into the binary, and every test reads it")]
    DescriptorPool::decode(kestrel_proto::DESCRIPTORS).expect("the embedded descriptors are whole")
});

/// One of the five streams of `cloud.v1.StreamService`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Inventory, and the fallback for everything else.
    Data,
    /// Requests down, answers up.
    Control,
    /// L3/L4 flows and L7 access logs.
    Flows,
    /// Signals.
    Events,
    /// Log batches.
    Logs,
}

impl Stream {
    /// All five.
    pub const ALL: [Self; 5] = [Self::Data, Self::Control, Self::Flows, Self::Events, Self::Logs];

    /// The stream's name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Control => "control",
            Self::Flows => "flows",
            Self::Events => "events",
            Self::Logs => "logs",
        }
    }

    /// The RPC's name.
    pub fn rpc(self) -> String {
        format!("Stream{self:?}")
    }

    /// The envelope of what the operator sends.
    fn request(self) -> Option<MessageDescriptor> {
        POOL.get_message_by_name(&format!("cloud.v1.Stream{self:?}Request"))
    }

    /// The envelope of what the cloud sends.
    fn response(self) -> Option<MessageDescriptor> {
        POOL.get_message_by_name(&format!("cloud.v1.Stream{self:?}Response"))
    }
}

impl FromStr for Stream {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let stream = Self::ALL.into_iter().find(|stream| stream.name() == name);
        stream.ok_or_else(|| {
            format!("{name:?} is no stream; they are {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// The one member that an operator's envelope carried, still encoded.
#[derive(Clone, Debug)]
pub struct Message {
    field: FieldDescriptor,
    body: Bytes,
}

impl Message {
    /// Takes the envelope of `stream` apart; `None` if it carries no known member.
    pub fn from_envelope(stream: Stream, mut envelope: Bytes) -> Option<Self> {
        let (number, _) = prost::encoding::decode_key(&mut envelope).ok()?;
        let length = prost::encoding::decode_varint(&mut envelope).ok()?;
        let field = stream.request()?.get_field(number)?;
        let length = usize::try_from(length).ok().filter(|length| *length == envelope.remaining())?;
        Some(Self { field, body: envelope.copy_to_bytes(length) })
    }

    /// The member's name in the envelope, such as `pod` or `shell_command_response`.
    pub fn kind(&self) -> &str {
        self.field.name()
    }

    /// Length of the encoded message in bytes.
    pub fn encoded_len(&self) -> usize {
        self.body.len()
    }

    /// The message as its generated type.
    ///
    /// # Errors
    /// `T` is not the type of this kind.
    pub fn decode<T: prost::Message + Default>(&self) -> Result<T, prost::DecodeError> {
        T::decode(self.body.clone())
    }

    /// The message as JSON, with every field that has no presence of its own.
    pub fn json(&self) -> Value {
        self.reflect().map_or(Value::Null, |message| to_json(&message))
    }

    /// What the message is about.
    pub fn facts(&self) -> Facts {
        self.reflect().map(|message| Facts::of(&message)).unwrap_or_default()
    }

    fn reflect(&self) -> Option<DynamicMessage> {
        let descriptor = self.field.kind().as_message()?.clone();
        DynamicMessage::decode(descriptor, self.body.clone()).ok()
    }
}

/// What a message is about, as far as it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub action: Option<String>,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// UID of the object.
    pub uid: String,
    /// Which request it answers.
    pub request_id: String,
}

impl Facts {
    fn of(message: &DynamicMessage) -> Self {
        let metadata = message.get_field_by_name("metadata");
        let about = metadata.as_deref().and_then(prost_reflect::Value::as_message).unwrap_or(message);
        // A verdict names the pushed policy instead of a request.
        let verdict = message.get_field_by_name("policies");
        let verdict = verdict.as_deref().and_then(prost_reflect::Value::as_list).and_then(<[_]>::first);
        let verdict = verdict.and_then(prost_reflect::Value::as_message);
        Self {
            action: action(message),
            namespace: text(about, "namespace"),
            name: ["name", "pod_name", "monitor_name"]
                .into_iter()
                .map(|field| text(about, field))
                .find(|name| !name.is_empty())
                .unwrap_or_default(),
            uid: text(about, "uid"),
            request_id: verdict
                .map_or_else(|| text(message, "request_id"), |verdict| text(verdict, "policy_id")),
        }
    }
}

fn text(message: &DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field);
    value.as_deref().and_then(prost_reflect::Value::as_str).unwrap_or_default().to_owned()
}

fn action(message: &DynamicMessage) -> Option<String> {
    let field = message.descriptor().get_field_by_name("action")?;
    let number = message.get_field(&field).as_enum_number()?;
    let value = field.kind().as_enum()?.get_value(number)?;
    value.name().strip_prefix("ACTION_").map(str::to_owned)
}

fn to_json(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap_or_default()
}

/// A message for the operator, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The member's name, such as `kubernetes_api_request`.
    pub kind: String,
    /// What its answer will name; empty where none is expected.
    pub request_id: String,
    /// The encoded envelope.
    pub envelope: Bytes,
}

impl Order {
    /// Reads `{"<member>": {…}}` as the envelope of `stream`. A `request_id` or
    /// `policy_id` that is missing becomes `fallback_id`.
    ///
    /// # Errors
    /// A sentence that says which member or field is wrong.
    pub fn from_json(stream: Stream, json: &Value, fallback_id: &str) -> Result<Self, String> {
        let name = stream.name();
        let descriptor = stream.response().ok_or_else(|| format!("stream {name} has no envelope"))?;
        let Some((kind, _)) =
            json.as_object().filter(|members| members.len() == 1).and_then(|m| m.iter().next())
        else {
            return Err(
                "expected an object with one member, such as {\"operator_restart_request\": {}}".to_owned()
            );
        };
        let Some(field) = descriptor.get_field_by_name(kind) else {
            let members: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
            return Err(format!("stream {name} carries no {kind}; it carries {}", members.join(", ")));
        };
        let mut message = DynamicMessage::deserialize(descriptor, json)
            .map_err(|error| format!("{kind} is not as the contract says: {error}"))?;
        let mut request_id = String::new();
        if let Some(member) = message.get_field_mut(&field).as_message_mut() {
            for id in ["request_id", "policy_id"] {
                if member.get_field_by_name(id).is_some() && text(member, id).is_empty() {
                    member.set_field_by_name(id, prost_reflect::Value::String(fallback_id.to_owned()));
                }
                request_id.push_str(&text(member, id));
            }
        }
        Ok(Self { kind: kind.clone(), request_id, envelope: message.encode_to_vec().into() })
    }

    /// A heartbeat at `now` for `stream`.
    pub fn heartbeat(stream: Stream, now: jiff::Timestamp) -> Result<Self, String> {
        Self::from_json(stream, &serde_json::json!({ "heartbeat": { "timestamp": now } }), "")
    }
}

#[cfg(test)]
mod tests {
    use kestrel_proto::cloud::v1::{
        Action, NetworkPoliciesWithErrors, NetworkPolicyWithError, Pod, StreamControlResponse,
        StreamDataRequest, StreamDataResponse, stream_control_response, stream_data_request,
    };
    use serde_json::json;

    use super::*;

    fn message(request: stream_data_request::Request) -> Message {
        let envelope = StreamDataRequest { request: Some(request) }.encode_to_vec();
        Message::from_envelope(Stream::Data, envelope.into()).unwrap()
    }

    #[test]
    fn a_pod_is_named_and_shown_with_the_contracts_field_names() {
        let pod = Pod {
            name: "web-0".into(),
            namespace: "shop".into(),
            uid: "u1".into(),
            action: Action::Update.into(),
            ..Pod::default()
        };
        let message = message(stream_data_request::Request::Pod(pod.clone()));
        assert_eq!(message.kind(), "pod");
        assert_eq!(message.decode::<Pod>().unwrap(), pod);
        let facts = message.facts();
        assert_eq!((facts.action.as_deref(), facts.uid.as_str()), (Some("UPDATE"), "u1"));
        let json = message.json();
        assert_eq!((&json["pod_ip"], &json["action"]), (&json!(""), &json!("ACTION_UPDATE")));
    }

    #[test]
    fn a_verdict_names_the_policy_it_answers() {
        let policy = NetworkPolicyWithError { policy_id: "p7".into(), ..NetworkPolicyWithError::default() };
        let message =
            message(stream_data_request::Request::NetworkPolicyWithErrors(NetworkPoliciesWithErrors {
                policies: vec![policy],
            }));
        assert_eq!(message.facts().request_id, "p7");
    }

    #[test]
    fn an_envelope_without_a_member_is_nothing() {
        assert!(Message::from_envelope(Stream::Data, Bytes::new()).is_none());
        assert!(Message::from_envelope(Stream::Data, Bytes::from_static(&[0xff, 0xff])).is_none());
    }

    #[test]
    fn an_order_gets_an_id_unless_it_has_one() {
        let order = Order::from_json(
            Stream::Control,
            &json!({ "kubernetes_api_request": { "api_paths": ["version"] } }),
            "dev-1",
        )
        .unwrap();
        assert_eq!((order.kind.as_str(), order.request_id.as_str()), ("kubernetes_api_request", "dev-1"));
        let envelope = StreamControlResponse::decode(order.envelope).unwrap();
        let Some(stream_control_response::Response::KubernetesApiRequest(request)) = envelope.response else {
            panic!("another member: {envelope:?}");
        };
        assert_eq!((request.request_id.as_str(), request.api_paths), ("dev-1", vec!["version".to_owned()]));
        let own = json!({ "shell_command_request": { "request_id": "mine" } });
        assert_eq!(Order::from_json(Stream::Control, &own, "dev-2").unwrap().request_id, "mine");
        let policy = json!({ "network_policy": { "network_policy": "kind: NetworkPolicy" } });
        assert_eq!(Order::from_json(Stream::Data, &policy, "dev-3").unwrap().request_id, "dev-3");
    }

    #[test]
    fn a_wrong_order_says_what_is_wrong() {
        let problem = |json| Order::from_json(Stream::Control, &json, "").unwrap_err();
        assert!(problem(json!([])).starts_with("expected an object with one member"));
        assert!(problem(json!({ "ack": {} })).starts_with("stream control carries no ack; it carries"));
        assert!(problem(json!({ "shell_command_request": { "cmd": 1 } })).contains("cmd"));
    }

    #[test]
    fn a_heartbeat_exists_on_every_stream() {
        for stream in Stream::ALL {
            let order = Order::heartbeat(stream, jiff::Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(order.kind, "heartbeat");
            assert!(order.request_id.is_empty());
        }
        let order = Order::heartbeat(Stream::Data, jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert!(StreamDataResponse::decode(order.envelope).unwrap().response.is_some());
    }
}
