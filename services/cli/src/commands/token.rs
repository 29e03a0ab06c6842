//! `windlass token`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rand::RngCore as _;
use windlass_service::{AccessFile, token_digest};

use crate::args::TokenArgs;
use crate::errors::{CliError, Exit, Result};
use crate::output;

/// Bytes of a token.
const BYTES: usize = 32;

pub(super) fn run(args: &TokenArgs) -> Result<Exit> {
    let mut bytes = [0; BYTES];
    rand::rng().fill_bytes(&mut bytes);
    let token = hex::encode(bytes);
    let entry = entry(&args.name, &token_digest(&token), &args.roles);
    // What a server would refuse is refused here.
    AccessFile::check(&entry).map_err(|problem| {
        CliError::bad_input(problem).hint("--role takes viewer=team-a,team-b, submitter=..., admin=... or service")
    })?;
    match &args.out {
        Some(path) => keep(path, &token)?,
        None => output::note(format!("the token, shown this once: {token}")),
    }
    output::raw(entry.as_bytes())?;
    Ok(Exit::Succeeded)
}

fn keep(path: &Path, token: &str) -> Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened
        .and_then(|mut file| writeln!(file, "{token}"))
        .map_err(|error| CliError::bad_input(format!("cannot write the token to {}: {error}", path.display())))
}

fn entry(name: &str, digest: &str, roles: &[String]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = format!("- name: {}\n  sha256: {digest}\n  roles:\n", quoted(name));
    for role in roles {
        let (role, namespaces) = match role.split_once('=') {
            Some((role, namespaces)) => (role, Some(namespaces)),
            None => (role.as_str(), None),
        };
        text.push_str(&format!("  - role: {}\n", quoted(role)));
        if let Some(namespaces) = namespaces {
            let names: Vec<_> = namespaces.split(',').map(|name| quoted(name.trim())).collect();
            text.push_str(&format!("    namespaces: [{}]\n", names.join(", ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_that_a_server_takes() {
        let digest = token_digest("secret");
        let roles = |roles: &[&str]| roles.iter().map(|role| (*role).to_owned()).collect::<Vec<_>>();
        let good = entry("ana: \"a\"", &digest, &roles(&["viewer=*", "admin=a, b", "service"]));
        AccessFile::check(&good).expect("usable");
        for bad in ["owner=a", "viewer", "viewer=", "service=a"] {
            let entry = entry("ana", &digest, &roles(&[bad]));
            AccessFile::check(&entry).expect_err(bad);
        }
    }
}
