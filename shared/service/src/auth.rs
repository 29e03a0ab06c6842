//! Bearer tokens: who may call a service, and as whom.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use sha2::{Digest as _, Sha256};
use tonic::body::Body;
use tonic::{Code, Status, metadata};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::{Layer, Service};

/// Metadata key under which a client names the person that it acts for.
pub const USER_HEADER: &str = "windlass-user";

/// Health is answered without a token: probes have none, and it tells nothing.
const OPEN_PREFIX: &str = "/grpc.health.v1.Health/";

/// Who called, put into a request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the token.
    pub token: String,
    /// Person named by the client, else the token's name.
    pub user: String,
}

/// The tokens that a service accepts, kept as SHA-256 digests.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Arc<BTreeMap<[u8; 32], String>>);

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("cannot read the token file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds no token.
    #[error("the token file {path} holds no token; write one line, `TOKEN` or `NAME:TOKEN`")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Tokens {
    /// From pairs of name and token.
    pub fn new<'a>(tokens: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(Arc::new(
            tokens
                .into_iter()
                .map(|(name, token)| (digest(token), name.to_owned()))
                .collect(),
        ))
    }

    /// From a file with a token a line, `TOKEN` or `NAME:TOKEN`; blank lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub fn from_file(path: &Path) -> Result<Self, TokensError> {
        let lines = token_lines(path)?;
        Ok(Self::new(
            lines.iter().map(|(name, token)| (name.as_str(), token.as_str())),
        ))
    }

    /// The first token of such a file, for a client.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub fn first_in_file(path: &Path) -> Result<String, TokensError> {
        let mut lines = token_lines(path)?;
        Ok(lines.swap_remove(0).1)
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Identity, Status> {
        let token = headers
            .get(http::header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")))
            .ok_or_else(|| refused("NO_TOKEN", "a token is required: send `authorization: Bearer TOKEN`"))?;
        let name = self
            .0
            .get(&digest(token.trim()))
            .ok_or_else(|| refused("UNKNOWN_TOKEN", "the token is not known here"))?;
        let user = headers
            .get(USER_HEADER)
            .and_then(|value| value.to_str().ok())
            .filter(|user| !user.is_empty());
        Ok(Identity {
            token: name.clone(),
            user: user.unwrap_or(name).to_owned(),
        })
    }
}

/// A refusal with a machine-readable reason.
fn refused(reason: &str, text: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "windlass", HashMap::new());
    Status::with_error_details(Code::Unauthenticated, text, details)
}

// Comparing digests of the presented token leaks no timing of the stored one.
fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn token_lines(path: &Path) -> Result<Vec<(String, String)>, TokensError> {
    let text = std::fs::read_to_string(path).map_err(|source| TokensError::Read {
        path: path.to_owned(),
        source,
    })?;
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(':').unwrap_or(("default", line)))
        .map(|(name, token)| (name.trim().to_owned(), token.trim().to_owned()))
        .collect();
    if lines.is_empty() {
        Err(TokensError::Empty { path: path.to_owned() })
    } else {
        Ok(lines)
    }
}

/// Refuses requests without a known token; without any configured tokens it lets all pass (`--insecure`).
#[derive(Clone, Debug)]
pub struct AuthLayer {
    tokens: Option<Tokens>,
}

impl AuthLayer {
    /// Accepts `tokens` only, or everybody when there are none.
    pub fn new(tokens: Option<Tokens>) -> Self {
        Self { tokens }
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService {
            tokens: self.tokens.clone(),
            inner,
        }
    }
}

/// See [`AuthLayer`].
#[derive(Clone, Debug)]
pub struct AuthService<S> {
    tokens: Option<Tokens>,
    inner: S,
}

impl<S, B> Service<Request<B>> for AuthService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if !request.uri().path().starts_with(OPEN_PREFIX) {
            match self.identify(request.headers()) {
                Ok(identity) => drop(request.extensions_mut().insert(identity)),
                Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
            }
        }
        Box::pin(self.inner.call(request))
    }
}

impl<S> AuthService<S> {
    fn identify(&self, headers: &HeaderMap) -> Result<Identity, Status> {
        match &self.tokens {
            Some(tokens) => tokens.identify(headers),
            None => {
                let user = headers
                    .get(USER_HEADER)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or("anonymous");
                Ok(Identity {
                    token: "anonymous".to_owned(),
                    user: user.to_owned(),
                })
            }
        }
    }
}

/// A text as metadata value; characters that headers cannot carry become `?`.
pub(crate) fn metadata_value(text: &str) -> Option<metadata::MetadataValue<metadata::Ascii>> {
    let printable: String = text
        .chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect();
    printable.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().expect("valid")))
            .collect()
    }

    #[test]
    fn only_a_known_token_passes() {
        let tokens = Tokens::new([("dev", "s3cret")]);
        let identity = tokens
            .identify(&headers(&[("authorization", "Bearer s3cret"), (USER_HEADER, "ana")]))
            .expect("known");
        assert_eq!(
            identity,
            Identity {
                token: "dev".to_owned(),
                user: "ana".to_owned()
            }
        );
        for (bad, reason) in [
            (vec![], "NO_TOKEN"),
            (vec![("authorization", "Bearer other")], "UNKNOWN_TOKEN"),
            (vec![("authorization", "Basic s3cret")], "NO_TOKEN"),
        ] {
            let status = tokens.identify(&headers(&bad)).expect_err("refused");
            assert_eq!(status.code(), Code::Unauthenticated);
            assert_eq!(status.get_details_error_info().expect("details").reason, reason);
        }
    }

    #[test]
    fn a_token_file_names_its_tokens() {
        let folder = std::env::temp_dir().join(format!("windlass-tokens-{}", std::process::id()));
        std::fs::write(&folder, "# comment\n\nana:one\ntwo\n").expect("written");
        assert_eq!(Tokens::first_in_file(&folder).expect("read"), "one");
        let tokens = Tokens::from_file(&folder).expect("read");
        assert_eq!(
            tokens
                .identify(&headers(&[("authorization", "Bearer two")]))
                .expect("known")
                .user,
            "default"
        );
        std::fs::write(&folder, "\n# nothing\n").expect("written");
        assert!(matches!(Tokens::from_file(&folder), Err(TokensError::Empty { .. })));
        std::fs::remove_file(&folder).expect("removed");
    }
}
