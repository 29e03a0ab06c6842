//! From method, path and query to what is asked for.

use std::collections::HashMap;

use http::Method;

use crate::error::ApiError;
use crate::resources::{self, Resource};

/// A request for objects.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) verb: &'static str,
    pub(super) resource: &'static Resource,
    /// `None` for all namespaces and for cluster-wide kinds.
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: String,
}

impl Target {
    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub(super) fn key(&self) -> crate::store::Key {
        crate::store::Key::new(self.resource, self.namespace(), self.name())
    }
}

/// Query parameters; of repeated ones the last.
#[derive(Debug, Default)]
pub(super) struct Query(HashMap<String, String>);

impl Query {
    pub(super) fn parse(uri: &http::Uri) -> Result<Self, ApiError> {
        axum::extract::Query::try_from_uri(uri)
            .map(|axum::extract::Query(map)| Self(map))
            .map_err(|error| ApiError::bad_request(format!("the query does not parse: {error}")))
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.text(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| ApiError::bad_request(format!("{name}: {text:?} is not a number"))),
        }
    }
}

/// What the path below an API version means.
pub(super) fn target(method: &Method, path: &str, query: &Query) -> Result<Target, ApiError> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Err(ApiError::no_such_path()),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
            (Some(*namespace), [&[*plural][..], rest].concat())
        }
        rest => (None, rest.to_vec()),
    };
    let (plural, name, subresource) = match rest.as_slice() {
        [plural] => (*plural, None, ""),
        [plural, name] => (*plural, Some(*name), ""),
        [plural, name, subresource] => (*plural, Some(*name), *subresource),
        _ => return Err(ApiError::no_such_path()),
    };
    let resource = resources::find(group, version, plural).ok_or_else(ApiError::no_such_path)?;
    if namespace.is_some() != resource.namespaced && (name.is_some() || namespace.is_some()) {
        return Err(ApiError::no_such_path());
    }
    Ok(Target {
        verb: verb(method, name.is_some(), subresource, query)?,
        resource,
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        subresource: subresource.to_owned(),
    })
}

fn verb(method: &Method, named: bool, subresource: &str, query: &Query) -> Result<&'static str, ApiError> {
    let watching = query.flag("watch");
    match (method.as_str(), named) {
        ("GET", true) if subresource == "log" => Ok("log"),
        ("GET", true) if !watching => Ok("get"),
        ("GET", _) if watching => Ok("watch"),
        ("GET", _) => Ok("list"),
        ("POST", false) => Ok("create"),
        ("POST", true) if subresource == "eviction" => Ok("evict"),
        ("PUT", true) => Ok("update"),
        ("PATCH", true) => Ok("patch"),
        ("DELETE", true) => Ok("delete"),
        ("DELETE", false) => Ok("deletecollection"),
        _ => Err(ApiError::not_covered(
            "the server does not allow this method on the requested resource",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, path: &str) -> Result<Target, ApiError> {
        let uri: http::Uri = path.parse().expect("a path");
        let query = Query::parse(&uri).expect("a query");
        target(&method.parse().expect("a method"), uri.path(), &query)
    }

    #[test]
    fn paths_become_targets() {
        for (method, path, verb, plural, namespace, name, sub) in [
            ("GET", "/api/v1/pods", "list", "pods", None, None, ""),
            ("GET", "/api/v1/pods?watch=true", "watch", "pods", None, None, ""),
            (
                "GET",
                "/api/v1/namespaces/a/pods/b/log",
                "log",
                "pods",
                Some("a"),
                Some("b"),
                "log",
            ),
            ("GET", "/api/v1/namespaces/a", "get", "namespaces", None, Some("a"), ""),
            (
                "PUT",
                "/api/v1/namespaces/a/status",
                "update",
                "namespaces",
                None,
                Some("a"),
                "status",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods/b/eviction",
                "evict",
                "pods",
                Some("a"),
                Some("b"),
                "eviction",
            ),
            (
                "DELETE",
                "/apis/batch/v1/namespaces/a/cronjobs",
                "deletecollection",
                "cronjobs",
                Some("a"),
                None,
                "",
            ),
        ] {
            let target = parse(method, path).expect(path);
            assert_eq!(target.verb, verb, "{path}");
            assert_eq!(target.resource.plural, plural, "{path}");
            assert_eq!(target.namespace.as_deref(), namespace, "{path}");
            assert_eq!(target.name.as_deref(), name, "{path}");
            assert_eq!(target.subresource, sub, "{path}");
        }
        for (method, path) in [
            ("GET", "/api/v1/widgets"),
            ("GET", "/api/v1/pods/a"),
            ("POST", "/api/v1/namespaces/a/pods/b"),
            ("GET", "/nothing"),
        ] {
            assert!(parse(method, path).is_err(), "{path}");
        }
    }
}
