//! Who calls a service, and whether it may: tokens, certificates, and the table of what RPCs need, enforced before any handler.

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

use crate::access::{AccessFile, AccessFileError, Denied, Need, Rights, Role, need};
use crate::tls::{Arrival, Peer};

/// Metadata key under which a client names the person that it acts for.
pub const USER_HEADER: &str = "windlass-user";

/// Who called, put into a request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the token.
    pub token: String,
    /// Person named by the client, else the token's name. A token with roles is one person's, who has its name.
    pub user: String,
    /// What it may do.
    pub rights: Rights,
}

/// The identity of a caller, with the role that its RPC needs in the namespace of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub identity: Identity,
    /// What the RPC needs.
    pub role: Role,
}

impl Caller {
    /// Whether the RPC may be carried out in a namespace.
    ///
    /// # Errors
    /// When the role is missing there, and whether the caller sees the namespace at all.
    pub fn check(&self, namespace: &str) -> Result<(), Denied> {
        self.identity.rights.check(self.role, namespace)
    }
}

/// Which callers a service knows.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody may do everything (`--insecure`, or a listener of this machine).
    Open,
    /// Whoever has one of these tokens may do everything.
    Tokens(Tokens),
    /// Tokens with roles.
    Roles(AccessFile),
}

impl Access {
    /// From the flags: roles when there is an access file, else the tokens of the token file, else nobody is asked.
    ///
    /// # Errors
    /// When a file cannot be read or used. Must be called inside a tokio runtime.
    pub fn open(access_file: Option<&Path>, token_file: Option<&Path>) -> Result<Self, AccessError> {
        Ok(match (access_file, token_file) {
            (Some(path), _) => Self::Roles(AccessFile::open(path)?),
            (None, Some(path)) => Self::Tokens(Tokens::from_file(path)?),
            (None, None) => Self::Open,
        })
    }

    /// Whether nobody is asked.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Identity, Status> {
        match self {
            Self::Open => Ok(Identity {
                token: "anonymous".to_owned(),
                user: named(headers).unwrap_or("anonymous").to_owned(),
                rights: Rights::Everything,
            }),
            Self::Tokens(tokens) => tokens.identify(headers),
            Self::Roles(file) => {
                let (name, rights) = file.find(&digest(presented(headers)?)).ok_or_else(unknown)?;
                Ok(Identity {
                    user: name.clone(),
                    token: name,
                    rights,
                })
            }
        }
    }
}

/// Files that say who is known, but cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// See [`TokensError`].
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// See [`AccessFileError`].
    #[error(transparent)]
    File(#[from] AccessFileError),
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
        let name = self.0.get(&digest(presented(headers)?)).ok_or_else(unknown)?;
        Ok(Identity {
            token: name.clone(),
            user: named(headers).unwrap_or(name).to_owned(),
            rights: Rights::Everything,
        })
    }
}

/// The token of a request.
fn presented(headers: &HeaderMap) -> Result<&str, Status> {
    headers
        .get(http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")))
        .map(str::trim)
        .ok_or_else(|| unauthenticated("NO_TOKEN", "a token is required: send `authorization: Bearer TOKEN`"))
}

/// The person that a client says it acts for.
fn named(headers: &HeaderMap) -> Option<&str> {
    let user = headers.get(USER_HEADER).and_then(|value| value.to_str().ok());
    user.filter(|user| !user.is_empty())
}

fn unknown() -> Status {
    unauthenticated("UNKNOWN_TOKEN", "the token is not known here")
}

fn unauthenticated(reason: &str, text: &str) -> Status {
    refused(Code::Unauthenticated, reason, text, HashMap::new())
}

/// A refusal with a machine-readable reason.
fn refused(code: Code, reason: &str, text: &str, metadata: HashMap<String, String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, "windlass", metadata);
    Status::with_error_details(code, text, details)
}

// Comparing digests of the presented token leaks no timing of the stored one.
fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The SHA-256 of a token in hexadecimal digits, as access files name it.
pub fn token_digest(token: &str) -> String {
    hex::encode(digest(token.trim()))
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

/// Refuses what the table of needs does not allow to a caller. What depends on a request's namespace is left to its handler, which
/// finds a [`Caller`].
#[derive(Clone, Debug)]
pub struct AuthLayer {
    access: Access,
    certificates: bool,
}

impl AuthLayer {
    /// Knows the callers of `access`; with `certificates`, services must show one, and may do without a token.
    pub fn new(access: Access, certificates: bool) -> Self {
        Self { access, certificates }
    }

    fn admit<B>(&self, request: &mut Request<B>) -> Result<(), Status> {
        let path = request.uri().path();
        let need = need(path).ok_or_else(|| {
            let text = format!("{path} is not known here");
            refused(Code::Unimplemented, "UNKNOWN_RPC", &text, HashMap::new())
        })?;
        if need == Need::Nothing {
            return Ok(());
        }
        let arrival = request.extensions().get::<Peer>().map(|peer| peer.arrival);
        if arrival == Some(Arrival::PlainWhereTls) {
            let text = "this port speaks TLS: dial it with https://";
            return Err(refused(Code::FailedPrecondition, "TLS_REQUIRED", text, HashMap::new()));
        }
        let certificate = arrival == Some(Arrival::Tls { certificate: true });
        let identity =
            if self.certificates && certificate && !request.headers().contains_key(http::header::AUTHORIZATION) {
                Identity {
                    token: "certificate".to_owned(),
                    user: "certificate".to_owned(),
                    rights: Rights::service(),
                }
            } else {
                self.access.identify(request.headers())?
            };
        match need {
            Need::Nothing | Need::Known => {}
            Need::Service if self.certificates && !certificate => {
                return Err(unauthenticated(
                    "NO_CLIENT_CERTIFICATE",
                    "executors and log relays must show a certificate here: give --tls-client-cert and --tls-client-key",
                ));
            }
            Need::Service if !identity.rights.is_service() => return Err(lacks(&identity, "service")),
            Need::Service => {}
            Need::InNamespace(role) => {
                if !identity.rights.has_somewhere(role) {
                    return Err(lacks(&identity, role.name()));
                }
                let identity = identity.clone();
                request.extensions_mut().insert(Caller { identity, role });
            }
        }
        request.extensions_mut().insert(identity);
        Ok(())
    }
}

/// The refusal of a caller who has a role nowhere.
fn lacks(identity: &Identity, role: &str) -> Status {
    let text = format!("the role {role} is missing: {} has it nowhere", identity.token);
    let metadata = HashMap::from([("role".to_owned(), role.to_owned())]);
    refused(Code::PermissionDenied, "ROLE_MISSING", &text, metadata)
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService {
            layer: self.clone(),
            inner,
        }
    }
}

/// See [`AuthLayer`].
#[derive(Clone, Debug)]
pub struct AuthService<S> {
    layer: AuthLayer,
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
        match self.layer.admit(&mut request) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
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
                user: "ana".to_owned(),
                rights: Rights::Everything,
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
