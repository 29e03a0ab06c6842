//! What an API server's refusal of a call about a Secret means. Its text goes on to a client only where no value can be in it.

use windlass_api::dispatch::v1::{SecretFault as Fault, SecretRefusal};

use super::values::Values;
use crate::kubernetes::requests::is_other_uid;
use crate::kubernetes::{ApiError, Refusal};

/// A refusal with a text for people.
pub(super) fn refusal(fault: Fault, message: String) -> SecretRefusal {
    SecretRefusal {
        fault: fault.into(),
        message,
        ..SecretRefusal::default()
    }
}

/// What an error means to who waits.
pub(super) fn fault(error: &ApiError, values: &Values<'_>) -> SecretRefusal {
    match error {
        ApiError::NoAnswer(text) => refusal(Fault::Unreachable, values.spare(text)),
        ApiError::Malformed(text) => refusal(Fault::Unreachable, format!("its answer cannot be read: {text}")),
        ApiError::Refused(refused) => of_refusal(refused, values),
    }
}

fn of_refusal(refused: &Refusal, values: &Values<'_>) -> SecretRefusal {
    let lower = refused.message.to_ascii_lowercase();
    let told = || values.spare(&refused.message);
    let terminating = refused.causes.iter().any(|cause| cause == "NamespaceTerminating");
    match refused.code {
        _ if terminating => refusal(Fault::Denied, told()),
        403 => match missing_right(&lower) {
            Some(right) => SecretRefusal {
                right,
                ..refusal(Fault::RightMissing, String::new())
            },
            None if lower.contains("quota") => refusal(Fault::Quota, told()),
            None => refusal(Fault::Denied, told()),
        },
        404 if lower.starts_with("namespaces ") => refusal(Fault::NamespaceNotFound, String::new()),
        404 => refusal(Fault::NotFound, String::new()),
        409 if refused.reason == "AlreadyExists" => refusal(Fault::Exists, String::new()),
        409 | 422 if is_other_uid(refused) => refusal(Fault::Changed, String::new()),
        // Nothing was done, such as when a quota was counted by two at a time.
        409 => refusal(Fault::Unreachable, told()),
        410 => refusal(Fault::Expired, String::new()),
        // What is said of a body that does not parse may quote it.
        400 if !lower.contains("denied the request") => invalid(
            Vec::new(),
            "it is malformed; the API server's text is not passed on".to_owned(),
        ),
        400 => refusal(Fault::Denied, told()),
        413 => invalid(Vec::new(), "it is too large".to_owned()),
        422 => invalid(refused.fields.clone(), told()),
        _ => refusal(Fault::Unreachable, told()),
    }
}

fn invalid(mut fields: Vec<String>, message: String) -> SecretRefusal {
    if fields.is_empty() {
        fields.push("data".to_owned());
    }
    SecretRefusal {
        fields,
        ..refusal(Fault::Invalid, message)
    }
}

/// `create secrets`, of `… cannot create resource "secrets" in API group …`.
fn missing_right(message: &str) -> Option<String> {
    let (_, rest) = message.split_once(" cannot ")?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, _) = rest.split_once('"')?;
    (!verb.contains(' ')).then(|| format!("{verb} {resource}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn refused(code: u16, reason: &str, message: &str) -> SecretRefusal {
        let data = BTreeMap::from([("a".to_owned(), b"correct horse battery".to_vec())]);
        let error = ApiError::Refused(Box::new(Refusal {
            code,
            reason: reason.to_owned(),
            message: message.to_owned(),
            ..Refusal::default()
        }));
        fault(&error, &Values::of(&data))
    }

    #[test]
    fn k9_to_k12_refusals_by_their_reason() {
        let table = [
            (409, "AlreadyExists", "secrets \"a\" already exists", Fault::Exists),
            (
                409,
                "Conflict",
                "Operation cannot be fulfilled on resourcequotas \"q\"",
                Fault::Unreachable,
            ),
            (404, "NotFound", "secrets \"a\" not found", Fault::NotFound),
            (404, "NotFound", "namespaces \"ml\" not found", Fault::NamespaceNotFound),
            (
                403,
                "Forbidden",
                "secrets \"a\" is forbidden: exceeded quota: q, requested: secrets=1",
                Fault::Quota,
            ),
            (
                403,
                "Forbidden",
                "admission webhook \"p\" denied the request: no",
                Fault::Denied,
            ),
            (
                400,
                "BadRequest",
                "admission webhook \"p\" denied the request: no",
                Fault::Denied,
            ),
            (
                410,
                "Expired",
                "The provided continue parameter is too old",
                Fault::Expired,
            ),
            (413, "RequestEntityTooLarge", "limit is 3145728", Fault::Invalid),
            (
                422,
                "Invalid",
                "Secret \"a\" is invalid: data: Too long",
                Fault::Invalid,
            ),
            (429, "TooManyRequests", "later", Fault::Unreachable),
            (401, "Unauthorized", "Unauthorized", Fault::Unreachable),
            (
                503,
                "ServiceUnavailable",
                "etcdserver: leader changed",
                Fault::Unreachable,
            ),
        ];
        for (code, reason, message, fault) in table {
            assert_eq!(refused(code, reason, message).fault(), fault, "{code} {message}");
        }
        let forbidden = "secrets is forbidden: User \"system:serviceaccount:w:e\" cannot create resource \"secrets\" in API group \"\" in the namespace \"ml\"";
        let missing = refused(403, "Forbidden", forbidden);
        assert_eq!(
            (missing.fault(), missing.right.as_str()),
            (Fault::RightMissing, "create secrets")
        );
    }

    #[test]
    fn i8_no_text_with_a_part_of_a_value_goes_on() {
        let bad = "Secret in version \"v1\" cannot be handled as a Secret: ...|correct horse|...";
        for code in [400, 403, 409, 422, 500] {
            let told = refused(code, "", bad);
            assert!(!told.message.contains("horse"), "{code}: {told:?}");
        }
        let escaped = refused(
            400,
            "BadRequest",
            "illegal base64 data at input byte 3, error found in ...|\"co\\\\u0072rect\"|...",
        );
        assert!(!escaped.message.contains("rect"), "{escaped:?}");
    }
}
