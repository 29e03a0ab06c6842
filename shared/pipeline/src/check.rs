//! Checks of single fields. They see texts after substitution, so that a parameter's value is checked where it lands.

mod env;
mod fit;
mod fragments;
mod pod;
mod step;
mod syntax;

pub use env::is_data_key;
pub(crate) use fit::{Provided, check_fit};
pub(crate) use pod::check_quantities;
pub(crate) use step::check_part;
pub use syntax::is_dns_subdomain;
pub(crate) use syntax::{
    check_annotations, check_labels, is_dns_label, is_place_reserved, is_step_name, is_variable_reserved, mount_place,
    relative_path,
};
