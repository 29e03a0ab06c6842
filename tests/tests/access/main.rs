//! Who may do what: every RPC for every kind of caller, roles in namespaces, and certificates between the services.

mod authority;
mod entries;
mod matrix;
mod namespaces;
mod raw;
mod tls;
