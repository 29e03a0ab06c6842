//! `windlass cluster purge`: removes what an installation that is gone left in a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use windlass_executor::kubernetes::owned::{Owned, Unlisted};
use windlass_executor::kubernetes::{Api, ApiError, connect};
use windlass_ids::{InstallationId, Timestamp};
use windlass_service::Clock;

use crate::args::{GlobalArgs, PurgeArgs};
use crate::client::{Session, data_dir};
use crate::embedded::DevFile;
use crate::errors::{CliError, Exit, Result};
use crate::output::{self, Table, age};

/// Removals at the same time.
const AT_ONCE: usize = 16;
/// Between looks whether all is gone.
const PAUSE: Duration = Duration::from_millis(250);
/// An installation that made something within this time may live.
const RECENT: Duration = Duration::from_secs(600);

pub(super) async fn run(global: &GlobalArgs, args: &PurgeArgs) -> Result<Exit> {
    if global.local {
        return Err(
            CliError::bad_input("--local starts a cluster of its own, which has nothing to purge")
                .hint("--kubeconfig names the local cluster of a data folder: FOLDER/cluster/kubeconfig"),
        );
    }
    let living = living(global).await?;
    let client = connect(args.kubeconfig.as_ref(), args.context.as_deref()).await;
    let api = Api::new(client.map_err(|error| {
        CliError::bad_input(with_cause(&error)).hint("--kubeconfig and --context name the cluster")
    })?);
    let (objects, unlisted) = api
        .owned(args.installation)
        .await
        .map_err(|error| cluster_error(&error))?;
    for Unlisted { kind, error } in &unlisted {
        output::note(format!("cannot list objects of kind {kind}: {error}"));
    }
    let now = Clock::system().now();
    let Some(installation) = args.installation else {
        return installations(args, &objects, living.as_ref(), now);
    };
    if let Some(living) = living.filter(|living| living.installation == installation.to_string()) {
        return Err(CliError::bad_input(format!(
            "installation {installation} lives: {} is its server",
            living.address
        ))
        .hint("`windlass cancel` and `windlass delete` end its runs; purge it once that server is gone for good"));
    }
    let signs = signs_of_life(&objects, now);
    if !args.yes {
        print(args, installation, &objects, &signs, |_| "would be removed".to_owned())?;
        if objects.is_empty() {
            output::note(format!(
                "nothing in this cluster belongs to installation {installation}"
            ));
        } else {
            for sign in &signs {
                output::note(format!("installation {installation} may live: {sign}"));
            }
            let force = if signs.is_empty() { "" } else { " --force" };
            output::note(format!("nothing was removed; --yes{force} removes it"));
        }
        return Ok(Exit::Succeeded);
    }
    if !signs.is_empty() && !args.force {
        return Err(CliError::bad_input(format!("installation {installation} may live"))
            .details(signs)
            .hint("make sure that its scheduler is gone for good; then --force removes it all the same"));
    }
    remove(&api, args, installation, &objects, &unlisted).await
}

/// The server that may be somebody's installation.
struct Living {
    installation: String,
    address: String,
}

/// The server that was named, which must answer; else the `windlass dev` of the data folder, if it answers.
async fn living(global: &GlobalArgs) -> Result<Option<Living>> {
    let named = global.server.is_some();
    if !named && DevFile::read(&data_dir(global))?.is_none() {
        return Ok(None);
    }
    let session = match Session::open(global).await {
        Err(error) if !named && error.exit == Exit::Unreachable => return Ok(None),
        session => session?,
    };
    let installation = session.installation().await;
    let address = session.address().to_owned();
    session.close().await?;
    Ok(Some(Living {
        installation: installation?,
        address,
    }))
}

/// What speaks against an installation being gone.
fn signs_of_life(objects: &[Owned], now: Timestamp) -> Vec<String> {
    let mut signs = Vec::new();
    let live = objects.iter().filter(|object| object.may_live()).count();
    if live > 0 {
        signs.push(format!("{live} of its pods may still run"));
    }
    if let Some(newest) = newest(objects) {
        let past = now.since(newest);
        if past < RECENT {
            signs.push(format!("its newest object was made {} ago", age(past)));
        }
    }
    signs
}

fn newest<'a>(objects: impl IntoIterator<Item = &'a Owned>) -> Option<Timestamp> {
    let created = |object: &Owned| created(object);
    objects.into_iter().filter_map(created).max()
}

fn created(object: &Owned) -> Option<Timestamp> {
    let time: jiff::Timestamp = object.created.as_deref()?.parse().ok()?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

/// Lists who owns something, and how much.
fn installations(args: &PurgeArgs, objects: &[Owned], living: Option<&Living>, now: Timestamp) -> Result<Exit> {
    let mut owners = BTreeMap::<&str, Vec<&Owned>>::new();
    for object in objects {
        owners.entry(&object.installation).or_default().push(object);
    }
    let lives = |id: &str| living.is_some_and(|living| living.installation == id);
    let value: Vec<_> = owners
        .iter()
        .map(|(id, owned)| {
            let mut kinds = BTreeMap::<_, usize>::new();
            for object in owned {
                *kinds.entry(object.kind).or_default() += 1;
            }
            json!({
                "installation": id, "objects": kinds, "livePods": live(owned), "namespaces": namespaces(owned),
                "newestTime": newest(owned.iter().copied()).map(output::time_rfc3339), "isNamedServer": lives(id),
            })
        })
        .collect();
    output::data(args.output.output, &json!({"installations": value}), || {
        if owners.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&["INSTALLATION", "PODS", "LIVE", "OTHERS", "NEWEST", "NAMESPACES"]);
        for (id, owned) in &owners {
            let pods = owned.iter().filter(|object| object.kind == "Pod").count();
            let newest = newest(owned.iter().copied()).map(|newest| age(now.since(newest)));
            let note = if lives(id) { " (the server's)" } else { "" };
            table.row([
                format!("{id}{note}"),
                pods.to_string(),
                live(owned).to_string(),
                (owned.len() - pods).to_string(),
                newest.unwrap_or_default(),
                namespaces(owned).into_iter().collect::<Vec<_>>().join(" "),
            ]);
        }
        table.render()
    })?;
    output::note(match owners.is_empty() {
        true => "no installation owns anything in this cluster",
        false => "--installation UUID shows what one of them owns",
    });
    Ok(Exit::Succeeded)
}

