//! What a refused create means: waiting, or the end (design, part 3).

use super::api::{ApiError, Refusal};

/// What a refusal of a create means for its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is tried again, with back-off per namespace.
    Wait(&'static str),
    /// It never can succeed.
    Reject(&'static str),
}

/// Judges a refused create whose pod a quorum read did not find.
pub fn judge(error: &ApiError) -> Verdict {
    match error {
        ApiError::NoAnswer(_) => Verdict::Wait("ApiUnavailable"),
        ApiError::Malformed(_) => Verdict::Wait("ApiUnreadable"),
        ApiError::Refused(refusal) => judge_refusal(refusal),
    }
}

fn judge_refusal(refusal: &Refusal) -> Verdict {
    let message = refusal.message.to_ascii_lowercase();
    let terminating = refusal.causes.iter().any(|cause| cause == "NamespaceTerminating")
        || message.contains("because it is being terminated");
    match refusal.code {
        _ if terminating => Verdict::Reject("NamespaceTerminating"),
        400 if denied_by_webhook(&message) => Verdict::Reject("PolicyDenied"),
        400 => Verdict::Reject("BadRequest"),
        404 => Verdict::Reject("NamespaceNotFound"),
        413 => Verdict::Reject("TooLarge"),
        422 => Verdict::Reject("Invalid"),
        401 => Verdict::Wait("Unauthorized"),
        403 => forbidden(&message),
        409 => Verdict::Wait("Conflict"),
        429 => Verdict::Wait("TooManyRequests"),
        // Internal errors carry the name of a webhook that cannot be reached.
        _ if message.contains("webhook") => Verdict::Wait("WebhookUnreachable"),
        _ => Verdict::Wait("ApiUnavailable"),
    }
}

/// Quotas, missing rights and policies are all 403 `Forbidden`; only their text tells them apart.
fn forbidden(message: &str) -> Verdict {
    if message.contains("exceeded quota") || message.contains("failed quota") || message.contains("insufficient quota")
    {
        Verdict::Wait("QuotaExceeded")
    } else if message.contains("status unknown for quota") || message.contains("not yet ready to handle request") {
        Verdict::Wait("QuotaUnknown")
    } else if message.contains("cannot create resource") || message.contains("no rbac policy") {
        Verdict::Wait("Forbidden")
    } else if message.contains("error looking up service account") {
        // The account may be created later, like any other right.
        Verdict::Wait("ServiceAccountNotFound")
    } else {
        Verdict::Reject("PolicyDenied")
    }
}

fn denied_by_webhook(message: &str) -> bool {
    message.contains("denied the request")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, message: &str) -> Verdict {
        judge(&ApiError::Refused(Box::new(Refusal {
            code,
            message: message.to_owned(),
            ..Refusal::default()
        })))
    }

    #[test]
    fn refusals_by_their_reason() {
        let table = [
            (
                409,
                "Operation cannot be fulfilled on resourcequotas \"q\"",
                Verdict::Wait("Conflict"),
            ),
            (
                403,
                "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1",
                Verdict::Wait("QuotaExceeded"),
            ),
            (
                403,
                "User \"system:x\" cannot create resource \"pods\" in API group \"\"",
                Verdict::Wait("Forbidden"),
            ),
            (
                403,
                "error looking up service account ml/trainer: not found",
                Verdict::Wait("ServiceAccountNotFound"),
            ),
            (
                403,
                "violates PodSecurity \"restricted:latest\"",
                Verdict::Reject("PolicyDenied"),
            ),
            (
                403,
                "admission webhook \"p\" denied the request: no",
                Verdict::Reject("PolicyDenied"),
            ),
            (
                403,
                "unable to create new content in namespace ml because it is being terminated",
                Verdict::Reject("NamespaceTerminating"),
            ),
            (400, "json: cannot unmarshal", Verdict::Reject("BadRequest")),
            (
                400,
                "admission webhook \"p\" denied the request: no",
                Verdict::Reject("PolicyDenied"),
            ),
            (404, "namespaces \"ml\" not found", Verdict::Reject("NamespaceNotFound")),
            (422, "Pod \"a\" is invalid", Verdict::Reject("Invalid")),
            (429, "too many requests", Verdict::Wait("TooManyRequests")),
            (
                500,
                "Internal error occurred: failed calling webhook \"w\"",
                Verdict::Wait("WebhookUnreachable"),
            ),
            (503, "etcdserver: leader changed", Verdict::Wait("ApiUnavailable")),
        ];
        for (code, message, verdict) in table {
            assert_eq!(refused(code, message), verdict, "{code} {message}");
        }
        assert_eq!(
            judge(&ApiError::NoAnswer(String::new())),
            Verdict::Wait("ApiUnavailable")
        );
    }
}
