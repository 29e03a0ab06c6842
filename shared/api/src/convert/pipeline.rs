//! The pipeline model and its message.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use windlass_pipeline::model;
use windlass_pipeline::{Code, Fragment, Millis, Pipeline, Violation, Violations};

use super::values::{json_from_struct, millis_from_proto, scalar_from_value, scalar_to_value, struct_from_map};
use crate::pipeline::v1 as pb;

/// A message as a pipeline. What the model cannot hold is left out, so that the rest can be checked, and stands in `problems` with
/// its path.
pub fn pipeline_from_proto(message: pb::Pipeline, problems: &mut Violations) -> Pipeline {
    Reader { problems }.pipeline(message)
}

/// Collects problems while it reads, so that all are found at once.
struct Reader<'p> {
    problems: &'p mut Violations,
}

macro_rules! enum_readers {
    ($($name:ident: $message:ident => $model:ident { $($variant:ident),* } or $unspecified:ident;)*) => {$(
        fn $name(&mut self, path: &str, number: i32) -> Option<model::$model> {
            match pb::$message::try_from(number) {
                Ok(pb::$message::$unspecified) => None,
                $(Ok(pb::$message::$variant) => Some(model::$model::$variant),)*
                Err(_) => {
                    self.problem(path, format!("unknown value {number}; allowed are {}", model::$model::NAMES.join(", ")));
                    None
                }
            }
        }
    )*};
}

/// Reads the fields that a step and the defaults have in common, which are two messages with the same fields.
macro_rules! template {
    ($reader:ident, $path:ident, $message:ident) => {
        model::StepTemplate {
            image: $message.image,
            command: $message.command,
            args: $message.args,
            script: $message.script,
            env: $message.env.into_iter().map(env_var).collect(),
            working_dir: $message.working_dir,
            run_if: $reader.run_if(&join($path, "runIf"), $message.run_if),
            timeout: $reader.millis(&join($path, "timeout"), $message.timeout),
            retries: $message.retries.map(|retries| model::Retries {
                user: retries
                    .user
                    .map(|budget| $reader.budget(&join($path, "retries.user"), budget)),
                infrastructure: retries
                    .infrastructure
                    .map(|budget| $reader.budget(&join($path, "retries.infrastructure"), budget)),
            }),
            lost_contact: $message.lost_contact.map(|lost| model::LostContact {
                deadline: $reader.millis(&join($path, "lostContact.deadline"), lost.deadline),
                then: $reader.lost_contact_action(&join($path, "lostContact.then"), lost.then),
            }),
            deadlines: $message
                .deadlines
                .map(|deadlines| $reader.deadlines(&join($path, "deadlines"), deadlines)),
            termination_grace: $reader.millis(&join($path, "terminationGrace"), $message.termination_grace),
            cluster: $message.cluster,
            logs: $message.logs.map(|logs| model::Logs {
                follow: $reader.log_follow(&join($path, "logs.follow"), logs.follow),
            }),
            accept_exit_zero_when_terminated: $message.accept_exit_zero_when_terminated,
            pod: $message.pod.map(pod_settings),
        }
    };
}

