//! A walk over the fields of a pod's spec.

use serde_json::Value;
use windlass_pipeline::FREE_MAPS;
use windlass_pipeline::fragment::merge_key;

/// Where a field stands in a pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Place(pub(crate) Vec<Segment>);

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    /// A field of an object.
    Field(String),
    /// An element of a list.
    Item {
        /// Its position.
        index: usize,
        /// What tells it from the others where lists are merged, such as the name of a volume.
        key: Option<String>,
    },
}

impl Place {
    /// The place of a field below.
    pub(crate) fn field(&self, name: &str) -> Self {
        let mut place = self.clone();
        place.0.push(Segment::Field(name.to_owned()));
        place
    }

    /// The place of an element of the list `list`, which stands here.
    pub(crate) fn item(&self, list: &str, index: usize, element: &Value) -> Self {
        let mut place = self.clone();
        place.0.push(item(list, index, element));
        place
    }
}

fn item(list: &str, index: usize, element: &Value) -> Segment {
    let key = merge_key(list).and_then(|key| element.get(key)?.as_str());
    Segment::Item {
        index,
        key: key.map(str::to_owned),
    }
}

/// Calls `visit` with every field of every object in a pod's spec, but for maps whose keys are the user's.
pub(crate) fn each_field(spec: &Value, visit: &mut dyn FnMut(&Place, &str, &Value)) {
    descend(spec, &mut Place::default(), visit);
}

fn descend(value: &Value, place: &mut Place, visit: &mut dyn FnMut(&Place, &str, &Value)) {
    let Value::Object(fields) = value else {
        return;
    };
    for (name, value) in fields {
        place.0.push(Segment::Field(name.clone()));
        visit(place, name, value);
        if let Value::Array(elements) = value {
            for (index, element) in elements.iter().enumerate() {
                place.0.push(item(name, index, element));
                descend(element, place, visit);
                place.0.pop();
            }
        } else if !FREE_MAPS.contains(&name.as_str()) {
            descend(value, place, visit);
        }
        place.0.pop();
    }
}
