//! NVIDIA's assembler on the kernels that were loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{said, two_at_a_time};

/// What the assembler makes of a kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub registers: usize,
    /// Bytes that a thread writes to memory since registers are missing.
    pub spilled: usize,
    /// Whether it multiplies by matrix instructions.
    pub matrix_units: bool,
}

/// By name.
pub type Kernels = BTreeMap<String, Kernel>;

/// Compiles every kernel of a folder, two at a time.
pub fn compile(folder: &Path) -> Kernels {
    let ptxas = Path::new(&std::env::var_os("CUDA_PATH").expect("CUDA_PATH")).join("bin/ptxas");
    let files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let kernels = two_at_a_time(&files, |file| {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, assembled(&ptxas, file))
    });
    kernels.into_iter().collect()
}

fn assembled(ptxas: &Path, file: &Path) -> Kernel {
    let text = std::fs::read_to_string(file).unwrap();
    let target = text.lines().find_map(|line| line.strip_prefix(".target "));
    let target = target.expect("a target").split(',').next().unwrap().trim();
    let mut command = Command::new(ptxas);
    command.args(["-v", "-o", "/dev/null", "-arch", target]);
    let said = said(command.arg(file), &file.display().to_string());
    Kernel {
        registers: number_before(&said, " registers"),
        spilled: number_before(&said, " bytes spill stores"),
        matrix_units: text.contains("wmma.mma") || text.contains("mma.sync"),
    }
}

/// The number before some words.
fn number_before(text: &str, words: &str) -> usize {
    let Some((before, _)) = text.split_once(words) else {
        return 0;
    };
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
