//! What the uplink shows the server and what it trusts: read anew from the
//! files for every attempt, so that a rotated Secret needs no restart.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use jiff::Timestamp;
use kestrel_runtime::tls::{self, Invalid};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    sign::SingleCertAndKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::problem::{Problem, Setting};

/// Authorities that the machine (or the image) trusts; trusted beside
/// `CA_CERT_FILE`, as before.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where the token comes from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// The environment.
    Text(SecretString),
    /// A file.
    File(PathBuf),
}

/// Where everything comes from.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Our certificate, PEM.
    pub client_certificate: PathBuf,
    /// Its key, PEM.
    pub client_key: PathBuf,
    /// The server's authority, PEM.
    pub authority: PathBuf,
    /// The cluster's token.
    pub token: TokenSource,
    /// Take any server certificate.
    pub insecure: bool,
}

/// A token that is fit to be shown.
pub(crate) struct Token {
    /// Where it is from.
    pub setting: Setting,
    /// Its text.
    pub secret: SecretString,
    /// The cluster's tenant.
    pub tenant: HeaderValue,
}

impl Token {
    /// `Bearer <token>`, marked so that nothing prints it.
    pub(crate) fn bearer(&self) -> Result<HeaderValue, Problem> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", self.secret.expose_secret()))
            .map_err(|_| Problem::Malformed(self.setting, "it has characters that no header can carry"))?;
        bearer.set_sensitive(true);
        Ok(bearer)
    }
}

/// What is read of a token; who signed it is the server's business.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    tenant: String,
    exp: Option<f64>,
}

impl Credentials {
    /// The token of this moment.
    ///
    /// # Errors
    /// It can't be read or can't be of use.
    pub(crate) async fn token(&self, now: Timestamp) -> Result<Token, Problem> {
        match &self.token {
            TokenSource::Text(text) => parse_token(text.expose_secret(), Setting::AuthToken, now),
            TokenSource::File(path) => {
                let setting = Setting::AuthTokenFile;
                let text = SecretString::from(
                    tokio::fs::read_to_string(path).await.map_err(|source| Problem::Unreadable {
                        setting,
                        path: path.clone(),
                        source,
                    })?,
                );
                parse_token(text.expose_secret(), setting, now)
            }
        }
    }

    /// The TLS configuration of this moment.
    ///
    /// # Errors
    /// A file that can't be read or used.
    pub(crate) async fn tls(&self) -> Result<Arc<ClientConfig>, Problem> {
        let chain = read(Setting::ClientCertFile, &self.client_certificate).await?;
        let key = read(Setting::ClientKeyFile, &self.client_key).await?;
        let certified = tls::certified_key(&chain, &key).map_err(|invalid| {
            let (setting, path) = match invalid {
                Invalid::Certificate(_) => (Setting::ClientCertFile, &self.client_certificate),
                Invalid::Key(_) => (Setting::ClientKeyFile, &self.client_key),
                Invalid::Mismatch => (Setting::ClientKeyFile, &self.client_key),
            };
            Problem::Unusable { setting, path: path.clone(), invalid }
        })?;
        let builder = ClientConfig::builder();
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(tls::provider())))
        } else {
            builder.with_root_certificates(self.roots().await?)
        };
        let shown = Arc::new(SingleCertAndKey::from(certified));
        let mut config = builder.with_client_cert_resolver(shown);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    async fn roots(&self) -> Result<RootCertStore, Problem> {
        let pem = read(Setting::CaCertFile, &self.authority).await?;
        let mut roots = tls::roots(&pem).map_err(|invalid| Problem::Unusable {
            setting: Setting::CaCertFile,
            path: self.authority.clone(),
            invalid,
        })?;
        // An image may come without them, and one that is odd costs only itself.
        if let Ok(pem) = tokio::fs::read(SYSTEM_AUTHORITIES).await
            && let Ok(certificates) = tls::certificates(&pem)
        {
            roots.add_parsable_certificates(certificates);
        }
        Ok(roots)
    }
}

async fn read(setting: Setting, path: &Path) -> Result<Vec<u8>, Problem> {
    let read = tokio::fs::read(path).await;
    read.map_err(|source| Problem::Unreadable { setting, path: path.to_owned(), source })
}

