//! Volumes as folders of this machine.
//!
//! Processes share the machine's file system, so nothing is mounted: a mount path is replaced by the volume's folder
//! wherever it appears in command, arguments, environment and working folder.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::environment::{CannotStart, amount, field, read};
use super::folders::{volume_folder, work_folder};
use crate::pods::all_containers;
use crate::resources::{CONFIG_MAPS, Resource, SECRETS};
use crate::store::Store;

const DEFAULT_MODE: u32 = 0o644;

/// Why volumes are not ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum VolumeError {
    /// Something that it is made of is missing; it may appear.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
    NotReady {
        /// Name of the volume.
        volume: String,
        /// What is missing.
        why: String,
    },
    /// The disk refuses.
    #[error("volume folder")]
    Disk(#[from] io::Error),
}

/// Kinds of volumes that can be served.
pub(super) const SERVED: [&str; 6] = [
    "emptyDir",
    "configMap",
    "secret",
    "hostPath",
    "projected",
    "downwardAPI",
];

/// The kind of a volume.
pub(super) fn kind(volume: &Value) -> &str {
    let fields = volume.as_object().into_iter().flatten();
    fields
        .map(|(k, _)| k.as_str())
        .find(|k| *k != "name")
        .unwrap_or_default()
}

/// Makes the folders of a pod: volumes and working folders. Safe to repeat.
pub(super) fn prepare(store: &Store, pod_folder: &Path, pod: &Value) -> Result<(), VolumeError> {
    for (_, _, container) in all_containers(pod) {
        std::fs::create_dir_all(work_folder(pod_folder, container["name"].as_str().unwrap_or_default()))?;
    }
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
        let name = volume["name"].as_str().unwrap_or_default();
        let folder = volume_folder(pod_folder, name);
        let not_ready = |why: String| VolumeError::NotReady {
            volume: name.to_owned(),
            why,
        };
        match kind(volume) {
            "emptyDir" => std::fs::create_dir_all(&folder)?,
            "hostPath" => host_path(&volume["hostPath"]).map_err(not_ready)?,
            // Written once; the content of a running pod's volume stays as it was.
            _ if folder.exists() => {}
            _ => {
                let files = contents(store, pod, volume).map_err(not_ready)?;
                write_files(&folder, &files)?;
            }
        }
    }
    Ok(())
}

/// Mount paths of a container with their folders.
pub(super) fn mount_places(pod_folder: &Path, pod: &Value, container: &Value) -> Vec<(String, PathBuf)> {
    let mut places = Vec::new();
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        let name = mount["name"].as_str().unwrap_or_default();
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let Some(volume) = volumes.into_iter().find(|v| v["name"] == name) else {
            continue;
        };
        let mut place = match volume["hostPath"]["path"].as_str() {
            Some(path) => PathBuf::from(path),
            None => volume_folder(pod_folder, name),
        };
        if let Some(sub) = mount["subPath"].as_str().filter(|s| !s.is_empty()) {
            place.push(sub);
            if !place.exists()
                && let Err(error) = std::fs::create_dir_all(&place)
            {
                tracing::warn!(%error, "subPath cannot be made");
            }
        }
        places.push((mount["mountPath"].as_str().unwrap_or_default().to_owned(), place));
    }
    places
}

/// Removes a pod's folder with everything in it, also what it made unwritable.
pub(super) fn remove(pod_folder: &Path) -> io::Result<()> {
    if !pod_folder.exists() {
        return Ok(());
    }
    make_removable(&pod_folder.join("volumes"))?;
    std::fs::remove_dir_all(pod_folder)
}

