//! The Helm chart: what it renders, and the three services as pods of a real cluster.

mod installed;
mod rendered;
