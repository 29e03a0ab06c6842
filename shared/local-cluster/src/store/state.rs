//! The map of all objects, and what is derived from it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::disk::Write;
use super::history::History;
use super::object::{Change, Key, Object, set_version};
use super::pages::Snapshots;
use crate::error::{ApiError, Cause};
use crate::resources::{NAMESPACES, RESOURCES, Resource};

type Place = (String, String);

#[derive(Debug)]
pub(super) struct State {
    pub(super) version: u64,
    objects: Vec<BTreeMap<Place, Arc<Object>>>,
    uids: HashMap<String, Arc<Object>>,
    dependents: HashMap<String, HashSet<(usize, String, String)>>,
    garbage: BTreeSet<String>,
    pub(super) history: Vec<History>,
    pub(super) snapshots: Snapshots,
    pub(super) pending: VecDeque<Write>,
    /// Set while the disk refuses writes; nothing new is accepted meanwhile.
    pub(super) broken: Option<String>,
}

impl State {
    pub(super) fn recover(objects: Vec<Object>, version: u64, history: usize) -> Self {
        let mut state = Self {
            version,
            objects: vec![BTreeMap::new(); RESOURCES.len()],
            uids: HashMap::new(),
            dependents: HashMap::new(),
            garbage: BTreeSet::new(),
            history: RESOURCES.iter().map(|_| History::new(version, history)).collect(),
            snapshots: Snapshots::default(),
            pending: VecDeque::new(),
            broken: None,
        };
        for object in objects {
            state.index(Arc::new(object));
        }
        let owners: Vec<String> = state.dependents.keys().cloned().collect();
        state.garbage.extend(owners);
        let leaving = state.uids.values().filter(|o| o.deleting).map(|o| o.uid.clone());
        let leaving: Vec<String> = leaving.collect();
        state.garbage.extend(leaving);
        state
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.objects[key.resource.index].get(&key.place()).cloned()
    }

    pub(super) fn by_uid(&self, uid: &str) -> Option<Arc<Object>> {
        self.uids.get(uid).cloned()
    }

    pub(super) fn list(&self, resource: &'static Resource, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let all = &self.objects[resource.index];
        match namespace {
            None => all.values().cloned().collect(),
            Some(namespace) => all
                .range((namespace.to_owned(), String::new())..)
                .take_while(|((ns, _), _)| ns == namespace)
                .map(|(_, object)| object.clone())
                .collect(),
        }
    }

    pub(super) fn create(&mut self, resource: &'static Resource, mut body: Value) -> Result<Arc<Object>, ApiError> {
        self.writable()?;
        let text = |field: &str| body["metadata"][field].as_str().unwrap_or_default();
        let key = Key::new(resource, text("namespace"), text("name"));
        self.check_namespace(&key)?;
        if self.get(&key).is_some() {
            return Err(ApiError::already_exists(resource, &key.name));
        }
        let version = self.next_version();
        set_version(&mut body, version);
        let object = Arc::new(Object::new(resource, version, &body));
        self.index(object.clone());
        let missing: Vec<String> = object
            .owners
            .iter()
            .filter(|uid| !self.uids.contains_key(*uid))
            .cloned()
            .collect();
        self.garbage.extend(missing);
        self.record(object.clone(), None, false);
        Ok(object)
    }

    /// `None` when `old` is not the newest version any more.
    pub(super) fn replace(&mut self, old: &Arc<Object>, mut body: Value) -> Result<Option<Arc<Object>>, ApiError> {
        self.writable()?;
        if !self.is_current(old) {
            return Ok(None);
        }
        let version = self.next_version();
        set_version(&mut body, version);
        let object = Arc::new(Object::new(old.key.resource, version, &body));
        self.unindex(old);
        self.index(object.clone());
        if object.deleting {
            self.garbage.insert(object.uid.clone());
        }
        self.record(object.clone(), Some(old.clone()), false);
        Ok(Some(object))
    }

    /// `None` when `old` is not the newest version any more.
    pub(super) fn remove(&mut self, old: &Arc<Object>, mut last: Value) -> Result<Option<Arc<Object>>, ApiError> {
        self.writable()?;
        if !self.is_current(old) {
            return Ok(None);
        }
        let version = self.next_version();
        set_version(&mut last, version);
        let object = Arc::new(Object::new(old.key.resource, version, &last));
        self.unindex(old);
        self.objects[old.key.resource.index].remove(&old.key.place());
        if self.dependents.contains_key(&old.uid) {
            self.garbage.insert(old.uid.clone());
        }
        // An owner that waits for its dependents may be free now.
        self.garbage.extend(old.owners.iter().cloned());
        // So may a namespace that waits for its contents.
        if let Some(namespace) = self.get(&Key::new(NAMESPACES, "", &old.key.namespace))
            && namespace.deleting
        {
            self.garbage.insert(namespace.uid.clone());
        }
        self.record(object.clone(), Some(old.clone()), true);
        Ok(Some(object))
    }

    pub(super) fn take_garbage(&mut self) -> Vec<String> {
        std::mem::take(&mut self.garbage).into_iter().collect()
    }

    pub(super) fn dependents(&self, uid: &str) -> Vec<Arc<Object>> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|(index, ns, name)| self.objects[*index].get(&(ns.clone(), name.clone())).cloned())
            .collect()
    }

    fn writable(&self) -> Result<(), ApiError> {
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(ApiError::internal(format!("the objects cannot be stored: {why}"))),
        }
    }

    fn check_namespace(&self, key: &Key) -> Result<(), ApiError> {
        if !key.resource.namespaced {
            return Ok(());
        }
        match self.get(&Key::new(NAMESPACES, "", &key.namespace)) {
            None => Err(ApiError::not_found(NAMESPACES, &key.namespace)),
            Some(namespace) if namespace.deleting => {
                let text = format!("namespace {} is being terminated", key.namespace);
                let why = format!(
                    "unable to create new content in namespace {} because it is being terminated",
                    key.namespace
                );
                let mut error = ApiError::forbidden(key.resource, &key.name, &why);
                error.causes = vec![Cause::new("NamespaceTerminating", "metadata.namespace", text)];
                Err(error)
            }
            Some(_) => Ok(()),
        }
    }

    fn is_current(&self, old: &Arc<Object>) -> bool {
        self.objects[old.key.resource.index]
            .get(&old.key.place())
            .is_some_and(|now| now.version == old.version && now.uid == old.uid)
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn index(&mut self, object: Arc<Object>) {
        let Key {
            resource,
            namespace,
            name,
        } = object.key.clone();
        for owner in &object.owners {
            self.dependents
                .entry(owner.clone())
                .or_default()
                .insert((resource.index, namespace.clone(), name.clone()));
        }
        self.uids.insert(object.uid.clone(), object.clone());
        self.objects[resource.index].insert((namespace, name), object);
    }

    fn unindex(&mut self, object: &Object) {
        self.uids.remove(&object.uid);
        let Key {
            resource,
            namespace,
            name,
        } = object.key.clone();
        let entry = (resource.index, namespace, name);
        for owner in &object.owners {
            if let Some(set) = self.dependents.get_mut(owner) {
                set.remove(&entry);
                if set.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
    }

    fn record(&mut self, object: Arc<Object>, previous: Option<Arc<Object>>, removed: bool) {
        self.pending.push_back(Write {
            key: object.key.clone(),
            body: (!removed).then(|| object.body.clone()),
        });
        let index = object.key.resource.index;
        let version = object.version;
        self.history[index].push(Arc::new(Change {
            version,
            object,
            previous,
            removed,
        }));
    }
}
