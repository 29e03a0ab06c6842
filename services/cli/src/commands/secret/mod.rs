//! `windlass secret`.

mod values;

use serde_json::json;
use windlass_api::secret::v1::{
    DeleteSecretRequest, ListSecretsRequest, PutSecretMode, PutSecretRequest, PutSecretResponse, Secret,
};

use self::values::{Data, Sources};
use crate::args::{
    Format, GlobalArgs, RunSecretArgs, SecretArgs, SecretCommand, SecretDeleteArgs, SecretListArgs, SecretPutArgs,
};
use crate::client::{Patience, Session, retrying};
use crate::errors::{CliError, Exit, Result};
use crate::output::{self, Table, age, millis, to_json};

pub(super) async fn run(global: &GlobalArgs, args: &SecretArgs) -> Result<Exit> {
    match &args.command {
        SecretCommand::Put(args) => {
            // Values are read before anything is started or reached.
            let request = request(global, args)?;
            super::with_session(global, async |session| put(session, args, request).await).await
        }
        SecretCommand::List(args) => super::with_session(global, async |session| list(session, args).await).await,
        SecretCommand::Delete(args) => super::with_session(global, async |session| delete(session, args).await).await,
    }
}

/// That standard input is read for one thing only, of which `other` is one already.
///
/// # Errors
/// When it is asked for a secret of the run, too.
pub(super) fn check_stdin(args: &RunSecretArgs, other: Option<&str>) -> Result<()> {
    match other.zip(args.secret_stdin.as_ref()) {
        Some((other, key)) => Err(CliError::bad_input(format!(
            "--secret-stdin {key} and {other} both read standard input"
        ))
        .hint("take one of them from a file")),
        None => Ok(()),
    }
}

/// Values of a run's secrets.
///
/// # Errors
/// When one cannot be read, or a key is named twice.
pub(super) fn of_run(args: &RunSecretArgs) -> Result<Data> {
    let sources = Sources {
        file_flag: "--secret-file",
        files: &args.secret_file,
        stdin: args.secret_stdin.as_deref(),
        allow_empty: false,
        env_files: &args.secret_env_file,
        variables: &args.secret_env,
    };
    sources.read()
}

fn request(global: &GlobalArgs, args: &SecretPutArgs) -> Result<PutSecretRequest> {
    if !args.literals.is_empty() || !args.from_literal.is_empty() {
        return Err(CliError::bad_input("values are not taken from the command line").hint(format!(
            "every user of this machine can read it, and shells keep it: regard that value as known\n\
             `windlass secret put {} --from-stdin KEY` asks for a value or reads it from a pipe; --from-file KEY=PATH reads a file",
            args.name
        )));
    }
    let sources = Sources {
        file_flag: "--from-file",
        files: &args.from_file,
        stdin: args.from_stdin.as_deref(),
        allow_empty: args.allow_empty,
        env_files: &args.env_file,
        variables: &[],
    };
    let data = sources.read()?;
    if data.is_empty() && args.remove.is_empty() {
        return Err(CliError::bad_input("there is nothing to put")
            .hint("--from-file KEY=PATH, --from-stdin KEY and --env-file PATH set keys, --remove KEY removes one"));
    }
    // Without a value there is nothing that could be created.
    let mode = match (args.create_only, args.update_only || data.is_empty()) {
        (true, _) => PutSecretMode::Create,
        (false, true) => PutSecretMode::Update,
        (false, false) => PutSecretMode::Upsert,
    };
    Ok(PutSecretRequest {
        namespace: global.namespace.clone(),
        cluster: args.cluster.cluster.clone().unwrap_or_default(),
        name: args.name.clone(),
        mode: mode.into(),
        data,
        remove_keys: args.remove.clone(),
        request_id: super::request_id(),
    })
}

async fn put(session: &Session, args: &SecretPutArgs, request: PutSecretRequest) -> Result<Exit> {
    // The same request id goes with every try, so that a lost reply is no error of --create-only.
    let response: PutSecretResponse = retrying(session.address(), Patience::SHORT, || {
        let (request, mut client) = (request.clone(), session.secrets());
        async move { client.put_secret(request).await }
    })
    .await
    .map_err(|mut error| {
        // The fields say all of it.
        if !error.fields.is_empty() {
            error.message = format!("secret {} is not taken as it is", args.name);
        }
        error
    })?;
    let secret = response
        .secret
        .ok_or_else(|| CliError::failed("the server answered without the secret"))?;
    output::data(args.output.output, &to_json(&secret), || {
        let done = if response.created { "created" } else { "changed" };
        format!(
            "secret {} in namespace {} is {done}; its keys: {}",
            secret.name,
            session.namespace,
            keys(&secret)
        )
    })?;
    Ok(Exit::Succeeded)
}

async fn list(session: &Session, args: &SecretListArgs) -> Result<Exit> {
    let (mut secrets, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListSecretsRequest {
            namespace: session.namespace.clone(),
            cluster: args.cluster.cluster.clone().unwrap_or_default(),
            page_token,
            ..ListSecretsRequest::default()
        };
        let page = retrying(session.address(), Patience::SHORT, || {
            let (request, mut client) = (request.clone(), session.secrets());
            async move { client.list_secrets(request).await }
        })
        .await?;
        secrets.extend(page.secrets);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let value = json!({"secrets": secrets.iter().map(to_json).collect::<Vec<_>>()});
    let now = session.clock.now();
    output::data(args.output.output, &value, || {
        if secrets.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&["SECRET", "AGE", "KEYS"]);
        for secret in &secrets {
            let created = secret.create_time.map_or(now, millis);
            table.row([secret.name.clone(), age(now.since(created)), keys(secret)]);
        }
        table.render()
    })?;
    if secrets.is_empty() && args.output.output == Format::Table {
        output::note(format!(
            "no secrets in namespace {} that Windlass manages; those of others are not shown",
            session.namespace
        ));
    }
    Ok(Exit::Succeeded)
}

async fn delete(session: &Session, args: &SecretDeleteArgs) -> Result<Exit> {
    let mut failure: Option<CliError> = None;
    for name in &args.names {
        let request = DeleteSecretRequest {
            namespace: session.namespace.clone(),
            cluster: args.cluster.cluster.clone().unwrap_or_default(),
            name: name.clone(),
        };
        let deleted = retrying(session.address(), Patience::SHORT, || {
            let (request, mut client) = (request.clone(), session.secrets());
            async move { client.delete_secret(request).await }
        });
        match deleted.await {
            Ok(_) => output::line(format!("secret {name} in namespace {} is deleted", session.namespace))?,
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    output::note(earlier.render());
                }
            }
        }
    }
    failure.map_or(Ok(Exit::Succeeded), Err)
}

/// The keys of a secret, and how many more there are than are told.
fn keys(secret: &Secret) -> String {
    let more = (secret.key_count as usize).saturating_sub(secret.keys.len());
    match (secret.keys.as_slice(), more) {
        ([], 0) => "none".to_owned(),
        (keys, 0) => keys.join(", "),
        (keys, more) => format!("{} and {more} more", keys.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_cut_are_counted() {
        let secret = |keys: &[&str], key_count| Secret {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            key_count,
            ..Secret::default()
        };
        assert_eq!(keys(&secret(&[], 0)), "none");
        assert_eq!(keys(&secret(&["a", "b"], 2)), "a, b");
        assert_eq!(keys(&secret(&["a"], 9)), "a and 8 more");
    }
}
