//! The part of a pod that is looked at, borrowed from the bytes of a list or watch: a full Pod is never built there (performance P11).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::value::RawValue;
use windlass_ids::Timestamp;

/// A text that borrows from its input unless it has escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a time of Kubernetes (RFC 3339). The kubelet writes the beginning of 1970 where there was none, such as the start of a
    /// container whose command does not exist.
    pub fn time(&self) -> Option<Timestamp> {
        let time: jiff::Timestamp = self.0.parse().ok()?;
        (time != jiff::Timestamp::UNIX_EPOCH).then(|| Timestamp::from_millis(time.as_millisecond()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E: Error>(self) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed("")))
            }
            fn visit_none<E: Error>(self) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed("")))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

macro_rules! slim {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty $(= $key:literal)?,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default, bound(deserialize = "'de: 'a"))]
        pub struct $name<'a> {
            $($(#[$field_doc])* $(#[serde(rename = $key)])? pub $field: $type,)*
            #[serde(skip)]
            marker: std::marker::PhantomData<&'a ()>,
        }
    )*};
}

slim! {
    /// A pod.
    SlimPod {
        /// Metadata.
        metadata: Metadata<'a>,
        /// Spec.
        spec: Spec<'a>,
        /// Status.
        status: Status<'a>,
    }
    /// Its metadata.
    Metadata {
        /// Name.
        name: Text<'a>,
        /// Namespace.
        namespace: Text<'a>,
        /// Uid.
        uid: Text<'a>,
        /// Resource version.
        resource_version: Text<'a>,
        /// When it was created.
        creation_timestamp: Option<Text<'a>>,
        /// When it is to be gone.
        deletion_timestamp: Option<Text<'a>>,
        /// Seconds between the deletion and that time.
        deletion_grace_period_seconds: Option<i64>,
        /// Labels.
        labels: Labels<'a>,
        /// Annotations.
        annotations: Annotations<'a>,
    }
    /// Our labels.
    Labels {
        /// Installation.
        installation: Option<Text<'a>> = "windlass.dev/installation",
        /// Run.
        run_id: Option<Text<'a>> = "windlass.dev/run-id",
        /// Step.
        step_index: Option<Text<'a>> = "windlass.dev/step-index",
        /// Attempt.
        attempt: Option<Text<'a>> = "windlass.dev/attempt",
        /// Shard.
        shard: Option<Text<'a>> = "windlass.dev/shard",
        /// Set once it was let go.
        released: Option<Text<'a>> = "windlass.dev/released",
    }
    /// Our annotations.
    Annotations {
        /// Exit code 0 after a disruption counts as success.
        accept_exit_zero: Option<Text<'a>> = "windlass.dev/accept-exit-zero-when-terminated",
    }
    /// Its spec.
    Spec {
        /// Node, once it has one.
        node_name: Option<Text<'a>>,
        /// Seconds between SIGTERM and SIGKILL, unless a deletion says otherwise.
        termination_grace_period_seconds: Option<i64>,
        /// Containers, as they came: they are read once for each pod.
        containers: Option<&'a RawValue>,
        /// Init containers and native sidecars.
        init_containers: Vec<Container<'a>>,
        /// Volumes, as they came.
        volumes: Option<&'a RawValue>,
    }
    /// A container.
    Container {
        /// Name.
        name: Text<'a>,
        /// `Always` for a native sidecar.
        restart_policy: Option<Text<'a>>,
        /// Variables.
        env: Vec<EnvVar<'a>>,
        /// Variables by the lot.
        env_from: Vec<EnvFrom<'a>>,
    }
    /// A variable.
    EnvVar {
        /// Where its value comes from.
        value_from: EnvSource<'a>,
    }
    /// Where a variable's value comes from.
    EnvSource {
        /// A key of a Secret.
        secret_key_ref: Option<SecretKey<'a>>,
    }
    /// A key of a Secret.
    SecretKey {
        /// Name of the Secret.
        name: Text<'a>,
        /// The key.
        key: Text<'a>,
    }
    /// Variables by the lot.
    EnvFrom {
        /// All keys of a Secret.
        secret_ref: Option<SecretName<'a>>,
    }
    /// A Secret.
    SecretName {
        /// Its name.
        name: Text<'a>,
    }
    /// A volume.
    Volume {
        /// A Secret.
        secret: Option<SecretVolume<'a>>,
        /// Parts of several things.
        projected: Projected<'a>,
    }
    /// A volume of a Secret.
    SecretVolume {
        /// Its name.
        secret_name: Text<'a>,
    }
    /// A projected volume.
    Projected {
        /// Its parts.
        sources: Vec<Projection<'a>>,
    }
    /// A part of a projected volume.
    Projection {
        /// A Secret.
        secret: Option<SecretName<'a>>,
    }
    /// Its status.
    Status {
        /// Phase.
        phase: Text<'a>,
        /// Reason, of evictions and kubelet rejections.
        reason: Option<Text<'a>>,
        /// For people.
        message: Option<Text<'a>>,
        /// Conditions.
        conditions: Vec<Condition<'a>>,
        /// Containers.
        container_statuses: Vec<ContainerStatus<'a>>,
        /// Init containers and native sidecars.
        init_container_statuses: Vec<ContainerStatus<'a>>,
    }
    /// A condition.
    Condition {
        /// Type.
        kind: Text<'a> = "type",
        /// `True`, `False` or `Unknown`.
        status: Text<'a>,
        /// Reason.
        reason: Option<Text<'a>>,
        /// For people.
        message: Option<Text<'a>>,
        /// When it last changed.
        last_transition_time: Option<Text<'a>>,
    }
    /// A container's status.
    ContainerStatus {
        /// Name.
        name: Text<'a>,
        /// State.
        state: ContainerState<'a>,
        /// State before, of a container that the kubelet has lost.
        last_state: ContainerState<'a>,
        /// Id at the runtime, once there is one.
        container_id: Option<Text<'a>> = "containerID",
        /// Counts a container that the kubelet has lost, too.
        restart_count: i32,
        /// What it runs under, as the kubelet of Kubernetes 1.33 and later says.
        resources: Option<StatusResources<'a>>,
    }
    /// Resources of a container.
    StatusResources {
        /// What it may not exceed.
        limits: Limits<'a>,
    }
    /// Limits.
    Limits {
        /// Memory.
        memory: Option<Text<'a>>,
    }
    /// A container's state; one of them is set.
    ContainerState {
        /// Not started.
        waiting: Option<Waiting<'a>>,
        /// Running.
        running: Option<Running<'a>>,
        /// Ended.
        terminated: Option<Terminated<'a>>,
    }
    /// It has not started.
    Waiting {
        /// Why.
        reason: Option<Text<'a>>,
        /// For people.
        message: Option<Text<'a>>,
    }
    /// It runs.
    Running {
        /// Since when.
        started_at: Option<Text<'a>>,
    }
    /// It ended.
    Terminated {
        /// Exit code.
        exit_code: i32,
        /// Signal that ended it.
        signal: Option<i32>,
        /// Why.
        reason: Option<Text<'a>>,
        /// Termination message.
        message: Option<Text<'a>>,
        /// Since when it ran.
        started_at: Option<Text<'a>>,
        /// When it ended.
        finished_at: Option<Text<'a>>,
        /// Id at the runtime; none when it never started, or was lost.
        container_id: Option<Text<'a>> = "containerID",
    }
    /// A node.
    SlimNode {
        /// Metadata.
        metadata: Metadata<'a>,
        /// Spec.
        spec: NodeSpec<'a>,
        /// Status.
        status: NodeStatus<'a>,
    }
    /// Its spec.
    NodeSpec {
        /// Taints.
        taints: Vec<Taint<'a>>,
    }
    /// A taint.
    Taint {
        /// Key.
        key: Text<'a>,
    }
    /// Its status.
    NodeStatus {
        /// Conditions.
        conditions: Vec<Condition<'a>>,
        /// What it says of itself.
        node_info: NodeInfo<'a>,
    }
    /// What a node says of itself.
    NodeInfo {
        /// Changes with every boot.
        boot_id: Option<Text<'a>> = "bootID",
    }
}

