//! What can be wrong with the uplink, as sentences that name what to change.

use std::{fmt, io, path::PathBuf};

use kestrel_runtime::tls::{Invalid, client::ConnectError};
use rustls::AlertDescription;
use tonic::{Code, Status};

/// The Secret in which the operator itself keeps what it was given at run time.
pub(crate) const RUNTIME_SECRET: &str = "kestrel-operator-jwt-runtime";

/// Where a credential is from: a setting, by its environment variable and its
/// value in the Helm chart, or what the server gave at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named like the variables")]
pub enum Setting {
    AuthToken,
    AuthTokenFile,
    ClientCertFile,
    ClientKeyFile,
    CaCertFile,
    /// The runtime Secret.
    RuntimeSecret,
    /// The server's last answer to a renewal.
    Renewal,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AuthToken => "AUTH_TOKEN (Helm: auth.token or auth.existingSecret)",
            Self::AuthTokenFile => "AUTH_TOKEN_FILE (Helm: auth.token or auth.existingSecret)",
            Self::ClientCertFile => {
                "CLIENT_CERT_FILE (Helm: certificates.client.cert or certificates.existingSecret)"
            }
            Self::ClientKeyFile => {
                "CLIENT_KEY_FILE (Helm: certificates.client.key or certificates.existingSecret)"
            }
            Self::CaCertFile => "CA_CERT_FILE (Helm: certificates.ca.cert or certificates.existingSecret)",
            Self::RuntimeSecret => return write!(f, "the Secret {RUNTIME_SECRET}"),
            Self::Renewal => "the last renewal",
        })
    }
}

/// Where a piece of PEM text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file that a setting names.
    File(Setting, PathBuf),
    /// A key of the runtime Secret.
    Secret(&'static str),
    /// A field of a certificate that the server pushed.
    Pushed(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(setting, path) => write!(f, "{}, named by {setting}", path.display()),
            Self::Secret(key) => write!(f, "{key} in the Secret {RUNTIME_SECRET}"),
            Self::Pushed(field) => write!(f, "{field} of the pushed certificate"),
        }
    }
}