fn make_removable(folder: &Path) -> io::Result<()> {
    let Ok(meta) = std::fs::symlink_metadata(folder) else {
        return Ok(());
    };
    if !meta.is_dir() {
        return Ok(());
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(folder)? {
        make_removable(&entry?.path())?;
    }
    Ok(())
}

fn host_path(volume: &Value) -> Result<(), String> {
    let path = Path::new(volume["path"].as_str().unwrap_or_default());
    let made = |result: io::Result<()>| result.map_err(|error| format!("{}: {error}", path.display()));
    match volume["type"].as_str().unwrap_or_default() {
        "" => Ok(()),
        "DirectoryOrCreate" => made(std::fs::create_dir_all(path)),
        "FileOrCreate" if path.exists() => Ok(()),
        "FileOrCreate" => made(std::fs::write(path, "")),
        "Directory" if path.is_dir() => Ok(()),
        "File" if path.is_file() => Ok(()),
        "Socket" | "CharDevice" | "BlockDevice" if path.exists() => Ok(()),
        kind => Err(format!(
            "hostPath type check failed: {} is not a {}",
            path.display(),
            kind.to_lowercase()
        )),
    }
}

/// Path inside the volume, content, mode.
type Files = Vec<(String, Vec<u8>, u32)>;

fn contents(store: &Store, pod: &Value, volume: &Value) -> Result<Files, String> {
    let kind = kind(volume);
    let source = &volume[kind];
    let mode = mode_of(&source["defaultMode"], DEFAULT_MODE);
    match kind {
        "projected" => {
            let mut files = Vec::new();
            for part in source["sources"].as_array().into_iter().flatten() {
                for kind in ["configMap", "secret", "downwardAPI"] {
                    if let Some(part) = part.get(kind) {
                        files.extend(part_contents(store, pod, kind, part, mode)?);
                    }
                }
            }
            Ok(files)
        }
        kind => part_contents(store, pod, kind, source, mode),
    }
}

fn part_contents(store: &Store, pod: &Value, kind: &str, source: &Value, mode: u32) -> Result<Files, String> {
    match kind {
        "configMap" => keyed(store, pod, CONFIG_MAPS, source["name"].as_str(), source, mode),
        "secret" => {
            let name = source["secretName"].as_str().or(source["name"].as_str());
            keyed(store, pod, SECRETS, name, source, mode)
        }
        _ => Ok(downward(store, pod, source, mode)),
    }
}

fn keyed(
    store: &Store,
    pod: &Value,
    resource: &'static Resource,
    name: Option<&str>,
    source: &Value,
    mode: u32,
) -> Result<Files, String> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let name = name.unwrap_or_default();
    let optional = source["optional"] == true;
    let data = match read(store, resource, namespace, name, optional) {
        Ok(data) => data.unwrap_or_default(),
        Err(CannotStart::Config(why)) => return Err(why),
        Err(CannotStart::NoCommand) => HashMap::new(),
    };
    let Some(items) = source["items"].as_array() else {
        let mut files: Files = data.into_iter().map(|(key, value)| (key, value, mode)).collect();
        files.sort();
        return Ok(files);
    };
    let mut files = Vec::new();
    for item in items {
        let key = item["key"].as_str().unwrap_or_default();
        match data.get(key) {
            Some(value) => {
                let path = item["path"].as_str().unwrap_or(key).to_owned();
                files.push((path, value.clone(), mode_of(&item["mode"], mode)));
            }
            None if optional => {}
            None => return Err(format!("references non-existent {} key: {key}", resource.singular)),
        }
    }
    Ok(files)
}

fn downward(store: &Store, pod: &Value, source: &Value, mode: u32) -> Files {
    let items = source["items"].as_array().into_iter().flatten();
    let file = |item: &Value| {
        let content = match item["fieldRef"]["fieldPath"].as_str() {
            Some(path) => field(pod, path).unwrap_or_default(),
            None => amount(store, pod, &Value::Null, &item["resourceFieldRef"]),
        };
        let path = item["path"].as_str().unwrap_or_default().to_owned();
        (path, content.into_bytes(), mode_of(&item["mode"], mode))
    };
    items.map(file).collect()
}

fn mode_of(value: &Value, otherwise: u32) -> u32 {
    value.as_u64().and_then(|m| u32::try_from(m).ok()).unwrap_or(otherwise)
}

/// All files or none: the folder appears when it is complete, read-only as such volumes are.
fn write_files(folder: &Path, files: &Files) -> io::Result<()> {
    let building = folder.with_extension("building");
    make_removable(&building)?;
    if building.exists() {
        std::fs::remove_dir_all(&building)?;
    }
    std::fs::create_dir_all(&building)?;
    for (path, content, mode) in files {
        let relative = Path::new(path);
        if relative
            .components()
            .any(|c| !matches!(c, std::path::Component::Normal(_)))
        {
            return Err(io::Error::other(format!("{path:?} leaves the volume")));
        }
        let target = building.join(relative);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, content)?;
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode & 0o555))?;
    }
    std::fs::rename(&building, folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o555))
}
