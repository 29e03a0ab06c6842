//! End-to-end, fault and scale tests: what they share.

pub mod audit;
pub mod bare;
pub mod binaries;
pub mod chart;
pub mod client;
mod containers;
pub mod deployment;
pub mod iris;
pub mod log_proxy;
pub mod log_reader;
pub mod object_store;
mod options;
pub mod pipelines;
pub mod ports;
pub mod raw_codec;
pub mod real_cluster;
pub mod real_scale;
pub mod scene;
pub mod tls;
pub mod usage;
pub mod wait;
