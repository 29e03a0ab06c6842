//! The live attempts of this executor, a few hundred bytes each (performance P11).

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use windlass_ids::{AttemptId, InstallationId, Timestamp};

use super::assess::{Assessment, assess};
use super::classify;
use super::identity::attempt_of;
use super::model::{End, NodeHealth, Phase, Policy, Sight};
use super::nodes::Nodes;
use super::recent::Recent;
use super::secret_uses::{SecretUse, secret_uses};
use super::waits::Waits;
use super::wire::{SlimNode, SlimPod, Text, text};

/// Where an attempt's pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodKey {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
}

#[derive(Debug)]
struct Live {
    namespace: Arc<str>,
    name: Box<str>,
    uid: Box<str>,
    node: Option<Arc<str>>,
    resource_version: u64,
    /// Version in which a container was first seen started; 0 when none was.
    started_version: u64,
    create_time: Option<Timestamp>,
    start_time: Option<Timestamp>,
    phase: Phase,
    /// What the pod's own status says: what it is again when its node answers again.
    own_phase: Phase,
    /// Kept from the first time: nothing that happens to the pod later changes how its attempt ended.
    end: Option<Box<End>>,
    grant: u64,
    /// Hash of what was last reported.
    reported: u64,
    /// Containers that have started; nearly always the same few names, so shared.
    containers: Arc<[String]>,
    /// Secrets that it gets values from.
    secrets: Option<Arc<[SecretUse]>>,
    generation: u32,
    disturbed: bool,
    /// When the grace after its deletion ends.
    deletion: Option<Timestamp>,
    main_ended: bool,
    /// The pod's own status says why it waits.
    says_why: bool,
    letting_go: LettingGo,
}

/// How far the letting go of a pod is. Its record stays until the watch has shown it for the last time, so that what comes late is
/// not taken for a new pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LettingGo {
    /// It is kept.
    No,
    /// Asked for; whether the watch has shown it for the last time.
    Asked { gone: bool },
    /// Done.
    Done,
}

/// What is known of a pod's main container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Main {
    /// How far the pod is, by itself.
    pub phase: Phase,
    /// Whether the container has ended.
    pub ended: bool,
    /// Resource version of the pod that told so.
    pub version: u64,
    /// Secrets that the pod gets values from.
    pub secrets: Option<Arc<[SecretUse]>>,
}

/// What a watch or list said of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing new, or not ours.
    None,
    /// To be reported.
    Report(Box<Sight>),
}

/// The live attempts.
#[derive(Debug)]
pub struct Fleet {
    installation: InstallationId,
    policy: Policy,
    live: HashMap<AttemptId, Live>,
    /// Attempts by the hash of their pods' uids.
    by_uid: HashMap<u64, AttemptId>,
    namespaces: BTreeSet<Arc<str>>,
    containers: BTreeSet<Arc<[String]>>,
    waits: Waits,
    /// Grants of creates in flight: the watch may show a pod before its create is answered.
    expected: HashMap<AttemptId, u64>,
    nodes: Nodes,
    /// Pods that are over for this executor: what a slow list, watch or reply says of them later is old news, not a new pod.
    gone: Recent<()>,
    /// Pods whose finalizer this process took off and that nothing has shown since, with the resource versions of these writes.
    let_go: Recent<u64>,
    generation: u32,
}

impl Fleet {
    /// Bytes of a record and its key in the table.
    pub const RECORD_BYTES: usize = size_of::<Live>() + size_of::<AttemptId>();

    /// An empty one.
    pub fn new(installation: InstallationId, policy: Policy) -> Self {
        Self {
            installation,
            policy,
            live: HashMap::new(),
            by_uid: HashMap::new(),
            namespaces: BTreeSet::new(),
            containers: BTreeSet::new(),
            waits: Waits::default(),
            expected: HashMap::new(),
            nodes: Nodes::default(),
            gone: Recent::default(),
            let_go: Recent::default(),
            generation: 0,
        }
    }

    /// Number of live pods.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Where the pod of an attempt is.
    pub fn key(&self, attempt: AttemptId) -> Option<PodKey> {
        self.live.get(&attempt).map(|live| live.key(attempt))
    }

    /// Whether the attempt's end is known.
    pub fn has_ended(&self, attempt: AttemptId) -> bool {
        self.live.get(&attempt).is_some_and(|live| live.end.is_some())
    }

