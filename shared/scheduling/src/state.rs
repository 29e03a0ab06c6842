//! States of runs, steps and attempts, and the reasons that go with them.

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_doc])* $variant = $code,)* }

        impl $name {
            /// All of them, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Code in stores; it never changes.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// From its code.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// The stable name, upper case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

states! {
    /// State of a run.
    RunState {
        /// Its secrets are being made.
        Preparing = 1, "PREPARING";
        /// Accepted, nothing was launched.
        Queued = 2, "QUEUED";
        /// Steps are being run.
        Running = 3, "RUNNING";
        /// What runs is being stopped, nothing starts.
        Cancelling = 4, "CANCELLING";
        /// All steps ended, none failed.
        Succeeded = 5, "SUCCEEDED";
        /// A step failed, or the run took too long.
        Failed = 6, "FAILED";
        /// Cancelled before its end.
        Cancelled = 7, "CANCELLED";
    }
}

impl RunState {
    /// Whether nothing changes any more.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

states! {
    /// State of a step.
    StepState {
        /// Upstream steps have not ended.
        Waiting = 1, "WAITING";
        /// May start; waits for a limit, pacing or an executor.
        Ready = 2, "READY";
        /// Launched, its main container does not run yet.
        Starting = 3, "STARTING";
        /// Its main container runs.
        Running = 4, "RUNNING";
        /// Nobody can say whether its pod lives.
        LostContact = 5, "LOST_CONTACT";
        /// Waits for its next attempt.
        RetryWait = 6, "RETRY_WAIT";
        /// Ended well.
        Succeeded = 7, "SUCCEEDED";
        /// Failed for good.
        Failed = 8, "FAILED";
        /// Its condition was not met.
        Skipped = 9, "SKIPPED";
        /// Stopped, or never started because the run was stopped.
        Cancelled = 10, "CANCELLED";
        /// An earlier run has done its work, and it is not done again.
        Cached = 11, "CACHED";
    }
}

impl StepState {
    /// Number of states, and one more for index 0, which is unused.
    pub const SLOTS: usize = 12;

    /// Whether nothing changes any more.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Skipped | Self::Cancelled | Self::Cached
        )
    }

    /// Whether its attempt goes on: a pod may live.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::LostContact)
    }

    /// Whether it counts as success for what comes after it.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Succeeded | Self::Cached)
    }
}

states! {
    /// How far an attempt is. The order is the rank by which facts are merged.
    AttemptPhase {
        /// Told to an executor, nothing was seen.
        Launched = 0, "LAUNCHED";
        /// The API server refuses for the time being: conflict, quota, webhook, rights.
        Refused = 1, "REFUSED";
        /// The pod exists, without a node.
        Created = 2, "CREATED";
        /// It has a node; volumes are being mounted, sandboxes made.
        Scheduled = 3, "SCHEDULED";
        /// Its image is being pulled.
        Pulling = 4, "PULLING";
        /// Its init containers run.
        Initialising = 5, "INITIALISING";
        /// Its main container runs.
        Running = 6, "RUNNING";
        /// Nobody can say: its node does not answer.
        Unreachable = 7, "UNREACHABLE";
        /// Its main container ended, or there is proof of death.
        Ended = 8, "ENDED";
        /// A quorum read under the current grant found no pod.
        Absent = 9, "ABSENT";
    }
}

states! {
    /// Why an attempt failed.
    FailureClass {
        /// The main container ended with a non-zero exit code.
        UserError = 1, "USER_ERROR";
        /// Killed for its memory limit.
        OomKilled = 2, "OOM_KILLED";
        /// Evicted.
        Evicted = 3, "EVICTED";
        /// Preempted by a pod of higher priority.
        Preempted = 4, "PREEMPTED";
        /// Its node is gone.
        NodeLost = 5, "NODE_LOST";
        /// Its image cannot be had.
        Image = 6, "IMAGE";
        /// Its configuration cannot work.
        Config = 7, "CONFIG";
        /// It did not start in time.
        StartupTimeout = 8, "STARTUP_TIMEOUT";
        /// It ran longer than allowed.
        Deadline = 9, "DEADLINE";
        /// Somebody deleted its pod.
        PodDeleted = 10, "POD_DELETED";
        /// The API server refused its pod.
        Rejected = 11, "REJECTED";
    }
}

