//! The Helm chart: what it renders, and the three services as pods of a real cluster.

mod cron_job;
mod installed;
mod rendered;
