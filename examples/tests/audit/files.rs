//! Files of embeddings to audit, and runs of the program on them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A tensor of a file to write.
#[derive(Clone)]
pub struct Raw {
    pub dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

pub fn floats(dtype: Dtype, shape: &[usize], values: &[f64]) -> Raw {
    let bytes = values.iter().flat_map(|&x| match dtype {
        Dtype::F64 => x.to_le_bytes().to_vec(),
        Dtype::F32 => (x as f32).to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f64(x).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f64(x).to_le_bytes().to_vec(),
        other => panic!("{other:?}"),
    });
    Raw {
        dtype,
        shape: shape.to_vec(),
        bytes: bytes.collect(),
    }
}

pub fn integers(values: &[i64]) -> Raw {
    Raw {
        dtype: Dtype::I64,
        shape: vec![values.len()],
        bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

pub type Tensors = HashMap<String, Raw>;

/// The bytes of a file of these tensors.
pub fn bytes(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, raw)| {
        let view = TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes).unwrap();
        (name, view)
    });
    safetensors::serialize(views, None).unwrap()
}

/// Pseudo-random values in [−1, 1].
pub fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(next).collect()
}

pub const N: usize = 12;
pub const D: usize = 5;

/// A file with every tensor that there can be, in `dtype`; texts resemble their images.
pub fn everything(dtype: Dtype) -> (Tensors, HashMap<&'static str, Vec<f64>>) {
    let image = random(N * D, 1);
    let text: Vec<f64> = image
        .iter()
        .zip(random(N * D, 2))
        .map(|(x, noise)| x + 0.7 * noise)
        .collect();
    let values = HashMap::from([
        ("image", image),
        ("text", text),
        ("teacher_image", random(N * 3, 3)),
        ("teacher_text", random(N * 3, 4)),
        ("queue_image", random(4 * D, 5)),
        ("queue_text", random(6 * D, 6)),
        ("noise", random(7 * D, 7)),
        ("hard_image", random(N * 2 * D, 8)),
        ("hard_text", random(N * 2 * D, 9)),
    ]);
    let shape = |name: &str, count: usize| match name {
        "teacher_image" | "teacher_text" => vec![N, 3],
        "hard_image" | "hard_text" => vec![N, 2, D],
        _ => vec![count / D, D],
    };
    let tensors = values.iter().map(|(name, values)| {
        let raw = floats(dtype, &shape(name, values.len()), values);
        (name.to_string(), raw)
    });
    // What the file holds, after rounding to its dtype.
    let rounded = |x: f64| match dtype {
        Dtype::F64 => x,
        Dtype::F32 => f64::from(x as f32),
        Dtype::F16 => f16::from_f64(x).to_f64(),
        _ => bf16::from_f64(x).to_f64(),
    };
    let tensors = tensors.collect();
    let values = values
        .into_iter()
        .map(|(name, values)| (name, values.into_iter().map(rounded).collect()));
    (tensors, values.collect())
}

/// A folder with a file of embeddings and a list of objectives.
pub struct Files {
    folder: TempDir,
}

impl Files {
    pub fn new(tensors: &Tensors) -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(files.path("pairs.safetensors"), bytes(tensors)).unwrap();
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The names of the folder.
    pub fn names(&self) -> Vec<OsString> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    /// The program in the folder, without arguments.
    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_audit"));
        command.current_dir(self.folder.path());
        command
    }

    pub fn audit(&self, arguments: &[&str]) -> Output {
        self.program()
            .args(["--embeddings", "pairs.safetensors"])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Runs with these arguments, which must succeed.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) {
        let output = self.audit(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    }

    /// A JSON file of the folder.
    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    /// Runs with these objectives and reads what it writes.
    pub fn run(&self, objectives: Value, arguments: &[&str]) -> (Value, HashMap<String, Vec<f64>>) {
        fs::write(self.path("objectives.json"), objectives.to_string()).unwrap();
        let mut all = vec!["--objectives", "objectives.json"];
        all.extend(["--json", "out.json", "--gradients", "grads.safetensors"]);
        all.extend(arguments);
        self.succeed(&all);
        let bytes = fs::read(self.path("grads.safetensors")).unwrap();
        let gradients = SafeTensors::deserialize(&bytes).unwrap();
        let elements = |view: &TensorView| {
            assert_eq!((view.dtype(), view.shape()[1]), (Dtype::F32, D));
            let values = view.data().chunks_exact(4);
            values
                .map(|x| f32::from_le_bytes(x.try_into().unwrap()).into())
                .collect()
        };
        let gradients = gradients
            .tensors()
            .iter()
            .map(|(name, view)| (name.clone(), elements(view)))
            .collect();
        (self.json("out.json"), gradients)
    }

    /// The error message of a run that must fail and leave the folder as it was.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let before = self.names();
        let outputs = [
            "--json",
            "o.json",
            "--gradients",
            "o.safetensors",
            "--report",
            "o.html",
        ];
        let output = self.audit(&[arguments, &outputs].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert_eq!(self.names(), before, "{errors}");
        assert!(!errors.contains("panicked"), "{errors}");
        errors
    }
}

/// Two objectives, the first of which is named `a`.
pub fn info_nce_and_vse() -> Value {
    json!([{"name": "a", "objective": "info-nce", "temperature": 0.2}, {"objective": "vse"}])
}
