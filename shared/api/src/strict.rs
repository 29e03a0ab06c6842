//! A codec that refuses requests with field numbers that this version does not know (I9).
//!
//! prost drops unknown fields without a word, so a misspelt or newer setting would be ignored. The bytes are scanned once against
//! the descriptor set before they are decoded.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::LazyLock;

use bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint};
use prost::{Message, Name};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic::{Code, Status};
use tonic_prost::{ProstCodec, ProstEncoder};
use tonic_types::ErrorDetails;

use crate::refusal;

/// Messages nested deeper than this are refused, as prost does.
const MAX_DEPTH: usize = 100;
/// At most this many unknown fields are looked for.
const MAX_VIOLATIONS: usize = 50;

/// Encodes as prost does; decodes requests only when every field number is known.
#[derive(Debug)]
pub struct StrictCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for StrictCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(PhantomData)
    }
}

/// Decodes one message type; see [`StrictCodec`].
#[derive(Debug)]
pub struct StrictDecoder<U>(PhantomData<U>);

impl<U: Message + Name + Default> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        // Responses may come from a newer server.
        if U::NAME.ends_with("Request") {
            check(&U::full_name(), bytes.clone())?;
        }
        U::decode(bytes)
            .map(Some)
            .map_err(|error| malformed(&error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

fn malformed(text: &str) -> Status {
    let details = ErrorDetails::with_error_info("MALFORMED_MESSAGE", "windlass", HashMap::new());
    refusal::status(Code::InvalidArgument, &format!("malformed message: {text}"), details)
}

/// Checks that `bytes`, a message of type `name` (full name without a leading dot), has no unknown field.
///
/// # Errors
/// `INVALID_ARGUMENT` with a `BadRequest` that lists the paths of unknown fields, as many as fit.
pub fn check(name: &str, bytes: Bytes) -> Result<(), Status> {
    let Some(root) = SCHEMA.by_name.get(name) else {
        return Ok(());
    };
    let mut unknown = Vec::new();
    scan(*root, bytes, &mut Vec::new(), &mut unknown).map_err(|error| malformed(&error.to_string()))?;
    if unknown.is_empty() {
        return Ok(());
    }
    let mut details = ErrorDetails::with_error_info("UNKNOWN_FIELD", "windlass", HashMap::new());
    let problem = |path: &String| {
        let description = "unknown field number; this server does not know this field";
        (path.clone(), description.to_owned())
    };
    refusal::add_problems(&mut details, unknown.iter().map(problem), unknown.len());
    let text = format!("nothing was done: unknown field {}", unknown.join(", "));
    Err(refusal::status(Code::InvalidArgument, &text, details))
}

struct Schema {
    by_name: HashMap<String, usize>,
    messages: Vec<MessageSchema>,
}

#[derive(Default)]
struct MessageSchema {
    fields: HashMap<u32, FieldSchema>,
}

struct FieldSchema {
    name: String,
    repeated: bool,
    message: Option<usize>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap_or_default();
    let mut all = Vec::new();
    for file in &set.file {
        for message in &file.message_type {
            flatten(file.package(), message, &mut all);
        }
    }
    let by_name: HashMap<String, usize> = all
        .iter()
        .enumerate()
        .map(|(index, (name, _))| (name.clone(), index))
        .collect();
    let messages = all.iter().map(|(_, message)| schema_of(message, &by_name)).collect();
    Schema { by_name, messages }
});

fn flatten<'a>(scope: &str, message: &'a DescriptorProto, all: &mut Vec<(String, &'a DescriptorProto)>) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        flatten(&name, nested, all);
    }
    all.push((name, message));
}

