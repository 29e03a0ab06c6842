//! Calls of RPCs that are known by their descriptors only.

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic::{Request, Status};
use tonic_types::StatusExt as _;
use windlass_service::AuthenticatedChannel;
use windlass_tests::raw_codec::Raw;

/// An RPC.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    /// `/package.Service/Method`.
    pub(crate) path: String,
    request: DescriptorProto,
}

/// All RPCs of the API.
pub(crate) fn rpcs() -> Vec<Rpc> {
    let set = FileDescriptorSet::decode(windlass_api::DESCRIPTORS).expect("descriptors");
    let message = |name: &str| {
        let find = |file: &prost_types::FileDescriptorProto| {
            let package = format!(".{}.", file.package());
            let short = name.strip_prefix(&package)?;
            file.message_type
                .iter()
                .find(|message| message.name() == short)
                .cloned()
        };
        set.file.iter().find_map(find).expect("the request's message")
    };
    let mut rpcs = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                rpcs.push(Rpc {
                    path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                    request: message(method.input_type()),
                });
            }
        }
    }
    rpcs
}

impl Rpc {
    /// Whether its requests have a field.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.request.field.iter().any(|known| known.name() == field)
    }

    /// A request with those of the fields (texts) that it has.
    pub(crate) fn request(&self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in fields {
            if let Some(field) = self.request.field.iter().find(|field| field.name() == *name) {
                let number = u32::try_from(field.number()).expect("a number");
                prost::encoding::string::encode(number, &(*value).to_owned(), &mut bytes);
            }
        }
        bytes
    }

    /// Calls it; the refusal, if it is one. What a stream says later is not waited for.
    pub(crate) async fn call(&self, channel: AuthenticatedChannel, request: Vec<u8>) -> Result<(), Status> {
        let mut client = tonic::client::Grpc::new(channel);
        client
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let path = self.path.parse().expect("a path");
        let requests = tokio_stream::once(request);
        client.streaming(Request::new(requests), path, Raw).await.map(drop)
    }
}

/// The machine-readable reason of a refusal.
pub(crate) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// A refusal with all its causes.
pub(crate) fn chain(status: &Status) -> String {
    let mut text = status.to_string();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
