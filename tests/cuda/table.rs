//! The tables of docs/benchmarks.md, "Counted, not timed".

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::case::{Case, PRECISIONS};
use super::log::Evaluation;
use super::ptxas::Kernels;

/// What an objective takes at one precision.
#[derive(Clone, Debug, Default)]
struct Counts {
    /// Launches at each shape.
    launches: Vec<usize>,
    /// Those of the engine among them.
    of_engine: Vec<usize>,
    /// Memory beyond the features at each shape, in MiB, rounded up.
    memory: Vec<usize>,
    /// Registers of a thread, of the kernel of pairs that takes most.
    registers: usize,
}

/// Whether a kernel is the engine's own.
pub fn is_own(kernel: &str) -> bool {
    let own = ["block_", "merge_", "finish_", "accumulate_"];
    own.iter().any(|start| kernel.starts_with(start))
}

/// Whether a kernel is a matrix product. All are the engine's.
pub fn is_product(kernel: &str) -> bool {
    kernel.starts_with("matmul_")
}

impl Counts {
    fn of(evaluations: &[Evaluation], kernels: &Kernels) -> Self {
        let each = |count: fn(&Evaluation) -> usize| evaluations.iter().map(count).collect();
        let launched = evaluations.iter().flat_map(|e| &e.launches);
        let pairs = launched.filter(|name| name.starts_with("block_"));
        Self {
            launches: each(|e| e.launches.len()),
            of_engine: each(|e| {
                let launches = e.launches.iter();
                launches.filter(|k| is_own(k) || is_product(k)).count()
            }),
            memory: each(|e| e.peak.div_ceil(1 << 20) as usize),
            registers: pairs.map(|k| kernels[k].registers).max().unwrap_or(0),
        }
    }
}

/// What was counted, by objective, and by precision in their order.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    usual: BTreeMap<String, [Counts; 3]>,
    /// By width besides.
    large: BTreeMap<(String, usize), Counts>,
    /// Other kernels than the engine's that spill: their objective, name without the hash, and
    /// bytes.
    spilling: BTreeSet<(String, String, usize)>,
}

impl Tables {
    pub fn add(&mut self, case: &Case, evaluations: &[Evaluation], kernels: &Kernels) {
        let counts = Counts::of(evaluations, kernels);
        for name in evaluations.iter().flat_map(|e| &e.launches) {
            let spilled = kernels[name].spilled;
            if spilled > 0 {
                let (name, _hash) = name.rsplit_once('_').expect("a hash");
                self.spilling
                    .insert((case.name.clone(), name.into(), spilled));
            }
        }
        if let Some(width) = case.large {
            self.large.insert((case.name.clone(), width), counts);
            return;
        }
        let place = PRECISIONS.iter().position(|p| *p == case.precision);
        let row = self.usual.entry(case.name.clone()).or_default();
        row[place.expect("a precision")] = counts;
    }

    fn text(&self) -> String {
        let mut text = "\
| objective | launches, several blocks | the engine's | one block | the engine's | MiB | registers |
|---|--:|--:|--:|--:|--:|--:|
"
        .to_owned();
        for (name, counts) in &self.usual {
            let columns: [fn(&Counts) -> usize; 6] = [
                |c| c.launches[0],
                |c| c.of_engine[0],
                |c| c.launches[1],
                |c| c.of_engine[1],
                |c| c.memory[1],
                |c| c.registers,
            ];
            let cells = columns.map(|column| {
                let [highest, high, medium] = counts.each_ref().map(column);
                format!(" {highest}, {high}, {medium} ")
            });
            text += &format!("| {name} |{}|\n", cells.join("|"));
        }
        text += "
65,536 pairs of bf16, medium precision, the default memory budget:

| objective | width | launches | the engine's | MiB |
|---|--:|--:|--:|--:|
";
        for ((name, width), counts) in &self.large {
            let cells = [&counts.launches, &counts.of_engine, &counts.memory];
            let cells = cells.map(|cell| format!(" {} ", cell[0]));
            text += &format!("| {name} | {width} |{}|\n", cells.join("|"));
        }
        let spilling = self.spilling.iter();
        let spilling: Vec<_> = spilling
            .map(|(objective, kernel, bytes)| format!("`{kernel}` of {objective}, {bytes} bytes"))
            .collect();
        text + &format!("\nKernels of Burn's that spill: {}.\n", spilling.join("; "))
    }
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md")
}

/// Compares with what the document states, or writes it there.
pub fn check(counted: &Tables) {
    const HEADING: &str = "### Counted, not timed\n";
    let text = std::fs::read_to_string(document()).unwrap();
    let (before, rest) = text.split_once(HEADING).expect("the section of the tables");
    let (section, after) = match rest.find("\n#") {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    let introduction = section.split("| objective |").next().unwrap();
    let counted = counted.text();
    println!("{counted}");
    if section == format!("{introduction}{counted}") {
        return;
    }
    if std::env::var_os("UPDATE_COUNTS").is_some() {
        let new = format!("{before}{HEADING}{introduction}{counted}{after}");
        std::fs::write(document(), new).unwrap();
        return;
    }
    panic!(
        "what was counted (above) is not what docs/benchmarks.md states. If the change is meant, \
         write it there: UPDATE_COUNTS=1 .ci/run cuda"
    );
}
