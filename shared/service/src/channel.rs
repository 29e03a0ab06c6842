//! Client channels that carry a bearer token, over TLS where the address says so.

use std::fmt;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::auth::{USER_HEADER, metadata_value};
use crate::tls::{ClientTls, TlsError};

/// A channel whose requests carry a token; generated clients take it as it is.
pub type AuthenticatedChannel = InterceptedService<Channel, Bearer>;

/// Where and as whom to call.
#[derive(Clone, Default)]
pub struct ChannelSettings {
    /// Address: `https://host:port` with TLS, `http://host:port` or `host:port` without.
    pub address: String,
    /// Bearer token, when the server wants one.
    pub token: Option<String>,
    /// Person that the client acts for.
    pub user: Option<String>,
    /// Whom to trust at an `https://` address, and what to show there.
    pub tls: ClientTls,
}

impl fmt::Debug for ChannelSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token is in no log.
        formatter
            .debug_struct("ChannelSettings")
            .field("address", &self.address)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("user", &self.user)
            .field("tls", &self.tls)
            .finish()
    }
}

/// An address or token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The address does not parse.
    #[error("{address:?} is not an address such as http://127.0.0.1:7610")]
    Address {
        /// The address.
        address: String,
    },
    /// The token has characters that a header cannot carry.
    #[error("the token has characters that cannot be sent")]
    Token,
    /// Certificates that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Adds the token and the user to every request.
#[derive(Clone, Debug)]
pub struct Bearer {
    token: Option<MetadataValue<Ascii>>,
    user: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(user) = &self.user {
            request.metadata_mut().insert(USER_HEADER, user.clone());
        }
        Ok(request)
    }
}

/// A channel that connects at its first request and again after each loss.
///
/// # Errors
/// When the address or the token cannot be used. Whether anybody listens shows at the first request, as UNAVAILABLE.
pub fn connect_lazy(settings: &ChannelSettings) -> Result<AuthenticatedChannel, ChannelError> {
    let bad_address = || ChannelError::Address {
        address: settings.address.clone(),
    };
    let address = if settings.address.contains("://") {
        settings.address.clone()
    } else {
        format!("http://{}", settings.address)
    };
    let endpoint = Endpoint::from_shared(address).map_err(|_| bad_address())?;
    if endpoint.uri().authority().is_none() {
        return Err(bad_address());
    }
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024);
    let channel = match endpoint.uri().scheme_str() {
        Some("https") => {
            // What is wrong with the files is said now, not at the first request.
            settings.tls.config()?;
            let tls = settings.tls.clone();
            endpoint.connect_with_connector_lazy(tower::service_fn(move |uri| tls.clone().dial(uri)))
        }
        Some("http") => endpoint.connect_lazy(),
        _ => return Err(bad_address()),
    };
    let token = match &settings.token {
        Some(token) => {
            let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| ChannelError::Token)?;
            value.set_sensitive(true);
            Some(value)
        }
        None => None,
    };
    let user = settings.user.as_deref().and_then(metadata_value);
    Ok(InterceptedService::new(channel, Bearer { token, user }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_needs_no_scheme_and_nonsense_is_refused() {
        let settings = |address: &str| ChannelSettings {
            address: address.to_owned(),
            ..ChannelSettings::default()
        };
        assert!(connect_lazy(&settings("127.0.0.1:7610")).is_ok());
        assert!(connect_lazy(&settings("http://127.0.0.1:7610")).is_ok());
        assert!(matches!(
            connect_lazy(&settings("http://")),
            Err(ChannelError::Address { .. })
        ));
        assert!(matches!(
            connect_lazy(&settings("a b")),
            Err(ChannelError::Address { .. })
        ));
    }

    #[test]
    fn i8_a_token_is_not_printed() {
        let settings = ChannelSettings {
            token: Some("hush".to_owned()),
            ..ChannelSettings::default()
        };
        let text = format!("{settings:?}");
        assert!(text.contains("***") && !text.contains("hush"), "{text}");
    }
}
