//! Page tokens: opaque, and bound to the request that they continue.

use sha2::{Digest as _, Sha256};

/// Bytes of the scope in a token.
const SCOPE_BYTES: usize = 8;

/// What a page token is bound to: everything in the request that decides what is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageScope([u8; SCOPE_BYTES]);

/// Why a page token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageTokenError {
    /// It was not made by this server.
    #[error("page_token is not a token of this server; start without one")]
    Malformed,
    /// It continues another request.
    #[error("page_token belongs to a request with another namespace, run or filter; start without one")]
    OtherRequest,
}

impl PageScope {
    /// The scope of a request with these parts.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let mut scope = [0; SCOPE_BYTES];
        scope.copy_from_slice(&hash.finalize()[..SCOPE_BYTES]);
        Self(scope)
    }

    /// A token for what follows `position`.
    pub(crate) fn token(self, position: &[u8]) -> String {
        hex::encode([&self.0[..], position].concat())
    }

    /// The position in a token, which is a text; empty for an empty one.
    ///
    /// # Errors
    /// As [`Self::position`].
    pub(crate) fn text(self, token: &str) -> Result<String, PageTokenError> {
        if token.is_empty() {
            return Ok(String::new());
        }
        String::from_utf8(self.bytes(token)?).map_err(|_| PageTokenError::Malformed)
    }

    /// The position in a token; `None` for an empty one.
    ///
    /// # Errors
    /// When the token is malformed or belongs to another request.
    pub(crate) fn position<const N: usize>(self, token: &str) -> Result<Option<[u8; N]>, PageTokenError> {
        if token.is_empty() {
            return Ok(None);
        }
        let position = self.bytes(token)?.try_into();
        position.map(Some).map_err(|_| PageTokenError::Malformed)
    }

    fn bytes(self, token: &str) -> Result<Vec<u8>, PageTokenError> {
        let bytes = hex::decode(token).map_err(|_| PageTokenError::Malformed)?;
        let (scope, position) = bytes.split_at_checked(SCOPE_BYTES).ok_or(PageTokenError::Malformed)?;
        if scope != self.0 {
            return Err(PageTokenError::OtherRequest);
        }
        Ok(position.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_continues_only_its_own_request() {
        let scope = PageScope::of(&["runs", "ml", "state=FAILED"]);
        let token = scope.token(&7_u32.to_be_bytes());
        assert_eq!(scope.position(&token), Ok(Some(7_u32.to_be_bytes())));
        assert_eq!(scope.position::<4>(""), Ok(None));
        let other = PageScope::of(&["runs", "mls", "tate=FAILED"]);
        assert_eq!(other.position::<4>(&token), Err(PageTokenError::OtherRequest));
        assert_eq!(scope.text(&scope.token(b"after")), Ok("after".to_owned()));
        assert_eq!(scope.text(""), Ok(String::new()));
        assert_eq!(scope.position::<16>(&token), Err(PageTokenError::Malformed));
        assert_eq!(scope.position::<4>("what?"), Err(PageTokenError::Malformed));
        assert_eq!(scope.position::<4>("ab"), Err(PageTokenError::Malformed));
    }
}
