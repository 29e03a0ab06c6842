//! The embedded store through its trait: what was acknowledged is there, whatever happens.

mod commits;
mod deletions;
mod faults;
mod kills;
mod reads;
mod replay;
mod schedules;
mod script;
mod support;
