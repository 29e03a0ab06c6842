//! Names of pods, owner objects and CronJobs: a readable prefix and a hash of the exact identity.
//!
//! Valid and length-safe for every input, and as injective as 80 bits of SHA-256 (behaviours N1 to N5, E26 to E28). They fit a DNS
//! label, since kubelets cut host names there.

use sha2::{Digest, Sha256};
use windlass_ids::{AttemptId, InstallationId, RunId, ScheduleSecretId};

/// Longest name that is made, a DNS label.
pub const MAX_NAME: usize = 63;
/// Longest name of a CronJob: its Jobs get eleven characters more.
pub const MAX_CRON_JOB_NAME: usize = 52;
/// Characters of the hash.
pub(crate) const HASH: usize = 16;
/// Longest part that comes from the run's name.
const MAX_RUN_PART: usize = 22;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Name of the pod of an attempt.
pub fn pod_name(run_name: &str, step_name: &str, attempt: AttemptId) -> String {
    let mut hash = Sha256::new_with_prefix(b"windlass pod\0");
    hash.update(attempt.run.as_bytes());
    hash.update(attempt.step.0.to_le_bytes());
    hash.update(attempt.number.to_le_bytes());
    let number = attempt.number.to_string();
    let run = readable(run_name, MAX_RUN_PART);
    let room = MAX_NAME - HASH - run.len() - number.len() - 3;
    join(&[&run, &readable(step_name, room), &number, &base32(&hash.finalize())])
}

/// Name of the object that owns the pods of a run in a namespace.
pub fn owner_name(run_name: &str, run: RunId) -> String {
    let mut hash = Sha256::new_with_prefix(b"windlass owner\0");
    hash.update(run.as_bytes());
    join(&[&readable(run_name, MAX_NAME - HASH - 1), &base32(&hash.finalize())])
}

/// Name of the CronJob of a schedule. The same when the schedule is exported again, and never that of a CronJob that somebody else made.
pub fn cron_job_name(installation: InstallationId, namespace: &str, schedule: &str) -> String {
    let mut hash = Sha256::new_with_prefix(b"windlass cron job\0");
    hash.update(installation.as_bytes());
    for text in [namespace, schedule] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    join(&[
        &readable(schedule, MAX_CRON_JOB_NAME - HASH - 1),
        &base32(&hash.finalize()),
    ])
}

/// Name of the Secret of a run in a namespace.
pub fn secret_name(run_name: &str, run: RunId) -> String {
    // Of another kind, so that the two are not in each other's way.
    owner_name(run_name, run)
}

/// Name of a Secret of a schedule in a namespace: other values, another name.
pub fn schedule_secret_name(schedule: &str, secret: ScheduleSecretId) -> String {
    let mut hash = Sha256::new_with_prefix(b"windlass schedule secret\0");
    hash.update(secret.as_bytes());
    join(&[&readable(schedule, MAX_NAME - HASH - 1), &base32(&hash.finalize())])
}

