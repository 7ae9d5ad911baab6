use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Whom the way to `host` on port 443 leads over.
fn way(variables: &[(&str, &str)], host: &str) -> String {
    let source = BTreeMap::from_iter(variables.iter().copied());
    let mut settings = Settings::new(&source);
    let proxy = Proxy::between(&mut settings, host, 443);
    match (proxy, settings.finish()) {
        (_, Err(mistakes)) => mistakes.to_string(),
        (Some(proxy), _) => proxy.to_string(),
        (None, _) => "direct".to_owned(),
    }
}

#[test]
fn the_way_leads_over_the_proxy_unless_it_is_exempt() {
    let host = "cloud.example.com";
    assert_eq!(way(&[], host), "direct");
    assert_eq!(way(&[("https_proxy", "proxy:3128")], host), "proxy:3128");
    assert_eq!(way(&[("HTTPS_PROXY", "http://one/"), ("https_proxy", "two")], host), "one:80");
    assert_eq!(way(&[("HTTPS_PROXY", "HTTP://user:pw@[::1]:8080")], host), "[::1]:8080");
    for (exempt, expected) in [
        ("*", "direct"),
        ("cloud.example.com", "direct"),
        ("CLOUD.example.com.", "direct"),
        ("example.com", "direct"),
        (".example.com", "direct"),
        ("*.example.com", "direct"),
        ("a.test, example.com:443", "direct"),
        ("a.test b.test\texample.com", "direct"),
        ("example.com:8443", "p:80"),
        (".cloud.example.com", "p:80"),
        ("ample.com", "p:80"),
        ("10.0.0.0/8,,nonsense/8,1.2.3.4/33,example.com:x", "p:80"),
    ] {
        assert_eq!(way(&[("HTTPS_PROXY", "p"), ("no_proxy", exempt)], host), expected, "{exempt}");
    }
    for (exempt, expected) in [
        ("10.0.0.0/8", "direct"),
        ("10.1.2.3", "direct"),
        ("10.1.2.3:443", "direct"),
        ("10.1.2.3:80", "p:80"),
        ("10.1.2.0/31", "p:80"),
        ("0.0.0.0/0", "direct"),
        ("::/0", "p:80"),
        (".3", "p:80"),
    ] {
        assert_eq!(way(&[("HTTPS_PROXY", "p"), ("NO_PROXY", exempt)], "10.1.2.3"), expected, "{exempt}");
    }
    assert_eq!(way(&[("HTTPS_PROXY", "p"), ("NO_PROXY", "[fd00::]/8")], "fd12::1"), "direct");
    assert_eq!(way(&[("HTTPS_PROXY", "p"), ("NO_PROXY", "[fd12::1]:443")], "fd12::1"), "direct");
}

#[test]
fn names_of_the_cluster_and_of_this_machine_never_go_to_the_proxy() {
    let inside = [("HTTPS_PROXY", "p"), ("KUBERNETES_SERVICE_HOST", "10.96.0.1")];
    for host in [
        "kestrel-cloud.kestrel-cloud.svc",
        "kestrel-cloud.ns.svc.cluster.local.",
        "10.96.0.1",
        "auto-np-server",
        "localhost",
        "127.0.0.1",
        "[::1]",
    ] {
        assert_eq!(way(&inside, host), "direct", "{host}");
    }
    assert_eq!(way(&inside, "cloud.example.com"), "p:80");
    assert_eq!(way(&[("HTTPS_PROXY", "p")], "intranet"), "p:80", "outside a cluster");
}

#[test]
fn a_mistake_is_told_without_the_password() {
    for url in
        ["https://u:s3cret@p", "socks5://u:s3cret@p", "http://u:s3cret@p:x", "http://u:s3cret@", "http://"]
    {
        let said = way(&[("HTTPS_PROXY", url)], "cloud.example.com");
        assert!(said.contains("HTTPS_PROXY") && said.contains("server.proxy"), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    let proxy = Proxy::parse("http://user:s3cret@proxy").unwrap();
    let encoded = proxy.credentials.clone().unwrap();
    for shown in [format!("{proxy}"), format!("{proxy:?}")] {
        assert!(!shown.contains("s3cret") && !shown.contains(&encoded), "{shown}");
    }
}

#[test]
fn the_request_has_the_credentials_that_the_url_spells() {
    let ask = |url| Proxy::parse(url).unwrap().request("cloud.example.com", 443);
    let plain = "CONNECT cloud.example.com:443 HTTP/1.1\r\nHost: cloud.example.com:443\r\n\r\n";
    assert_eq!(ask("proxy"), plain);
    let basic = |text: &str| format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(text));
    assert!(ask("http://user:p%40ss%3Aw%2@proxy").contains(&basic("user:p@ss:w%2")));
    assert!(ask("http://user@proxy").contains(&basic("user:")));
    assert!(Proxy::parse("p").unwrap().request("fd00::1", 443).starts_with("CONNECT [fd00::1]:443 "));
}

#[test]
fn the_status_line_is_read_and_made_printable() {
    let (code, line) = status(b"HTTP/1.1 407 Proxy \x1b[31mAuth\r\nX: y\r\n\r\n").unwrap();
    assert_eq!((code, line.as_str()), (407, "HTTP/1.1 407 Proxy [31mAuth"));
    assert_eq!(status(b"HTTP/1.0 200 OK").unwrap().0, 200);
    for other in [&b""[..], b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1\r\n", b"HTTP/1.1 ok\r\n"] {
        assert_eq!(status(other), None);
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parsers_panic(
        url in "\\PC{0,40}", list in "\\PC{0,40}", host in "\\PC{0,20}", head: Vec<u8>,
    ) {
        way(&[("HTTPS_PROXY", &url), ("NO_PROXY", &list)], &host);
        status(&head);
    }

    #[test]
    fn any_user_and_password_survive_the_url(user in "[^:]{1,10}", password in ".{0,10}") {
        let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let url = format!("http://{}:{}@proxy:1", escape(&user), escape(&password));
        let expected = STANDARD.encode(format!("{user}:{password}"));
        prop_assert_eq!(Proxy::parse(&url).unwrap().credentials, Some(expected));
    }

    #[test]
    fn a_network_holds_what_shares_its_bits(network: u32, address: u32, bits in 0_u32..=32) {
        let text = |bits: u32| std::net::Ipv4Addr::from(bits).to_string();
        let exempt = Exempt::parse(&format!("{}/{bits}", text(network)));
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        let loopback = std::net::Ipv4Addr::from(address).is_loopback();
        prop_assert_eq!(exempt.holds(&text(address), 443), loopback || network & mask == address & mask);
    }

    #[test]
    fn a_domain_holds_itself_and_what_is_below_it(labels in "[a-z]{1,5}(\\.[a-z]{1,5}){1,2}", below in "[a-z]{1,5}") {
        let exempt = Exempt::parse(&labels.to_uppercase());
        let (deeper, stuck) = (format!("{below}.{labels}"), format!("{below}{labels}"));
        prop_assert!(exempt.holds(&labels, 1) && exempt.holds(&deeper, 1));
        prop_assert!(!exempt.holds(&stuck, 1));
    }
}