impl Reader<'_> {
    fn problem(&mut self, path: &str, message: String) {
        self.problems.push(Violation::new(path, Code::BadValue, message));
    }

    enum_readers! {
        failure_mode: FailureMode => FailureMode { ContinueOnFailure, StopOnFailure, FailFast } or Unspecified;
        run_if: RunIf => RunIf { Succeeded, Failed, Always } or Unspecified;
        lost_contact_action: LostContactAction => LostContactAction { Fail, Wait } or Unspecified;
        log_follow: LogFollow => LogFollow { Always, OnDemand } or Unspecified;
        parameter_type: ParameterType => ParameterType { String, Number, Boolean } or Unspecified;
    }

    fn pipeline(&mut self, message: pb::Pipeline) -> Pipeline {
        Pipeline {
            name: message.name,
            parameters: indexed("parameters", message.parameters)
                .map(|(path, one)| self.parameter(&path, one))
                .collect(),
            cluster: message.cluster,
            workspace: message.workspace.map(|workspace| model::Workspace {
                volume: workspace.volume.map(fragment),
                mount_path: workspace.mount_path,
            }),
            files: message.files.into_iter().map(file).collect(),
            failure_mode: self.failure_mode("failureMode", message.failure_mode),
            max_parallelism: message.max_parallelism,
            start_interval: self.millis("startInterval", message.start_interval),
            timeout: self.millis("timeout", message.timeout),
            priority: message.priority,
            labels: message.labels,
            annotations: message.annotations,
            defaults: message.defaults.map(|defaults| {
                let path = "defaults";
                template!(self, path, defaults)
            }),
            steps: indexed("steps", message.steps)
                .map(|(path, step)| self.step(&path, step))
                .collect(),
        }
    }

    fn parameter(&mut self, path: &str, message: pb::Parameter) -> model::Parameter {
        model::Parameter {
            name: message.name,
            parameter_type: self.parameter_type(&join(path, "type"), message.r#type),
            default: message
                .default
                .and_then(|value| self.scalar(&join(path, "default"), value)),
            description: message.description,
        }
    }

    fn step(&mut self, path: &str, message: pb::Step) -> model::Step {
        model::Step {
            matrix: indexed(&join(path, "matrix"), message.matrix)
                .map(|(path, axis)| model::MatrixAxis {
                    name: axis.name,
                    values: indexed(&join(&path, "values"), axis.values)
                        .map(|(path, value)| self.scalar(&path, value).unwrap_or_default())
                        .collect(),
                })
                .collect(),
            name: message.name,
            upstream: message.upstream,
            unset: message.unset,
            template: template!(self, path, message),
        }
    }

    fn budget(&mut self, path: &str, message: pb::RetryBudget) -> model::RetryBudget {
        model::RetryBudget {
            attempts: message.attempts,
            delay: self.millis(&join(path, "delay"), message.delay),
            backoff: message.backoff,
            max_delay: self.millis(&join(path, "maxDelay"), message.max_delay),
            exit_codes: message.exit_codes,
        }
    }

    fn deadlines(&mut self, path: &str, message: pb::Deadlines) -> model::Deadlines {
        model::Deadlines {
            admitted: self.millis(&join(path, "admitted"), message.admitted),
            created: self.millis(&join(path, "created"), message.created),
            scheduled: self.millis(&join(path, "scheduled"), message.scheduled),
            pulling: self.millis(&join(path, "pulling"), message.pulling),
            initialising: self.millis(&join(path, "initialising"), message.initialising),
            terminating: self.millis(&join(path, "terminating"), message.terminating),
        }
    }

    fn millis(&mut self, path: &str, duration: Option<prost_types::Duration>) -> Option<Millis> {
        match millis_from_proto(path, &duration?) {
            Ok(millis) => Some(millis),
            Err(violation) => {
                self.problems.push(violation);
                None
            }
        }
    }

    fn scalar(&mut self, path: &str, value: prost_types::Value) -> Option<windlass_pipeline::Scalar> {
        match scalar_from_value(path, value) {
            Ok(scalar) => Some(scalar),
            Err(violation) => {
                self.problems.push(violation);
                None
            }
        }
    }
}

fn join(path: &str, field: &str) -> String {
    format!("{path}.{field}")
}

fn indexed<T>(path: &str, items: Vec<T>) -> impl Iterator<Item = (String, T)> {
    let path = path.to_owned();
    items
        .into_iter()
        .enumerate()
        .map(move |(index, item)| (format!("{path}[{index}]"), item))
}

fn fragment(fields: prost_types::Struct) -> Fragment {
    Fragment::new(json_from_struct(fields))
}

fn fragments(list: Vec<prost_types::Struct>) -> Vec<Fragment> {
    list.into_iter().map(fragment).collect()
}

fn file(message: pb::File) -> model::File {
    model::File {
        path: message.path,
        content: message.content,
        content_base64: message.content_base64.map(model::Base64),
        executable: message.executable,
    }
}

fn env_var(message: pb::EnvVar) -> model::EnvVar {
    let key = |selector: pb::KeySelector| model::KeySelector {
        name: selector.name,
        key: selector.key,
        optional: selector.optional,
    };
    model::EnvVar {
        name: message.name,
        value: message.value,
        value_from: message.value_from.map(|source| model::EnvVarSource {
            secret_key_ref: source.secret_key_ref.map(key),
            config_map_key_ref: source.config_map_key_ref.map(key),
            field_ref: source.field_ref.map(|field| model::FieldSelector {
                field_path: field.field_path,
            }),
            resource_field_ref: source.resource_field_ref.map(|field| model::ResourceFieldSelector {
                resource: field.resource,
                divisor: field.divisor,
            }),
            run_secret_key_ref: source
                .run_secret_key_ref
                .map(|selector| model::RunSecretKeySelector { key: selector.key }),
        }),
    }
}