    /// Whether nothing of the attempt's pod lives any more.
    pub fn is_dead(&self, attempt: AttemptId) -> bool {
        let end = self.live.get(&attempt).and_then(|live| live.end.as_ref());
        end.is_some_and(|end| end.proof_of_death)
    }

    /// Phase of the pod with this uid, and whether its main container has ended; nothing when it is not known.
    pub fn main_of(&self, uid: &str) -> Option<Main> {
        let live = self.live.get(&self.attempt_with(uid)?)?;
        let phase = live.end.as_ref().map_or(live.own_phase, |_| Phase::Ended);
        Some(Main {
            phase,
            ended: live.main_ended,
            version: live.resource_version,
            secrets: live.secrets.clone(),
        })
    }

    /// The attempt that a pod belongs to: of a known pod its uid tells, whatever became of its labels.
    pub fn attempt_of(&self, pod: &SlimPod<'_>) -> Option<AttemptId> {
        let known = self.attempt_with(pod.metadata.uid.as_str());
        known.or_else(|| self.labelled(pod))
    }

    /// The attempt that a pod's labels name.
    pub fn labelled(&self, pod: &SlimPod<'_>) -> Option<AttemptId> {
        attempt_of(&pod.metadata.labels, self.installation)
    }

    /// The attempt whose pod has this uid.
    fn attempt_with(&self, uid: &str) -> Option<AttemptId> {
        let attempt = self.by_uid.get(&hash_of(uid))?;
        self.knows(*attempt, uid).then_some(*attempt)
    }

    /// A create under this grant begins; its pod gets the grant at its first sight.
    pub fn expect(&mut self, attempt: AttemptId, grant: u64) {
        match self.live.get_mut(&attempt) {
            Some(live) => live.grant = live.grant.max(grant),
            None => drop(self.expected.insert(attempt, grant)),
        }
    }

    /// No create of the attempt's pod is under way any more.
    pub fn expect_no_more(&mut self, attempt: AttemptId) {
        self.expected.remove(&attempt);
    }

    /// What is known of an attempt's pod, without the reason of its waiting.
    pub fn current(&self, attempt: AttemptId) -> Option<Sight> {
        let live = self.live.get(&attempt)?;
        Some(live.sight(attempt, String::new(), String::new()))
    }

    /// The Secrets that an attempt's pod gets values from, with their namespace.
    pub fn secrets_of(&self, attempt: AttemptId) -> Option<(Arc<str>, Arc<[SecretUse]>)> {
        let live = self.live.get(&attempt)?;
        Some((Arc::clone(&live.namespace), Arc::clone(live.secrets.as_ref()?)))
    }

    /// Remembers the grant under which this executor acts for an attempt.
    pub fn granted(&mut self, attempt: AttemptId, grant: u64) {
        if let Some(live) = self.live.get_mut(&attempt) {
            live.grant = live.grant.max(grant);
        }
    }

    /// Takes over a pod's state; what is older than what is known, released, or not ours changes nothing.
    pub fn saw(&mut self, pod: &SlimPod<'_>, now: Timestamp) -> Change {
        match self.attempt_of(pod) {
            Some(attempt) => self.saw_of(attempt, pod, now),
            None => Change::None,
        }
    }

    /// Like [`Fleet::saw`], of a pod that is known to be the attempt's.
    pub fn saw_of(&mut self, attempt: AttemptId, pod: &SlimPod<'_>, now: Timestamp) -> Change {
        if pod.metadata.labels.released.is_some() {
            self.forget(attempt);
            return Change::None;
        }
        if self.is_old(attempt, pod) {
            return Change::None;
        }
        let uid_hash = hash_of(pod.metadata.uid.as_str());
        // What is shown as it became after it was let go may be held again by others.
        let let_go = self.let_go.get(uid_hash);
        if let_go.is_some_and(|written| pod.metadata.version() > *written) {
            self.let_go.remove(uid_hash);
        }
        if self.gone.get(uid_hash).is_some() {
            return Change::None;
        }
        let sight = self.take_over(attempt, pod, now);
        self.report(attempt, sight)
    }

