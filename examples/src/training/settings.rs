//! Settings over defaults: a JSON file, then `key=value` pairs, with errors that say what to write.
//!
//! The defaults, as JSON, also define the known keys and the kinds of their values.

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::unique::check_keys;
use crate::words::{LONGEST, shown};

/// Short forms of a whole group of settings, such as a name: from key and value to the group,
/// which is then replaced. `None` of any other value.
pub type Presets<'a> = &'a dyn Fn(&str, &Value) -> Option<Result<Value>>;

/// Lays the settings of a JSON file over `base`.
///
/// # Errors
///
/// On malformed JSON (with line and column), on unknown keys (with line and the nearest one) and on
/// values of another kind.
pub fn apply_file(base: &mut Value, text: &str, presets: Presets) -> Result<()> {
    let text = text.trim_start_matches('\u{feff}');
    let settings: Value = serde_json::from_str(text).context("this is not valid JSON")?;
    check_keys(text.as_bytes())?;
    let Value::Object(settings) = settings else {
        bail!(
            "expected an object of settings, such as {{\"seed\": 1}}, found {}",
            kind(&settings)
        );
    };
    merge(base, settings, "", presets).map_err(|fault| match line_of(text, &fault.key) {
        Some(line) => anyhow!("line {line}: {}", fault.message),
        None => anyhow!(fault.message),
    })
}

/// Lays one `key=value` over `base`; the key is dotted, the value JSON or a bare word.
///
/// # Errors
///
/// Without `=`, and as [`apply_file`].
pub fn apply_pair(base: &mut Value, pair: &str, presets: Presets) -> Result<()> {
    let (key, value) = pair.split_once('=').with_context(|| {
        let pair = shown(pair);
        format!("`{pair}`: expected key=value, such as schedule.steps=500")
    })?;
    let value = serde_json::from_str(value.trim())
        .unwrap_or_else(|_| Value::String(value.trim().to_string()));
    let nested = key.trim().rsplit('.').fold(value, |inner, name| {
        Value::Object(Map::from_iter([(name.to_string(), inner)]))
    });
    let Value::Object(nested) = nested else {
        unreachable!("a key has at least one part");
    };
    merge(base, nested, "", presets)
        .map_err(|fault| anyhow!("`{}`: {}", shown(pair), fault.message))
}

/// The settings that the name of a preset is short for, of a model that has a tiny one and the
/// published one, `base`.
///
/// # Errors
///
/// On any other name.
pub fn tiny_or_base<T: Serialize>(
    name: &str,
    tiny: impl FnOnce() -> T,
    base: impl FnOnce() -> T,
) -> Result<Value> {
    let settings = match name {
        "tiny" => tiny(),
        "base" => base(),
        _ => bail!("there is no preset `{name}`; there are tiny, base"),
    };
    Ok(serde_json::to_value(settings)?)
}

/// An error, and the last part of its key.
struct Fault {
    key: String,
    message: String,
}

fn merge(
    base: &mut Value,
    over: Map<String, Value>,
    path: &str,
    presets: Presets,
) -> Result<(), Fault> {
    for (key, value) in over {
        let dotted = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let fault = |message: String| Fault {
            key: key.clone(),
            message,
        };
        let known = base
            .as_object_mut()
            .expect("settings are merged into objects");
        let Some(slot) = known.get_mut(&key) else {
            return Err(fault(unknown(&dotted, &key, path, known)));
        };
        if slot.is_object()
            && let Some(settings) = presets(&dotted, &value)
        {
            *slot = settings.map_err(|error| fault(format!("{dotted}: {error}")))?;
            continue;
        }
        match (slot, value) {
            (slot @ Value::Object(_), Value::Object(inner)) => {
                merge(slot, inner, &dotted, presets)?
            }
            // Of a list of groups, over each.
            (Value::Array(groups), Value::Object(inner))
                if !groups.is_empty() && groups.iter().all(Value::is_object) =>
            {
                for group in groups {
                    merge(group, inner.clone(), &dotted, presets)?;
                }
            }
            (Value::Object(group), value) => return Err(fault(no_group(&dotted, group, &value))),
            (slot, value) => {
                if let Some(expected) = mismatch(slot, &value) {
                    return Err(fault(format!(
                        "{dotted}: expected {expected}, found {}",
                        kind(&value)
                    )));
                }
                *slot = value;
            }
        }
    }
    Ok(())
}

/// Says that a group of settings cannot be `value`.
fn no_group(dotted: &str, group: &Map<String, Value>, value: &Value) -> String {
    let example = group
        .keys()
        .next()
        .map(|name| format!(", such as {dotted}.{name}"))
        .unwrap_or_default();
    format!(
        "{dotted} is a group of settings{example}; it cannot be {}",
        kind(value)
    )
}

fn unknown(dotted: &str, key: &str, path: &str, known: &Map<String, Value>) -> String {
    let nearest = known
        .keys()
        .filter(|_| key.len() <= LONGEST)
        .map(|name| (strsim::damerau_levenshtein(name, key), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().max(key.len()) / 2);
    let prefix = if path.is_empty() {
        String::new()
    } else {
        format!("{path}.")
    };
    let hint = match nearest {
        Some((_, name)) => format!("did you mean {prefix}{name}?"),
        None => {
            let names: Vec<_> = known.keys().map(|name| format!("{prefix}{name}")).collect();
            format!("there are {}", names.join(", "))
        }
    };
    format!("there is no setting {}; {hint}", shown(dotted))
}

/// The kind of the default, if the value is of another. A default of null takes anything here, and
/// null is taken by anything: which settings may be null is not known here.
fn mismatch(default: &Value, value: &Value) -> Option<&'static str> {
    let fits = value.is_null()
        || match default {
            Value::Null | Value::Object(_) => true,
            Value::Bool(_) => value.is_boolean(),
            Value::String(_) => value.is_string(),
            Value::Array(_) => value.is_array(),
            Value::Number(number) if number.is_u64() => value.is_u64(),
            Value::Number(_) => value.is_number(),
        };
    (!fits).then(|| match default {
        Value::Bool(_) => "true or false",
        Value::String(_) => "a word",
        Value::Array(_) => "a list",
        Value::Number(number) if number.is_u64() => "a whole number, not negative",
        _ => "a number",
    })
}

