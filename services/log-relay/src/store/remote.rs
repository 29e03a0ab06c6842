//! Where an archive lies, from its URL; what is needed to get in comes from the environment, never from the URL or the command line.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::HttpError;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use url::Url;

/// What may be given.
const FORMS: &str = "give file:///FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or \
                     abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX";
/// A request is tried again within this time; whoever needs it for longer tries by himself.
const RETRY: Duration = Duration::from_secs(10);

/// A URL of an archive that cannot be used. What it says of the URL has no user information in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveUrlError {
    /// It is no URL.
    #[error("--archive: {problem}; {FORMS}")]
    Malformed {
        /// What is wrong.
        problem: String,
    },
    /// There is no store of that kind.
    #[error("--archive: the scheme {scheme:?} is not known; {FORMS}")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// It does not say in which bucket or container.
    #[error("--archive: the URL names no bucket; {FORMS}")]
    NoBucket,
    /// It carries what belongs into the environment.
    #[error(
        "--archive: the URL has {what}, which is refused: everybody can read it; credentials and settings of the store come from the \
         environment, such as AWS_ACCESS_KEY_ID, GOOGLE_SERVICE_ACCOUNT or AZURE_STORAGE_ACCOUNT_KEY"
    )]
    Carries {
        /// What.
        what: &'static str,
    },
    /// The endpoint of the environment is plain HTTP, and that is not allowed.
    #[error(
        "--archive: the endpoint {endpoint:?} of the environment is not encrypted; set {variable}=true where that is meant"
    )]
    PlainHttp {
        /// The endpoint.
        endpoint: String,
        /// The variable that allows it.
        variable: &'static str,
    },
}

/// Where an archive lies.
#[derive(Debug)]
pub(super) enum Location {
    /// In a folder.
    Folder(PathBuf),
    /// In an object store, below a prefix.
    Store(Arc<dyn ObjectStore>),
}

/// Finds out where an archive lies, without asking anybody.
///
/// # Errors
/// When the URL cannot be used, or the settings of the environment contradict each other.
pub(super) fn locate(text: &str) -> Result<Location, super::archive::ArchiveError> {
    let url = parse(text)?;
    if url.scheme() == "file" {
        let folder = url.to_file_path().map_err(|()| ArchiveUrlError::Malformed {
            problem: "a folder is an absolute path on this machine".to_owned(),
        })?;
        return Ok(Location::Folder(folder));
    }
    let prefix = Path::from_url_path(url.path()).map_err(|error| ArchiveUrlError::Malformed {
        problem: format!("the prefix cannot be used: {error}"),
    })?;
    install_provider();
    Ok(Location::Store(Arc::new(PrefixStore::new(build(&url)?, prefix))))
}

/// Checks what can be told from a URL alone.
fn parse(text: &str) -> Result<Url, ArchiveUrlError> {
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::EmptyHost => ArchiveUrlError::NoBucket,
        other => ArchiveUrlError::Malformed {
            problem: format!("not a URL: {other}"),
        },
    })?;
    let azure = matches!(url.scheme(), "az" | "adl" | "azure" | "abfs" | "abfss");
    if !azure && !matches!(url.scheme(), "file" | "s3" | "s3a" | "gs") {
        return Err(ArchiveUrlError::Scheme {
            scheme: url.scheme().to_owned(),
        });
    }
    // `container@account` is how Azure's own URLs name a container.
    if url.password().is_some() || (!azure && !url.username().is_empty()) {
        return Err(ArchiveUrlError::Carries {
            what: "user information",
        });
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(ArchiveUrlError::Carries {
            what: "a query or a fragment",
        });
    }
    let host = url.host_str().unwrap_or_default();
    if url.scheme() == "file" {
        if !host.is_empty() {
            return Err(ArchiveUrlError::Malformed {
                problem: format!("a folder has no host, and {host:?} stands where one would"),
            });
        }
        return Ok(url);
    }
    if host.is_empty() {
        return Err(ArchiveUrlError::NoBucket);
    }
    if url.port().is_some() {
        return Err(ArchiveUrlError::Malformed {
            problem: "a bucket has no port; the address of the store is its endpoint in the environment".to_owned(),
        });
    }
    Ok(url)
}

