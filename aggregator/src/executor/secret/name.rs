//! Names of secrets.

/// Words in a name that stand for a secret.
const SECRET: [&str; 28] = [
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "pass",
    "secret",
    "secrets",
    "token",
    "tokens",
    "apikey",
    "credential",
    "credentials",
    "accesskey",
    "privatekey",
    "secretkey",
    "pat",
    "dsn",
    "pw",
    "sshpass",
    "dbpass",
    "userpass",
    "requirepass",
    "masterauth",
    "creds",
    "cookie",
    "psk",
];
/// Words that end so do as well, however they are run together: `PGPASSWORD`, `authtoken`.
const ENDS: [&str; 6] = ["password", "passwd", "passphrase", "token", "secret", "pwd"];
/// `key` after one of these is a secret too.
const KEY_OF: [&str; 20] = [
    "api",
    "access",
    "private",
    "secret",
    "encryption",
    "signing",
    "master",
    "account",
    "shared",
    "license",
    "auth",
    "session",
    "app",
    "aes",
    "hmac",
    "jwt",
    "service",
    "role",
    "routing",
    "storage",
];
/// A name with one of these at its end speaks of a secret without being one.
const ABOUT: [&str; 54] = [
    "name",
    "names",
    "ref",
    "refs",
    "file",
    "files",
    "path",
    "paths",
    "dir",
    "namespace",
    "length",
    "min",
    "max",
    "ttl",
    "expiry",
    "expiration",
    "seconds",
    "minutes",
    "hours",
    "timeout",
    "type",
    "kind",
    "id",
    "ids",
    "url",
    "uri",
    "host",
    "port",
    "endpoint",
    "enabled",
    "disabled",
    "policy",
    "issuer",
    "audience",
    "audiences",
    "count",
    "size",
    "limit",
    "mount",
    "version",
    "algorithm",
    "rotation",
    "interval",
    "provider",
    "store",
    "class",
    "required",
    "format",
    "resource",
    "header",
    "field",
    "prefix",
    "encoding",
    "template",
];

/// Whether a value with this name is a secret: `DB_PASSWORD`, `apiKey`, `github-token`; not `secretName`,
/// `TOKEN_TTL`, `PASSWORD_FILE`.
pub(crate) fn is_name(name: &str) -> bool {
    let words = words(name);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        // Vault's, of which it is the password; kubeconfig's; Redis's.
        [.., "secret", "id"] | [.., "key", "data"] => return true,
        [.., of, "auth"] if !matches!(of, "client" | "mutual" | "proxy") => return true,
        [] => return false,
        [.., last] if ABOUT.contains(&last) => return false,
        _ => {}
    }
    words.iter().any(|word| SECRET.contains(word) || ENDS.iter().any(|end| word.ends_with(end)))
        || words.windows(2).any(|pair| pair[1] == "key" && KEY_OF.contains(&pair[0]))
}

/// Whether a value with this name is only about a secret, also below the name of one: the `name` and `path` of a mounted one.
pub(crate) fn is_about(name: &str) -> bool {
    words(name).last().is_some_and(|last| ABOUT.contains(&last.as_str()))
}

/// Whether a whole number with this name is a secret, as a numeric password is: the name has to end with the word for it.
/// What goes on behind that word measures it (`tokenLifetime`), a plural counts it (`maxTokens`), and so does `pass`.
pub(crate) fn is_number_name(name: &str) -> bool {
    let words = words(name);
    let last = words.last().map_or("", String::as_str);
    !last.ends_with('s') && (is_name(last) || last == "key" && is_name(name))
}

/// The words of a name in lower case, whether signs, digits or capitals separate them.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut open, mut was_lower) = (false, false);
    let mut chars = name.chars().take(256).peekable();
    while let Some(char) = chars.next() {
        if !char.is_ascii_alphabetic() {
            open = false;
            continue;
        }
        let starts = char.is_ascii_uppercase()
            && (was_lower || (open && chars.peek().is_some_and(char::is_ascii_lowercase)));
        if !open || starts {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(char.to_ascii_lowercase());
        }
        (open, was_lower) = (true, char.is_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_names_about_them() {
        for name in [
            "PASSWORD",
            "DB_PASSWORD",
            "dbPassword",
            "db.password",
            "MYSQL_ROOT_PASSWORD_2",
            "API_KEY",
            "APP_KEY",
            "SERVICE_ROLE_KEY",
            "DB_CREDS",
            "WG_PSK",
            "RABBITMQ_ERLANG_COOKIE",
            "apiKey",
            "APIKey",
            "SECRET_KEY_BASE",
            "github-token",
            "client_secret",
            "clientSecret",
            "AWS_SECRET_ACCESS_KEY",
            "pgpass.pwd",
            "GITHUB_PAT",
            "SENTRY_DSN",
            "auth.token",
            "DATADOG_APIKEY",
            "private_key",
            "ACCOUNT_KEY",
            "PGPASSWORD",
            "dbpassword",
            "SSHPASS",
            "authtoken",
            "clientsecret",
            "DB_PW",
            "REDIS_AUTH",
            "requirepass",
            "VAULT_SECRET_ID",
            "client-key-data",
            "passwords",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "secretName",
            "secretKeyRef",
            "TOKEN_TTL",
            "PASSWORD_FILE",
            "topologyKey",
            "key",
            "passthrough",
            "compass",
            "tokenExpirationSeconds",
            "AWS_ACCESS_KEY_ID",
            "patch",
            "PATH",
            "credentialName",
            "automount",
            "token-issuer",
            "auth",
            "client-auth",
            "client-certificate-data",
            "AWS_ACCESS_KEY_ID",
            "tokenizer",
            "secretary",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn names_of_secret_numbers_end_with_the_word_for_a_secret() {
        for name in [
            "password",
            "DB_PASSWORD",
            "adminPassword_2",
            "PGPASSWORD",
            "pwd",
            "passcode",
            "auth-token",
            "clientSecret",
            "apiKey",
        ] {
            assert!(is_name(name) && is_number_name(name), "{name}");
        }
        // Counts, sizes, seconds and ports; of a text some of these are hidden.
        for name in [
            "",
            "maxTokens",
            "max_tokens",
            "tokens_per_fill",
            "pass",
            "secrets",
            "count/secrets",
            "tokenTTL",
            "tokenLifetime",
            "accessTokenLifespan",
            "expirationSeconds",
            "tokenExpirationSeconds",
            "passwordHistory",
            "minPasswordLength",
            "secretThreshold",
            "secretShares",
            "tokenPort",
            "key",
            "partitionKey",
            "replicas",
            "defaultMode",
        ] {
            assert!(!is_number_name(name), "{name}");
        }
    }
}
