//! The forms in which clients want objects: whole, metadata only, or as rows of a table.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::route::Query;
use super::table;
use crate::error::ApiError;
use crate::resources::Resource;
use crate::store::{ListPage, Object};

/// The form of objects in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Whole,
    Metadata,
    Table(Include),
}

/// What a table row carries of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl View {
    pub(super) fn of(headers: &HeaderMap, query: &Query) -> Result<Self, ApiError> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("*/*");
        for kind in accept.split(',').map(str::trim) {
            let mut parameters = kind.split(';').map(str::trim);
            let media = parameters.next().unwrap_or_default();
            if !matches!(media, "application/json" | "*/*" | "application/*") {
                continue;
            }
            match parameters.find_map(|p| p.strip_prefix("as=")) {
                None => return Ok(Self::Whole),
                Some("Table") => return Ok(Self::Table(Include::of(query)?)),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => {
                    return Ok(Self::Metadata);
                }
                Some(_) => {}
            }
        }
        Err(ApiError::new(
            http::StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            "only the following media types are accepted: application/json",
        ))
    }

    /// One object.
    pub(super) fn object(self, object: &Object) -> Bytes {
        match self {
            Self::Whole => object.body.clone(),
            Self::Metadata => Bytes::from(metadata_of(&object.value()).to_string()),
            Self::Table(include) => {
                let rows = vec![table::row(&object.value(), include)];
                let meta = json!({"resourceVersion": object.version.to_string()});
                Bytes::from(table::table(object.key.resource, &meta, rows, true).to_string())
            }
        }
    }

    /// One object of a watch: tables repeat their columns only in the first event.
    pub(super) fn watched(self, object: &Object, first: bool) -> Bytes {
        match self {
            Self::Table(include) => {
                let rows = vec![table::row(&object.value(), include)];
                let meta = json!({"resourceVersion": object.version.to_string()});
                Bytes::from(table::table(object.key.resource, &meta, rows, first).to_string())
            }
            other => other.object(object),
        }
    }

    /// A list.
    pub(super) fn list(self, resource: &'static Resource, page: &ListPage) -> Bytes {
        let mut meta = json!({"resourceVersion": page.version.to_string()});
        if !page.token.is_empty() {
            meta["continue"] = json!(page.token);
            meta["remainingItemCount"] = json!(page.remaining);
        }
        match self {
            Self::Whole => {
                let kind = format!("{}List", resource.kind);
                join(
                    &kind,
                    &resource.api_version(),
                    &meta,
                    page.items.iter().map(|o| o.body.clone()),
                )
            }
            Self::Metadata => join(
                "PartialObjectMetadataList",
                "meta.k8s.io/v1",
                &meta,
                page.items.iter().map(|o| self.object(o)),
            ),
            Self::Table(include) => {
                let rows = page
                    .items
                    .iter()
                    .map(|o: &Arc<Object>| table::row(&o.value(), include))
                    .collect();
                Bytes::from(table::table(resource, &meta, rows, true).to_string())
            }
        }
    }
}

impl Include {
    fn of(query: &Query) -> Result<Self, ApiError> {
        match query.text("includeObject") {
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            "None" => Ok(Self::Nothing),
            other => Err(ApiError::bad_request(format!(
                "unrecognized includeObject value: {other:?}"
            ))),
        }
    }
}

/// The object without spec and status.
pub(super) fn metadata_of(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

fn join(kind: &str, version: &str, meta: &Value, items: impl Iterator<Item = Bytes>) -> Bytes {
    let mut out = BytesMut::new();
    let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{meta},\"items\":[");
    out.put_slice(head.as_bytes());
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&item);
    }
    out.put_slice(b"]}");
    out.freeze()
}
