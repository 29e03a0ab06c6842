//! Lists, maps and structs.

use std::slice;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess};
use serde_json::{Map, Value, map};

use super::{Reader, Strict, StrictError};
use crate::path::Path;

/// The elements of a list.
pub(super) struct Items<'de, 'p> {
    items: slice::Iter<'de, Value>,
    next: usize,
    path: &'p Path<'p>,
    reader: &'p Reader,
}

impl<'de, 'p> Items<'de, 'p> {
    pub(super) fn new(items: &'de [Value], path: &'p Path<'p>, reader: &'p Reader) -> Self {
        let items = items.iter();
        Self {
            items,
            next: 0,
            path,
            reader,
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = StrictError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, StrictError> {
        let Some(value) = self.items.next() else {
            return Ok(None);
        };
        let path = self.path.index(self.next);
        self.next += 1;
        let strict = Strict {
            value,
            path: &path,
            reader: self.reader,
            in_list: true,
        };
        seed.deserialize(strict).map(Some).map_err(|error| error.at(&path))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a map.
pub(super) struct Entries<'de, 'p> {
    entries: map::Iter<'de>,
    current: Option<(&'de str, &'de Value)>,
    path: &'p Path<'p>,
    reader: &'p Reader,
}

impl<'de, 'p> Entries<'de, 'p> {
    pub(super) fn new(entries: &'de Map<String, Value>, path: &'p Path<'p>, reader: &'p Reader) -> Self {
        Self {
            entries: entries.iter(),
            current: None,
            path,
            reader,
        }
    }

    fn value<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, StrictError> {
        let Some((key, value)) = self.current.take() else {
            return Err(StrictError::bad_value("a key without a value".to_owned()));
        };
        let path = self.path.field(key);
        let strict = Strict {
            value,
            path: &path,
            reader: self.reader,
            in_list: false,
        };
        seed.deserialize(strict).map_err(|error| error.at(&path))
    }
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = StrictError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, StrictError> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        self.current = Some((key, value));
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, StrictError> {
        self.value(seed)
    }
}

/// The fields of a struct; unknown ones are recorded and passed over.
pub(super) struct Fields<'de, 'p> {
    entries: Entries<'de, 'p>,
    fields: &'static [&'static str],
    seen: Vec<&'static str>,
}

impl<'de, 'p> Fields<'de, 'p> {
    pub(super) fn new(
        entries: &'de Map<String, Value>,
        fields: &'static [&'static str],
        path: &'p Path<'p>,
        reader: &'p Reader,
    ) -> Self {
        Self {
            entries: Entries::new(entries, path, reader),
            fields,
            seen: Vec::new(),
        }
    }

    /// The field that `key` means.
    fn field(&self, key: &str) -> Option<&'static str> {
        let exact = self.fields.iter().copied().find(|field| *field == key);
        exact.or_else(|| {
            let wanted = (self.entries.reader.proto_names && key.contains('_')).then(|| camel_case(key))?;
            self.fields.iter().copied().find(|field| *field == wanted)
        })
    }
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = StrictError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, StrictError> {
        let (path, reader) = (self.entries.path, self.entries.reader);
        while let Some((key, value)) = self.entries.entries.next() {
            let Some(field) = self.field(key) else {
                reader.unknown_field(path, key, self.fields);
                continue;
            };
            if self.seen.contains(&field) {
                reader.repeated_field(path, key, field);
                continue;
            }
            self.seen.push(field);
            self.entries.current = Some((key, value));
            return seed.deserialize(BorrowedStrDeserializer::new(field)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, StrictError> {
        self.entries.value(seed)
    }
}

/// The lowerCamelCase name of a proto field.
pub(crate) fn camel_case(name: &str) -> String {
    let mut upper = false;
    let mut camel = String::with_capacity(name.len());
    for character in name.chars() {
        if character == '_' {
            upper = true;
        } else if std::mem::take(&mut upper) {
            camel.extend(character.to_uppercase());
        } else {
            camel.push(character);
        }
    }
    camel
}
