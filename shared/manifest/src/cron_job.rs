//! A CronJob that triggers a schedule: its Jobs' pods ask the scheduler for a run, and wait for it.
//!
//! The request id is the Job's uid, so that however many pods a Job has, it has one run. Whether a run may start while another one has not
//! ended is the scheduler's to decide: it knows every run of the schedule, so the CronJob itself allows all.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{
    CronJob, CronJobSpec, JobSpec, JobTemplateSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, EnvVarSource, KeyToPath, ObjectFieldSelector, PodSecurityContext, PodSpec,
    PodTemplateSpec, ResourceRequirements, SeccompProfile, SecretKeySelector, SecretVolumeSource, SecurityContext,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use windlass_ids::{InstallationId, ScheduleId};

use crate::labels::{Annotation, Label, label_value};
use crate::names::cron_job_name;

/// What a Job's pod is told about its Job.
const JOB_UID: &str = "WINDLASS_JOB_UID";
/// Key of the token in the Secret of a CronJob.
pub const TOKEN_KEY: &str = "token";
/// Where the files of the Secret are mounted.
const TLS_PATH: &str = "/windlass/tls";
const TLS_VOLUME: &str = "tls";
/// User of the image.
const USER: i64 = 65_532;
/// How many pods of a Job may fail for reasons that may pass: the server was away, the node broke.
const BACKOFF_LIMIT: i32 = 6;
/// What no other pod would change: the run failed, the request is wrong, the run was cancelled.
const FINAL_EXITS: [i32; 3] = [1, 2, 5];

/// What a CronJob triggers, and how.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// The installation.
    pub installation: InstallationId,
    /// Namespace of the schedule, and of the CronJob.
    pub namespace: String,
    /// Name of the schedule.
    pub schedule: String,
    /// Its id.
    pub schedule_id: ScheduleId,
    /// When, as [`crate::cron_job_pattern`] makes it.
    pub pattern: String,
    /// IANA name of the time zone of the pattern.
    pub time_zone: String,
    /// Jobs that are later than this do not start.
    pub starting_deadline: Duration,
    /// Whether no Jobs start.
    pub suspend: bool,
    /// Whether a Job waits for its run and ends as it does.
    pub wait: bool,
    /// Image with `windlass`.
    pub image: String,
    /// Address of the scheduler as the pods reach it.
    pub server: String,
    /// Where the pods' credentials are.
    pub secret: Option<ClientSecret>,
    /// Service account of the pods, none of whose tokens they get.
    pub service_account: Option<String>,
    /// How many Jobs that succeeded are kept.
    pub successful_history: i32,
    /// How many that failed are kept.
    pub failed_history: i32,
    /// How long a Job that has ended is kept.
    pub ttl: Duration,
}

/// A Secret with what the pods show to the scheduler.
#[derive(Clone, Debug)]
pub struct ClientSecret {
    /// Its name.
    pub name: String,
    /// Whether its `ca.crt` is the authority of the server.
    pub authority: bool,
    /// Whether its `tls.crt` and `tls.key` are shown to the server.
    pub certificate: bool,
}

impl ClientSecret {
    fn files(&self) -> Vec<(&'static str, &'static str)> {
        let authority = self.authority.then_some(("WINDLASS_CA", "ca.crt"));
        let certificate = [("WINDLASS_CLIENT_CERT", "tls.crt"), ("WINDLASS_CLIENT_KEY", "tls.key")];
        let certificate = self.certificate.then_some(certificate).into_iter().flatten();
        authority.into_iter().chain(certificate).collect()
    }
}