fn pod_settings(message: pb::PodSettings) -> model::PodSettings {
    model::PodSettings {
        resources: message.resources.map(|resources| model::Resources {
            requests: quantities(resources.requests),
            limits: quantities(resources.limits),
        }),
        node_selector: message.node_selector,
        affinity: message.affinity.map(fragment),
        tolerations: fragments(message.tolerations),
        labels: message.labels,
        annotations: message.annotations,
        volumes: fragments(message.volumes),
        volume_mounts: fragments(message.volume_mounts),
        env_from: fragments(message.env_from),
        image_pull_secrets: message.image_pull_secrets,
        image_pull_policy: message.image_pull_policy,
        service_account_name: message.service_account_name,
        automount_service_account_token: message.automount_service_account_token,
        security_context: message.security_context.map(fragment),
        pod_security_context: message.pod_security_context.map(fragment),
        privileged: message.privileged,
        host_ipc: message.host_ipc,
        priority_class_name: message.priority_class_name,
        scheduler_name: message.scheduler_name,
        runtime_class_name: message.runtime_class_name,
        init_containers: fragments(message.init_containers),
        sidecars: fragments(message.sidecars),
        overlay: message.overlay.map(|fields| Fragment::patch(json_from_struct(fields))),
    }
}

fn quantities(texts: BTreeMap<String, String>) -> BTreeMap<String, model::Quantity> {
    texts
        .into_iter()
        .map(|(name, text)| (name, model::Quantity(text)))
        .collect()
}

macro_rules! enum_writers {
    ($($name:ident: $model:ident => $message:ident { $($variant:ident),* };)*) => {$(
        fn $name(value: Option<model::$model>) -> i32 {
            let message = match value {
                None => pb::$message::Unspecified,
                $(Some(model::$model::$variant) => pb::$message::$variant,)*
            };
            message.into()
        }
    )*};
}

enum_writers! {
    failure_mode_to: FailureMode => FailureMode { ContinueOnFailure, StopOnFailure, FailFast };
    run_if_to: RunIf => RunIf { Succeeded, Failed, Always };
    lost_contact_action_to: LostContactAction => LostContactAction { Fail, Wait };
    log_follow_to: LogFollow => LogFollow { Always, OnDemand };
    parameter_type_to: ParameterType => ParameterType { String, Number, Boolean };
}

/// Writes the fields that a step and the defaults have in common into a message of either type.
macro_rules! template_to {
    ($message:ident { $($own:ident: $value:expr),* }, $template:ident) => {
        pb::$message {
            $($own: $value,)*
            image: $template.image.clone(),
            command: $template.command.clone(),
            args: $template.args.clone(),
            script: $template.script.clone(),
            env: $template.env.iter().map(env_var_to).collect(),
            working_dir: $template.working_dir.clone(),
            run_if: run_if_to($template.run_if),
            timeout: $template.timeout.map(millis_to),
            retries: $template.retries.as_ref().map(|retries| pb::Retries {
                user: retries.user.as_ref().map(budget_to),
                infrastructure: retries.infrastructure.as_ref().map(budget_to),
            }),
            lost_contact: $template.lost_contact.as_ref().map(|lost| pb::LostContact {
                deadline: lost.deadline.map(millis_to),
                then: lost_contact_action_to(lost.then),
            }),
            deadlines: $template.deadlines.as_ref().map(|deadlines| pb::Deadlines {
                admitted: deadlines.admitted.map(millis_to),
                created: deadlines.created.map(millis_to),
                scheduled: deadlines.scheduled.map(millis_to),
                pulling: deadlines.pulling.map(millis_to),
                initialising: deadlines.initialising.map(millis_to),
                terminating: deadlines.terminating.map(millis_to),
            }),
            termination_grace: $template.termination_grace.map(millis_to),
            cluster: $template.cluster.clone(),
            logs: $template.logs.as_ref().map(|logs| pb::Logs { follow: log_follow_to(logs.follow) }),
            accept_exit_zero_when_terminated: $template.accept_exit_zero_when_terminated,
            pod: $template.pod.as_ref().map(pod_settings_to),
        }
    };
}

/// A pipeline as a message.
pub fn pipeline_to_proto(pipeline: &Pipeline) -> pb::Pipeline {
    pb::Pipeline {
        name: pipeline.name.clone(),
        parameters: pipeline.parameters.iter().map(parameter_to).collect(),
        cluster: pipeline.cluster.clone(),
        workspace: pipeline.workspace.as_ref().map(|workspace| pb::Workspace {
            volume: workspace.volume.as_ref().map(fragment_to),
            mount_path: workspace.mount_path.clone(),
        }),
        files: pipeline.files.iter().map(file_to).collect(),
        failure_mode: failure_mode_to(pipeline.failure_mode),
        max_parallelism: pipeline.max_parallelism,
        start_interval: pipeline.start_interval.map(millis_to),
        timeout: pipeline.timeout.map(millis_to),
        priority: pipeline.priority,
        labels: pipeline.labels.clone(),
        annotations: pipeline.annotations.clone(),
        defaults: pipeline
            .defaults
            .as_ref()
            .map(|defaults| template_to!(StepDefaults {}, defaults)),
        steps: pipeline.steps.iter().map(step_to).collect(),
    }
}