    /// Like [`Fleet::saw`], but says what is known also when nothing changed: for inventories.
    pub fn inspect(&mut self, pod: &SlimPod<'_>, now: Timestamp) -> Option<Sight> {
        match self.saw(pod, now) {
            Change::Report(sight) => Some(*sight),
            Change::None => {
                let attempt = self.attempt_of(pod)?;
                let live = self.live.get(&attempt)?;
                let health = self.nodes.health(text(&pod.spec.node_name), live.started_version);
                let assessment = assess(pod, health, live.disturbed, &self.policy);
                let mut sight = live.sight(attempt, assessment.reason, classify::bounded(&assessment.message));
                if sight.end.is_none() {
                    sight.phase = assessment.phase;
                }
                Some(sight)
            }
        }
    }

    fn is_old(&mut self, attempt: AttemptId, pod: &SlimPod<'_>) -> bool {
        let generation = self.generation;
        let Some(known) = self.live.get_mut(&attempt) else {
            return false;
        };
        let same = *known.uid == *pod.metadata.uid.as_str();
        if same {
            known.generation = generation;
        }
        let version = pod.metadata.version();
        version != 0 && version < known.resource_version || same && version != 0 && version == known.resource_version
    }

    fn take_over(&mut self, attempt: AttemptId, pod: &SlimPod<'_>, now: Timestamp) -> Sight {
        let uid = pod.metadata.uid.as_str();
        let replaced = self
            .live
            .get(&attempt)
            .filter(|live| *live.uid != *uid)
            .map(|live| live.grant);
        if replaced.is_some() || !self.live.contains_key(&attempt) {
            let expected = self.expected.remove(&attempt).unwrap_or(0);
            let live = self.first_sight(pod, replaced.unwrap_or(0).max(expected));
            self.by_uid.insert(hash_of(&live.uid), attempt);
            if let Some(before) = self.live.insert(attempt, live) {
                self.by_uid.remove(&hash_of(&before.uid));
            }
        }
        let (disturbed, mut started) = match self.live.get(&attempt) {
            Some(live) => (live.disturbed, live.started_version),
            None => (false, 0),
        };
        if started == 0 && pod.status.has_started() {
            started = pod.metadata.version();
        }
        let node = text(&pod.spec.node_name);
        let health = self.nodes.health(node, started);
        let assessment = assess(pod, health, disturbed, &self.policy);
        self.waits.note(attempt, &assessment, now);
        let name = (!node.is_empty()).then(|| self.nodes.shared_name(node));
        let waited = self.waits.end(attempt, &self.policy, now);
        let containers = self.shared_containers(containers(pod));
        let Some(live) = self.live.get_mut(&attempt) else {
            return Sight::without_pod(attempt, 0, "", Phase::Absent);
        };
        live.update(pod, &assessment, name);
        live.started_version = started;
        live.containers = containers;
        live.settle(pod, assessment.end.or(waited));
        let (reason, message) = (assessment.reason, classify::bounded(&assessment.message));
        live.sight(attempt, reason, message)
    }

    fn first_sight(&mut self, pod: &SlimPod<'_>, grant: u64) -> Live {
        Live {
            namespace: self.shared_namespace(pod.metadata.namespace.as_str()),
            name: pod.metadata.name.as_str().into(),
            uid: pod.metadata.uid.as_str().into(),
            node: None,
            resource_version: 0,
            started_version: 0,
            create_time: pod.metadata.creation_timestamp.as_ref().and_then(Text::time),
            start_time: None,
            phase: Phase::Created,
            own_phase: Phase::Created,
            end: None,
            grant,
            reported: 0,
            containers: Arc::default(),
            secrets: secret_uses(&pod.spec),
            generation: self.generation,
            disturbed: false,
            deletion: None,
            main_ended: false,
            says_why: false,
            letting_go: LettingGo::No,
        }
    }

    fn shared_namespace(&mut self, namespace: &str) -> Arc<str> {
        if let Some(known) = self.namespaces.get(namespace) {
            return known.clone();
        }
        let shared: Arc<str> = Arc::from(namespace);
        self.namespaces.insert(shared.clone());
        shared
    }

    fn shared_containers(&mut self, containers: Vec<String>) -> Arc<[String]> {
        if let Some(known) = self.containers.get(containers.as_slice()) {
            return known.clone();
        }
        let shared: Arc<[String]> = containers.into();
        // Odd names come and go with their pipelines; the usual ones are shared again at once.
        if self.containers.len() >= 1024 {
            self.containers.clear();
        }
        self.containers.insert(shared.clone());
        shared
    }

