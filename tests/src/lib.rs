//! End-to-end, fault and scale tests: what they share.

pub mod audit;
pub mod bare;
pub mod binaries;
pub mod chart;
pub mod client;
mod containers;
pub mod deployment;
pub mod iris;
pub mod object_store;
mod options;
pub mod log_proxy;
pub mod log_reader;
pub mod pipelines;
pub mod ports;
pub mod real_cluster;
pub mod real_scale;
pub mod tls;
pub mod scene;
pub mod usage;
pub mod wait;