fn kind(value: &Value) -> String {
    match value {
        Value::Object(_) => "a group of settings".to_string(),
        Value::Array(_) => format!("the list {}", shown(&value.to_string())),
        other => shown(&other.to_string()),
    }
}

/// The first line with a key.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let quoted = format!("\"{key}\"");
    let is_key = |line: &str| {
        line.match_indices(&quoted)
            .any(|(at, _)| line[at + quoted.len()..].trim_start().starts_with(':'))
    };
    text.lines().position(is_key).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({
            "seed": 0,
            "schedule": {"steps": 10, "epochs": null, "rate": 0.5, "flag": true},
            "model": {"width": 4},
        })
    }

    fn presets(key: &str, value: &Value) -> Option<Result<Value>> {
        (key == "model" && value.is_string()).then(|| match value.as_str() {
            Some("wide") => Ok(json!({"width": 8})),
            other => Err(anyhow!("no preset {}", other.unwrap())),
        })
    }

    fn set(pair: &str) -> Result<Value> {
        let mut value = base();
        apply_pair(&mut value, pair, &presets).map(|()| value)
    }

    fn file(text: &str) -> Result<Value> {
        let mut value = base();
        apply_file(&mut value, text, &presets).map(|()| value)
    }

    fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn a_setting_replaces_its_default_and_nothing_else() {
        let mut expected = base();
        expected["schedule"]["steps"] = json!(20);
        assert_eq!(set("schedule.steps=20").unwrap(), expected);
        assert_eq!(file(r#"{"schedule": {"steps": 20}}"#).unwrap(), expected);
        assert_eq!(set(" schedule.steps = 20 ").unwrap(), expected);
    }

    #[test]
    fn a_setting_of_a_list_of_groups_is_set_in_each() {
        let mut value = json!({"init": [{"new": [1]}, {"new": [2]}], "empty": [], "rates": [1]});
        apply_pair(&mut value, "init.new=[3]", &presets).unwrap();
        assert_eq!(value["init"], json!([{"new": [3]}, {"new": [3]}]));
        for pair in ["init.old=[3]", "empty.new=[3]", "rates.new=[3]"] {
            assert!(apply_pair(&mut value, pair, &presets).is_err(), "{pair}");
        }
    }

    #[test]
    fn a_preset_replaces_a_group() {
        assert_eq!(set("model=wide").unwrap()["model"], json!({"width": 8}));
        assert!(message(set("model=huge")).contains("no preset huge"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        let error = message(set("schedule.step=20"));
        assert!(
            error.contains("there is no setting schedule.step; did you mean schedule.steps?"),
            "{error}"
        );
        let error = message(set("sede=1"));
        assert!(error.contains("did you mean seed?"), "{error}");
        let error = message(set("zzzzzzzz=1"));
        assert!(error.contains("there are model, schedule, seed"), "{error}");
    }

    #[test]
    fn an_unknown_key_of_a_file_is_refused_with_its_line() {
        let error = message(file(
            "{\n  \"seed\": 1,\n  \"schedule\": {\n    \"stepz\": 3\n  }\n}",
        ));
        assert!(
            error.starts_with("line 4: there is no setting schedule.stepz"),
            "{error}"
        );
        let error = message(file("{\n  \"seed\": ,\n}"));
        assert!(error.contains("line 2"), "{error}");
        assert!(message(file("[1]")).contains("expected an object"));
    }

    #[test]
    fn a_value_of_another_kind_is_refused() {
        let long = format!("{}=1", "x".repeat(100_000));
        for (pair, expected) in [
            (
                "schedule.steps=many",
                "schedule.steps: expected a whole number, not negative, found \"many\"",
            ),
            (
                "schedule.steps=1.5",
                "expected a whole number, not negative, found 1.5",
            ),
            (
                "schedule.steps=-1",
                "expected a whole number, not negative, found -1",
            ),
            ("schedule.rate=fast", "expected a number, found \"fast\""),
            ("schedule.flag=1", "expected true or false, found 1"),
            (
                "schedule=3",
                "schedule is a group of settings, such as schedule.epochs; it cannot be 3",
            ),
            ("seed", "expected key=value"),
            (&long, "there is no setting xxx"),
        ] {
            let error = message(set(pair));
            assert!(error.contains(expected), "{pair}: {error}");
            assert!(error.len() < 500, "{error}");
        }
        // Which settings may be null is for the configuration to say.
        assert_eq!(
            set("schedule.rate=null").unwrap()["schedule"]["rate"],
            json!(null)
        );
        // A whole number is a number.
        assert_eq!(
            set("schedule.rate=2").unwrap()["schedule"]["rate"],
            json!(2)
        );
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn no_pair_panics(pair in ".*", key in "[a-z.]{0,12}", value in ".*") {
            let _ = set(&pair);
            let _ = set(&format!("{key}={value}"));
            let _ = set(&format!("schedule.steps={value}"));
        }

        #[test]
        fn no_file_panics(text in ".*", key in "seed|schedule|model|steps|[a-z]*", value in ".*") {
            let _ = file(&text);
            let _ = file(&format!("{{\"{key}\": {value}}}"));
            let _ = file(&format!("{{\"schedule\": {{\"{key}\": {value}}}}}"));
        }
    }
}
