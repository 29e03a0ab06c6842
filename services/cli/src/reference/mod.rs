//! The generated references: what the code says, so that they cannot disagree with it.

mod api;
mod cli;
mod file;
mod proto;

pub(crate) use api::api;
pub(crate) use cli::cli;
pub(crate) use file::file;
