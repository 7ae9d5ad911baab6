//! The compiled descriptors against the published contract, both ways: a
//! number, name, type, cardinality, oneof member, message, enum value or RPC
//! that differs, is missing or is extra fails with its line.

use std::collections::BTreeSet;

use kestrel_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// The packages whose contract is published; `node.v1` is our own.
const PUBLISHED: [&str; 2] = ["cloud.v1", "server.v1"];

#[test]
fn fields_are_the_published_ones() {
    let published = table(include_str!("data/wire-fields.txt"));
    let compiled: BTreeSet<String> = files().iter().flat_map(field_lines).collect();
    assert_eq!(differences(&published, &compiled), "");

    let cloud: Vec<&String> = compiled.iter().filter(|line| line.starts_with("cloud.v1.")).collect();
    let messages: BTreeSet<&str> = cloud.iter().filter_map(|line| line.split(' ').next()).collect();
    let fields = cloud.iter().filter(|line| line.contains(' ')).count();
    assert_eq!((messages.len(), fields), (95, 564));
}

#[test]
fn enums_are_the_published_ones() {
    let published = table(include_str!("data/wire-enums.txt"));
    let compiled: BTreeSet<String> = files().iter().flat_map(enum_lines).collect();
    assert_eq!(differences(&published, &compiled), "");

    let enums: BTreeSet<&str> = compiled.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(enums.len(), 5);
}

#[test]
fn rpcs_are_the_published_ones() {
    let published = table(include_str!("data/wire-rpcs.txt"));
    let compiled: BTreeSet<String> = files().iter().flat_map(rpc_lines).collect();
    assert_eq!(differences(&published, &compiled), "");
}

fn table(text: &str) -> BTreeSet<String> {
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn differences(published: &BTreeSet<String>, compiled: &BTreeSet<String>) -> String {
    let missing = published.difference(compiled).map(|line| format!("missing: {line}\n"));
    let extra = compiled.difference(published).map(|line| format!("not published: {line}\n"));
    missing.chain(extra).collect()
}

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    set.file.into_iter().filter(|file| PUBLISHED.contains(&file.package())).collect()
}

fn field_lines(file: &FileDescriptorProto) -> Vec<String> {
    let mut lines = Vec::new();
    for message in &file.message_type {
        message_lines(file.package(), message, &mut lines);
    }
    lines
}

fn message_lines(scope: &str, message: &DescriptorProto, lines: &mut Vec<String>) {
    let name = format!("{scope}.{}", message.name());
    if message.field.is_empty() {
        lines.push(name.clone());
    }
    lines.extend(message.field.iter().map(|field| field_line(&name, message, field)));
    for nested in message.nested_type.iter().filter(|nested| !is_map_entry(nested)) {
        message_lines(&name, nested, lines);
    }
}

fn field_line(name: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let map_entry = message
        .nested_type
        .iter()
        .find(|nested| is_map_entry(nested) && field.type_name() == format!(".{name}.{}", nested.name()));
    let (cardinality, kind) = match map_entry {
        Some(entry) => {
            let parts: Vec<String> = entry.field.iter().map(type_name).collect();
            ("one", format!("map<{}>", parts.join(",")))
        }
        None if field.label() == Label::Repeated => ("rep", type_name(field)),
        None => ("one", type_name(field)),
    };
    let presence = match (field.proto3_optional(), field.oneof_index) {
        (true, _) => " optional",
        (false, Some(_)) => " oneof",
        (false, None) => "",
    };
    format!("{name} {} {} {cardinality} {kind}{presence}", field.number(), field.name())
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn type_name(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn enum_lines(file: &FileDescriptorProto) -> Vec<String> {
    let package = file.package();
    let values = file.enum_type.iter().flat_map(|each| each.value.iter().map(move |value| (each, value)));
    values
        .map(|(each, value)| format!("{package}.{} {} {}", each.name(), value.number(), value.name()))
        .collect()
}

fn rpc_lines(file: &FileDescriptorProto) -> Vec<String> {
    let package = file.package();
    let rpcs = file.service.iter().flat_map(|service| service.method.iter().map(move |rpc| (service, rpc)));
    let arity = |streaming| if streaming { "stream" } else { "one" };
    rpcs.map(|(service, rpc)| {
        format!(
            "/{package}.{}/{} {} {} {} {}",
            service.name(),
            rpc.name(),
            rpc.input_type().trim_start_matches('.'),
            arity(rpc.client_streaming()),
            rpc.output_type().trim_start_matches('.'),
            arity(rpc.server_streaming()),
        )
    })
    .collect()
}
