//! Parameters of a submission.

use std::collections::{BTreeMap, BTreeSet};

use super::{Limits, ParameterValues};
use crate::check::is_variable_reserved;
use crate::path::Path;
use crate::substitute::{is_name, references};
use crate::violation::{Code, Violation, Violations};
use crate::{Pipeline, Scalar};

/// The value of every declared parameter.
pub(super) fn resolve(
    pipeline: &Pipeline,
    given: &ParameterValues,
    violations: &mut Violations,
) -> BTreeMap<String, Scalar> {
    let mut values = BTreeMap::new();
    let mut declared = BTreeSet::new();
    let list = Path::root().field("parameters");
    if pipeline.parameters.len() > Limits::PARAMETERS {
        let message = format!(
            "{} parameters are more than {}",
            pipeline.parameters.len(),
            Limits::PARAMETERS
        );
        violations.add(list.to_string(), Code::Limit, message);
    }
    for (index, parameter) in pipeline.parameters.iter().enumerate() {
        let path = list.index(index);
        let name = parameter.name.as_str();
        check_name(name, "a parameter", &path.field("name"), violations);
        if !name.is_empty() && !declared.insert(name) {
            let message = format!("the parameter {name} is declared twice");
            violations.add(path.field("name").to_string(), Code::Duplicate, message);
        }
        let wanted = parameter.parameter_type.unwrap_or_default();
        if let Some(default) = &parameter.default
            && default.parameter_type() != wanted
        {
            let message = format!(
                "the default is a {}, the parameter a {wanted}",
                default.parameter_type()
            );
            violations.add(path.field("default").to_string(), Code::WrongType, message);
        }
        if let Some(Scalar::String(text)) = &parameter.default {
            check_literal(text, &path.field("default"), violations);
        }
        match given.get(name).or(parameter.default.as_ref()) {
            Some(value) if given.contains_key(name) && value.parameter_type() != wanted => {
                let message = format!(
                    "the parameter {name} is a {wanted}, the given value a {}",
                    value.parameter_type()
                );
                violations.add(format!("parameters.{name}"), Code::WrongType, message);
            }
            Some(value) => {
                let path = || match given.contains_key(name) {
                    true => format!("parameters.{name}"),
                    false => path.field("default").to_string(),
                };
                let is_good = check_value(value, path, violations);
                values.insert(name.to_owned(), if is_good { value.clone() } else { Scalar::default() });
            }
            None if name.is_empty() => {}
            None => {
                let message = format!("the parameter {name} has no default: a value must be given");
                violations.add(path.to_string(), Code::Missing, message);
                // Later checks see some value instead of one more problem for each use.
                values.insert(name.to_owned(), Scalar::default());
            }
        }
    }
    for name in given.keys().filter(|name| !declared.contains(name.as_str())) {
        let message = unknown(name, &declared, violations);
        violations.add(format!("parameters.{name}"), Code::UnknownParameter, message);
    }
    let size: usize = values.iter().map(|(name, value)| name.len() + size(value)).sum();
    if size > Limits::PARAMETER_BYTES {
        let message = format!(
            "the parameters have {size} bytes together, more than {}; hand large values over in files",
            Limits::PARAMETER_BYTES
        );
        violations.add(list.to_string(), Code::Limit, message);
    }
    values
}

/// Checks a value of a parameter or of a matrix axis, and whether it can be worked with.
pub(super) fn check_value(value: &Scalar, path: impl FnOnce() -> String, violations: &mut Violations) -> bool {
    if !value.is_exact() {
        let message = format!("a whole number as large as {value} is not kept exactly; put it in quotes");
        violations.add(path(), Code::BadValue, message);
        return false;
    }
    let size = size(value);
    if size > Limits::VALUE_BYTES {
        let message = format!(
            "the value has {size} bytes, more than {}; hand large values over in files",
            Limits::VALUE_BYTES
        );
        violations.add(path(), Code::Limit, message);
        return false;
    }
    true
}

fn size(value: &Scalar) -> usize {
    match value {
        Scalar::String(text) => text.len(),
        Scalar::Number(_) | Scalar::Boolean(_) => 0,
    }
}

/// Refuses references in a text in which nothing is substituted.
pub(super) fn check_literal(text: &str, path: &Path<'_>, violations: &mut Violations) {
    if let Some(name) = references(text).next() {
        let message = format!("$({name}) is not substituted here; write the text itself");
        violations.add(path.to_string(), Code::BadValue, message);
    }
}

/// Checks the name of a parameter or of a matrix axis.
pub(super) fn check_name(name: &str, what: &str, path: &Path<'_>, violations: &mut Violations) {
    if name.is_empty() {
        violations.add(path.to_string(), Code::Missing, format!("{what} needs a name"));
    } else if !is_name(name) || name.len() > Limits::NAME_BYTES {
        let message = format!("`{name}` is no name: at most 128 letters, digits and `_`, not starting with a digit");
        violations.add(path.to_string(), Code::BadValue, message);
    } else if is_variable_reserved(name) {
        let message = "names that start with WINDLASS_ are set by Windlass";
        violations.add(path.to_string(), Code::Reserved, message);
    }
}

fn unknown(name: &str, declared: &BTreeSet<&str>, violations: &Violations) -> String {
    let hint = violations.hint(name, declared.iter().copied());
    format!("the pipeline declares no parameter {name}{hint}")
}

/// Reads values that were given as texts, as the command line does, by the types that the pipeline declares.
///
/// # Errors
/// Unknown parameters, and texts that are no values of their type.
pub fn parse_parameters(
    pipeline: &Pipeline,
    texts: &BTreeMap<String, String>,
) -> Result<ParameterValues, Vec<Violation>> {
    let mut violations = Violations::default();
    let mut values = BTreeMap::new();
    let declared: BTreeSet<&str> = pipeline
        .parameters
        .iter()
        .map(|parameter| parameter.name.as_str())
        .collect();
    for (name, text) in texts {
        let path = format!("parameters.{name}");
        let Some(parameter) = pipeline.parameters.iter().find(|parameter| parameter.name == *name) else {
            let message = unknown(name, &declared, &violations);
            violations.add(path, Code::UnknownParameter, message);
            continue;
        };
        let wanted = parameter.parameter_type.unwrap_or_default();
        match Scalar::parse(text, wanted) {
            Ok(value) => {
                values.insert(name.clone(), value);
            }
            Err(text) => violations.add(path, Code::WrongType, format!("`{text}` is no {wanted}")),
        }
    }
    violations.into_result(values)
}
