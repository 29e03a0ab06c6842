//! Files that travel with a submission.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::null_is_default;

/// A file that travels with the submission and is mounted read-only at `/windlass/files`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct File {
    /// Relative path below `/windlass/files`.
    #[serde(deserialize_with = "null_is_default")]
    pub path: String,
    /// Text content. When both contents are absent, the command line reads the file beside the pipeline file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Binary content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<Base64>,
    /// Whether the file is executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<bool>,
}

impl File {
    /// The content; none when it is still to be read from the disk.
    pub fn bytes(&self) -> Option<&[u8]> {
        let text = self.content.as_ref().map(String::as_bytes);
        text.or_else(|| self.content_base64.as_ref().map(|binary| binary.0.as_slice()))
    }

    /// Fills in what was read from the disk: as text where it is UTF-8, otherwise as binary content.
    pub fn set_bytes(&mut self, bytes: Vec<u8>) {
        match String::from_utf8(bytes) {
            Ok(text) => self.content = Some(text),
            Err(error) => self.content_base64 = Some(Base64(error.into_bytes())),
        }
    }
}

/// Bytes that are written in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64Visitor;

        impl Visitor<'_> for Base64Visitor {
            type Value = Base64;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("base64 text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Base64, E> {
                let compact: Cow<'_, str> = if text.contains(char::is_whitespace) {
                    text.split_whitespace().collect::<String>().into()
                } else {
                    text.into()
                };
                // Canonical proto JSON accepts both alphabets, padded or not.
                [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
                    .iter()
                    .find_map(|engine| engine.decode(compact.as_bytes()).ok())
                    .map(Base64)
                    .ok_or_else(|| E::custom("not base64"))
            }
        }

        deserializer.deserialize_str(Base64Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_content_survives() {
        let mut file = File::default();
        file.set_bytes(vec![0xFF, 0xFE]);
        assert_eq!(file.bytes(), Some([0xFF, 0xFE].as_slice()));
        let printed = serde_json::to_string(&file).expect("json");
        assert_eq!(printed, r#"{"path":"","contentBase64":"//4="}"#);
        assert_eq!(serde_json::from_str::<File>(&printed).expect("file"), file);
        let url_safe: Base64 = serde_json::from_str(r#""__4""#).expect("base64");
        assert_eq!(url_safe.0, [0xFF, 0xFE]);
    }
}