/// The store of a checked URL with the settings of the environment, as `object_store` reads them.
fn build(url: &Url) -> Result<Arc<dyn ObjectStore>, super::archive::ArchiveError> {
    let mut place = url.clone();
    place.set_path("");
    let place = place.to_string();
    let plain = |endpoint: Option<String>, allowed: Option<String>, variable| match endpoint {
        Some(endpoint) if endpoint.starts_with("http://") && allowed.is_none_or(|allowed| allowed != "true") => {
            Err(ArchiveUrlError::PlainHttp { endpoint, variable })
        }
        Some(_) | None => Ok(()),
    };
    Ok(match url.scheme() {
        "s3" | "s3a" => {
            let builder = AmazonS3Builder::from_env().with_url(place).with_retry(retry());
            plain(
                builder.get_config_value(&AmazonS3ConfigKey::Endpoint),
                builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp)),
                "AWS_ALLOW_HTTP",
            )?;
            Arc::new(builder.build()?)
        }
        "gs" => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_url(place)
                .with_retry(retry())
                .build()?,
        ),
        _ => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(place).with_retry(retry());
            plain(
                builder.get_config_value(&AzureConfigKey::Endpoint),
                builder.get_config_value(&AzureConfigKey::Client(ClientConfigKey::AllowHttp)),
                "AZURE_ALLOW_HTTP",
            )?;
            Arc::new(builder.build()?)
        }
    })
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 5,
        retry_timeout: RETRY,
    }
}

/// The transport of `object_store` asks for the provider of cryptography of the process: the one that everything here uses.
fn install_provider() {
    // One that is there already is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
}

/// Whether a store has answered, and trying again as things are leads nowhere: it does not know the key or the bucket, or does not do
/// what is needed. No network and a store in trouble are no refusal.
pub(super) fn is_refusal(error: &object_store::Error) -> bool {
    use object_store::Error;
    match error {
        Error::NotFound { .. }
        | Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::InvalidPath { .. }
        | Error::UnknownConfigurationKey { .. } => true,
        other => !is_transport(other) && is_client_error(&other.to_string()),
    }
}

fn is_transport(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<HttpError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// `object_store` tells of other statuses in its texts only. A redirect without a place is a wrong region.
fn is_client_error(text: &str) -> bool {
    if text.contains("redirect without LOCATION") {
        return true;
    }
    let status = text.split("status code: ").nth(1).unwrap_or_default();
    status.starts_with('4') && !status.starts_with("408") && !status.starts_with("429")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_nothing_else() {
        for good in [
            "file:///var/lib/logs",
            "s3://bucket",
            "s3://bucket/some/prefix",
            "gs://bucket/prefix",
            "az://container/prefix",
            "abfss://container@account.dfs.core.windows.net/prefix",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        let refused = |text: &str| parse(text).expect_err(text);
        assert!(matches!(refused("logs"), ArchiveUrlError::Malformed { .. }));
        assert!(matches!(refused("/var/lib/logs"), ArchiveUrlError::Malformed { .. }));
        assert!(matches!(refused("file://folder/x"), ArchiveUrlError::Malformed { .. }));
        assert!(matches!(
            refused("s3://bucket:9000/x"),
            ArchiveUrlError::Malformed { .. }
        ));
        assert!(matches!(refused("ftp://host/x"), ArchiveUrlError::Scheme { .. }));
        assert!(matches!(refused("http://host/x"), ArchiveUrlError::Scheme { .. }));
        assert!(matches!(refused("s3:///prefix"), ArchiveUrlError::NoBucket));
        assert!(matches!(refused("s3:prefix"), ArchiveUrlError::NoBucket));
        let secret = "hunter2";
        for carrying in [
            "s3://key:hunter2@bucket/x",
            "s3://hunter2@bucket/x",
            "az://container:hunter2@account/x",
            "az://container/x?sig=hunter2",
            "gs://bucket/x#hunter2",
        ] {
            let error = refused(carrying);
            assert!(matches!(error, ArchiveUrlError::Carries { .. }), "{carrying}");
            assert!(!error.to_string().contains(secret), "i8: {error}");
        }
    }

    #[test]
    fn only_what_trying_again_cannot_help_is_a_refusal() {
        let text = |status: &str| format!("Generic S3 error: … Server returned non-2xx status code: {status}: …");
        assert!(is_client_error(&text("400 Bad Request")));
        assert!(is_client_error(
            "Received redirect without LOCATION, this normally indicates an incorrectly configured region"
        ));
        for status in [
            "500 Internal Server Error",
            "503 Slow Down",
            "429 Too Many Requests",
            "408 Request Timeout",
        ] {
            assert!(!is_client_error(&text(status)), "{status}");
        }
        let generic =
            |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic { store: "S3", source };
        let unreachable = HttpError::new(
            object_store::client::HttpErrorKind::Connect,
            std::io::Error::other("refused"),
        );
        assert!(!is_refusal(&generic(Box::new(unreachable))));
        assert!(is_refusal(&generic(text("400 Bad Request").into())));
    }
}
