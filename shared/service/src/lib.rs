//! What every service shares: serving with health, reflection and drain, TLS, tokens and roles, the clock, back-off, signals,
//! limits.

mod access;
mod auth;
mod backoff;
mod channel;
mod clock;
mod files;
mod lock_file;
mod reload;
mod serve;
mod signals;
mod tls;

pub use access::{
    ALL_NAMESPACES, AccessFile, AccessFileError, Denied, Grants, Missing, NEEDS, Need, Rights, Role, Visible, need,
};
pub use auth::{
    Access, AccessError, AuthLayer, AuthService, Caller, Identity, Tokens, TokensError, USER_HEADER, token_digest,
};
pub use backoff::{Backoff, BackoffSettings};
pub use channel::{AuthenticatedChannel, Bearer, ChannelError, ChannelSettings, connect_lazy};
pub use clock::Clock;
pub use files::raise_open_files;
pub use lock_file::{Lock, LockFile};
pub use reload::ReadError;
pub use serve::{ServeError, ServeSettings, serve};
pub use signals::stop_signal;
pub use tls::{ClientTls, DialError, ServerTls, TlsArgs, TlsError};