fn parse_token(text: &str, setting: Setting, now: Timestamp) -> Result<Token, Problem> {
    let text = text.trim();
    let malformed = |why| Problem::Malformed(setting, why);
    let [_, claims, _] = text.split('.').collect::<Vec<_>>()[..] else {
        return Err(malformed(if text.is_empty() { "it is empty" } else { "it has not three parts" }));
    };
    let claims = URL_SAFE_NO_PAD
        .decode(claims.trim_end_matches('='))
        .map_err(|_| malformed("its second part is not base64url"))?;
    // The error of the parser would show a piece of the token.
    let claims: Claims =
        serde_json::from_slice(&claims).map_err(|_| malformed("its claims can't be understood"))?;
    if claims.tenant.is_empty() {
        return Err(Problem::NoTenant(setting));
    }
    if let Some(at) = claims.exp.and_then(|exp| Timestamp::from_second(exp as i64).ok())
        && at <= now
    {
        return Err(Problem::Expired { setting, at });
    }
    let tenant = HeaderValue::try_from(&claims.tenant)
        .map_err(|_| malformed("its tenant has characters that no header can carry"))?;
    Ok(Token { setting, secret: SecretString::from(text), tenant })
}

/// Takes any certificate, but still demands that its key is in the server's hands.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    fn sentence(token: &str) -> String {
        let now = Timestamp::from_second(1_000).unwrap();
        match parse_token(token, Setting::AuthTokenFile, now) {
            Ok(token) => format!("tenant {}", token.tenant.to_str().unwrap()),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn a_good_token_gives_its_tenant_and_a_header_that_prints_nothing() {
        assert_eq!(sentence(&format!(" {}\n", jwt(r#"{"tenant":"acme","exp":1001.5}"#))), "tenant acme");
        let token = parse_token(&jwt(r#"{"tenant":"acme"}"#), Setting::AuthToken, Timestamp::now()).unwrap();
        assert_eq!(format!("{:?}", token.bearer().unwrap()), "Sensitive");
    }

    #[test]
    fn every_bad_token_gets_a_sentence_that_names_the_setting() {
        for (token, part) in [
            (String::new(), "it is empty"),
            ("one.two".to_owned(), "not three parts"),
            ("a.%.b".to_owned(), "not base64url"),
            (jwt("[]"), "claims can't be understood"),
            (jwt(r#"{"exp":2000}"#), "no tenant claim"),
            (jwt(r#"{"tenant":"acme","exp":1000}"#), "expired at 1970-01-01T00:16:40Z"),
            (jwt("{\"tenant\":\"a\\nb\"}"), "no header can carry"),
        ] {
            let sentence = sentence(&token);
            assert!(sentence.contains(part) && sentence.contains("AUTH_TOKEN_FILE"), "{part}: {sentence}");
            assert!(token.len() < 8 || !sentence.contains(&token), "{sentence}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,80}", claims in "\\PC{0,60}") {
            sentence(&text);
            sentence(&jwt(&claims));
        }
    }

    #[tokio::test]
    async fn a_missing_or_wrong_file_is_named_with_its_setting() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let authority = kestrel_runtime::tls::authority::Authority::generate("test").unwrap();
        let other = kestrel_runtime::tls::authority::Authority::generate("other").unwrap();
        let credentials = Credentials {
            client_certificate: at("client.crt"),
            client_key: at("client.key"),
            authority: at("ca.crt"),
            token: TokenSource::File(at("token")),
            insecure: false,
        };
        let missing = |problem: Problem, name: &str, setting: &str| {
            let sentence = problem.to_string();
            assert!(
                sentence.contains(at(name).to_str().unwrap()) && sentence.contains(setting),
                "{sentence}"
            );
            sentence
        };
        let now = Timestamp::now();
        missing(credentials.token(now).await.err().unwrap(), "token", "AUTH_TOKEN_FILE");
        missing(credentials.tls().await.unwrap_err(), "client.crt", "CLIENT_CERT_FILE");
        std::fs::write(at("client.crt"), authority.certificate_pem()).unwrap();
        missing(credentials.tls().await.unwrap_err(), "client.key", "CLIENT_KEY_FILE");
        std::fs::write(at("client.key"), other.key_pem()).unwrap();
        let mismatch = missing(credentials.tls().await.unwrap_err(), "client.key", "CLIENT_KEY_FILE");
        assert!(mismatch.contains("does not fit"), "{mismatch}");
        std::fs::write(at("client.key"), authority.key_pem()).unwrap();
        missing(credentials.tls().await.unwrap_err(), "ca.crt", "CA_CERT_FILE");
        std::fs::write(at("ca.crt"), "nothing").unwrap();
        missing(credentials.tls().await.unwrap_err(), "ca.crt", "CA_CERT_FILE");
        std::fs::write(at("ca.crt"), authority.certificate_pem()).unwrap();
        credentials.tls().await.unwrap();
    }
}