/// The CronJob of a schedule (behaviours F4, E28, E30).
pub fn cron_job(trigger: &Trigger) -> CronJob {
    let name = cron_job_name(trigger.installation, &trigger.namespace, &trigger.schedule);
    let metadata = |labels: BTreeMap<String, String>| ObjectMeta {
        labels: Some(labels),
        annotations: Some([(Annotation::SCHEDULE.to_owned(), trigger.schedule.clone())].into()),
        ..ObjectMeta::default()
    };
    // Without the installation: executors select their pods by it, and purging does not take Jobs.
    let inner = labels(trigger);
    let mut outer = inner.clone();
    outer.insert(Label::INSTALLATION.to_owned(), trigger.installation.to_string());
    let template = PodTemplateSpec {
        metadata: Some(metadata(inner.clone())),
        spec: Some(pod(trigger)),
    };
    let job = JobSpec {
        backoff_limit: Some(BACKOFF_LIMIT),
        pod_failure_policy: Some(failure_policy()),
        ttl_seconds_after_finished: Some(i32::try_from(trigger.ttl.as_secs()).unwrap_or(i32::MAX)),
        template,
        ..JobSpec::default()
    };
    CronJob {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(trigger.namespace.clone()),
            ..metadata(outer)
        },
        spec: Some(CronJobSpec {
            schedule: trigger.pattern.clone(),
            time_zone: Some(trigger.time_zone.clone()),
            concurrency_policy: Some("Allow".to_owned()),
            starting_deadline_seconds: Some(
                i64::try_from(whole_seconds(trigger.starting_deadline)).unwrap_or(i64::MAX),
            ),
            suspend: Some(trigger.suspend),
            successful_jobs_history_limit: Some(trigger.successful_history),
            failed_jobs_history_limit: Some(trigger.failed_history),
            job_template: JobTemplateSpec {
                metadata: Some(metadata(inner)),
                spec: Some(job),
            },
        }),
        status: None,
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn labels(trigger: &Trigger) -> BTreeMap<String, String> {
    let labels = [
        (Label::SCHEDULE, label_value(&trigger.schedule)),
        (Label::SCHEDULE_ID, trigger.schedule_id.to_string()),
    ];
    labels.map(|(key, value)| (key.to_owned(), value)).into()
}

fn failure_policy() -> PodFailurePolicy {
    let disrupted = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            status: "True".to_owned(),
            type_: "DisruptionTarget".to_owned(),
        }]),
        ..PodFailurePolicyRule::default()
    };
    let final_exit = PodFailurePolicyRule {
        action: "FailJob".to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            operator: "In".to_owned(),
            values: FINAL_EXITS.into(),
            ..PodFailurePolicyOnExitCodesRequirement::default()
        }),
        ..PodFailurePolicyRule::default()
    };
    PodFailurePolicy {
        rules: vec![disrupted, final_exit],
    }
}

fn pod(trigger: &Trigger) -> PodSpec {
    let secret = trigger.secret.as_ref();
    let files = secret.map(ClientSecret::files).unwrap_or_default();
    let volume = secret.filter(|_| !files.is_empty()).map(|secret| Volume {
        name: TLS_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.name.clone()),
            items: Some(files.iter().map(|(_, key)| same_path(key)).collect()),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    let mount = volume.is_some().then(|| VolumeMount {
        name: TLS_VOLUME.to_owned(),
        mount_path: TLS_PATH.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        service_account_name: trigger.service_account.clone(),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(trigger, &files, mount)],
        volumes: volume.map(|volume| vec![volume]),
        ..PodSpec::default()
    }
}

fn same_path(key: &str) -> KeyToPath {
    KeyToPath {
        key: key.to_owned(),
        path: key.to_owned(),
        mode: None,
    }
}

fn container(trigger: &Trigger, files: &[(&str, &str)], mount: Option<VolumeMount>) -> Container {
    let request_id = format!("$({JOB_UID})");
    let mut args = vec!["schedule", "trigger", &trigger.schedule];
    args.extend([
        "--namespace",
        &trigger.namespace,
        "--request-id",
        &request_id,
        "--obey-overlap",
    ]);
    if trigger.wait {
        args.push("--wait");
    }
    let amounts = |amounts: &[(&str, &str)]| {
        let amounts = amounts.iter();
        amounts
            .map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())))
            .collect()
    };
    Container {
        name: "trigger".to_owned(),
        image: Some(trigger.image.clone()),
        command: Some(vec!["windlass".to_owned()]),
        args: Some(args.into_iter().map(str::to_owned).collect()),
        env: Some(env(trigger, files)),
        resources: Some(ResourceRequirements {
            requests: Some(amounts(&[("cpu", "10m"), ("memory", "32Mi")])),
            limits: Some(amounts(&[("memory", "128Mi")])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                add: None,
                drop: Some(vec!["ALL".to_owned()]),
            }),
            ..SecurityContext::default()
        }),
        // What failed says why in its last lines.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: mount.map(|mount| vec![mount]),
        ..Container::default()
    }
}

fn env(trigger: &Trigger, files: &[(&str, &str)]) -> Vec<EnvVar> {
    let plain = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    };
    let from = |name: &str, source: EnvVarSource| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(source),
    };
    let uid = EnvVarSource {
        field_ref: Some(ObjectFieldSelector {
            field_path: "metadata.labels['batch.kubernetes.io/controller-uid']".to_owned(),
            api_version: None,
        }),
        ..EnvVarSource::default()
    };
    let token = trigger.secret.as_ref().map(|secret| EnvVarSource {
        secret_key_ref: Some(SecretKeySelector {
            name: secret.name.clone(),
            key: TOKEN_KEY.to_owned(),
            optional: None,
        }),
        ..EnvVarSource::default()
    });
    let mut env = vec![from(JOB_UID, uid), plain("WINDLASS_SERVER", trigger.server.clone())];
    env.extend(token.map(|token| from("WINDLASS_TOKEN", token)));
    let files = files.iter();
    env.extend(files.map(|(name, key)| plain(name, format!("{TLS_PATH}/{key}"))));
    env
}
