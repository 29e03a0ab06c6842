//! Conversions between messages and the domain.

mod pipeline;
mod values;

pub use pipeline::{pipeline_from_proto, pipeline_to_proto};
pub use values::{
    duration_to_proto, json_from_value, millis_from_proto, parameters_from_proto, parameters_to_proto,
    std_duration_from_proto, timestamp_from_proto, timestamp_to_proto, value_from_json,
};
