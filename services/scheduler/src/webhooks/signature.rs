//! Signatures of messages: HMAC-SHA256 over id, time and body.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Fewest bytes of a secret.
const LEAST: usize = 24;

/// Where a secret is; it is read at every use, so that it can be changed while the scheduler runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Secret {
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

/// Why a secret cannot be used. It never has a part of it (I8).
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The variable is not there.
    #[error("the environment variable {0} is not set, or not as UTF-8")]
    Env(String),
    /// It is something else.
    #[error(
        "it is no secret for webhooks: `whsec_` and at least 24 random bytes in base64, such as \"whsec_$(openssl rand -base64 32)\""
    )]
    Form,
}

/// A key that signs.
pub(super) struct Key(hmac::Key);

impl Secret {
    pub(super) fn read(&self) -> Result<Key, SecretError> {
        let text = match self {
            Self::File(path) => std::fs::read_to_string(path).map_err(|source| SecretError::File {
                path: path.clone(),
                source,
            })?,
            Self::Env(name) => std::env::var(name).map_err(|_| SecretError::Env(name.clone()))?,
        };
        Key::parse(text.trim()).ok_or(SecretError::Form)
    }
}

impl Key {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        (bytes.len() >= LEAST).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The header `webhook-signature` of a message that is sent at a time, in seconds.
    pub(super) fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut signed = format!("{id}.{seconds}.").into_bytes();
        signed.extend_from_slice(body);
        format!("v1,{}", STANDARD.encode(hmac::sign(&self.0, &signed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_as_the_specification_has_it() {
        // The example of the specification's reference libraries.
        let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        assert_eq!(
            key.sign(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn i8_what_is_no_secret_is_refused_without_being_told() {
        for text in [
            "",
            "hunter2hunter2hunter2hunter2",
            "whsec_",
            "whsec_c2hvcnQ=",
            "whsec_***",
        ] {
            assert!(Key::parse(text).is_none(), "{text}");
        }
        assert!(!SecretError::Form.to_string().contains("hunter"));
        let missing = Secret::Env("WINDLASS_TEST_NO_SUCH_VARIABLE".to_owned()).read();
        assert!(matches!(missing, Err(SecretError::Env(_))));
    }
}