/// Why there is no connection, or no stream. No variant can hold a token or a key.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file that can't be read.
    #[error("{} can't be read: {source}; it is named by {setting}", path.display())]
    Unreadable {
        /// The setting that names it.
        setting: Setting,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("{place}: {invalid}")]
    Unusable {
        /// Where it is.
        place: Place,
        /// What is wrong with it.
        invalid: Invalid,
    },
    /// A certificate that is not valid now.
    #[error("{place}: the client certificate {when}: a new one is needed (or set this machine's clock)")]
    CertificateTime {
        /// Where it is.
        place: Place,
        /// Since or until when.
        when: String,
        /// When it ends.
        ends: jiff::Timestamp,
    },
    /// A certificate that would not be used.
    #[error("the pushed certificate was made before the one in use, so it would never be used")]
    CertificateOlder,
    /// The runtime Secret can't be read or written.
    #[error("the Secret {RUNTIME_SECRET} can't be {doing}: {why}")]
    RuntimeSecret {
        /// `read` or `written`.
        doing: &'static str,
        /// The API server's words.
        why: String,
    },
    /// A renewed token is in memory alone.
    #[error("the renewed token is used, but would not outlive this process: {0}; tried again")]
    NotKept(String),
    /// There is no API server, and so no runtime Secret.
    #[error("outside a cluster there is no Secret {RUNTIME_SECRET} to keep a pushed certificate in")]
    NoCluster,
    /// A token of another form.
    #[error("the token of {0} is not a JWT: {1}")]
    Malformed(Setting, &'static str),
    /// A token for nobody.
    #[error("the token of {0} has no tenant claim, so no stream can be opened: use one made for a cluster")]
    NoTenant(Setting),
    /// An old token.
    #[error("the token of {setting} expired at {at}: put a new one there (or set this machine's clock)")]
    Expired {
        /// Where it is from.
        setting: Setting,
        /// When.
        at: jiff::Timestamp,
    },
    /// A token of somebody else.
    #[error(
        "the token of {setting} is not used: it is of tenant {other:?}, and that of {given} is of {own:?}; if that is \
         right, delete the Secret {RUNTIME_SECRET}"
    )]
    Foreign {
        /// Where it is from.
        setting: Setting,
        /// Its tenant.
        other: String,
        /// The token that decides.
        given: Setting,
        /// The tenant of that one.
        own: String,
    },
    /// The server gave no new token.
    #[error("the token can't be renewed and is tried again: {0}")]
    NotRenewed(String),
    /// The server knows no renewal.
    #[error("the server offers no renewal of tokens: put a new one into {setting} before this one ends")]
    NoRenewal {
        /// Where the present one is from.
        setting: Setting,
    },
    /// A token that the server does not take.
    #[error("the server refuses the token of {setting}: {reason}")]
    TokenRefused {
        /// Where it is from.
        setting: Setting,
        /// The server's words.
        reason: String,
    },
    /// The connection could not be made.
    #[error("{}", connect_sentence(.server, .error))]
    Connect {
        /// Host and port.
        server: String,
        /// Why.
        error: ConnectError,
    },
    /// The server does not take the client certificate.
    #[error(
        "{server} refuses the client certificate ({alert:?}): {} must hold one of this server",
        Setting::ClientCertFile
    )]
    CertificateRefused {
        /// Host and port.
        server: String,
        /// The server's word.
        alert: AlertDescription,
    },
    /// TLS works, but nothing that speaks HTTP/2 is behind it.
    #[error(
        "{0} does not speak HTTP/2 (gRPC): check SERVER_HOST and SERVER_PORT (Helm: server.host, server.port)"
    )]
    NotHttp2(String),
    /// The server has never heard of a stream without which nothing works.
    #[error(
        "{0} does not offer cloud.v1.StreamService: check SERVER_HOST and SERVER_PORT (Helm: server.host, server.port)"
    )]
    NotKestrel(String),
    /// The connection ended.
    #[error("the connection to {server} ended: {reason}")]
    ConnectionLost {
        /// Host and port.
        server: String,
        /// Why.
        reason: String,
    },
    /// The server takes the keepalive for an attack.
    #[error("{0} finds our PINGs too many: raise KESTREL_KEEPALIVE_SECONDS (Helm: server.keepaliveSeconds)")]
    TooManyPings(String),
    /// One stream ended.
    #[error("the {stream} stream ended and is opened again: {reason}")]
    StreamEnded {
        /// Its name.
        stream: &'static str,
        /// Why.
        reason: String,
    },
}

impl Problem {
    /// The end of the credential, if that is over at `now`.
    pub(super) fn ended(&self, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
        match self {
            Self::Expired { at: end, .. } | Self::CertificateTime { ends: end, .. } if *end <= now => {
                Some(*end)
            }
            _ => None,
        }
    }

    /// Whether the server refused the client certificate that was shown.
    pub(crate) fn is_of_our_certificate(&self) -> bool {
        match self {
            Self::CertificateRefused { .. } => true,
            Self::Connect { error: ConnectError::Refused(alert), .. } => is_about_the_certificate(*alert),
            _ => false,
        }
    }

