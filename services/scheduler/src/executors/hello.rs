//! The first message of an executor's stream.

use windlass_api::dispatch::v1::ExecutorHello;
use windlass_api::{
    CLUSTER_CHECK_CAPABILITY, INTERNAL_PROTOCOL, INTERNAL_PROTOCOL_MIN, RUN_SECRETS_CAPABILITY,
    SCHEDULE_SECRETS_CAPABILITY, SECRETS_CAPABILITY,
};
use windlass_ids::{ClusterAlias, ClusterUid, Incarnation};

use crate::errors::SessionError;

/// Bound on names that an executor announces.
const MAX_NAME: usize = 253;

/// A checked Hello.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) incarnation: Incarnation,
    pub(crate) name: String,
    pub(crate) protocol: u32,
    pub(crate) cluster: ClusterUid,
    pub(crate) alias: ClusterAlias,
    pub(crate) credit: u32,
    pub(crate) resume_epoch: u64,
    pub(crate) resume_sequence: u64,
    pub(crate) local: bool,
    /// Whether it carries out SecretCalls.
    pub(crate) secrets: bool,
    /// Whether it carries out RunSecretCalls.
    pub(crate) run_secrets: bool,
    /// Whether it carries out ScheduleSecretCalls.
    pub(crate) schedule_secrets: bool,
    /// Whether it carries out ClusterCalls.
    pub(crate) checks: bool,
    /// Version of its program.
    pub(crate) version: String,
}

impl Hello {
    /// Checks what an executor says of itself.
    ///
    /// # Errors
    /// When a field is bad or no protocol is spoken by both.
    pub(crate) fn check(hello: ExecutorHello) -> Result<Self, SessionError> {
        let protocol = negotiate(hello.protocol_min, hello.protocol_max)?;
        let incarnation = hello
            .incarnation
            .parse()
            .map_err(|error| bad("hello.incarnation", &error))?;
        for (field, text) in [
            ("hello.cluster_uid", &hello.cluster_uid),
            ("hello.cluster_alias", &hello.cluster_alias),
        ] {
            if text.is_empty() || text.len() > MAX_NAME {
                return Err(bad(field, &format!("must have 1 to {MAX_NAME} characters")));
            }
        }
        for (field, text) in [("hello.name", &hello.name), ("hello.version", &hello.version)] {
            if text.len() > MAX_NAME {
                return Err(bad(field, &format!("must have at most {MAX_NAME} characters")));
            }
        }
        let can = |capability| hello.capabilities.iter().any(|known| known == capability);
        Ok(Self {
            incarnation,
            name: hello.name,
            protocol,
            cluster: ClusterUid(hello.cluster_uid),
            alias: ClusterAlias(hello.cluster_alias),
            credit: hello.credit,
            resume_epoch: hello.resume_epoch,
            resume_sequence: hello.resume_sequence,
            local: hello.local_cluster,
            secrets: can(SECRETS_CAPABILITY),
            run_secrets: can(RUN_SECRETS_CAPABILITY),
            schedule_secrets: can(SCHEDULE_SECRETS_CAPABILITY),
            checks: can(CLUSTER_CHECK_CAPABILITY),
            version: hello.version,
        })
    }
}

/// The newest protocol that both speak.
///
/// # Errors
/// When there is none.
pub(crate) fn negotiate(peer_min: u32, peer_max: u32) -> Result<u32, SessionError> {
    let newest = peer_max.min(INTERNAL_PROTOCOL);
    if newest < peer_min.max(INTERNAL_PROTOCOL_MIN) {
        return Err(SessionError::ProtocolMismatch {
            peer_min,
            peer_max,
            own_min: INTERNAL_PROTOCOL_MIN,
            own_max: INTERNAL_PROTOCOL,
        });
    }
    Ok(newest)
}

fn bad(field: &'static str, fault: &impl std::fmt::Display) -> SessionError {
    SessionError::BadHello {
        field,
        fault: fault.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> ExecutorHello {
        ExecutorHello {
            incarnation: "00000000-0000-4000-8000-000000000001".to_owned(),
            protocol_min: 1,
            protocol_max: 1,
            cluster_uid: "uid".to_owned(),
            cluster_alias: "prod".to_owned(),
            ..ExecutorHello::default()
        }
    }

    #[test]
    fn both_agree_on_a_protocol_or_part() {
        assert_eq!(negotiate(1, 9), Ok(INTERNAL_PROTOCOL));
        assert!(matches!(
            negotiate(7, 9),
            Err(SessionError::ProtocolMismatch { peer_min: 7, .. })
        ));
        assert!(matches!(negotiate(0, 0), Err(SessionError::ProtocolMismatch { .. })));
    }

    #[test]
    fn a_hello_must_name_process_and_cluster() {
        assert!(Hello::check(hello()).is_ok());
        let with = |change: fn(&mut ExecutorHello)| {
            let mut hello = hello();
            change(&mut hello);
            Hello::check(hello).expect_err("refused").to_string()
        };
        assert!(with(|hello| hello.incarnation = "x".to_owned()).starts_with("hello.incarnation"));
        assert!(with(|hello| hello.cluster_uid.clear()).starts_with("hello.cluster_uid"));
        assert!(with(|hello| hello.cluster_alias = "x".repeat(300)).starts_with("hello.cluster_alias"));
    }
}
