//! JSON in which no key stands twice.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

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
                let message = format!("`{}` is given twice", shown(&key));
                return Err(A::Error::custom(message));
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
}