    /// What makes it the same problem as one that was told before: streams that
    /// end for one reason are one problem.
    pub(crate) fn subject(&self) -> String {
        match self {
            Self::StreamEnded { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }
}

fn connect_sentence(server: &str, error: &ConnectError) -> String {
    let mend = match error {
        ConnectError::Resolve { .. } => "check SERVER_HOST (Helm: server.host) and the cluster's DNS",
        ConnectError::Reach { .. } => {
            "check SERVER_HOST and SERVER_PORT (Helm: server.host, server.port) and the way out of the cluster"
        }
        ConnectError::Proxy { status: Some(407), .. } => {
            "put a user and a password that it knows into HTTPS_PROXY (Helm: server.proxy.existingSecret)"
        }
        ConnectError::Proxy { status: Some(_), .. } => {
            "have it allow CONNECT to this host and port, or exempt the host in NO_PROXY (Helm: server.proxy.noProxy)"
        }
        ConnectError::Proxy { status: None, .. } => "check HTTPS_PROXY (Helm: server.proxy.url)",
        ConnectError::BadCertificate(_) => "the server needs another one, or this machine's clock is wrong",
        ConnectError::Untrusted => {
            return format!("{server}: {error}; it belongs into {}", Setting::CaCertFile);
        }
        ConnectError::WrongName(_) | ConnectError::ServerName(_) => {
            "set SERVER_NAME (Helm: server.tls.serverName) to the name in the server's certificate"
        }
        ConnectError::Refused(alert) if is_about_the_certificate(*alert) => {
            return Problem::CertificateRefused { server: server.to_owned(), alert: *alert }.to_string();
        }
        ConnectError::Refused(_) | ConnectError::Handshake(_) => {
            "check that SERVER_HOST and SERVER_PORT (Helm: server.host, server.port) are those of a TLS port"
        }
    };
    match error {
        // They name it themselves.
        ConnectError::Resolve { .. }
        | ConnectError::Reach { .. }
        | ConnectError::Proxy { status: Some(_), .. } => {
            format!("{error}; {mend}")
        }
        _ => format!("{server}: {error}; {mend}"),
    }
}

/// Whether an alert of the server speaks of the certificate that we showed.
pub(crate) fn is_about_the_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::CertificateRequired
    )
}

/// The server's words, cut to a length that a log line can bear and without the token.
pub(crate) fn reason(status: &Status, token: &str) -> String {
    const LONGEST: usize = 300;
    let mut words = status.message().replace(token, "…");
    words.truncate(words.floor_char_boundary(LONGEST));
    match (status.code(), words.is_empty()) {
        (Code::Unknown, false) => words,
        (code, true) => format!("{code:?}"),
        (code, false) => format!("{code:?}: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connect_error_names_the_setting_to_mend() {
        let reach = io::Error::from(io::ErrorKind::ConnectionRefused);
        let resolve = io::Error::from(io::ErrorKind::NotFound);
        let host = || "cloud".to_owned();
        let proxy = |status: Option<u16>| ConnectError::Proxy {
            proxy: "p:80".to_owned(),
            reason: if status.is_some() { "makes no tunnel to cloud:443" } else { "is away" }.to_owned(),
            status,
        };
        for (error, setting) in [
            (ConnectError::Resolve { host: host(), source: resolve }, "server.host"),
            (ConnectError::Reach { host: host(), port: 443, source: reach }, "SERVER_PORT"),
            (proxy(None), "server.proxy.url"),
            (proxy(Some(407)), "server.proxy.existingSecret"),
            (proxy(Some(403)), "NO_PROXY"),
            (ConnectError::Untrusted, "CA_CERT_FILE"),
            (ConnectError::BadCertificate("expired".to_owned()), "clock"),
            (ConnectError::WrongName("no".to_owned()), "SERVER_NAME"),
            (ConnectError::ServerName("a b".to_owned()), "SERVER_NAME"),
            (ConnectError::Refused(AlertDescription::UnknownCA), "CLIENT_CERT_FILE"),
            (ConnectError::Refused(AlertDescription::ProtocolVersion), "SERVER_PORT"),
            (ConnectError::Handshake("no".to_owned()), "SERVER_PORT"),
        ] {
            let sentence = Problem::Connect { server: "cloud:443".to_owned(), error }.to_string();
            assert_eq!(sentence.matches("cloud").count(), 1, "{sentence}");
            assert!(sentence.contains(setting), "{setting} in: {sentence}");
        }
    }

    #[test]
    fn what_the_server_says_is_cut_and_holds_no_token() {
        let status = Status::internal(format!("{}token s3cret {}", "ä".repeat(10), "ü".repeat(400)));
        let words = reason(&status, "s3cret");
        assert!(words.starts_with("Internal: ää") && words.len() < 320, "{words}");
        assert!(!words.contains("s3cret"));
        assert_eq!(reason(&Status::unavailable(""), "x"), "Unavailable");
    }
}
