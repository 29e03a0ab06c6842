//! A pod's status as the kubelet writes it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::process::ExitRecord;
use crate::clock;
use crate::node::set_condition;

/// Exit code and reason of a container that nobody knows anything about.
pub(super) const LOST_CODE: i32 = 137;
const LOST_REASON: &str = "ContainerStatusUnknown";

/// What is known of one container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) role: Role,
    /// Number of the current start, 0 for the first.
    pub(super) start: u32,
    pub(super) state: State,
    /// The end of the start before.
    pub(super) last: Option<Termination>,
}

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container that runs beside the main ones.
    Sidecar,
    /// One of the pod's containers.
    Main,
}

/// As in `ContainerState`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    Waiting { reason: String, message: String },
    Running { since: Timestamp },
    Terminated(Termination),
}

/// As in `ContainerStateTerminated`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Termination {
    pub(super) exit_code: i32,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) started: Option<Timestamp>,
    pub(super) finished: Option<Timestamp>,
}

/// Why a pod ended other than by its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodFailure {
    pub(super) reason: String,
    pub(super) message: String,
}

impl State {
    pub(super) fn waiting(reason: &str, message: impl Into<String>) -> Self {
        Self::Waiting {
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

impl Termination {
    pub(super) fn of(record: &ExitRecord, message: String) -> Self {
        let reason = match (&record.start_error, record.exit_code) {
            (Some(_), _) => "StartError",
            (None, 0) => "Completed",
            (None, _) => "Error",
        };
        let message = match &record.start_error {
            Some(error) => format!("failed to create containerd task: failed to create shim task: {error}: unknown"),
            None => message,
        };
        Self {
            exit_code: record.exit_code,
            reason: reason.to_owned(),
            message,
            // containerd reports the epoch for what never ran.
            started: Some(if record.start_error.is_some() {
                Timestamp::UNIX_EPOCH
            } else {
                record.started_at
            }),
            finished: Some(record.finished_at),
        }
    }

    /// The end of a container whose end nobody saw.
    pub(super) fn lost(message: &str) -> Self {
        Self {
            exit_code: LOST_CODE,
            reason: LOST_REASON.to_owned(),
            message: message.to_owned(),
            started: None,
            finished: None,
        }
    }

    fn to_value(&self, id: &str) -> Value {
        let time = |t: Option<Timestamp>| t.map_or(Value::Null, |t| json!(clock::seconds(t)));
        let mut value = json!({
            "exitCode": self.exit_code,
            "reason": self.reason,
            "startedAt": time(self.started),
            "finishedAt": time(self.finished),
            "containerID": id,
        });
        if !self.message.is_empty() {
            value["message"] = json!(self.message);
        }
        value
    }

    fn from_value(value: &Value) -> Option<Self> {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let time = |field: &str| value[field].as_str().and_then(|t| t.parse().ok());
        Some(Self {
            exit_code: i32::try_from(value["exitCode"].as_i64()?).ok()?,
            reason: text("reason"),
            message: text("message"),
            started: time("startedAt"),
            finished: time("finishedAt"),
        })
    }
}

impl Record {
    /// A container that has not been started.
    pub(super) fn new(container: &Value, role: Role) -> Self {
        let text = |field: &str| container[field].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("name"),
            image: text("image"),
            role,
            start: 0,
            state: State::waiting("ContainerCreating", ""),
            last: None,
        }
    }

    pub(super) fn ended(&self) -> Option<&Termination> {
        match &self.state {
            State::Terminated(t) => Some(t),
            _ => None,
        }
    }

    pub(super) fn runs(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Takes an end over that the API already knows, for a container that left nothing on disk.
    pub(super) fn recall(&mut self, pod: &Value) {
        let lists = ["containerStatuses", "initContainerStatuses"];
        let mut statuses = lists
            .iter()
            .flat_map(|l| pod["status"][*l].as_array().into_iter().flatten());
        let Some(status) = statuses.find(|s| s["name"] == self.name) else {
            return;
        };
        self.start = u32::try_from(status["restartCount"].as_u64().unwrap_or(0)).unwrap_or(0);
        if let Some(end) = Termination::from_value(&status["state"]["terminated"]) {
            self.state = State::Terminated(end);
        } else if status["state"]["running"].is_object() {
            self.state = State::Terminated(Termination::lost(
                "The container could not be located when the pod was terminated",
            ));
        }
    }

    fn to_value(&self, uid: &str) -> Value {
        let id = format!("windlass://{uid}/{}/{}", self.name, self.start);
        let (state, ready) = match &self.state {
            State::Waiting { reason, message } => {
                let mut waiting = json!({"reason": reason});
                if !message.is_empty() {
                    waiting["message"] = json!(message);
                }
                (json!({"waiting": waiting}), false)
            }
            State::Running { since } => (json!({"running": {"startedAt": clock::seconds(*since)}}), true),
            State::Terminated(end) => (
                json!({"terminated": end.to_value(&id)}),
                self.role == Role::Init && end.exit_code == 0,
            ),
        };
        let started = matches!(self.state, State::Running { .. });
        let mut value = json!({
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "ready": ready,
            "started": started,
            "restartCount": self.start,
            "state": state,
            "lastState": {},
        });
        if !matches!(self.state, State::Waiting { .. }) {
            value["containerID"] = json!(id);
        }
        if let Some(last) = &self.last {
            let id = format!("windlass://{uid}/{}/{}", self.name, self.start.saturating_sub(1));
            value["lastState"] = json!({"terminated": last.to_value(&id)});
        }
        value
    }
}

/// Whether a container is started again after this end.
pub(super) fn restarts(policy: &str, role: Role, end: &Termination) -> bool {
    match (role, policy) {
        (Role::Sidecar, _) => true,
        (Role::Init, _) if end.exit_code == 0 => false,
        (Role::Main, "Always") => true,
        (_, "Always" | "OnFailure") => end.exit_code != 0,
        _ => false,
    }
}

/// The phase that follows from the containers.
pub(super) fn phase(records: &[Record], policy: &str) -> &'static str {
    let inits = records.iter().filter(|r| r.role == Role::Init);
    for init in inits {
        match init.ended() {
            Some(end) if end.exit_code == 0 => {}
            Some(end) if !restarts(policy, Role::Init, end) => return "Failed",
            _ => return "Pending",
        }
    }
    let main: Vec<&Record> = records.iter().filter(|r| r.role == Role::Main).collect();
    let waiting = main
        .iter()
        .any(|r| matches!(r.state, State::Waiting { .. }) && r.last.is_none());
    if waiting {
        return "Pending";
    }
    let final_end = |r: &&Record| r.ended().is_some_and(|end| !restarts(policy, Role::Main, end));
    if !main.iter().all(final_end) {
        return "Running";
    }
    if main.iter().all(|r| r.ended().is_some_and(|e| e.exit_code == 0)) {
        "Succeeded"
    } else {
        "Failed"
    }
}

/// Writes phase, conditions and container statuses into the pod.
pub(super) fn write(
    pod: &mut Value,
    records: &[Record],
    phase: &str,
    failure: Option<&PodFailure>,
    started: Timestamp,
) {
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let list = |main: bool| -> Value {
        records
            .iter()
            .filter(|r| (r.role == Role::Main) == main)
            .map(|r| r.to_value(&uid))
            .collect()
    };
    let status = &mut pod["status"];
    status["phase"] = json!(phase);
    status["hostIP"] = json!("127.0.0.1");
    status["startTime"] = json!(clock::seconds(started));
    status["containerStatuses"] = list(true);
    if records.iter().any(|r| r.role != Role::Main) {
        status["initContainerStatuses"] = list(false);
    }
    if let Some(PodFailure { reason, message }) = failure {
        status["reason"] = json!(reason);
        status["message"] = json!(message);
    }
    conditions(pod, records, phase);
}

fn conditions(pod: &mut Value, records: &[Record], phase: &str) {
    let over = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let inits_done = records.iter().all(|r| match r.role {
        Role::Init => r.ended().is_some_and(|e| e.exit_code == 0),
        Role::Sidecar => r.runs() || r.ended().is_some() || r.last.is_some(),
        Role::Main => true,
    });
    let names = |records: Vec<&Record>| records.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(" ");
    if inits_done {
        let reason = if over == Some("PodCompleted") {
            "PodCompleted"
        } else {
            ""
        };
        set_condition(pod, "Initialized", "True", reason, "");
    } else {
        let open = records
            .iter()
            .filter(|r| r.role == Role::Init && r.ended().is_none_or(|e| e.exit_code != 0));
        let text = format!("containers with incomplete status: [{}]", names(open.collect()));
        set_condition(pod, "Initialized", "False", "ContainersNotInitialized", &text);
    }
    let unready: Vec<&Record> = records.iter().filter(|r| r.role == Role::Main && !r.runs()).collect();
    for kind in ["ContainersReady", "Ready"] {
        match over {
            Some(reason) => set_condition(pod, kind, "False", reason, ""),
            None if unready.is_empty() && inits_done => set_condition(pod, kind, "True", "", ""),
            None => {
                let text = format!("containers with unready status: [{}]", names(unready.clone()));
                set_condition(pod, kind, "False", "ContainersNotReady", &text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(role: Role, state: State) -> Record {
        let mut record = Record::new(&json!({"name": "c", "image": "i"}), role);
        record.state = state;
        record
    }

    fn ended(exit_code: i32) -> State {
        State::Terminated(Termination {
            exit_code,
            reason: String::new(),
            message: String::new(),
            started: None,
            finished: None,
        })
    }

    fn running() -> State {
        State::Running {
            since: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn phases_follow_the_containers() {
        let waiting = || State::waiting("ContainerCreating", "");
        for (records, policy, expected) in [
            (vec![record(Role::Main, waiting())], "Never", "Pending"),
            (vec![record(Role::Main, running())], "Never", "Running"),
            (vec![record(Role::Main, ended(0))], "Never", "Succeeded"),
            (vec![record(Role::Main, ended(1))], "Never", "Failed"),
            (vec![record(Role::Main, ended(1))], "OnFailure", "Running"),
            (
                vec![record(Role::Main, ended(0)), record(Role::Main, running())],
                "Never",
                "Running",
            ),
            (
                vec![record(Role::Main, ended(0)), record(Role::Main, ended(2))],
                "Never",
                "Failed",
            ),
            (
                vec![record(Role::Init, ended(1)), record(Role::Main, waiting())],
                "Never",
                "Failed",
            ),
            (
                vec![record(Role::Init, running()), record(Role::Main, waiting())],
                "Never",
                "Pending",
            ),
            (
                vec![record(Role::Sidecar, running()), record(Role::Main, ended(0))],
                "Never",
                "Succeeded",
            ),
        ] {
            assert_eq!(phase(&records, policy), expected, "{records:?}");
        }
    }

    #[test]
    fn statuses_survive_a_round_trip() {
        let mut pod = json!({"metadata": {"uid": "u"}, "status": {}});
        let end = Termination {
            exit_code: 3,
            reason: "Error".into(),
            message: "why".into(),
            started: Some(Timestamp::UNIX_EPOCH),
            finished: Some(Timestamp::UNIX_EPOCH),
        };
        let records = [record(Role::Main, State::Terminated(end.clone()))];
        write(&mut pod, &records, "Failed", None, Timestamp::UNIX_EPOCH);
        let mut recalled = Record::new(&json!({"name": "c", "image": "i"}), Role::Main);
        recalled.recall(&pod);
        assert_eq!(recalled.ended(), Some(&end));
    }
}
