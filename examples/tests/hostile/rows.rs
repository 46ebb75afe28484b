//! Files of numbers for each image, as bytes: whole ones, and what they may be damaged to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A safetensors file.
#[derive(Clone)]
pub struct Rows {
    /// Lists in the metadata, such as that of `names`.
    pub lists: BTreeMap<&'static str, String>,
    pub tensors: Vec<(&'static str, Column)>,
}

/// One of its tensors.
#[derive(Clone)]
pub struct Column {
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Column {
    pub fn floats(shape: &[usize], value: impl Fn(usize) -> f32) -> Self {
        let values = (0..shape.iter().product()).map(value);
        Self {
            dtype: "F32",
            shape: shape.to_vec(),
            bytes: values.flat_map(f32::to_le_bytes).collect(),
        }
    }

    pub fn integers(values: &[i64]) -> Self {
        Self {
            dtype: "I64",
            shape: vec![values.len()],
            bytes: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }
}

impl Rows {
    /// Of the images of the table, the first of `images`.
    pub fn of(images: usize, tensors: Vec<(&'static str, Column)>) -> Self {
        let names: Vec<_> = (0..images).map(|index| format!("{index:02}.png")).collect();
        Self {
            lists: BTreeMap::new(),
            tensors,
        }
        .named(json!(names))
    }

    pub fn with(mut self, name: &str, tensor: Column) -> Self {
        let place = self.tensors.iter_mut().find(|(own, _)| *own == name);
        place.unwrap().1 = tensor;
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.tensors.retain(|(own, _)| *own != name);
        self
    }

    pub fn named(self, names: impl Into<Option<Value>>) -> Self {
        self.listed("names", names)
    }

    pub fn listed(mut self, key: &'static str, list: impl Into<Option<Value>>) -> Self {
        match list.into() {
            Some(list) => self.lists.insert(key, list.to_string()),
            None => self.lists.remove(key),
        };
        self
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        let (mut header, mut content) = (Map::new(), Vec::new());
        for (name, tensor) in &self.tensors {
            let begin = content.len();
            content.extend(&tensor.bytes);
            let offsets = [begin, content.len()];
            let entry =
                json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets});
            header.insert(name.to_string(), entry);
        }
        header.insert("__metadata__".into(), json!(self.lists));
        let header = Value::Object(header).to_string().into_bytes();
        [&(header.len() as u64).to_le_bytes()[..], &header, &content].concat()
    }
}

/// Files with a name, and a part of what is said about them.
pub type Bad = Vec<(&'static str, Vec<u8>, &'static str)>;

pub fn bad(files: impl IntoIterator<Item = (&'static str, Rows, &'static str)>) -> Bad {
    let files = files.into_iter();
    let files = files.map(|(name, rows, reason)| (name, rows.bytes(), reason));
    files.collect()
}

/// Files whose names are none, or not those of the twelve images of the table.
pub fn misnamed(whole: &Rows) -> Bad {
    let names = |count: usize| (0..count).map(|i| format!("{i:02}.png"));
    let names = |count, more: &str| json!(names(count).chain([more.into()]).collect::<Vec<_>>());
    let with = |names: Value| whole.clone().named(names);
    bad([
        (
            "none",
            whole.clone().named(None),
            "its metadata have no `names`",
        ),
        (
            "object",
            with(json!({"a": 1})),
            "no JSON array of file names",
        ),
        ("text", with(json!("00.png")), "no JSON array of file names"),
        (
            "numbers",
            with(json!([1, 2])),
            "no JSON array of file names",
        ),
        ("few", with(names(9, "9.png")), "10 names for the 12 images"),
        (
            "twice",
            with(names(11, "00.png")),
            "rows 0 and 11 are both of 00.png",
        ),
        (
            "another",
            with(names(11, "x.png")),
            "it has no row for 11.png",
        ),
    ])
}

/// What is not a file of this kind at all.
pub fn damaged(whole: &[u8]) -> Bad {
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut long = whole.to_vec();
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    vec![
        ("empty", Vec::new(), "is empty"),
        ("short", whole[..7].to_vec(), "it is too short"),
        (
            "header cut",
            whole[..header / 2].to_vec(),
            "is not a safetensors file",
        ),
        ("cut", whole[..whole.len() - 1].to_vec(), "it is cut off"),
        ("all cut", whole[..8 + header].to_vec(), "it is cut off"),
        (
            "longer",
            [whole, b"x"].concat(),
            "it is followed by something else",
        ),
        ("endless header", long, "is not a safetensors file"),
        (
            "text",
            b"dog 1 2 3 4\n".repeat(9),
            "is not a safetensors file",
        ),
        ("zeros", vec![0; 64], "is not a safetensors file"),
    ]
}
