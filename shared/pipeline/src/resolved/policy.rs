//! What the scheduler must know of a step: retries, deadlines, conditions.

use serde::{Deserialize, Serialize};

use crate::model::{Deadlines, LostContact, RetryBudget, StepTemplate};
use crate::{LogFollow, LostContactAction, Millis, RunIf};

/// Rules of a step with every default filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// When the step runs.
    pub run_if: RunIf,
    /// Bound on each attempt; none when unbounded.
    pub timeout: Option<Millis>,
    /// Budget for USER_ERROR, OOM_KILLED and DEADLINE.
    pub user_retries: RetryPolicy,
    /// Budget for EVICTED, PREEMPTED, NODE_LOST, POD_DELETED and STARTUP_TIMEOUT.
    pub infrastructure_retries: RetryPolicy,
    /// How long lost contact may last while an executor sees the cluster.
    pub lost_contact_deadline: Millis,
    /// What follows then.
    pub lost_contact_then: LostContactAction,
    /// How long a step may wait while no executor serves its cluster.
    pub admitted_deadline: Millis,
    /// Until the API server has admitted the pod.
    pub created_deadline: Millis,
    /// Until the pod has a node.
    pub scheduled_deadline: Millis,
    /// Until its images are there.
    pub pulling_deadline: Millis,
    /// Until its init containers are done.
    pub initialising_deadline: Millis,
    /// From a stop until its end is seen, beyond the termination grace.
    pub terminating_deadline: Millis,
    /// Time between SIGTERM and SIGKILL.
    pub termination_grace: Millis,
    /// When containers are followed.
    pub log_follow: LogFollow,
    /// Whether exit code 0 after a deletion or eviction counts as success.
    pub accept_exit_zero_when_terminated: bool,
}

/// A retry budget with every default filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// The nth charged failure is final; at least 1.
    pub attempts: u32,
    /// First delay.
    pub delay: Millis,
    /// Factor of each further delay; at least 1.
    pub backoff: f64,
    /// Bound on the delay.
    pub max_delay: Millis,
    /// Exit codes that are retried; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exit_codes: Vec<i32>,
}

impl RetryPolicy {
    /// Attempts of the `user` budget by default: a failure of the user's code is final.
    pub const USER_ATTEMPTS: u32 = 1;
    /// Attempts of the `infrastructure` budget by default.
    pub const INFRASTRUCTURE_ATTEMPTS: u32 = 5;
    /// First delay by default.
    pub const DELAY: Millis = Millis::from_secs(10);
    /// Back-off factor by default.
    pub const BACKOFF: f64 = 2.0;
    /// Bound on the delay by default.
    pub const MAX_DELAY: Millis = Millis::from_mins(5);

    pub(crate) fn of(budget: Option<&RetryBudget>, attempts: u32) -> Self {
        let empty = RetryBudget::default();
        let budget = budget.unwrap_or(&empty);
        let delay = budget.delay.unwrap_or(Self::DELAY);
        Self {
            attempts: budget.attempts.unwrap_or(attempts),
            delay,
            backoff: budget.backoff.unwrap_or(Self::BACKOFF),
            // A longer first delay than the default bound is meant; an explicit bound below it was refused.
            max_delay: budget.max_delay.unwrap_or(Self::MAX_DELAY.max(delay)),
            exit_codes: budget.exit_codes.clone(),
        }
    }

    /// The delay after the given number of charged failures, counted from 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "bounded by max_delay, which is exact in a double"
    )]
    pub fn delay_after(&self, failures: u32) -> Millis {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let delay = self.delay.0 as f64 * self.backoff.powi(exponent);
        Millis(delay.min(self.max_delay.0 as f64) as u64)
    }
}

impl Policy {
    /// How long lost contact may last by default.
    pub const LOST_CONTACT: Millis = Millis::from_mins(10);
    /// Bound on waiting for an executor by default.
    pub const ADMITTED: Millis = Millis::from_mins(24 * 60);
    /// Bound on creation by default.
    pub const CREATED: Millis = Millis::from_mins(5);
    /// Bound on every other waiting state by default.
    pub const WAITING: Millis = Millis::from_mins(10);
    /// Time between SIGTERM and SIGKILL by default.
    pub const TERMINATION_GRACE: Millis = Millis::from_secs(30);

    pub(crate) fn of(template: &StepTemplate) -> Self {
        let retries = template.retries.clone().unwrap_or_default();
        let LostContact { deadline, then } = template.lost_contact.clone().unwrap_or_default();
        let deadlines: Deadlines = template.deadlines.clone().unwrap_or_default();
        Self {
            run_if: template.run_if.unwrap_or_default(),
            timeout: template.timeout,
            user_retries: RetryPolicy::of(retries.user.as_ref(), RetryPolicy::USER_ATTEMPTS),
            infrastructure_retries: RetryPolicy::of(
                retries.infrastructure.as_ref(),
                RetryPolicy::INFRASTRUCTURE_ATTEMPTS,
            ),
            lost_contact_deadline: deadline.unwrap_or(Self::LOST_CONTACT),
            lost_contact_then: then.unwrap_or_default(),
            admitted_deadline: deadlines.admitted.unwrap_or(Self::ADMITTED),
            created_deadline: deadlines.created.unwrap_or(Self::CREATED),
            scheduled_deadline: deadlines.scheduled.unwrap_or(Self::WAITING),
            pulling_deadline: deadlines.pulling.unwrap_or(Self::WAITING),
            initialising_deadline: deadlines.initialising.unwrap_or(Self::WAITING),
            terminating_deadline: deadlines.terminating.unwrap_or(Self::WAITING),
            termination_grace: template.termination_grace.unwrap_or(Self::TERMINATION_GRACE),
            log_follow: template.logs.clone().unwrap_or_default().follow.unwrap_or_default(),
            accept_exit_zero_when_terminated: template.accept_exit_zero_when_terminated.unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i10_every_waiting_state_has_a_deadline_by_default() {
        let policy = Policy::of(&StepTemplate::default());
        let deadlines = [
            policy.admitted_deadline,
            policy.created_deadline,
            policy.scheduled_deadline,
            policy.pulling_deadline,
            policy.initialising_deadline,
            policy.terminating_deadline,
            policy.lost_contact_deadline,
        ];
        assert!(deadlines.iter().all(|deadline| deadline.0 > 0));
        assert_eq!(policy.user_retries.attempts, 1);
        assert_eq!(policy.infrastructure_retries.attempts, 5);
    }

    #[test]
    fn delays_grow_up_to_their_bound() {
        let policy = RetryPolicy::of(None, 5);
        let delays: Vec<u64> = (1..=7).map(|failures| policy.delay_after(failures).0 / 1000).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(policy.delay_after(u32::MAX), RetryPolicy::MAX_DELAY);
    }
}