states! {
    /// A retry budget.
    Budget {
        /// Failures of the step itself.
        User = 1, "USER";
        /// Failures of what is below it.
        Infrastructure = 2, "INFRASTRUCTURE";
    }
}

impl FailureClass {
    /// The budget that it spends; none when it is final.
    pub const fn budget(self) -> Option<Budget> {
        match self {
            Self::UserError | Self::OomKilled | Self::Deadline => Some(Budget::User),
            Self::Evicted | Self::Preempted | Self::NodeLost | Self::PodDeleted | Self::StartupTimeout => {
                Some(Budget::Infrastructure)
            }
            Self::Image | Self::Config | Self::Rejected => None,
        }
    }

    /// Whether the pod was ended from outside, so that its exit code says nothing.
    pub const fn is_termination(self) -> bool {
        matches!(
            self,
            Self::Evicted | Self::Preempted | Self::NodeLost | Self::PodDeleted
        )
    }
}

states! {
    /// Why an attempt is being stopped.
    StopCause {
        /// A client cancelled the run.
        RunCancelled = 1, "RUN_CANCELLED";
        /// The run took too long.
        RunTimeout = 2, "RUN_TIMEOUT";
        /// Another step failed and the run fails fast.
        FailFast = 3, "FAIL_FAST";
        /// The attempt ran longer than allowed.
        Timeout = 4, "TIMEOUT";
        /// No pod in time.
        NotCreated = 5, "NOT_CREATED";
        /// No node in time.
        NotScheduled = 6, "NOT_SCHEDULED";
        /// No image in time.
        NotPulled = 7, "NOT_PULLED";
        /// The main container did not start in time.
        NotInitialised = 8, "NOT_INITIALISED";
        /// Its main container ended, others go on.
        Ended = 9, "ENDED";
        /// No image in time, and pulling it failed.
        ImagePull = 10, "IMAGE_PULL";
        /// The run's secrets were not made in time.
        NotPrepared = 20, "NOT_PREPARED";
    }
}

impl StopCause {
    /// Whether the whole run is being stopped, so that the step is not retried.
    pub const fn is_run_wide(self) -> bool {
        matches!(
            self,
            Self::RunCancelled | Self::RunTimeout | Self::FailFast | Self::NotPrepared
        )
    }
}

states! {
    /// Why nobody can say whether a pod lives.
    LostCause {
        /// Its node does not answer.
        Unreachable = 1, "NODE_UNREACHABLE";
        /// It was told to stop, and no end was seen in time.
        StopNotObeyed = 2, "STOP_NOT_OBEYED";
        /// Its object is gone without an end that was seen: somebody removed our finalizer. Its processes may live.
        Vanished = 3, "POD_VANISHED";
    }
}

states! {
    /// Why a step was skipped.
    SkipReason {
        /// An upstream step did not succeed.
        UpstreamNotSucceeded = 1, "UPSTREAM_NOT_SUCCEEDED";
        /// No upstream step failed (`runIf: FAILED`).
        NoUpstreamFailed = 2, "NO_UPSTREAM_FAILED";
        /// A step failed and the failure mode of the run starts nothing new.
        FailureMode = 3, "FAILURE_MODE";
    }
}

states! {
    /// Why a step failed for good without an attempt that did.
    StepFailure {
        /// It is not known that the last attempt's pod is dead, so nothing may replace it.
        NoProofOfDeath = 1, "NO_PROOF_OF_DEATH";
        /// No executor served its cluster in time.
        NotAdmitted = 2, "NOT_ADMITTED";
    }
}

states! {
    /// Why a run ended as it did.
    RunReason {
        /// All steps ended well or were skipped.
        Completed = 1, "COMPLETED";
        /// A step failed.
        StepFailed = 2, "STEP_FAILED";
        /// It took too long.
        RunTimeout = 3, "RUN_TIMEOUT";
        /// A client cancelled it.
        CancelledByClient = 4, "CANCELLED_BY_CLIENT";
        /// Its secrets were not made in time, so it never began.
        NotPrepared = 20, "NOT_PREPARED";
    }
}