    /// When [`Fleet::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.waits.next(&self.policy)
    }

    /// Ends attempts whose waiting state has lasted too long.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Vec<Sight> {
        let due = self.waits.due(&self.policy, now);
        due.into_iter()
            .filter_map(|attempt| self.end_wait(attempt, now))
            .collect()
    }

    fn end_wait(&mut self, attempt: AttemptId, now: Timestamp) -> Option<Sight> {
        let end = self.waits.end(attempt, &self.policy, now)?;
        self.waits.remove(attempt);
        let live = self.live.get_mut(&attempt)?;
        live.end.get_or_insert_with(|| Box::new(end));
        live.phase = Phase::Ended;
        let sight = live.sight(attempt, String::new(), String::new());
        self.reported(attempt, sight)
    }

    fn report(&mut self, attempt: AttemptId, sight: Sight) -> Change {
        match self.reported(attempt, sight) {
            Some(sight) => Change::Report(Box::new(sight)),
            None => Change::None,
        }
    }

    /// The sight, unless it was reported like this before.
    fn reported(&mut self, attempt: AttemptId, sight: Sight) -> Option<Sight> {
        let hash = hash_of(&sight);
        let live = self.live.get_mut(&attempt)?;
        if live.reported == hash {
            return None;
        }
        live.reported = hash;
        (live.letting_go != LettingGo::Done).then_some(sight)
    }

    /// Takes over a node's state and reports what that changes for its pods.
    pub fn saw_node(&mut self, node: &SlimNode<'_>) -> Vec<Sight> {
        if self.nodes.saw(node, self.generation) {
            self.judge_node(node.metadata.name.as_str())
        } else {
            Vec::new()
        }
    }

    /// A node is said to be deleted: a read must decide what that means.
    pub fn node_deleted(&mut self, name: &str) {
        self.nodes.deleted(name);
    }

    /// A list of nodes that began with `generation` is complete.
    pub fn nodes_listed(&mut self, generation: u32) {
        self.nodes.listed(generation);
    }

    /// Whether nothing is known of a node.
    pub fn is_in_doubt(&self, node: &str) -> bool {
        self.nodes.is_in_doubt(node)
    }

    /// A read found no such node.
    pub fn node_is_gone(&mut self, name: &str) -> Vec<Sight> {
        self.nodes.is_gone(name);
        self.judge_node(name)
    }

    /// Nodes of live pods of which nothing is known, so that they are to be read.
    pub fn nodes_in_doubt(&mut self) -> Vec<Arc<str>> {
        let live = self.live.values().filter(|live| live.end.is_none());
        let named: BTreeSet<Arc<str>> = live.filter_map(|live| live.node.clone()).collect();
        self.nodes.tidy(&named);
        named.into_iter().filter(|name| self.nodes.is_in_doubt(name)).collect()
    }

    fn judge_node(&mut self, name: &str) -> Vec<Sight> {
        let affected: Vec<AttemptId> = self
            .live
            .iter()
            .filter(|(_, live)| live.node.as_deref() == Some(name) && live.end.is_none())
            .map(|(attempt, _)| *attempt)
            .collect();
        affected
            .into_iter()
            .filter_map(|attempt| self.judge(attempt, name))
            .collect()
    }

    /// What a node's state means for a pod of which nothing else is new.
    fn judge(&mut self, attempt: AttemptId, node: &str) -> Option<Sight> {
        let policy = self.policy;
        let live = self.live.get_mut(&attempt)?;
        let health = self.nodes.health(node, live.started_version);
        // The same judgement as for a pod's own change, with only what the node decides.
        let pod = live.as_slim_pod(node);
        let assessment = assess(&pod, health, live.disturbed, &policy);
        let (mut reason, mut message) = (String::new(), String::new());
        live.phase = live.own_phase;
        if let Some(end) = assessment.end {
            live.end = Some(Box::new(end));
            live.phase = Phase::Ended;
        } else if matches!(health, NodeHealth::Unreachable | NodeHealth::Gone) {
            live.phase = Phase::Unreachable;
            (reason, message) = (assessment.reason, assessment.message);
        }
        let sight = live.sight(attempt, reason, message);
        self.reported(attempt, sight)
    }

    /// Begins a list: what it does not mention can be told by [`Fleet::missing_since`].
    pub fn begin_list(&mut self) -> u32 {
        self.generation += 1;
        self.generation
    }

    /// Forgets pods that were let go and that nothing has mentioned since `generation` began.
    pub fn forget_released(&mut self, generation: u32) {
        let old = |live: &Live| live.generation < generation && live.letting_go == LettingGo::Done;
        let old: Vec<AttemptId> = self
            .live
            .iter()
            .filter(|(_, live)| old(live))
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in old {
            self.forget(attempt);
        }
    }

    /// Pods that nothing has mentioned since `generation` began, of the attempts that `included` names.
    pub fn missing_since(&self, generation: u32, included: impl Fn(AttemptId) -> bool) -> Vec<PodKey> {
        let missing = self.live.iter().filter(|(attempt, live)| {
            live.generation < generation && live.letting_go == LettingGo::No && included(**attempt)
        });
        missing.map(|(attempt, live)| live.key(*attempt)).collect()
    }

    /// A quorum read confirmed that the pod with this uid is gone. Reports absence, unless its end is known.
    pub fn confirmed_absent(&mut self, attempt: AttemptId, uid: &str) -> Option<Sight> {
        let live = self.live.get(&attempt).filter(|live| *live.uid == *uid)?;
        let sight = (live.end.is_none() && live.letting_go == LettingGo::No).then(|| {
            let mut sight = Sight::without_pod(attempt, live.grant, &live.name, Phase::Absent);
            sight.pod_uid = uid.to_owned();
            sight.node = live.node.as_deref().unwrap_or_default().to_owned();
            "PodGone".clone_into(&mut sight.reason);
            "the pod is gone: somebody removed its finalizer".clone_into(&mut sight.message);
            sight
        });
        self.forget(attempt);
        sight
    }

    /// Notes that the pod is being let go.
    pub fn releasing(&mut self, attempt: AttemptId) {
        if let Some(live) = self.live.get_mut(&attempt) {
            live.letting_go = LettingGo::Asked { gone: false };
        }
    }

    /// Whether the pod is being let go, or was.
    pub fn is_releasing(&self, attempt: AttemptId) -> bool {
        self.live
            .get(&attempt)
            .is_some_and(|live| live.letting_go != LettingGo::No)
    }

    /// Whether the letting go of the pod is under way.
    pub fn is_asked_to_go(&self, attempt: AttemptId) -> bool {
        let live = self.live.get(&attempt);
        live.is_some_and(|live| matches!(live.letting_go, LettingGo::Asked { .. }))
    }

    /// Whether the pod with this uid was let go, and nothing has shown it since: to let it go again would be a call for nothing.
    pub fn was_let_go(&self, uid: &str) -> bool {
        self.let_go.get(hash_of(uid)).is_some()
    }

    /// The pod was let go, by a write with this resource version; none when it was gone.
    pub fn released(&mut self, attempt: AttemptId, uid: &str, version: Option<u64>) {
        // By its uid: its record may be gone, since the watch can be faster than the answer.
        self.let_go.insert(hash_of(uid), version.unwrap_or(u64::MAX));
        let gone = LettingGo::Asked { gone: true };
        match self.live.get_mut(&attempt) {
            Some(live) if live.letting_go == gone => self.forget(attempt),
            Some(live) => live.letting_go = LettingGo::Done,
            None => {}
        }
    }

    /// The watch says that a pod is gone, which a label change looks like, too. Answers what a quorum read must decide.
    pub fn said_to_be_gone(&mut self, attempt: AttemptId, uid: &str) -> Option<PodKey> {
        let live = self.live.get_mut(&attempt).filter(|live| *live.uid == *uid)?;
        match live.letting_go {
            LettingGo::No => return Some(live.key(attempt)),
            LettingGo::Asked { .. } => live.letting_go = LettingGo::Asked { gone: true },
            LettingGo::Done => self.forget(attempt),
        }
        None
    }

    /// Whether an attempt's pod with this uid is known.
    pub fn knows(&self, attempt: AttemptId, uid: &str) -> bool {
        self.live.get(&attempt).is_some_and(|live| *live.uid == *uid)
    }

    /// Forgets an attempt.
    pub fn forget(&mut self, attempt: AttemptId) {
        if let Some(live) = self.live.remove(&attempt) {
            let uid_hash = hash_of(&live.uid);
            self.by_uid.remove(&uid_hash);
            self.gone.insert(uid_hash, ());
        }
        self.waits.remove(attempt);
        self.expected.remove(&attempt);
    }

    /// Forgets the attempts that `keep` does not name: their shards went to somebody else.
    pub fn retain(&mut self, keep: impl Fn(AttemptId) -> bool) {
        self.live.retain(|attempt, _| keep(*attempt));
        self.by_uid.retain(|_, attempt| keep(*attempt));
        self.waits.retain(&keep);
    }

    /// Pods whose grace after a deletion ended before this time, so that they wait for nothing but our finalizer.
    pub fn terminating_since(&self, before: Timestamp) -> Vec<PodKey> {
        let old = |live: &Live| live.deletion.is_some_and(|end| end <= before);
        let terminating = self.live.iter().filter(|(_, live)| old(live));
        terminating.map(|(attempt, live)| live.key(*attempt)).collect()
    }

    /// Pods that have been in the same starting phase with nothing said about why; the events of these are worth reading.
    pub fn starting(&self) -> impl Iterator<Item = (AttemptId, Phase)> + '_ {
        let starting = self
            .live
            .iter()
            .filter(|(_, live)| live.phase < Phase::Running && live.end.is_none() && !live.says_why);
        starting.map(|(attempt, live)| (*attempt, live.phase))
    }

    /// Reports a reason that an event gave for an attempt that is still starting and does not say why itself.
    pub fn explained(&mut self, attempt: AttemptId, uid: &str, reason: String, message: &str) -> Option<Sight> {
        let live = self.live.get(&attempt)?;
        if *live.uid != *uid || live.phase >= Phase::Running || live.end.is_some() || live.says_why {
            return None;
        }
        let sight = live.sight(attempt, reason, classify::bounded(message));
        self.reported(attempt, sight)
    }
}

