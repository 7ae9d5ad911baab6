//! Who is not let in, and what they are told.

use jiff::Timestamp;
use kestrel_dev_cloud::{Authority, Claims, Faults, Stream};
use tonic::Code;

use crate::operator::*;

#[tokio::test]
async fn a_client_without_or_with_a_foreign_certificate_is_refused() {
    let cloud = cloud().await;
    let ca = cloud.authority().certificate().to_owned();
    let channel = endpoint(cloud.address(), &ca, None).connect_lazy();
    assert!(open_data(channel, &token(&cloud, "t", 60), "t").await.is_err());
    assert!(refusal(&cloud, "handshake").await.contains("certificate"));

    let foreign = Authority::generate().unwrap().client("cluster-1").unwrap();
    let channel = endpoint(cloud.address(), &ca, Some(&foreign)).connect_lazy();
    assert!(open_data(channel, &token(&cloud, "t", 60), "t").await.is_err());
    let reason = refusal(&cloud, "handshake").await;
    assert!(reason.contains("UnknownIssuer"), "{reason}");
    assert_eq!(cloud.read(|record| record.connections.counts().opened), 0);
}

#[tokio::test]
async fn a_client_that_trusts_another_authority_does_not_connect() {
    let cloud = cloud().await;
    let client = cloud.authority().client("cluster-1").unwrap();
    let other = Authority::generate().unwrap();
    let endpoint = endpoint(cloud.address(), other.certificate(), Some(&client));
    assert!(endpoint.connect().await.is_err());
}

#[tokio::test]
async fn metadata_is_checked_with_a_sentence() {
    let cloud = cloud().await;
    let good = token(&cloud, "acme", 60);
    let expired = token(&cloud, "acme", -3600);
    let foreign = Authority::generate().unwrap();
    let foreign = foreign.tokens().mint(&Claims::new("acme", "c", Timestamp::now(), 60)).unwrap();
    let cases = [
        (expired.as_str(), "acme", "token expired at "),
        (foreign.as_str(), "acme", "token is not one of this cloud"),
        (good.as_str(), "other", "autonp-tenantid \"other\" is not the token's tenant \"acme\""),
    ];
    let channel = connect(&cloud).await;
    for (token, tenant, sentence) in cases {
        let status = open_data(channel.clone(), token, tenant).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().starts_with(sentence), "{}", status.message());
        assert!(refusal(&cloud, "StreamData").await.starts_with(sentence));
    }
    cloud.set_faults(Faults { refuse_tokens: true, ..Faults::default() });
    let status = open_data(channel.clone(), &good, "acme").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    cloud.set_faults(Faults::unimplemented([Stream::Data]));
    let status = open_data(channel, &good, "acme").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}
