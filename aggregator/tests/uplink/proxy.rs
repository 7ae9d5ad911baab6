//! The way to the cloud through an HTTP proxy.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kestrel_dev_cloud::{Authority, Cloud};
use kestrel_runtime::{config::Settings, tls::proxy::Proxy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::rig::{Rig, cloud, config, write_credentials};

/// A name that only the proxy can make something of.
const HOST: &str = "cloud.invalid";

/// A proxy that leads every tunnel to the cloud, or `answers` something else.
/// Returns its port, and what it is asked.
async fn proxy(cloud: &Cloud, answer: Option<&'static str>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, address) = (listener.local_addr().unwrap().port(), cloud.address());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            asked.lock().unwrap().push(String::from_utf8(head).unwrap());
            client
                .write_all(answer.unwrap_or("HTTP/1.1 200 OK\r\nVia: test\r\n\r\n").as_bytes())
                .await
                .unwrap();
            if answer.is_none() {
                let mut server = TcpStream::connect(address).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
            }
        }
    });
    (port, heads)
}

/// An uplink that is told of a proxy by `HTTPS_PROXY`.
fn through(cloud: &Cloud, url: &str) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    write_credentials(cloud.authority(), folder.path());
    let mut config = config(folder.path(), cloud.address().port());
    config.host = HOST.to_owned();
    let source = BTreeMap::from([("HTTPS_PROXY", url)]);
    config.proxy = Proxy::between(&mut Settings::new(&source), HOST, config.port);
    Rig::with(folder, config)
}

#[tokio::test]
async fn the_proxy_resolves_the_name_and_is_shown_the_credentials() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    for (user, expected) in [("", None), ("user:p%40ss@", Some("user:p@ss"))] {
        let (port, heads) = proxy(&cloud, None).await;
        let rig = through(&cloud, &format!("http://{user}127.0.0.1:{port}"));
        rig.all_streams_are_up().await;
        let head = heads.lock().unwrap()[0].clone();
        assert!(
            head.starts_with(&format!("CONNECT {HOST}:{} HTTP/1.1\r\n", cloud.address().port())),
            "{head}"
        );
        let shown = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: Basic "));
        assert_eq!(shown, expected.map(|text| STANDARD.encode(text)).as_deref());
        rig.stop().await;
    }
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_makes_no_tunnel_is_named_with_its_status_and_the_setting() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    for (answer, parts) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            ["407 Proxy Authentication Required", "server.proxy.existingSecret"],
        ),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", ["403 Forbidden", "NO_PROXY"]),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", ["does not speak HTTP", "HTTPS_PROXY"]),
    ] {
        let (port, _) = proxy(&cloud, Some(answer)).await;
        let rig = through(&cloud, &format!("http://user:s3cret@127.0.0.1:{port}"));
        let sentence = rig.problem(parts[0]).await;
        assert!(sentence.contains(parts[1]) && sentence.contains(&format!("127.0.0.1:{port}")), "{sentence}");
        assert!(!sentence.contains("s3cret") && !sentence.contains("Basic"), "{sentence}");
        rig.stop().await;
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let rig = through(&cloud, &format!("127.0.0.1:{closed}"));
    let sentence = rig.problem("can't be reached").await;
    assert!(sentence.contains("the proxy 127.0.0.1") && sentence.contains("server.proxy.url"), "{sentence}");
    rig.stop().await;
    cloud.stop().await.unwrap();
}
