//! What can be wrong with the input of a manifest.

/// Why a manifest cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The step has no image, and the cluster needs one.
    #[error("image: is required on this cluster")]
    MissingImage,
    /// The pipeline wants a workspace, and nobody says where it is.
    #[error(
        "workspace: neither the pipeline nor the operator (--workspace-volume) names a volume, and this cluster has no folders of its own"
    )]
    NoWorkspaceVolume,
    /// A Kubernetes fragment has the wrong shape.
    #[error("{path}: {message}")]
    Fragment {
        /// Path of the field.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// Files and scripts do not fit into one ConfigMap.
    #[error("files: {bytes} bytes with the scripts, at most {limit} fit")]
    FilesTooLarge {
        /// What they take.
        bytes: usize,
        /// What fits.
        limit: usize,
    },
    /// The script that the step names did not travel with the run.
    #[error("script: {0:?} is not part of the run")]
    UnknownScript(String),
    /// The overlay changes what must stay.
    #[error("pod.overlay.{path}: {message}")]
    Overlay {
        /// Path of the field.
        path: String,
        /// What is wrong.
        message: String,
    },
}