/// The text, empty when there is none.
pub(crate) fn text<'b>(text: &'b Option<Text<'_>>) -> &'b str {
    text.as_ref().map_or("", Text::as_str)
}

impl Spec<'_> {
    /// Whether an init container is a native sidecar, which goes on beside the main container.
    pub fn is_sidecar(&self, name: &str) -> bool {
        let mut inits = self.init_containers.iter();
        inits.any(|init| init.name.as_str() == name && text(&init.restart_policy) == "Always")
    }
}

impl<'a> Status<'a> {
    /// The condition of this type, when it is true.
    pub fn is_true(&self, kind: &str) -> Option<&Condition<'a>> {
        self.condition(kind)
            .filter(|condition| condition.status.as_str() == "True")
    }

    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition<'a>> {
        self.conditions.iter().find(|condition| condition.kind.as_str() == kind)
    }

    /// The status of the container `name`.
    pub fn container(&self, name: &str) -> Option<&ContainerStatus<'a>> {
        self.container_statuses
            .iter()
            .find(|status| status.name.as_str() == name)
    }
}

impl Metadata<'_> {
    /// The resource version; 0 when there is none.
    pub fn version(&self) -> u64 {
        self.resource_version.as_str().parse().unwrap_or(0)
    }
}

impl Status<'_> {
    /// Whether any container runs or ran.
    pub fn has_started(&self) -> bool {
        let mut all = self.container_statuses.iter().chain(&self.init_container_statuses);
        all.any(ContainerStatus::has_started)
    }
}

impl ContainerStatus<'_> {
    /// Whether it runs or ran. A container that ended without ever having started has a terminated state, too.
    pub fn has_started(&self) -> bool {
        let named = |id: &Option<Text<'_>>| !text(id).is_empty();
        let ran = |ended: &Terminated<'_>| {
            named(&ended.container_id)
                || named(&self.container_id)
                || named(&ended.started_at)
                || self.restart_count > 0
        };
        self.state.running.is_some()
            || self.state.terminated.as_ref().is_some_and(ran)
            || self.last_state.terminated.is_some()
    }
}
