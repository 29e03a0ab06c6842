//! The log relay: it reads each container's log once, through the executors, keeps it, and streams it to any number of clients.
//!
//! It knows neither cluster credentials nor secret values, and never asks Kubernetes itself: executors dial in and feed it, masked.
//! The scheduler says which containers are its own and is told when their logs are sealed.

mod config;
pub mod cursor;
mod error;
mod feed;
mod follow;
mod hub;
mod key;
mod metrics;
mod outbox;
pub mod server;
mod store;
mod tail;
mod writer;

pub use config::Config;
pub use store::archive::ArchiveError;
pub use store::folder::FolderError;
pub use store::remote::ArchiveUrlError;
