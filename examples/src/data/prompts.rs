//! What the classes of zero-shot classification are called, and the captions that speak of them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::listing::{Element, Elements, read_json};

/// What stands in a template for the text of a class.
const GAP: &str = "{}";

/// Classes by name, and the captions of each.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassPrompts {
    /// The names, which are those that the data have.
    pub names: Vec<String>,
    /// The captions of each class: all of its texts in all templates.
    pub prompts: Vec<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassFile {
    templates: Vec<String>,
    classes: Elements<ClassRow>,
}

/// A class as the file lists it: a name, or an object.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct ClassRow {
    name: String,
    texts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassObject {
    name: String,
    texts: Option<Vec<String>>,
}

impl Element for ClassRow {
    const MANY: &'static str = "classes";
}

impl TryFrom<Value> for ClassRow {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let object = match value {
            Value::String(name) => ClassObject { name, texts: None },
            object @ Value::Object(_) => {
                serde_json::from_value(object).map_err(|error| error.to_string())?
            }
            _ => return Err("a class is a name, or an object with `name` and `texts`".into()),
        };
        let name = object.name.trim().to_string();
        let texts = object.texts.unwrap_or_else(|| vec![name.clone()]);
        Ok(Self { name, texts })
    }
}

impl ClassPrompts {
    /// Reads a file of this form:
    /// ```json
    /// {"templates": ["a photo of a {}.", "a drawing of a {}."],
    ///  "classes": ["cat", {"name": "dog", "texts": ["dog", "puppy"]}]}
    /// ```
    /// Each text of a class takes the place of `{}` in each template. The text of a class that has
    /// no `texts` is its name.
    ///
    /// # Errors
    ///
    /// If the file cannot be parsed; if there is no template, or one in which `{}` is not there
    /// exactly once; if there are fewer than two classes; if a name is blank or there twice; if a
    /// class has no text, or a blank one.
    pub fn read(file: &Path) -> Result<Self> {
        let listing: ClassFile = read_json(file, "a file of templates and classes")?;
        listing
            .prompts()
            .with_context(|| file.display().to_string())
    }
}

impl ClassFile {
    fn prompts(self) -> Result<ClassPrompts> {
        ensure!(!self.templates.is_empty(), "templates is empty");
        for (index, template) in self.templates.iter().enumerate() {
            ensure!(
                template.matches(GAP).count() == 1,
                "templates[{index}]: {template:?} must have {GAP} once, where the class stands"
            );
        }
        let rows = self.classes.0.into_iter().enumerate();
        let rows = rows.map(|(index, row)| {
            let checked = row.map_err(|reason| anyhow!(reason)).and_then(checked);
            checked.with_context(|| format!("classes[{index}]"))
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        ensure!(
            rows.len() > 1,
            "there must be two classes or more, and there are {}",
            rows.len()
        );
        let mut known = BTreeSet::new();
        for (index, row) in rows.iter().enumerate() {
            let is_new = known.insert(&row.name);
            ensure!(is_new, "classes[{index}]: {:?} is there twice", row.name);
        }
        let prompts = rows.iter().map(|row| {
            let texts = row.texts.iter();
            let captions = texts.flat_map(|text| {
                let templates = self.templates.iter();
                templates.map(move |template| template.replace(GAP, text.trim()))
            });
            captions.collect()
        });
        Ok(ClassPrompts {
            prompts: prompts.collect(),
            names: rows.iter().map(|row| row.name.clone()).collect(),
        })
    }
}

fn checked(row: ClassRow) -> Result<ClassRow> {
    ensure!(!row.name.is_empty(), "the name is blank");
    ensure!(!row.texts.is_empty(), "{:?} has no text", row.name);
    for text in &row.texts {
        ensure!(!text.trim().is_empty(), "{:?} has a blank text", row.name);
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ClassPrompts> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("classes.json");
        std::fs::write(&file, json).unwrap();
        ClassPrompts::read(&file)
    }

    #[test]
    fn every_text_stands_in_every_template() {
        let read = read(
            r#"{"templates": ["a {}.", "{}"],
                "classes": [" cat ", {"texts": ["dog", "puppy "], "name": "n02084071"}]}"#,
        );
        let read = read.unwrap();
        assert_eq!(read.names, ["cat", "n02084071"]);
        assert_eq!(read.prompts[0], ["a cat.", "cat"]);
        assert_eq!(read.prompts[1], ["a dog.", "dog", "a puppy.", "puppy"]);
    }

    /// Files, and why they are refused.
    const REFUSED: [(&str, &str); 18] = [
        ("", "not a file of templates and classes"),
        ("[]", "not a file of templates and classes"),
        (r#"{"classes": ["a", "b"]}"#, "missing field `templates`"),
        (r#"{"templates": ["{}"]}"#, "missing field `classes`"),
        (
            r#"{"templates": ["{}"], "templates": ["{}"], "classes": ["a", "b"]}"#,
            "duplicate field `templates`",
        ),
        (
            r#"{"templates": ["{}"], "classes": ["a", "b"], "extra": 1}"#,
            "unknown field `extra`",
        ),
        (
            r#"{"templates": [], "classes": ["a", "b"]}"#,
            "templates is empty",
        ),
        (
            r#"{"templates": ["{}", "a photo"], "classes": ["a", "b"]}"#,
            "templates[1]: \"a photo\" must have {} once",
        ),
        (
            r#"{"templates": ["{} {}"], "classes": ["a", "b"]}"#,
            "templates[0]: \"{} {}\" must have {} once",
        ),
        (r#"{"templates": ["{}"], "classes": []}"#, "there are 0"),
        (r#"{"templates": ["{}"], "classes": ["a"]}"#, "there are 1"),
        (
            r#"{"templates": ["{}"], "classes": ["a", "b", " a"]}"#,
            "classes[2]: \"a\" is there twice",
        ),
        (
            r#"{"templates": ["{}"], "classes": ["a", " "]}"#,
            "classes[1]: the name is blank",
        ),
        (
            r#"{"templates": ["{}"], "classes": ["a", 7]}"#,
            "classes[1]: a class is a name, or an object",
        ),
        (
            r#"{"templates": ["{}"], "classes": ["a", {"name": "b", "texts": []}]}"#,
            "classes[1]: \"b\" has no text",
        ),
        (
            r#"{"templates": ["{}"], "classes": ["a", {"name": "b", "texts": ["x", ""]}]}"#,
            "classes[1]: \"b\" has a blank text",
        ),
        (
            r#"{"templates": ["{}"], "classes": ["a", {"name": "b", "text": ["x"]}]}"#,
            "classes[1]: unknown field `text`",
        ),
        (
            r#"{"templates": ["{}"], "classes": ["a", {"name": "b", "name": "c"}]}"#,
            "classes[1]: `name` is given twice",
        ),
    ];

    #[test]
    fn what_says_nothing_or_says_it_twice_is_refused_by_its_place() {
        for (json, expected) in REFUSED {
            let error = format!("{:#}", read(json).unwrap_err());
            assert!(
                error.contains(expected) && error.contains("classes.json"),
                "{json}: {error}"
            );
        }
    }
}
