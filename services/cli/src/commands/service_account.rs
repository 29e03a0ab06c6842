//! `windlass cluster create-service-account` and `delete-service-account`: accounts for steps, made by who has the rights for it, and never
//! by themselves.

use serde_json::json;
use windlass_executor::kubernetes::accounts::{Account, Made, binding_name};
use windlass_executor::kubernetes::{Api, ApiError, connect};
use windlass_ids::InstallationId;
use windlass_pipeline::is_dns_subdomain;

use crate::args::{AccountArgs, AccountCreateArgs, AccountDeleteArgs, GlobalArgs};
use crate::client::Session;
use crate::errors::{CliError, Exit, Result};
use crate::output;

/// Longest name of an object.
const MAX_NAME: usize = 253;

/// Where accounts are made, and for whom.
struct Place {
    api: Api,
    installation: InstallationId,
    namespace: String,
}

impl Place {
    async fn of(global: &GlobalArgs, args: &AccountArgs) -> Result<Self> {
        if global.local {
            return Err(
                CliError::bad_input("--local starts a cluster of its own, which ends with this command")
                    .hint("start `windlass dev` in another terminal, and leave --local out"),
            );
        }
        if !is_dns_subdomain(&args.name) {
            let message = format!("{:?} is no name of a service account", args.name);
            return Err(CliError::bad_input(message).hint("lower-case letters, digits, `-` and `.`, such as trainer"));
        }
        let installation = match args.installation {
            Some(installation) => installation,
            None => of_server(global).await?,
        };
        let client = connect(args.kubeconfig.as_ref(), args.context.as_deref()).await;
        let client = client.map_err(|error| {
            CliError::bad_input(error.to_string()).hint("--kubeconfig and --context name the cluster")
        })?;
        Ok(Self {
            api: Api::new(client),
            installation,
            namespace: global.namespace.clone(),
        })
    }

    async fn account(&self, name: &str) -> Result<Option<Account>> {
        let found = self.api.service_account(&self.namespace, name, self.installation).await;
        found.map_err(|error| refused(&error))
    }

    fn of_others(&self, kind: &str, name: &str) -> CliError {
        let namespace = &self.namespace;
        CliError::bad_input(format!(
            "{kind} {name} in namespace {namespace} is not of this installation"
        ))
        .hint("choose another name, or change it with the tools that have made it")
    }
}

/// The installation of the server.
async fn of_server(global: &GlobalArgs) -> Result<InstallationId> {
    let session = Session::open(global).await?;
    let installation = session.installation().await;
    session.close().await?;
    let installation = installation?;
    installation
        .parse()
        .map_err(|_| CliError::failed(format!("the server's installation {installation:?} is no UUID")))
}

/// Creates an account and binds Roles to it.
pub(super) async fn create(global: &GlobalArgs, args: &AccountCreateArgs) -> Result<Exit> {
    let place = Place::of(global, &args.account).await?;
    let (name, namespace) = (&args.account.name, &place.namespace);
    // All that can be wrong is found before anything is made.
    for role in &args.roles {
        let binding = binding_name(name, role);
        if binding.len() > MAX_NAME || !is_dns_subdomain(&binding) {
            let message = format!("RoleBinding {binding:?} would have no possible name");
            return Err(
                CliError::bad_input(message).hint("Role and account have lower-case letters, digits, `-` and `.`")
            );
        }
        if !place
            .api
            .has_role(namespace, role)
            .await
            .map_err(|error| refused(&error))?
        {
            let message = format!("there is no Role {role} in namespace {namespace}");
            return Err(CliError::bad_input(message)
                .hint("`kubectl create role` makes one, with the rights that the steps need"));
        }
    }
    let made = place
        .api
        .create_service_account(namespace, name, place.installation)
        .await;
    let made = made.map_err(|error| refused(&error))?;
    let account = match (made, place.account(name).await?) {
        (Made::Now | Made::Before, Some(account)) => account,
        (Made::Other, _) | (_, None) => return Err(place.of_others("service account", name)),
    };
    for role in &args.roles {
        let bound = place
            .api
            .bind_role(namespace, role, (name, &account), place.installation)
            .await;
        if bound.map_err(|error| refused(&error))? == Made::Other {
            return Err(place.of_others("RoleBinding", &binding_name(name, role)));
        }
    }
    let created = made == Made::Now;
    let value = json!({"name": name, "namespace": namespace, "created": created, "roles": args.roles});
    output::data(args.output.output, &value, || {
        let was = if created { "created" } else { "is there" };
        let roles = match args.roles.as_slice() {
            [] => "without any rights".to_owned(),
            roles => format!("bound to Role {}", roles.join(", ")),
        };
        format!("service account {name} in {namespace} {was}, {roles}")
    })?;
    output::note("a run may use it where the scheduler's policy has it among serviceAccounts");
    Ok(Exit::Succeeded)
}

/// Deletes an account with its bindings.
pub(super) async fn delete(global: &GlobalArgs, args: &AccountDeleteArgs) -> Result<Exit> {
    let place = Place::of(global, &args.account).await?;
    let (name, namespace) = (&args.account.name, &place.namespace);
    let Some(account) = place.account(name).await? else {
        return Err(CliError::bad_input(format!(
            "there is no service account {name} in namespace {namespace}"
        )));
    };
    if !account.is_ours {
        return Err(place.of_others("service account", name));
    }
    let deleted = place.api.delete_service_account(namespace, name, &account.uid).await;
    deleted.map_err(|error| refused(&error))?;
    output::note(format!(
        "service account {name} in {namespace} is deleted, and its bindings go with it"
    ));
    Ok(Exit::Succeeded)
}

fn refused(error: &ApiError) -> CliError {
    let (exit, hint) = match error.code() {
        None => (Exit::Unreachable, "--kubeconfig and --context name the cluster"),
        Some(401 | 403) => (
            Exit::BadInput,
            "the kubeconfig's user needs rights on service accounts, Roles and RoleBindings of the namespace, and cannot give rights \
             that it has not",
        ),
        Some(404) => (Exit::BadInput, "is the namespace there? -n names another one"),
        Some(_) => (Exit::Failed, "the API server's own log says more"),
    };
    CliError::new(exit, format!("the cluster refuses: {error}")).hint(hint)
}
