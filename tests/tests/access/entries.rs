//! Access files, and the namespaces that they name.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use windlass_service::token_digest;
use windlass_tests::deployment::Deployment;

/// Writes an access file in which every token bears its own name; `roles` as YAML.
pub(crate) fn write(folder: &Path, entries: &[(&str, &str)]) -> PathBuf {
    let entry = |(token, roles): &(&str, &str)| {
        format!("- name: {token}\n  sha256: {}\n  roles: {roles}\n", token_digest(token))
    };
    let path = folder.join("access.yaml");
    std::fs::write(&path, entries.iter().map(entry).collect::<String>()).expect("an access file");
    path
}

/// Writes a file with a token.
pub(crate) fn token_file(folder: &Path, token: &str) -> PathBuf {
    let path = folder.join(format!("{token}.token"));
    std::fs::write(&path, token).expect("a token file");
    path
}

/// Makes namespaces in the cluster of a deployment.
pub(crate) async fn make_namespaces(deployment: &Deployment, names: &[&str]) {
    let namespaces: kube::Api<Namespace> = kube::Api::all(deployment.kube().await);
    for name in names {
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some((*name).to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .expect("a namespace");
    }
}