fn step_to(step: &model::Step) -> pb::Step {
    let template = &step.template;
    template_to!(
        Step {
            name: step.name.clone(),
            upstream: step.upstream.clone(),
            matrix: step.matrix.iter().map(axis_to).collect(),
            unset: step.unset.clone()
        },
        template
    )
}

fn axis_to(axis: &model::MatrixAxis) -> pb::MatrixAxis {
    pb::MatrixAxis {
        name: axis.name.clone(),
        values: axis.values.iter().map(scalar_to_value).collect(),
    }
}

fn parameter_to(parameter: &model::Parameter) -> pb::Parameter {
    pb::Parameter {
        name: parameter.name.clone(),
        r#type: parameter_type_to(parameter.parameter_type),
        default: parameter.default.as_ref().map(scalar_to_value),
        description: parameter.description.clone(),
    }
}

fn millis_to(millis: Millis) -> prost_types::Duration {
    super::duration_to_proto(millis.as_duration())
}

fn budget_to(budget: &model::RetryBudget) -> pb::RetryBudget {
    pb::RetryBudget {
        attempts: budget.attempts,
        delay: budget.delay.map(millis_to),
        backoff: budget.backoff,
        max_delay: budget.max_delay.map(millis_to),
        exit_codes: budget.exit_codes.clone(),
    }
}

/// Only objects have a message; anything else was refused when the file was read, and becomes an empty one here.
fn fragment_to(fragment: &Fragment) -> prost_types::Struct {
    match fragment.value() {
        Json::Object(entries) => struct_from_map(entries),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
            prost_types::Struct::default()
        }
    }
}

fn fragments_to(fragments: &[Fragment]) -> Vec<prost_types::Struct> {
    fragments.iter().map(fragment_to).collect()
}

fn file_to(file: &model::File) -> pb::File {
    pb::File {
        path: file.path.clone(),
        content: file.content.clone(),
        content_base64: file.content_base64.as_ref().map(|binary| binary.0.clone()),
        executable: file.executable,
    }
}

fn env_var_to(variable: &model::EnvVar) -> pb::EnvVar {
    let key = |selector: &model::KeySelector| pb::KeySelector {
        name: selector.name.clone(),
        key: selector.key.clone(),
        optional: selector.optional,
    };
    pb::EnvVar {
        name: variable.name.clone(),
        value: variable.value.clone(),
        value_from: variable.value_from.as_ref().map(|source| pb::EnvVarSource {
            secret_key_ref: source.secret_key_ref.as_ref().map(key),
            config_map_key_ref: source.config_map_key_ref.as_ref().map(key),
            field_ref: source.field_ref.as_ref().map(|field| pb::FieldSelector {
                field_path: field.field_path.clone(),
            }),
            resource_field_ref: source
                .resource_field_ref
                .as_ref()
                .map(|field| pb::ResourceFieldSelector {
                    resource: field.resource.clone(),
                    divisor: field.divisor.clone(),
                }),
            run_secret_key_ref: source
                .run_secret_key_ref
                .as_ref()
                .map(|selector| pb::RunSecretKeySelector {
                    key: selector.key.clone(),
                }),
        }),
    }
}

fn pod_settings_to(pod: &model::PodSettings) -> pb::PodSettings {
    let texts = |quantities: &BTreeMap<String, model::Quantity>| {
        quantities
            .iter()
            .map(|(name, quantity)| (name.clone(), quantity.0.clone()))
            .collect()
    };
    pb::PodSettings {
        resources: pod.resources.as_ref().map(|resources| pb::Resources {
            requests: texts(&resources.requests),
            limits: texts(&resources.limits),
        }),
        node_selector: pod.node_selector.clone(),
        affinity: pod.affinity.as_ref().map(fragment_to),
        tolerations: fragments_to(&pod.tolerations),
        labels: pod.labels.clone(),
        annotations: pod.annotations.clone(),
        volumes: fragments_to(&pod.volumes),
        volume_mounts: fragments_to(&pod.volume_mounts),
        env_from: fragments_to(&pod.env_from),
        image_pull_secrets: pod.image_pull_secrets.clone(),
        image_pull_policy: pod.image_pull_policy.clone(),
        service_account_name: pod.service_account_name.clone(),
        automount_service_account_token: pod.automount_service_account_token,
        security_context: pod.security_context.as_ref().map(fragment_to),
        pod_security_context: pod.pod_security_context.as_ref().map(fragment_to),
        privileged: pod.privileged,
        host_ipc: pod.host_ipc,
        priority_class_name: pod.priority_class_name.clone(),
        scheduler_name: pod.scheduler_name.clone(),
        runtime_class_name: pod.runtime_class_name.clone(),
        init_containers: fragments_to(&pod.init_containers),
        sidecars: fragments_to(&pod.sidecars),
        overlay: pod.overlay.as_ref().map(fragment_to),
    }
}
