//! What is wrong with a request about a Secret, before anybody is asked. Problems name keys and sizes, never values (I8).

use std::collections::BTreeMap;

use windlass_api::refusal::shorten;
use windlass_api::secret::v1::{DeleteSecretRequest, PutSecretMode, PutSecretRequest};
use windlass_pipeline::{is_data_key, is_dns_subdomain};

use crate::errors::FieldProblem;

/// Most bytes of all values, as in Kubernetes.
const MAX_BYTES: usize = 1024 * 1024;
/// Most keys of one request.
const MAX_KEYS: usize = 1_000;
/// Longest alias of a cluster and longest request id.
const MAX_ALIAS: usize = 253;
const MAX_REQUEST_ID: usize = 128;

/// Every problem of the request.
///
/// # Errors
/// When there is one.
pub(super) fn put(request: &PutSecretRequest) -> Result<(), Vec<FieldProblem>> {
    let mut problems = Vec::new();
    name(&request.name, &mut problems);
    alias(&request.cluster, &mut problems);
    if request.request_id.len() > MAX_REQUEST_ID {
        let text = format!("must have at most {MAX_REQUEST_ID} bytes");
        problems.push(FieldProblem::new("requestId", "BAD_VALUE", text));
    }
    content(request, &mut problems);
    mode(request, &mut problems);
    outcome(problems)
}

/// As [`put`].
///
/// # Errors
/// As [`put`].
pub(super) fn delete(request: &DeleteSecretRequest) -> Result<(), Vec<FieldProblem>> {
    let mut problems = Vec::new();
    name(&request.name, &mut problems);
    alias(&request.cluster, &mut problems);
    outcome(problems)
}

/// As [`put`], of the only field of a list that needs it.
///
/// # Errors
/// As [`put`].
pub(super) fn cluster(cluster: &str) -> Result<(), Vec<FieldProblem>> {
    let mut problems = Vec::new();
    alias(cluster, &mut problems);
    outcome(problems)
}

