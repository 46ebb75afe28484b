//! JSON in which no key stands twice.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::words::shown;

/// Checks that no object has a key twice: readers take one of its values without a word.
///
/// # Errors
///
/// If one has, naming it, or if this is not JSON.
pub(crate) fn check_keys(json: &[u8]) -> serde_json::Result<()> {
    serde_json::from_slice::<Checked>(json).map(|Checked| ())
}

/// Any value.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Checked)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, Self)) = map.next_entry::<String, Self>()? {
            if let Some(key) = keys.replace(key) {
                return Err(A::Error::custom(given_twice(&key)));
            }
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

fn given_twice(key: &str) -> String {
    format!("`{}` is given twice", shown(key))
}

/// Any value, to which a key that stands twice is no error: it spoils only a part of the whole.
pub(crate) struct Unique {
    /// Of a key that stands twice in an object, the last.
    pub(crate) value: Value,
    /// What is said of the first such key.
    pub(crate) twice: Option<String>,
}

impl From<Value> for Unique {
    fn from(value: Value) -> Self {
        Self { value, twice: None }
    }
}

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let (mut object, mut twice) = (Map::new(), None);
        while let Some((key, inner)) = map.next_entry::<String, Unique>()? {
            twice = twice.or(inner.twice);
            if object.contains_key(&key) {
                twice = twice.or_else(|| Some(given_twice(&key)));
            }
            object.insert(key, inner.value);
        }
        let value = Value::Object(object);
        Ok(Unique { value, twice })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Unique, A::Error> {
        let (mut array, mut twice) = (Vec::new(), None);
        while let Some(inner) = list.next_element::<Unique>()? {
            twice = twice.or(inner.twice);
            array.push(inner.value);
        }
        let value = Value::Array(array);
        Ok(Unique { value, twice })
    }

    fn visit_bool<E>(self, value: bool) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Unique, E> {
        Ok(Value::from(value).into())
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Value::Null.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_refused_at_any_depth() {
        for json in [
            r#"{"a": 1, "a": 1}"#,
            r#"[null, {"b": [{"a": 1, "c": true, "a": "x"}]}]"#,
        ] {
            let error = check_keys(json.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("`a` is given twice"), "{error}");
        }
        check_keys(br#"[{"a": -1, "b": {"a": 1.5}}, {"a": null}]"#).unwrap();
        check_keys(b"[1, ").unwrap_err();
    }

    #[test]
    fn values_are_those_of_any_reader() {
        let json = r#"{"a": [1, -2, 1.5, 1e300, "x\n", true, null, {}], "b": {"a": []}}"#;
        let read: Unique = serde_json::from_str(json).unwrap();
        assert_eq!(read.value, serde_json::from_str::<Value>(json).unwrap());
        assert_eq!(read.twice, None);
        let json = r#"[{"b": [{"a": 1, "c": true, "a": "x"}]}, {"c": 0}]"#;
        let read: Unique = serde_json::from_str(json).unwrap();
        assert_eq!(read.value[1]["c"], 0);
        assert_eq!(read.twice.unwrap(), "`a` is given twice");
    }
}
