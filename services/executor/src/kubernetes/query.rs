//! Paths with a query.

use std::fmt::Write as _;

/// Builds a path with a query.
#[derive(Debug)]
pub(crate) struct Query {
    path: String,
    separator: char,
}

impl Query {
    /// Without parameters.
    pub(crate) fn new(path: String) -> Self {
        Self { path, separator: '?' }
    }

    /// With one more parameter; its value is escaped.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.path.push(self.separator);
        self.separator = '&';
        self.path.push_str(name);
        self.path.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                self.path.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                write!(self.path, "%{byte:02X}").ok();
            }
        }
        self
    }

    /// The path with its query.
    pub(crate) fn build(self) -> String {
        self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        let path = Query::new("/api/v1/pods".to_owned())
            .with("labelSelector", "a/b=c,d in (1,2)")
            .with("limit", "5")
            .build();
        assert_eq!(
            path,
            "/api/v1/pods?labelSelector=a%2Fb%3Dc%2Cd%20in%20%281%2C2%29&limit=5"
        );
    }
}
