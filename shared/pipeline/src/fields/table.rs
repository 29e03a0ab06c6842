//! The table of all fields.

use super::{Field, Kind, Message};
use crate::model::{FailureMode, LogFollow, LostContactAction, ParameterType, RunIf};

const fn field(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field {
        name,
        required: false,
        kind,
        default: None,
        doc,
    }
}

const fn with_default(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Field {
    Field {
        name,
        required: false,
        kind,
        default: Some(default),
        doc,
    }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field {
        required: true,
        ..field(name, kind, doc)
    }
}

const U32_MAX: i64 = 4_294_967_295;
const I32_MIN: i64 = -2_147_483_648;
const I32_MAX: i64 = 2_147_483_647;

const TEXTS: Kind = Kind::List(&Kind::Text);

/// Fields that steps and defaults have in common, after those of their own.
macro_rules! template_fields {
    ($($own:expr,)*) => {
        &[
            $($own,)*
            field("image", Kind::Text, "Container image. Required, here or in `defaults`."),
            field("command", TEXTS, "Entrypoint; the image's own when absent. It replaces an inherited `script`."),
            field("args", TEXTS, "Arguments of the command."),
            field("script", Kind::Text, "A shell script instead of a command. Parameters and matrix values are environment variables in it; `$(NAME)` is not substituted."),
            field("env", Kind::List(&Kind::Message("EnvVar")), "Environment variables, merged by name."),
            field("workingDir", Kind::Text, "Working directory; `/windlass/files` by default when the pipeline has files or the step a script."),
            with_default("runIf", Kind::OneOf(RunIf::PREFIX, RunIf::NAMES), "SUCCEEDED", "When the step runs: after all upstream steps succeeded, after one of them failed, or always."),
            field("timeout", Kind::Duration, "Bound on each attempt, longer than 0; none by default."),
            field("retries", Kind::Message("Retries"), "Retry budgets."),
            field("lostContact", Kind::Message("LostContact"), "What happens when contact to the pod is lost."),
            field("deadlines", Kind::Message("Deadlines"), "Bounds on waiting, by cause."),
            with_default("terminationGrace", Kind::Duration, "30s", "Time between SIGTERM and SIGKILL, in whole seconds."),
            field("cluster", Kind::Text, "Alias of the cluster that runs the step; the pipeline's by default."),
            field("logs", Kind::Message("Logs"), "How logs are followed."),
            with_default("acceptExitZeroWhenTerminated", Kind::Boolean, "false", "Whether exit code 0 after a deletion or eviction counts as success."),
            field("pod", Kind::Message("PodSettings"), "Settings of the pod."),
        ]
    };
}

/// Every group of fields.
pub const MESSAGES: &[Message] = &[
    Message {
        name: "Pipeline",
        doc: "A DAG of container steps.",
        fields: &[
            required(
                "name",
                Kind::Text,
                "Name of the pipeline, a DNS label of at most 63 characters. Required.",
            ),
            field(
                "parameters",
                Kind::List(&Kind::Message("Parameter")),
                "Values that a submission may set, substituted as `$(NAME)`. At most 256, with 128 KiB together.",
            ),
            field(
                "cluster",
                Kind::Text,
                "Alias of the cluster that runs the steps; optional when there is only one.",
            ),
            field(
                "workspace",
                Kind::Message("Workspace"),
                "A folder that the steps of a run share, `$WINDLASS_WORKSPACE`.",
            ),
            field(
                "files",
                Kind::List(&Kind::Message("File")),
                "Files that travel with the submission. At most 1000, with 1 MiB together with the scripts.",
            ),
            with_default(
                "failureMode",
                Kind::OneOf(FailureMode::PREFIX, FailureMode::NAMES),
                "CONTINUE_ON_FAILURE",
                "What a failed step does to the rest of the run: siblings go on; nothing new starts; what runs is stopped, too.",
            ),
            field(
                "maxParallelism",
                Kind::Integer(1, U32_MAX),
                "The most steps that may be starting or running at a time; unlimited by default.",
            ),
            field(
                "startInterval",
                Kind::Duration,
                "The least time between two starts of this run; none by default.",
            ),
            field("timeout", Kind::Duration, "Bound on the whole run; none by default."),
            with_default(
                "priority",
                Kind::Integer(I32_MIN, I32_MAX),
                "0",
                "Runs of a higher priority are dispatched first.",
            ),
            field(
                "labels",
                Kind::TextMap,
                "Labels of every pod; `run`, `pipeline` and those of windlass.dev are reserved.",
            ),
            field(
                "annotations",
                Kind::TextMap,
                "Annotations of every pod; those of windlass.dev are reserved.",
            ),
            field(
                "defaults",
                Kind::Message("StepDefaults"),
                "What every step starts from.",
            ),
            required(
                "steps",
                Kind::List(&Kind::Message("Step")),
                "The steps. At least one; at most 1,000,000 with 10,000,000 dependencies after expansion.",
            ),
        ],
    },
    Message {
        name: "Parameter",
        doc: "A value that a submission may set.",
        fields: &[
            required(
                "name",
                Kind::Text,
                "Name as it stands in `$(NAME)`: at most 128 letters, digits and `_`, not starting with a digit or WINDLASS_. Required.",
            ),
            with_default(
                "type",
                Kind::OneOf(ParameterType::PREFIX, ParameterType::NAMES),
                "STRING",
                "Type of the value.",
            ),
            field(
                "default",
                Kind::Scalar,
                "Value used when the submission gives none; without it the parameter is required. At most 32 KiB; nothing is substituted in it.",
            ),
            field("description", Kind::Text, "What the parameter is for."),
        ],
    },
    Message {
        name: "Workspace",
        doc: "A folder that the steps of a run share.",
        fields: &[
            field(
                "volume",
                Kind::Kubernetes("VolumeSource"),
                "Volume that holds it; by default the operator's, or the run's folder on the local cluster.",
            ),
            with_default(
                "mountPath",
                Kind::Text,
                "/windlass/workspace",
                "Where it is mounted: an absolute path, neither `/windlass` nor at or below `/windlass/files`.",
            ),
        ],
    },
    Message {
        name: "File",
        doc: "A file that travels with the submission and is mounted read-only at `/windlass/files`.",
        fields: &[
            required(
                "path",
                Kind::Text,
                "Relative path below `/windlass/files`, at most 1024 bytes, not below `.windlass`. Required.",
            ),
            field(
                "content",
                Kind::Text,
                "Text content. When both contents are absent, the command line reads the file beside the pipeline file.",
            ),
            field("contentBase64", Kind::Base64, "Binary content."),
            with_default("executable", Kind::Boolean, "false", "Whether the file is executable."),
        ],
    },
    Message {
        name: "StepDefaults",
        doc: "What every step starts from. Merging is by presence: scalars replace, maps merge, lists with a key merge by it, others replace.",
        fields: template_fields![],
    },
    Message {
        name: "Step",
        doc: "A container that runs to its end.",
        fields: template_fields![
            required(
                "name",
                Kind::Text,
                "Name, unique in the pipeline: letters, digits, `_`, `-` and `.`, at most 128. Required."
            ),
            field(
                "upstream",
                TEXTS,
                "Names of the steps that must end first; the name of a matrix step means all of its instances, `train.0` one of them."
            ),
            field(
                "matrix",
                Kind::List(&Kind::Message("MatrixAxis")),
                "Axes over which the step is expanded at submission: `train` becomes `train.0`, `train.1` and so on; several axes, at most 16, make a product, of which the last one changes fastest."
            ),
            field(
                "unset",
                TEXTS,
                "Paths of inherited fields that are dropped, such as `pod.tolerations`, `env.PASSWORD` or `pod.nodeSelector.gpu`."
            ),
        ],
    },
    Message {
        name: "MatrixAxis",
        doc: "One axis of a matrix.",
        fields: &[
            required(
                "name",
                Kind::Text,
                "Name as it stands in `$(NAME)` and in the environment: as that of a parameter. Required.",
            ),
            required(
                "values",
                Kind::List(&Kind::Scalar),
                "Values, in which parameters are substituted; the step is expanded once for each. At least one, each at most 32 KiB.",
            ),
        ],
    },
    Message {
        name: "EnvVar",
        doc: "One environment variable; exactly one of `value` and `valueFrom`. Names that start with WINDLASS_ are reserved.",
        fields: &[
            required("name", Kind::Text, "Name. Required."),
            field("value", Kind::Text, "Literal value."),
            field("valueFrom", Kind::Message("EnvVarSource"), "A value from elsewhere."),
        ],
    },
    Message {
        name: "EnvVarSource",
        doc: "Where a value comes from; exactly one is set.",
        fields: &[
            field("secretKeyRef", Kind::Message("KeySelector"), "A key of a Secret."),
            field("configMapKeyRef", Kind::Message("KeySelector"), "A key of a ConfigMap."),
            field("fieldRef", Kind::Message("FieldSelector"), "A field of the pod."),
            field(
                "resourceFieldRef",
                Kind::Message("ResourceFieldSelector"),
                "A resource of the container.",
            ),
            field(
                "runSecretKeyRef",
                Kind::Message("RunSecretKeySelector"),
                "A key of the run's secrets, which are given with the submission.",
            ),
        ],
    },
    Message {
        name: "RunSecretKeySelector",
        doc: "A key of the run's secrets: they are given when the run is submitted, as with `windlass run --secret-file KEY=PATH`, and gone when it has ended.",
        fields: &[required(
            "key",
            Kind::Text,
            "Key: letters, digits, `-`, `_` and `.`. Parameters are not substituted in it. Required.",
        )],
    },
    Message {
        name: "KeySelector",
        doc: "A key of a Secret or ConfigMap.",
        fields: &[
            required("name", Kind::Text, "Name of the object. Required."),
            required("key", Kind::Text, "Key in it. Required."),
            with_default("optional", Kind::Boolean, "false", "Whether it may be absent."),
        ],
    },
    Message {
        name: "FieldSelector",
        doc: "A field of the pod.",
        fields: &[required(
            "fieldPath",
            Kind::Text,
            "Path: `metadata.name`, `metadata.namespace`, `metadata.uid`, `metadata.labels['KEY']`, `metadata.annotations['KEY']`, `spec.nodeName`, `spec.serviceAccountName`, `status.hostIP`, `status.hostIPs`, `status.podIP` or `status.podIPs`. Required.",
        )],
    },
    Message {
        name: "ResourceFieldSelector",
        doc: "A resource of the container.",
        fields: &[
            required(
                "resource",
                Kind::Text,
                "`limits.` or `requests.` with `cpu`, `memory`, `ephemeral-storage` or `hugepages-SIZE`. Required.",
            ),
            with_default(
                "divisor",
                Kind::Text,
                "1",
                "Unit: `1m` or `1` for cpu, else `1`, `1k`, `1Ki`, `1M`, `1Mi` and so on.",
            ),
        ],
    },
    Message {
        name: "Retries",
        doc: "The two retry budgets. A failure is charged to one of them by its class.",
        fields: &[
            field(
                "user",
                Kind::Message("RetryBudget"),
                "Spent by USER_ERROR, OOM_KILLED and DEADLINE; 1 attempt by default.",
            ),
            field(
                "infrastructure",
                Kind::Message("RetryBudget"),
                "Spent by EVICTED, PREEMPTED, NODE_LOST, POD_DELETED and STARTUP_TIMEOUT; 5 attempts by default.",
            ),
        ],
    },
    Message {
        name: "RetryBudget",
        doc: "How often and how fast failures are retried.",
        fields: &[
            field(
                "attempts",
                Kind::Integer(1, U32_MAX),
                "The nth charged failure is final; 1 means no retry. Default 1 for `user`, 5 for `infrastructure`.",
            ),
            with_default("delay", Kind::Duration, "10s", "First delay."),
            with_default(
                "backoff",
                Kind::Number(1.0, 1000.0),
                "2",
                "Factor of each further delay, 1 to 1000.",
            ),
            with_default(
                "maxDelay",
                Kind::Duration,
                "5m",
                "Bound on the delay, not shorter than it; the delay itself when that is longer than the default.",
            ),
            field(
                "exitCodes",
                Kind::List(&Kind::Integer(1, 255)),
                "Exit codes that are retried, 1 to 255; all when empty. For `user` only.",
            ),
        ],
    },
    Message {
        name: "LostContact",
        doc: "What happens when contact to a pod is lost.",
        fields: &[
            with_default(
                "deadline",
                Kind::Duration,
                "10m",
                "How long to wait; it runs only while an executor sees the cluster.",
            ),
            with_default(
                "then",
                Kind::OneOf(LostContactAction::PREFIX, LostContactAction::NAMES),
                "FAIL",
                "FAIL ends the step with NODE_LOST; it is never replaced without proof that the pod is dead. WAIT goes on until a person confirms its death.",
            ),
        ],
    },
    Message {
        name: "Deadlines",
        doc: "Bounds on waiting states, by cause.",
        fields: &[
            with_default(
                "admitted",
                Kind::Duration,
                "24h",
                "How long a step may wait while no executor serves its cluster.",
            ),
            with_default(
                "created",
                Kind::Duration,
                "5m",
                "Until the API server has admitted the pod.",
            ),
            with_default("scheduled", Kind::Duration, "10m", "Until the pod has a node."),
            with_default("pulling", Kind::Duration, "10m", "Until its images are there."),
            with_default(
                "initialising",
                Kind::Duration,
                "10m",
                "Until its init containers are done.",
            ),
            with_default(
                "terminating",
                Kind::Duration,
                "10m",
                "From a stop until its end is seen.",
            ),
        ],
    },
    Message {
        name: "Logs",
        doc: "How the logs of a step are kept.",
        fields: &[with_default(
            "follow",
            Kind::OneOf(LogFollow::PREFIX, LogFollow::NAMES),
            "ALWAYS",
            "When containers are followed: from their start, or only while a client reads.",
        )],
    },
    Message {
        name: "PodSettings",
        doc: "Settings of a step's pod. Kubernetes types are checked strictly, to the bottom.",
        fields: &[
            field(
                "resources",
                Kind::Message("Resources"),
                "Requests and limits of the main container.",
            ),
            field("nodeSelector", Kind::TextMap, "Labels that the node must have."),
            field("affinity", Kind::Kubernetes("Affinity"), "Affinity."),
            field(
                "tolerations",
                Kind::List(&Kind::Kubernetes("Toleration")),
                "Tolerations; they replace inherited ones.",
            ),
            field(
                "labels",
                Kind::TextMap,
                "Labels of the pod; `run`, `pipeline` and those of windlass.dev are reserved.",
            ),
            field(
                "annotations",
                Kind::TextMap,
                "Annotations of the pod; those of windlass.dev are reserved.",
            ),
            field(
                "volumes",
                Kind::List(&Kind::Kubernetes("Volume")),
                "Volumes, merged by name.",
            ),
            field(
                "volumeMounts",
                Kind::List(&Kind::Kubernetes("VolumeMount")),
                "Mounts of the main container, merged by mountPath.",
            ),
            field(
                "envFrom",
                Kind::List(&Kind::Kubernetes("EnvFromSource")),
                "Sources of the main container's environment.",
            ),
            field("imagePullSecrets", TEXTS, "Names of image pull secrets."),
            field(
                "imagePullPolicy",
                Kind::OneOf("", &["Always", "IfNotPresent", "Never"]),
                "When the image is pulled; Kubernetes' rule by default.",
            ),
            field(
                "serviceAccountName",
                Kind::Text,
                "Service account; the namespace's default one when absent.",
            ),
            with_default(
                "automountServiceAccountToken",
                Kind::Boolean,
                "false",
                "Whether the account's token is mounted.",
            ),
            field(
                "securityContext",
                Kind::Kubernetes("SecurityContext"),
                "Security context of the main container.",
            ),
            field(
                "podSecurityContext",
                Kind::Kubernetes("PodSecurityContext"),
                "Security context of the pod.",
            ),
            with_default(
                "privileged",
                Kind::Boolean,
                "false",
                "Shorthand for securityContext.privileged.",
            ),
            with_default(
                "hostIpc",
                Kind::Boolean,
                "false",
                "Whether the pod shares the host's IPC namespace.",
            ),
            field("priorityClassName", Kind::Text, "Priority class."),
            field("schedulerName", Kind::Text, "Kubernetes scheduler."),
            field("runtimeClassName", Kind::Text, "Runtime class."),
            field(
                "initContainers",
                Kind::List(&Kind::Kubernetes("Container")),
                "Containers that run to their end before the main container, merged by name.",
            ),
            field(
                "sidecars",
                Kind::List(&Kind::Kubernetes("Container")),
                "Containers beside the main container, started as native sidecars, merged by name.",
            ),
            field(
                "overlay",
                Kind::Kubernetes("PodSpec"),
                "A pod spec fragment merged over the result as Kubernetes merges patches: lists with a key by it; null removes a field, `$patch: delete` an element of such a list, and `$patch: replace` in a map drops what it held.",
            ),
        ],
    },
    Message {
        name: "Resources",
        doc: "Requests and limits by resource name. A number may stand for a quantity.",
        fields: &[
            field("requests", Kind::QuantityMap, "What the container is promised."),
            field("limits", Kind::QuantityMap, "What it may not exceed."),
        ],
    },
];
