//! Identifiers that are texts.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
    )*};
}

text! {
    /// A Kubernetes namespace.
    Namespace;
    /// Readable name of a run, unique in its namespace.
    RunName;
    /// Made by a client, so that a repeated request is recognised.
    RequestId;
    /// Uid of a cluster's `kube-system` namespace: the identity of the cluster.
    ClusterUid;
    /// Name of a cluster that pipelines use.
    ClusterAlias;
}
