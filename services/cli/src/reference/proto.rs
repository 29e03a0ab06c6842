//! Descriptors with their comments.

use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};

/// The descriptors of every package.
pub(super) fn pool() -> DescriptorPool {
    DescriptorPool::decode(windlass_api::DESCRIPTORS).unwrap_or_default()
}

/// The comment of the element at `path` of a file, as one line.
pub(super) fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let proto: &FileDescriptorProto = file.file_descriptor_proto();
    let locations = proto.source_code_info.as_ref().map(|info| info.location.as_slice());
    let location = locations
        .unwrap_or_default()
        .iter()
        .find(|location| location.path == path);
    let text = location
        .map(|location| location.leading_comments().trim().to_owned())
        .unwrap_or_default();
    text.lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

/// Anything with a place in a file.
pub(super) trait Commented {
    fn comment(&self) -> String;
}

impl Commented for MessageDescriptor {
    fn comment(&self) -> String {
        comment(&self.parent_file(), self.path())
    }
}

impl Commented for EnumDescriptor {
    fn comment(&self) -> String {
        comment(&self.parent_file(), self.path())
    }
}

impl Commented for FieldDescriptor {
    fn comment(&self) -> String {
        comment(&self.parent_file(), self.path())
    }
}

/// The type of a field for people; `link` makes a link of a message or enum.
pub(super) fn type_name(field: &FieldDescriptor, link: &dyn Fn(&str, &str) -> String) -> String {
    if field.is_map() {
        let kind = field.kind();
        if let Some(entry) = kind.as_message() {
            let value = type_name(&entry.map_entry_value_field(), link);
            return format!("map of {value}");
        }
    }
    let name = match field.kind() {
        Kind::Message(message) => link(message.full_name(), message.name()),
        Kind::Enum(descriptor) => link(descriptor.full_name(), descriptor.name()),
        Kind::String => "text".to_owned(),
        Kind::Bytes => "bytes".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Double | Kind::Float => "number".to_owned(),
        _ => "integer".to_owned(),
    };
    if field.is_list() {
        format!("list of {name}")
    } else {
        name
    }
}
