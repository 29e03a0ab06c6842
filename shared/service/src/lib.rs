//! What every service shares: serving with health, reflection and drain, bearer tokens, the clock, back-off, signals,
//! limits.

mod auth;
mod backoff;
mod channel;
mod clock;
mod files;
mod serve;
mod signals;

pub use auth::{AuthLayer, AuthService, Identity, Tokens, TokensError, USER_HEADER};
pub use backoff::{Backoff, BackoffSettings};
pub use channel::{AuthenticatedChannel, Bearer, ChannelError, ChannelSettings, connect_lazy};
pub use clock::Clock;
pub use files::raise_open_files;
pub use serve::{ServeError, ServeSettings, serve};
pub use signals::stop_signal;
