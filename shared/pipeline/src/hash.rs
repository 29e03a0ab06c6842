//! Identity of a submission's content, so that a request id that is used again with other content is noticed.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{ParameterValues, Pipeline};

/// SHA-256 of a pipeline and its parameter values.
pub type ContentHash = [u8; 32];

#[derive(Serialize)]
struct Content<'a> {
    version: u32,
    pipeline: &'a Pipeline,
    parameters: &'a ParameterValues,
}

/// Hash of a pipeline and the given values of its parameters.
///
/// Equal content has an equal hash however it was written: order of keys, spelling of names and numbers, file or message.
pub fn content_hash(pipeline: &Pipeline, parameters: &ParameterValues) -> ContentHash {
    let content = Content {
        version: 1,
        pipeline,
        parameters,
    };
    // Fields have a fixed order, maps and fragments are sorted: the JSON is canonical.
    let encoded = serde_json::to_vec(&content);
    debug_assert!(encoded.is_ok(), "keys are texts: {encoded:?}");
    Sha256::digest(encoded.unwrap_or_default()).into()
}

/// Hash of a pipeline as hexadecimal text.
pub fn content_hash_hex(pipeline: &Pipeline, parameters: &ParameterValues) -> String {
    hex::encode(content_hash(pipeline, parameters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scalar;
    use crate::source::parse;

    #[test]
    fn spelling_does_not_matter_and_content_does() {
        let hash =
            |text: &str| content_hash_hex(&parse(text).into_pipeline().expect("pipeline"), &ParameterValues::new());
        let one =
            hash("name: a\ntimeout: 90s\nsteps: [{name: s, pod: {affinity: {podAffinity: {}, nodeAffinity: {}}}}]");
        let same = hash(
            r#"{"steps": [{"pod": {"affinity": {"nodeAffinity": {}, "podAffinity": {}}}, "name": "s"}], "timeout": "1m30s", "name": "a"}"#,
        );
        assert_eq!(one, same);
        assert_ne!(one, hash("name: a\ntimeout: 91s\nsteps: [{name: s}]"));
        let pipeline = Pipeline::default();
        let values = ParameterValues::from([("A".to_owned(), Scalar::from("1"))]);
        assert_ne!(
            content_hash(&pipeline, &values),
            content_hash(&pipeline, &ParameterValues::new())
        );
    }

    #[test]
    fn a_hash_that_was_stored_stays_valid() {
        let parsed = parse("name: a\nsteps: [{name: s, image: i}]")
            .into_pipeline()
            .expect("pipeline");
        insta::assert_snapshot!(content_hash_hex(&parsed, &ParameterValues::new()), @r#"36385feb6ad6eba36ac1bad2e339aed4f5711b388ed739b62d393ca3a11bb1e2"#);
    }
}
