//! Volumes that Windlass adds: files and scripts, and the workspace.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, HostPathVolumeSource, KeyToPath, Volume, VolumeMount};

use crate::owner::file_key;
use crate::{FILES_PATH, ManifestError, Run, Settings, StepSpec, WORKSPACE_PATH, WorkspaceDefault, owner_name};

const FILES_VOLUME: &str = "windlass-files";
const WORKSPACE_VOLUME: &str = "windlass-workspace";
/// Folder of the scripts below the files.
const SCRIPTS_FOLDER: &str = ".windlass";
const READ_ONLY: i32 = 0o444;
const EXECUTABLE: i32 = 0o555;

/// A volume and where the main container has it.
pub(crate) type Mounted = (Volume, VolumeMount);

/// Path of a script in the main container.
pub(crate) fn script_path(key: &str) -> String {
    format!("{FILES_PATH}/{SCRIPTS_FOLDER}/{key}")
}

/// Files of the run and the script of the step; nothing when there are neither.
pub(crate) fn files(run: &Run, step: &StepSpec) -> Result<Option<Mounted>, ManifestError> {
    let mut items: Vec<KeyToPath> = run
        .context
        .files
        .iter()
        .enumerate()
        .map(|(index, file)| item(file_key(index), file.path.clone(), file.executable))
        .collect();
    if let Some(script) = &step.script {
        if !run.context.scripts.contains_key(script) {
            return Err(ManifestError::UnknownScript(script.clone()));
        }
        items.push(item(script.clone(), format!("{SCRIPTS_FOLDER}/{script}"), true));
    }
    if items.is_empty() {
        return Ok(None);
    }
    let volume = Volume {
        name: FILES_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: owner_name(&run.name, run.id),
            items: Some(items),
            default_mode: Some(READ_ONLY),
            optional: None,
        }),
        ..Volume::default()
    };
    Ok(Some((volume, mount(FILES_VOLUME, FILES_PATH, true))))
}

fn item(key: String, path: String, executable: bool) -> KeyToPath {
    KeyToPath {
        key,
        path,
        mode: executable.then_some(EXECUTABLE),
    }
}

/// Where the workspace of the run is mounted, when it has one.
pub(crate) fn workspace_path(run: &Run) -> Option<&str> {
    let workspace = run.context.workspace.as_ref()?;
    Some(workspace.mount_path.as_deref().unwrap_or(WORKSPACE_PATH))
}

/// The workspace: the folder of this run, or of the one that it retries, in the pipeline's volume, else in the operator's, else one of the host.
pub(crate) fn workspace(settings: &Settings, run: &Run) -> Result<Option<Mounted>, ManifestError> {
    let (Some(workspace), Some(path)) = (&run.context.workspace, workspace_path(run)) else {
        return Ok(None);
    };
    let folder = workspace.folder_of.unwrap_or(run.id);
    let source = match (&workspace.volume, &settings.workspace) {
        (Some(volume), _) => volume,
        (None, WorkspaceDefault::Volume(volume)) => volume,
        (None, WorkspaceDefault::HostFolder(root)) => {
            let folder = host_folder(format!("{}/{folder}", root.trim_end_matches('/')));
            return Ok(Some((folder, mount(WORKSPACE_VOLUME, path, false))));
        }
        (None, WorkspaceDefault::None) => return Err(ManifestError::NoWorkspaceVolume),
    };
    let volume = Volume {
        name: WORKSPACE_VOLUME.to_owned(),
        ..source.clone()
    };
    let mount = VolumeMount {
        sub_path: Some(format!("windlass/{folder}")),
        ..mount(WORKSPACE_VOLUME, path, false)
    };
    Ok(Some((volume, mount)))
}

fn host_folder(path: String) -> Volume {
    Volume {
        name: WORKSPACE_VOLUME.to_owned(),
        host_path: Some(HostPathVolumeSource {
            path,
            type_: Some("DirectoryOrCreate".to_owned()),
        }),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}
