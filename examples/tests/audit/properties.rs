//! Files of any content are read or refused, without a panic and in memory of their own size.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use burn_contrastive_examples::audit::heap::{CountingAllocator, peak_of};
use burn_contrastive_examples::audit::objectives;
use burn_contrastive_examples::audit::tensors::{Embeddings, NAMES};
use proptest::prelude::*;
use safetensors::tensor::Dtype;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::files::{bytes, everything};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What is taken beside the content: buffers, and whatever other tests take meanwhile.
const SLACK: u64 = 64 << 20;

fn with_file<T>(content: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("content");
    fs::write(&path, content).unwrap();
    read(&path)
}

/// Reads embeddings; what is read is finite and of the shapes that it says.
fn embeddings(content: &[u8]) {
    let read = |path: &Path| {
        let (read, peak) = peak_of(|| Embeddings::read(path, &Device::flex(), false));
        assert!(peak.unwrap() < SLACK, "{peak:?} bytes");
        read
    };
    match with_file(content, read) {
        Ok(Embeddings { features, .. }) => {
            let [image, text] = [&features.image, &features.text].map(|x| x.dims());
            assert_eq!(image, text);
        }
        Err(error) => assert!(format!("{error:#}").len() < 2000, "{error:#}"),
    }
}

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), data].concat()
}

/// Numbers that are small, large, or near the ends of their types.
fn number() -> impl Strategy<Value = u64> {
    let near = (0u32..64, 0u64..3).prop_map(|(bit, more)| (1u64 << bit).wrapping_add(more));
    prop_oneof![0u64..20, near, Just(u64::MAX), Just(u64::MAX / 2 + 1)]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(NAMES).prop_map(str::to_string),
        ".{0,8}"
    ]
}

/// Headers as the format has them, with any numbers.
fn header() -> impl Strategy<Value = Value> {
    let dtypes = [
        "F32", "F64", "F16", "BF16", "I64", "U8", "BOOL", "F4", "F6_E2M3", "C64", "x",
    ];
    let shape = proptest::collection::vec(number(), 0..4);
    let tensor = (
        proptest::sample::select(dtypes.to_vec()),
        shape,
        number(),
        number(),
    );
    let tensor = tensor.prop_map(|(dtype, shape, start, end)| {
        json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]})
    });
    let tensors = proptest::collection::vec((name(), tensor), 0..6);
    tensors.prop_map(|tensors| tensors.into_iter().collect::<Map<_, _>>().into())
}

/// Any JSON.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        name(),
        proptest::sample::select(&["objective", "terms", "schedule", "weight", "sum"][..])
            .prop_map(str::to_string),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..6)
                .prop_map(|entries| entries.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

/// An objective by name, with some of its parameters at any values.
fn objective() -> impl Strategy<Value = Value> {
    use burn_contrastive::objective::{AnyConfig, ObjectiveConfig};

    let value = prop_oneof![
        any::<f64>().prop_map(Value::from),
        number().prop_map(Value::from),
        (-3i32..4).prop_map(Value::from),
        any_json(),
    ];
    let values = proptest::collection::vec((any::<proptest::sample::Index>(), value), 0..4);
    let one = (proptest::sample::select(AnyConfig::names()), values);
    one.prop_map(|(name, values)| {
        let mut config = ObjectiveConfig::named(name).unwrap();
        let known = config.parameters();
        let mut names: Vec<_> = known.iter().map(|parameter| parameter.name).collect();
        names.extend(["weight", "schedule", "terms", "name"]);
        let mut json = json!({"objective": name});
        for (index, value) in values {
            json[*index.get(&names)] = value;
        }
        json
    })
}

/// Reads a list of objectives, and checks them as the program does before it evaluates.
fn list(text: &str) {
    let read = with_file(text.as_bytes(), objectives::read);
    match read {
        Ok(list) => {
            for one in list {
                let _ = (one.config.needs(), one.config.uses());
                if one.config.check().is_ok() {
                    one.config.init(&Device::flex());
                }
            }
        }
        Err(error) => assert!(format!("{error:#}").len() < 2000, "{error:#}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(128)
    })]

    #[test]
    fn any_bytes_are_refused(content in proptest::collection::vec(any::<u8>(), 0..300)) {
        embeddings(&content);
    }

    #[test]
    fn a_header_of_any_length_is_refused(length in number(), data in "[ -~]{0,80}") {
        embeddings(&[&length.to_le_bytes()[..], data.as_bytes()].concat());
    }

    #[test]
    fn any_header_is_read_or_refused(header in header(), data in 0usize..400) {
        embeddings(&file(&header.to_string(), &vec![0; data]));
    }

    #[test]
    fn any_json_for_a_header_is_read_or_refused(header in any_json()) {
        embeddings(&file(&header.to_string(), &[]));
    }

    #[test]
    fn a_file_with_changed_bytes_is_read_or_refused(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        end in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut content = bytes(&everything(Dtype::F16).0);
        for (index, byte) in changes {
            let at = index.index(content.len());
            content[at] = byte;
        }
        if let Some(end) = end {
            content.truncate(end.index(content.len()));
        }
        embeddings(&content);
    }

    #[test]
    fn any_text_for_a_list_is_read_or_refused(text in "\\PC{0,200}") {
        list(&text);
    }

    #[test]
    fn any_json_for_a_list_is_read_or_refused(value in any_json()) {
        list(&value.to_string());
    }

    #[test]
    fn objectives_of_any_parameters_are_built_or_refused(
        entries in proptest::collection::vec(objective(), 1..4),
    ) {
        list(&json!(entries).to_string());
    }
}

#[test]
fn a_header_that_promises_more_than_there_is_takes_no_memory() {
    for length in [1u64 << 60, u64::MAX, 99_999_999] {
        embeddings(&length.to_le_bytes());
    }
    for (shape, end) in [
        (json!([1u64 << 60, 1]), 1u64 << 62),
        (json!([1u64 << 32, 1u64 << 32]), 0),
        (json!([u64::MAX, u64::MAX, 0]), 0),
        (json!([1u64 << 40, 4]), 1 << 44),
    ] {
        let image = json!({"dtype": "F32", "shape": shape, "data_offsets": [0, end]});
        embeddings(&file(&json!({"image": image}).to_string(), &[0; 64]));
    }
}