fn schema_of(message: &DescriptorProto, by_name: &HashMap<String, usize>) -> MessageSchema {
    let fields = message.field.iter().filter_map(|field| {
        let nested = (field.r#type() == Type::Message)
            .then(|| by_name.get(field.type_name().trim_start_matches('.')).copied())
            .flatten();
        let schema = FieldSchema {
            name: field.json_name().to_owned(),
            repeated: field.label() == Label::Repeated,
            message: nested,
        };
        Some((u32::try_from(field.number()).ok()?, schema))
    });
    MessageSchema {
        fields: fields.collect(),
    }
}

fn scan(
    message: usize,
    mut bytes: Bytes,
    path: &mut Vec<String>,
    unknown: &mut Vec<String>,
) -> Result<(), prost::DecodeError> {
    let schema = &SCHEMA.messages[message];
    let mut counts: HashMap<u32, usize> = HashMap::new();
    while bytes.has_remaining() && unknown.len() < MAX_VIOLATIONS {
        let (number, wire_type) = decode_key(&mut bytes)?;
        let payload = skip(wire_type, &mut bytes)?;
        let Some(field) = schema.fields.get(&number) else {
            path.push(format!("<field {number}>"));
            unknown.push(path.join("."));
            path.pop();
            continue;
        };
        let (Some(nested), Some(payload)) = (field.message, payload) else {
            continue;
        };
        path.push(segment(field, counts.entry(number).or_default()));
        if path.len() <= MAX_DEPTH {
            scan(nested, payload, path, unknown)?;
        }
        path.pop();
    }
    Ok(())
}

fn segment(field: &FieldSchema, count: &mut usize) -> String {
    if !field.repeated {
        return field.name.clone();
    }
    let index = *count;
    *count += 1;
    format!("{}[{index}]", field.name)
}

/// Moves past one value and returns it when it is length-delimited.
fn skip(wire_type: WireType, bytes: &mut Bytes) -> Result<Option<Bytes>, prost::DecodeError> {
    let length = match wire_type {
        WireType::Varint => return decode_varint(bytes).map(|_| None),
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => {
            let length = decode_varint(bytes)?;
            usize::try_from(length).unwrap_or(usize::MAX)
        }
        WireType::StartGroup | WireType::EndGroup => usize::MAX,
    };
    if length > bytes.remaining() {
        // Let prost name the fault: decoding the same bytes fails there in its own words.
        bytes.advance(bytes.remaining());
        return Ok(None);
    }
    let value = bytes.split_to(length);
    Ok((wire_type == WireType::LengthDelimited).then_some(value))
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::pipeline::v1::{Pipeline, Step};
    use crate::run::v1::SubmitRunRequest;

    #[test]
    fn i9_an_unknown_field_number_is_refused_with_its_path() {
        let mut step = Step {
            name: "train".to_owned(),
            ..Step::default()
        }
        .encode_to_vec();
        step.extend([0xF8, 0x3F, 0x01]); // field 1023, varint 1
        let mut pipeline = Pipeline {
            name: "churn".to_owned(),
            steps: vec![Step::default()],
            ..Pipeline::default()
        }
        .encode_to_vec();
        pipeline.push(14 << 3 | 2);
        pipeline.push(u8::try_from(step.len()).expect("short"));
        pipeline.extend(step);
        let mut request = vec![3 << 3 | 2, u8::try_from(pipeline.len()).expect("short")];
        request.extend(pipeline);

        let status = check("windlass.run.v1.SubmitRunRequest", request.into()).expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        let violations = status.get_details_bad_request().expect("details").field_violations;
        assert_eq!(violations[0].field, "pipeline.steps[1].<field 1023>");
    }

    #[test]
    fn i11_many_unknown_fields_fit_into_headers() {
        let mut step = vec![];
        for _ in 0..100 {
            step.extend([0xF8, 0x3F, 0x01]); // field 1023, varint 1
        }
        let mut pipeline = vec![14 << 3 | 2, 0xAC, 0x02]; // 300 bytes
        pipeline.extend(step);
        let mut request = vec![3 << 3 | 2, 0xAF, 0x02]; // 303 bytes
        request.extend(pipeline);
        let status = check("windlass.run.v1.SubmitRunRequest", request.into()).expect_err("refused");
        assert!(status.details().len() < 5_000, "{}", status.details().len());
        assert!(status.message().len() <= 1_200, "{}", status.message().len());
    }

    #[test]
    fn a_known_message_passes() {
        let request = SubmitRunRequest {
            request_id: "a".to_owned(),
            ..SubmitRunRequest::default()
        };
        check("windlass.run.v1.SubmitRunRequest", request.encode_to_vec().into()).expect("known");
    }
}