impl Live {
    fn key(&self, attempt: AttemptId) -> PodKey {
        PodKey {
            attempt,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }

    fn update(&mut self, pod: &SlimPod<'_>, assessment: &Assessment, node: Option<Arc<str>>) {
        self.resource_version = pod.metadata.version();
        self.node = node;
        self.start_time = assessment.start_time.or(self.start_time);
        self.disturbed |= assessment.disturbed && !assessment.main_ended;
        let deletion = pod.metadata.deletion_timestamp.as_ref();
        self.deletion = deletion.map(|end| end.time().unwrap_or(Timestamp::from_millis(0)));
        self.main_ended |= assessment.main_ended;
        self.says_why = !assessment.reason.is_empty() || !assessment.message.is_empty();
        self.phase = assessment.phase;
        self.own_phase = assessment.own_phase;
    }

    /// Keeps the first end; only the proof of death may come later.
    fn settle(&mut self, pod: &SlimPod<'_>, end: Option<End>) {
        match (&mut self.end, end) {
            (Some(known), Some(end)) => known.proof_of_death |= end.proof_of_death,
            (known @ None, Some(end)) => *known = Some(Box::new(end)),
            (Some(known), None) => known.proof_of_death |= classify::all_terminated(pod),
            (None, None) => {}
        }
        if self.end.is_some() {
            self.phase = Phase::Ended;
        }
    }

    fn sight(&self, attempt: AttemptId, reason: String, message: String) -> Sight {
        Sight {
            attempt,
            grant: self.grant,
            pod_uid: self.uid.to_string(),
            pod_name: self.name.to_string(),
            phase: self.phase,
            node: self.node.as_deref().unwrap_or_default().to_owned(),
            create_time: self.create_time,
            start_time: self.start_time,
            reason,
            message,
            end: self.end.as_deref().cloned(),
            terminating: self.deletion.is_some(),
            containers: self.containers.to_vec(),
        }
    }

    fn as_slim_pod<'a>(&self, node: &'a str) -> SlimPod<'a> {
        let mut pod = SlimPod::default();
        pod.spec.node_name = Some(Text(node.into()));
        pod
    }
}

fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Containers that have started, whose logs can be read; the main one first.
fn containers(pod: &SlimPod<'_>) -> Vec<String> {
    let status = &pod.status;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    let mut names: Vec<String> = all
        .filter(|status| status.state.running.is_some() || status.state.terminated.is_some())
        .map(|status| status.name.as_str().to_owned())
        .collect();
    names.sort_by_key(|name| name != super::assess::MAIN);
    names
}
