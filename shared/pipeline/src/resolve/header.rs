//! What a pipeline says about the run as a whole.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::parameters::check_literal;
use super::{Environment, Limits, WorkspaceDefault};
use crate::check::{check_annotations, check_labels, check_part, is_dns_label, mount_place, relative_path};
use crate::kubernetes::check_volume_source;
use crate::model::{File, Workspace};
use crate::path::Path;
use crate::resolved::ResolvedWorkspace;
use crate::substitute::{Expansion, references, substitute};
use crate::texts::fragment_texts;
use crate::violation::{Code, Violations};
use crate::{Fragment, Millis, Pipeline, ResolvedTemplate, StepOverlay};

/// Folder of the scripts among the files.
const SCRIPTS_FOLDER: &str = ".windlass";

type Variables = BTreeMap<String, String>;

/// Checks everything but parameters and steps.
pub(super) fn check(
    pipeline: &Pipeline,
    variables: &Variables,
    environment: &Environment,
    violations: &mut Violations,
) {
    if pipeline.name.is_empty() {
        violations.add("name", Code::Missing, "a pipeline needs a name");
    } else if !is_dns_label(&pipeline.name) {
        let message = format!(
            "`{}` is no name: at most 63 lower-case letters, digits and `-`, starting and ending with a letter or digit",
            pipeline.name
        );
        violations.add("name", Code::BadValue, message);
    }
    if pipeline.max_parallelism == Some(0) {
        violations.add(
            "maxParallelism",
            Code::BadValue,
            "must be at least 1; leave it out for no limit",
        );
    }
    if pipeline.timeout == Some(Millis(0)) {
        violations.add(
            "timeout",
            Code::BadValue,
            "must be longer than 0; leave it out for no limit",
        );
    }
    if pipeline.cluster.as_ref().is_some_and(String::is_empty) {
        violations.add("cluster", Code::BadValue, "the alias of a cluster must not be empty");
    }
    let labels = substituted_map(&pipeline.labels, variables);
    check_labels(&labels, &Path::root().field("labels"), violations);
    check_annotations(&pipeline.annotations, &Path::root().field("annotations"), violations);
    if let Some(defaults) = &pipeline.defaults {
        let template = ResolvedTemplate {
            merged: defaults.clone(),
            variables: variables.clone(),
        };
        let part = template.substituted(&StepOverlay::default());
        check_part(&part, &Path::root().field("defaults"), violations);
    }
    check_references(pipeline, variables, violations);
    check_files(pipeline, environment.limits.files, violations);
    check_workspace(pipeline, variables, environment, violations);
}

/// References outside steps and defaults: only parameters are known there.
fn check_references(pipeline: &Pipeline, variables: &Variables, violations: &mut Violations) {
    let root = Path::root();
    let mut check = |path: &Path<'_>, text: &str| {
        for name in references(text).filter(|name| !variables.contains_key(*name)) {
            let message = undeclared(name, variables.keys(), violations);
            violations.add(path.to_string(), Code::UnknownParameter, message);
        }
    };
    if let Some(cluster) = &pipeline.cluster {
        check(&root.field("cluster"), cluster);
    }
    for (field, texts) in [("labels", &pipeline.labels), ("annotations", &pipeline.annotations)] {
        let path = root.field(field);
        for (key, text) in texts {
            check(&path.field(key), text);
        }
    }
    if let Some(Workspace { volume, mount_path }) = &pipeline.workspace {
        let path = root.field("workspace");
        if let Some(mount_path) = mount_path {
            check(&path.field("mountPath"), mount_path);
        }
        if let Some(volume) = volume {
            let mut volume = volume.clone();
            fragment_texts(
                volume.value_mut(),
                &path.field("volume"),
                Expansion::Final,
                &mut |path, _, text| {
                    check(path, text);
                },
            );
        }
    }
}

/// Why `$(name)` cannot be substituted.
pub(super) fn undeclared<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a String>,
    violations: &Violations,
) -> String {
    if name.starts_with("WINDLASS_") {
        return format!("$({name}) is known only while the step runs: use it in command, args, env or a script");
    }
    let hint = violations.hint(name, known.into_iter().map(String::as_str));
    format!("$({name}) is not declared as a parameter{hint}; write $$({name}) for the text itself")
}

fn check_files(pipeline: &Pipeline, most: usize, violations: &mut Violations) {
    let list = Path::root().field("files");
    if pipeline.files.len() > most {
        let message = format!("{} files are more than {most}", pipeline.files.len());
        violations.add(list.to_string(), Code::Limit, message);
    }
    let all: HashSet<&str> = pipeline.files.iter().map(|file| file.path.as_str()).collect();
    let mut paths = HashSet::new();
    for (index, file) in pipeline.files.iter().enumerate() {
        let path = list.index(index);
        check_file(file, &path, violations);
        if !file.path.is_empty() && !paths.insert(file.path.as_str()) {
            let message = format!("the file {} is given twice", file.path);
            violations.add(path.field("path").to_string(), Code::Duplicate, message);
        }
        let folders = file.path.match_indices('/').map(|(at, _)| &file.path[..at]);
        if let Some(folder) = folders.into_iter().find(|folder| all.contains(folder)) {
            let message = format!("{folder} is both a file and a folder");
            violations.add(path.field("path").to_string(), Code::Conflict, message);
        }
    }
}

