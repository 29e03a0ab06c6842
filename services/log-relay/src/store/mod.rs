//! What is kept: live logs in the data folder, sealed logs in the archive.

pub(crate) mod archive;
pub(crate) mod block;
pub(crate) mod cache;
pub(crate) mod folder;
pub(crate) mod live;
pub(crate) mod manifest;
mod probe;
pub(crate) mod remote;
pub(crate) mod seal;
mod upload;
