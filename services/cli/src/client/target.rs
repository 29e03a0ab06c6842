//! Which server is meant, and which token it wants.

use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use windlass_service::{ChannelSettings, ClientTls, Tokens};

use crate::args::GlobalArgs;
use crate::embedded::DevFile;
use crate::errors::{CliError, Result};

/// Where `windlass dev` listens unless told otherwise.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:7610";

/// A server, and how it was found.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) settings: ChannelSettings,
    /// What to do when nobody answers there.
    pub(crate) hint: String,
}

/// The data folder: given, or the user's.
pub fn data_dir(args: &GlobalArgs) -> PathBuf {
    let var = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    args.data_dir
        .clone()
        .or_else(|| var("XDG_DATA_HOME").map(|folder| folder.join("windlass")))
        .or_else(|| var("HOME").map(|folder| folder.join(".local/share/windlass")))
        .unwrap_or_else(|| std::env::temp_dir().join("windlass"))
}

/// A path for people: below the home folder it begins with `~`.
pub fn display_path(path: &Path) -> String {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|home| home != Path::new("/"));
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(below) => format!("~/{}", below.display()),
        None => path.display().to_string(),
    }
}

impl Target {
    /// From the arguments, else from the `windlass dev` on the data folder, else the default address.
    pub(crate) fn find(args: &GlobalArgs) -> Result<Self> {
        let folder = data_dir(args);
        let dev = DevFile::read(&folder)?;
        let given = given_token(args)?;
        if let Some(server) = &args.server {
            let token = given.or_else(|| {
                dev.filter(|dev| same_address(&dev.scheduler, server))
                    .map(|dev| dev.token)
            });
            return Ok(Self {
                settings: with_tls(args, settings(server.clone(), token)),
                hint: "check the address, and that windlass-scheduler or `windlass dev` runs there".to_owned(),
            });
        }
        Ok(match dev {
            Some(dev) => Self {
                hint: format!(
                    "`windlass dev` ran on {} but does not answer: start it again, or name a server with --server URL",
                    display_path(&folder)
                ),
                settings: settings(dev.scheduler, Some(given.unwrap_or(dev.token))),
            },
            None => Self {
                settings: settings(DEFAULT_ADDRESS.to_owned(), given),
                hint:
                    "start one with `windlass dev`, name one with --server URL, or add --local to run without a server"
                        .to_owned(),
            },
        })
    }
}

pub(crate) fn settings(address: String, token: Option<String>) -> ChannelSettings {
    let user = ["WINDLASS_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .or_else(|| Some(User::from_uid(Uid::effective()).ok()??.name));
    ChannelSettings {
        address,
        token,
        user,
        tls: ClientTls::default(),
    }
}

fn with_tls(args: &GlobalArgs, settings: ChannelSettings) -> ChannelSettings {
    let tls = ClientTls {
        ca: args.ca.clone(),
        identity: args.client_cert.clone().zip(args.client_key.clone()),
    };
    ChannelSettings { tls, ..settings }
}

fn given_token(args: &GlobalArgs) -> Result<Option<String>> {
    if let Some(file) = &args.token_file {
        let token = Tokens::first_in_file(file).map_err(|error| {
            let cause = std::error::Error::source(&error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            CliError::bad_input(format!("{error}{cause}"))
                .hint("--token-file names a file that holds the server's token")
        })?;
        return Ok(Some(token));
    }
    let token = std::env::var("WINDLASS_TOKEN")
        .ok()
        .filter(|token| !token.trim().is_empty());
    Ok(token.map(|token| token.trim().to_owned()))
}

fn same_address(one: &str, other: &str) -> bool {
    fn bare(address: &str) -> &str {
        let address = address.split_once("://").map_or(address, |(_, rest)| rest);
        address.trim_end_matches('/')
    }
    bare(one).replace("localhost", "127.0.0.1") == bare(other).replace("localhost", "127.0.0.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_dev_fits_its_address_in_any_spelling() {
        assert!(same_address("http://127.0.0.1:7610", "localhost:7610"));
        assert!(same_address("http://127.0.0.1:7610", "http://127.0.0.1:7610/"));
        assert!(!same_address("http://127.0.0.1:7610", "http://127.0.0.1:7611"));
    }
}