fn join(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

/// The first 80 bits in 16 characters that are valid everywhere and hard to confuse.
pub(crate) fn base32(digest: &[u8]) -> String {
    let bits = digest
        .iter()
        .take(10)
        .fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    (0..HASH)
        .rev()
        .map(|position| char::from(ALPHABET[(bits >> (5 * position) & 31) as usize]))
        .collect()
}

/// Whether `text` could be what [`base32`] makes.
pub(crate) fn is_base32(text: &str) -> bool {
    text.len() == HASH && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// Lower-case letters, digits and single dashes, none at an end, at most `limit` of them; may be empty.
fn readable(text: &str, limit: usize) -> String {
    let mut readable = String::with_capacity(limit);
    for character in text.chars() {
        let character = character.to_ascii_lowercase();
        let keep = character.is_ascii_lowercase() || character.is_ascii_digit();
        if readable.len() >= limit {
            break;
        }
        if keep {
            readable.push(character);
        } else if !readable.is_empty() && !readable.ends_with('-') {
            readable.push('-');
        }
    }
    readable.truncate(readable.trim_end_matches('-').len());
    readable
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use windlass_ids::StepIndex;

    use super::*;

    fn attempt(run: [u8; 16], step: u32, number: u32) -> AttemptId {
        AttemptId {
            run: RunId::from_bytes(run),
            step: StepIndex(step),
            number,
        }
    }

    fn assert_dns_label(name: &str) {
        assert!(!name.is_empty() && name.len() <= MAX_NAME, "{name:?}");
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
            "{name:?}"
        );
        assert!(!name.starts_with('-') && !name.ends_with('-'), "{name:?}");
    }

    /// behaviours N5, U18
    #[test]
    fn a_name_reads_well_and_never_changes() {
        let name = pod_name("churn-7k2m", "train.2", attempt([7; 16], 3, 2));
        assert!(name.starts_with("churn-7k2m-train-2-2-"), "{name}");
        // Live pods carry these names: a change would let a second pod of an attempt exist.
        assert_eq!(name, "churn-7k2m-train-2-2-8tw5z1tjcwfsmts2");
        assert_eq!(
            owner_name("churn-7k2m", RunId::from_bytes([7; 16])),
            "churn-7k2m-cqrv4n2z5b5thjjt"
        );
    }

    /// behaviours F4, N1, E28
    #[test]
    fn the_name_of_a_cron_job_follows_installation_namespace_and_schedule() {
        let installation = InstallationId::from_bytes([7; 16]);
        let name = |namespace: &str, schedule: &str| cron_job_name(installation, namespace, schedule);
        // What was applied is replaced by this name when it is applied again.
        assert_eq!(name("ml", "nightly"), "nightly-phemfdpkap0wra5a");
        let other = cron_job_name(InstallationId::from_bytes([8; 16]), "ml", "nightly");
        assert_ne!(name("ml", "nightly"), other);
        assert_ne!(name("m", "lnightly"), name("ml", "nightly"));
        let long = "a".repeat(62);
        let (one, two) = (name("ml", &format!("{long}b")), name("ml", &format!("{long}c")));
        assert_ne!(one, two, "what was cut off still counts");
        assert_eq!(one.len(), MAX_CRON_JOB_NAME);
    }

    /// behaviours N5, E31
    #[test]
    fn the_secret_of_a_schedule_is_named_after_it_and_its_values_alone() {
        let name =
            |schedule: &str, secret: u8| schedule_secret_name(schedule, ScheduleSecretId::from_bytes([secret; 16]));
        // Pods that are to start carry it.
        assert_eq!(name("nightly", 7), "nightly-xrtm9zn7pjtsbxzd");
        assert_ne!(name("nightly", 8), name("nightly", 7));
        assert_ne!(name("nightly", 7), owner_name("nightly", RunId::from_bytes([7; 16])));
    }

    /// behaviours N3, E27
    #[test]
    fn steps_whose_readable_names_are_equal_get_different_pods() {
        // behaviours E27: these three collided.
        let names: Vec<String> = ["train_model", "train__Model", "train-model"]
            .iter()
            .zip(0..)
            .map(|(step, index)| pod_name("r", step, attempt([1; 16], index, 1)))
            .collect();
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
    }

    proptest! {
        /// behaviours N2, N3, K4, E26, E28, E36
        #[test]
        fn i2_names_are_valid_and_follow_the_identity_alone(
            run_name in ".{0,90}", step_name in ".{0,90}", run in any::<[u8; 16]>(),
            first in any::<(u32, u32)>(), second in any::<(u32, u32)>(),
        ) {
            let one = pod_name(&run_name, &step_name, attempt(run, first.0, first.1));
            assert_dns_label(&one);
            assert_dns_label(&owner_name(&run_name, RunId::from_bytes(run)));
            assert_dns_label(&schedule_secret_name(&run_name, ScheduleSecretId::from_bytes(run)));
            let cron_job = cron_job_name(InstallationId::from_bytes(run), &run_name, &step_name);
            assert_dns_label(&cron_job);
            prop_assert!(cron_job.len() <= MAX_CRON_JOB_NAME, "{}", cron_job);
            let swapped = cron_job_name(InstallationId::from_bytes(run), &step_name, &run_name);
            prop_assert_eq!(cron_job == swapped, run_name == step_name);
            let other = pod_name(&run_name, &step_name, attempt(run, second.0, second.1));
            prop_assert_eq!(one == other, first == second);
            prop_assert_eq!(&one, &pod_name(&run_name, &step_name, attempt(run, first.0, first.1)));
        }
    }
}
