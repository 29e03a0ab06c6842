//! Who may do what: roles in namespaces, and what each RPC needs.

mod file;
mod table;

use std::sync::Arc;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

pub use file::{AccessFile, AccessFileError};
pub use table::{NEEDS, Need, need};

/// The namespaces of a grant, `*` for all.
pub const ALL_NAMESPACES: &str = "*";

/// What a caller may do in a namespace; each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at runs and their logs.
    Viewer,
    /// Also submit and cancel.
    Submitter,
    /// Also delete, and declare attempts dead.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Submitter, Self::Admin];

    /// As files and errors name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Admin => "admin",
        }
    }
}

/// What a caller may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// All: the caller owns the installation.
    Everything,
    /// What was granted.
    Granted(Arc<Grants>),
}

/// Rights that were granted one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// It is a service: an executor or a log relay.
    pub service: bool,
    /// A role in a namespace, or in all of them.
    pub roles: Vec<(Role, String)>,
}

/// The namespaces that a caller sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visible {
    /// All.
    All,
    /// These.
    Only(Vec<String>),
}

/// Why a caller may not do something in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It does not see the namespace: what is in it is not there.
    Hidden(Missing),
    /// It sees the namespace, but may not do this.
    Missing(Missing),
}

/// A role that a caller would need.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the role {role} is missing in namespace {namespace}")]
pub struct Missing {
    /// The role.
    pub role: &'static str,
    /// Where.
    pub namespace: String,
}

impl Rights {
    /// Those of a service.
    pub fn service() -> Self {
        Self::Granted(Arc::new(Grants {
            service: true,
            roles: Vec::new(),
        }))
    }

    /// Whether the caller may act as an executor or relay.
    pub fn is_service(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Granted(grants) => grants.service,
        }
    }

    /// The highest role in a namespace.
    pub fn role_in(&self, namespace: &str) -> Option<Role> {
        match self {
            Self::Everything => Some(Role::Admin),
            Self::Granted(grants) => {
                let here = |of: &str| of == ALL_NAMESPACES || of == namespace;
                let roles = grants.roles.iter().filter(|(_, of)| here(of));
                roles.map(|(role, _)| *role).max()
            }
        }
    }

    /// Whether the caller has a role somewhere.
    pub fn has_somewhere(&self, role: Role) -> bool {
        match self {
            Self::Everything => true,
            Self::Granted(grants) => grants.roles.iter().any(|(granted, _)| *granted >= role),
        }
    }

    /// What lists over all namespaces show.
    pub fn visible(&self) -> Visible {
        let Self::Granted(grants) = self else {
            return Visible::All;
        };
        let mut names: Vec<_> = grants.roles.iter().map(|(_, namespace)| namespace.clone()).collect();
        if names.iter().any(|name| name == ALL_NAMESPACES) {
            return Visible::All;
        }
        names.sort_unstable();
        names.dedup();
        Visible::Only(names)
    }

    /// Whether the caller has a role in a namespace.
    ///
    /// # Errors
    /// When it has not, and whether it sees the namespace at all.
    pub fn check(&self, role: Role, namespace: &str) -> Result<(), Denied> {
        let missing = || Missing {
            role: role.name(),
            namespace: namespace.to_owned(),
        };
        match self.role_in(namespace) {
            Some(held) if held >= role => Ok(()),
            Some(_) => Err(Denied::Missing(missing())),
            None => Err(Denied::Hidden(missing())),
        }
    }
}

impl From<Missing> for Status {
    fn from(missing: Missing) -> Self {
        let metadata = [
            ("role".to_owned(), missing.role.to_owned()),
            ("namespace".to_owned(), missing.namespace.clone()),
        ];
        let details = ErrorDetails::with_error_info("ROLE_MISSING", "windlass", metadata);
        Status::with_error_details(Code::PermissionDenied, missing.to_string(), details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_holds_where_it_was_granted_and_includes_the_lesser_ones() {
        let rights = Rights::Granted(Arc::new(Grants {
            service: false,
            roles: vec![(Role::Submitter, "a".to_owned()), (Role::Viewer, "b".to_owned())],
        }));
        assert_eq!(rights.check(Role::Viewer, "a"), Ok(()));
        assert_eq!(rights.check(Role::Submitter, "a"), Ok(()));
        assert!(matches!(rights.check(Role::Admin, "a"), Err(Denied::Missing(_))));
        assert!(matches!(rights.check(Role::Submitter, "b"), Err(Denied::Missing(_))));
        assert!(matches!(rights.check(Role::Viewer, "c"), Err(Denied::Hidden(_))));
        // A request that names the sign for all namespaces has no role in it by having one somewhere.
        assert!(matches!(rights.check(Role::Viewer, "*"), Err(Denied::Hidden(_))));
        assert_eq!(rights.visible(), Visible::Only(vec!["a".to_owned(), "b".to_owned()]));
        assert!(!rights.is_service());
        assert_eq!(Rights::service().visible(), Visible::Only(Vec::new()));
    }
}