/// Checks that files and scripts fit into the object that carries them, where equal scripts stand once.
pub(super) fn check_size(
    pipeline: &Pipeline,
    templates: &[Arc<ResolvedTemplate>],
    limits: &Limits,
    violations: &mut Violations,
) {
    let files: usize = pipeline.files.iter().filter_map(|file| Some(file.bytes()?.len())).sum();
    let scripts: HashSet<&String> = templates
        .iter()
        .filter_map(|template| template.merged.script.as_ref())
        .collect();
    let scripts: usize = scripts.into_iter().map(String::len).sum();
    let (total, limit) = (files + scripts, limits.file_bytes);
    if total > limit {
        let message = format!("files and scripts have {total} bytes together, more than {limit}");
        violations.add("files", Code::Limit, message);
    }
}

fn check_file(file: &File, path: &Path<'_>, violations: &mut Violations) {
    if let Err(message) = relative_path(&file.path) {
        let code = if file.path.is_empty() {
            Code::Missing
        } else {
            Code::BadValue
        };
        violations.add(path.field("path").to_string(), code, message);
    } else if file.path.split('/').next() == Some(SCRIPTS_FOLDER) {
        let message = format!("{SCRIPTS_FOLDER} belongs to Windlass, which keeps scripts there");
        violations.add(path.field("path").to_string(), Code::Reserved, message);
    }
    check_literal(&file.path, &path.field("path"), violations);
    match (&file.content, &file.content_base64) {
        (Some(_), Some(_)) => {
            violations.add(
                path.to_string(),
                Code::Conflict,
                "a file has either content or contentBase64",
            );
        }
        (None, None) => {
            let message = format!("the file {} has no content", file.path);
            violations.add(path.to_string(), Code::Missing, message);
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
}

fn check_workspace(pipeline: &Pipeline, variables: &Variables, environment: &Environment, violations: &mut Violations) {
    let Some(workspace) = workspace(pipeline, variables, environment) else {
        return;
    };
    let path = Path::root().field("workspace");
    let own_volume = pipeline
        .workspace
        .as_ref()
        .is_some_and(|workspace| workspace.volume.is_some());
    match &workspace.volume {
        Some(volume) if own_volume => check_volume_source(volume, &path.field("volume"), violations),
        None if environment.workspace == WorkspaceDefault::Refused => {
            let message = "name a volume here, since this installation has no default (--workspace-volume)";
            violations.add(path.field("volume").to_string(), Code::Missing, message);
        }
        Some(_) | None => {}
    }
    let place = mount_place(&workspace.mount_path);
    let is_ours =
        |place: &str| place == "/windlass" || place == "/windlass/files" || place.starts_with("/windlass/files/");
    if place.as_deref().is_none_or(is_ours) {
        let message = "the workspace is mounted at an absolute path of its own, such as /data; /windlass and /windlass/files are taken";
        violations.add(path.field("mountPath").to_string(), Code::BadValue, message);
    }
}

/// The alias of the cluster with parameters in place.
pub(super) fn cluster(pipeline: &Pipeline, variables: &Variables) -> Option<String> {
    pipeline.cluster.as_deref().map(|text| substituted(text, variables))
}

/// The workspace with parameters in place.
pub(super) fn workspace(
    pipeline: &Pipeline,
    variables: &Variables,
    environment: &Environment,
) -> Option<ResolvedWorkspace> {
    let Workspace { volume, mount_path } = pipeline.workspace.as_ref()?;
    let own = volume.clone().map(|mut volume: Fragment| {
        fragment_texts(volume.value_mut(), Path::root(), Expansion::Final, &mut |_, _, text| {
            *text = substituted(text, variables);
        });
        volume
    });
    let default = match &environment.workspace {
        WorkspaceDefault::Volume(volume) => Some(volume.clone()),
        WorkspaceDefault::Refused | WorkspaceDefault::RunFolder => None,
    };
    let mount_path = mount_path.as_deref().unwrap_or(ResolvedWorkspace::DEFAULT_MOUNT_PATH);
    Some(ResolvedWorkspace {
        volume: own.or(default),
        mount_path: substituted(mount_path, variables),
    })
}

fn substituted(text: &str, variables: &Variables) -> String {
    substitute(text, Expansion::Final, |name| variables.get(name).map(String::as_str))
}

fn substituted_map(texts: &BTreeMap<String, String>, variables: &Variables) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|(key, text)| (key.clone(), substituted(text, variables)))
        .collect()
}
