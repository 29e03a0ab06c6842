//! Everything that is said to a Kubernetes API server.

pub mod accounts;
pub mod api;
pub mod checks;
mod connect;
pub mod owned;
mod query;
pub mod reflector;
pub mod refusal;
mod renewing;
pub mod requests;
pub mod secrets;

pub use api::{Api, ApiError, Call, Refusal, Stream};
pub use connect::{ApiServerArgs, ConnectError, connect, connect_to};
pub(crate) use query::Query;