fn outcome(problems: Vec<FieldProblem>) -> Result<(), Vec<FieldProblem>> {
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn name(name: &str, problems: &mut Vec<FieldProblem>) {
    if !is_dns_subdomain(name) {
        let text = "must be a DNS subdomain: at most 253 lower-case letters, digits, `-` and `.`, such as warehouse";
        let code = if name.is_empty() { "MISSING" } else { "BAD_VALUE" };
        problems.push(FieldProblem::new("name", code, text));
    }
}

fn alias(cluster: &str, problems: &mut Vec<FieldProblem>) {
    if cluster.len() > MAX_ALIAS {
        let text = format!("must have at most {MAX_ALIAS} characters");
        problems.push(FieldProblem::new("cluster", "BAD_VALUE", text));
    }
}

const KEY_RULE: &str = "is no key: 1 to 253 letters, digits, `-`, `_` and `.`, not `.`, and not beginning with `..`";

/// What is wrong with values by key, which stand at `field`.
pub(crate) fn values(field: &str, data: &BTreeMap<String, Vec<u8>>, problems: &mut Vec<FieldProblem>) {
    for key in data.keys().filter(|key| !is_data_key(key)) {
        problems.push(FieldProblem::new(key_field(field, key), "BAD_VALUE", KEY_RULE));
    }
    count(field, data.len(), problems);
    let bytes: usize = data.values().map(Vec::len).sum();
    if bytes > MAX_BYTES {
        let text = format!("the values have {bytes} bytes together; a Secret takes at most {MAX_BYTES}");
        problems.push(FieldProblem::new(field, "TOO_LARGE", text));
    }
}

fn count(field: &str, count: usize, problems: &mut Vec<FieldProblem>) {
    if count > MAX_KEYS {
        let text = format!("has {count} keys; at most {MAX_KEYS} are taken at a time");
        problems.push(FieldProblem::new(field, "TOO_MANY", text));
    }
}

fn content(request: &PutSecretRequest, problems: &mut Vec<FieldProblem>) {
    values("data", &request.data, problems);
    for (index, key) in request.remove_keys.iter().enumerate() {
        let field = || format!("removeKeys[{index}]");
        if !is_data_key(key) {
            problems.push(FieldProblem::new(field(), "BAD_VALUE", KEY_RULE));
        } else if request.data.contains_key(key) {
            let text = "is in data, too: a key is set or removed, not both";
            problems.push(FieldProblem::new(field(), "CONFLICT", text));
        }
    }
    count("removeKeys", request.remove_keys.len(), problems);
}

fn mode(request: &PutSecretRequest, problems: &mut Vec<FieldProblem>) {
    match PutSecretMode::try_from(request.mode) {
        Ok(PutSecretMode::Update) if request.data.is_empty() && request.remove_keys.is_empty() => {
            let text = "nothing would change: give keys with values, or removeKeys";
            problems.push(FieldProblem::new("data", "MISSING", text));
        }
        Ok(PutSecretMode::Update) => {}
        Ok(PutSecretMode::Create) if !request.remove_keys.is_empty() => {
            let text = "a Secret that is created has no keys to remove; mode UPDATE or UPSERT removes keys";
            problems.push(FieldProblem::new("removeKeys", "CONFLICT", text));
        }
        Ok(PutSecretMode::Create | PutSecretMode::Upsert | PutSecretMode::Unspecified) => {
            if request.data.is_empty() {
                let text = "must have a key with a value; mode UPDATE can remove keys alone";
                problems.push(FieldProblem::new("data", "MISSING", text));
            }
        }
        Err(_) => {
            let text = "must be PUT_SECRET_MODE_CREATE, _UPDATE or _UPSERT";
            problems.push(FieldProblem::new("mode", "BAD_VALUE", text));
        }
    }
}

/// Path of a key, cut: a key that is a whole file by mistake may be the value.
pub(crate) fn key_field(field: &str, key: &str) -> String {
    format!("{field}[{}]", shorten(key, 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mode: PutSecretMode, data: &[(&str, &str)], remove: &[&str]) -> PutSecretRequest {
        let data: BTreeMap<_, _> = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
            .collect();
        PutSecretRequest {
            name: "warehouse".to_owned(),
            mode: mode.into(),
            data,
            remove_keys: remove.iter().map(|key| (*key).to_owned()).collect(),
            ..PutSecretRequest::default()
        }
    }

    fn problems(request: &PutSecretRequest) -> Vec<String> {
        let problems = put(request).expect_err("refused");
        problems
            .iter()
            .map(|problem| format!("{} {}", problem.path, problem.code))
            .collect()
    }

    #[test]
    fn k9_to_k11_what_is_right_passes() {
        use PutSecretMode::{Create, Unspecified, Update, Upsert};
        for good in [
            request(Create, &[("a", "1")], &[]),
            request(Create, &[("empty", "")], &[]),
            request(Update, &[], &["a"]),
            request(Update, &[("a.b-c_D", "1")], &["b"]),
            request(Upsert, &[("a", "1")], &["b"]),
            request(Unspecified, &[("a", "1")], &[]),
        ] {
            put(&good).expect("good");
        }
    }

    #[test]
    fn i9_every_problem_is_found_with_its_path_and_no_value_is_told() {
        use PutSecretMode::{Create, Update, Upsert};
        let mut wrong = request(
            Upsert,
            &[("a b", "hunter2"), ("..x", "hunter2"), ("c", "hunter2")],
            &["c", "d/e"],
        );
        wrong.name = "Ware_House".to_owned();
        wrong.request_id = "x".repeat(129);
        let found = [
            "name BAD_VALUE",
            "requestId BAD_VALUE",
            "data[..x] BAD_VALUE",
            "data[a b] BAD_VALUE",
            "removeKeys[0] CONFLICT",
            "removeKeys[1] BAD_VALUE",
        ];
        assert_eq!(problems(&wrong), found);
        let told = format!("{:?}", put(&wrong));
        assert!(!told.contains("hunter2"), "{told}");

        assert_eq!(problems(&request(Create, &[], &[])), ["data MISSING"]);
        assert_eq!(
            problems(&request(Create, &[("a", "1")], &["b"])),
            ["removeKeys CONFLICT"]
        );
        assert_eq!(problems(&request(Update, &[], &[])), ["data MISSING"]);
        assert_eq!(problems(&request(Upsert, &[], &["a"])), ["data MISSING"]);
        let mut unknown = request(Upsert, &[("a", "1")], &[]);
        unknown.mode = 9;
        assert_eq!(problems(&unknown), ["mode BAD_VALUE"]);
        let half = "x".repeat(MAX_BYTES / 2 + 1);
        assert_eq!(
            problems(&request(Upsert, &[("a", &half), ("b", &half)], &[])),
            ["data TOO_LARGE"]
        );
        let nameless = PutSecretRequest {
            name: String::new(),
            ..request(Upsert, &[("a", "1")], &[])
        };
        assert_eq!(problems(&nameless), ["name MISSING"]);
    }
}
