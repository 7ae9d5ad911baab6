//! Services.

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::util::intstr::IntOrString};
use kestrel_proto::cloud::v1;

use super::{annotations, created, map, sorted, text};

/// The record of a Service.
pub fn service(object: &core::Service) -> v1::Service {
    let meta = &object.metadata;
    let spec = object.spec.as_ref();
    let mut ports: Vec<_> =
        spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten().map(port).collect();
    // The key of the list.
    ports.sort_by(|a, b| (a.port, &a.protocol).cmp(&(b.port, &b.protocol)));
    v1::Service {
        name: text(&meta.name),
        namespace: text(&meta.namespace),
        uid: text(&meta.uid),
        labels: map(&meta.labels),
        annotations: annotations(meta),
        selector: spec.map(|spec| map(&spec.selector)).unwrap_or_default(),
        ports,
        service_type: spec.map(|spec| text(&spec.type_)).unwrap_or_default(),
        cluster_ip: spec.map(|spec| text(&spec.cluster_ip)).unwrap_or_default(),
        external_ips: sorted(spec.and_then(|spec| spec.external_ips.as_ref())),
        created_at: created(meta),
        action: 0,
    }
}

fn port(port: &core::ServicePort) -> v1::ServicePort {
    v1::ServicePort {
        name: text(&port.name),
        protocol: text(&port.protocol),
        port: port.port,
        target_port: match port.target_port {
            Some(IntOrString::Int(number)) => number,
            // A name has no place on the wire.
            Some(IntOrString::String(_)) | None => 0,
        },
        node_port: port.node_port.unwrap_or_default(),
    }
}