fn live(owned: &[&Owned]) -> usize {
    owned.iter().filter(|object| object.may_live()).count()
}

fn namespaces<'a>(owned: &[&'a Owned]) -> BTreeSet<&'a str> {
    owned.iter().map(|object| object.namespace.as_str()).collect()
}

/// Removes the objects, pods before what they use, and waits until they are gone.
async fn remove(
    api: &Api,
    args: &PurgeArgs,
    installation: InstallationId,
    objects: &[Owned],
    unlisted: &[Unlisted],
) -> Result<Exit> {
    let mut failures = BTreeMap::new();
    for pods in [true, false] {
        let part = objects.iter().filter(|object| (object.kind == "Pod") == pods);
        let removals = part.map(async |object| (object.uid.clone(), api.purge(object).await));
        let mut removals = futures::stream::iter(removals).buffer_unordered(AT_ONCE);
        while let Some((uid, removed)) = removals.next().await {
            if let Err(error) = removed {
                failures.insert(uid, error.to_string());
            }
        }
    }
    let left = wait_until_gone(api, args, installation, objects, &failures).await?;
    print(args, installation, objects, &[], |object| {
        if let Some(error) = failures.get(&object.uid) {
            return format!("not removed: {error}");
        }
        match left.get(&object.uid) {
            None => "removed".to_owned(),
            Some(left) if left.foreign_finalizers.is_empty() => "is ending".to_owned(),
            Some(left) => format!("held by the finalizer {}", left.foreign_finalizers.join(", ")),
        }
    })?;
    if objects.is_empty() {
        output::note(format!(
            "nothing in this cluster belongs to installation {installation}"
        ));
    }
    if !failures.is_empty() || !unlisted.is_empty() {
        let count = failures.len();
        return Err(CliError::failed(format!(
            "{count} objects could not be removed, {} kinds not listed",
            unlisted.len()
        ))
        .hint("the kubeconfig's user needs list, patch and delete on them; run it again"));
    }
    if !left.is_empty() {
        let message = format!("{} objects were still there after {:?}", left.len(), args.timeout);
        return Err(CliError::new(Exit::Timeout, message).hint("run it again to see what is left"));
    }
    Ok(Exit::Succeeded)
}

/// What was to be removed and is still there when the time is over.
async fn wait_until_gone(
    api: &Api,
    args: &PurgeArgs,
    installation: InstallationId,
    objects: &[Owned],
    failures: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Owned>> {
    let removed: BTreeSet<_> = objects.iter().map(|object| &object.uid).collect();
    let deadline = tokio::time::Instant::now() + args.timeout;
    loop {
        let (found, _) = api
            .owned(Some(installation))
            .await
            .map_err(|error| cluster_error(&error))?;
        let left: BTreeMap<_, _> = found
            .into_iter()
            .filter(|object| removed.contains(&object.uid) && !failures.contains_key(&object.uid))
            .map(|object| (object.uid.clone(), object))
            .collect();
        if left.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok(left);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn print(
    args: &PurgeArgs,
    installation: InstallationId,
    objects: &[Owned],
    signs: &[String],
    outcome: impl Fn(&Owned) -> String,
) -> Result<()> {
    let values: Vec<Value> = objects
        .iter()
        .map(|object| {
            json!({
                "kind": object.kind, "namespace": object.namespace, "name": object.name, "uid": object.uid,
                "run": object.run, "step": object.step, "phase": object.phase, "createTime": object.created,
                "outcome": outcome(object),
            })
        })
        .collect();
    let value = json!({
        "installation": installation.to_string(), "dryRun": !args.yes, "signsOfLife": signs, "objects": values,
    });
    output::data(args.output.output, &value, || {
        if objects.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&["KIND", "NAMESPACE", "NAME", "RUN", "STEP", "PHASE", "OUTCOME"]);
        for object in objects {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            table.row([
                object.kind.to_owned(),
                object.namespace.clone(),
                object.name.clone(),
                text(&object.run),
                text(&object.step),
                text(&object.phase),
                outcome(object),
            ]);
        }
        table.render()
    })
}

fn cluster_error(error: &ApiError) -> CliError {
    let (exit, hint) = match error.code() {
        None => (Exit::Unreachable, "--kubeconfig and --context name the cluster"),
        Some(401 | 403) => (
            Exit::BadInput,
            "the kubeconfig's user must be able to list pods in all namespaces, and to patch and delete them",
        ),
        Some(_) => (Exit::Failed, "the API server's own log says more"),
    };
    CliError::new(exit, format!("the cluster cannot be read: {error}")).hint(hint)
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
