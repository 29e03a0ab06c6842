//! Live progress: a pure model of the run, and two ways of showing it.

pub mod failure;
pub mod model;
pub mod plain;
pub mod rows;
pub mod terminal;
