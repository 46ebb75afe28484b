//! The tables of docs/benchmarks.md, "Counted, not timed".

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::bytes::{Bytes, KINDS};
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
    /// Registers of a thread, of the kernel of pairs that takes most, and of the product.
    registers: [usize; 2],
}

/// Whether a kernel is the engine's own.
pub fn is_own(kernel: &str) -> bool {
    let own = [
        "block_",
        "merge_",
        "finish_",
        "gather_",
        "norms_",
        "gradients_",
    ];
    own.iter().any(|start| kernel.starts_with(start))
}

/// Whether a kernel is a matrix product. All are the engine's.
pub fn is_product(kernel: &str) -> bool {
    kernel.starts_with("matmul_")
}

impl Counts {
    fn of(evaluations: &[Evaluation], kernels: &Kernels) -> Self {
        let each = |count: fn(&Evaluation) -> usize| evaluations.iter().map(count).collect();
        let most = |is_counted: fn(&str) -> bool| {
            let launched = evaluations.iter().flat_map(|e| &e.launches);
            let counted = launched.filter(|name| is_counted(name));
            counted.map(|name| kernels[name].registers).max()
        };
        Self {
            launches: each(|e| e.launches.len()),
            of_engine: each(|e| {
                let launches = e.launches.iter();
                launches.filter(|k| is_own(k) || is_product(k)).count()
            }),
            memory: each(|e| e.peak.div_ceil(1 << 20) as usize),
            registers: [most(|name| name.starts_with("block_")), most(is_product)]
                .map(|registers| registers.unwrap_or(0)),
        }
    }
}

/// What was counted, by objective, and by precision in their order.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    usual: BTreeMap<String, [Counts; 3]>,
    /// By width besides.
    large: BTreeMap<(String, usize), (Counts, Bytes)>,
    /// Other kernels than the engine's that spill: their objective, name without the hash, and
    /// bytes.
    spilling: BTreeSet<(String, String, usize)>,
}

impl Tables {
    pub fn add(
        &mut self,
        case: &Case,
        evaluations: &[Evaluation],
        bytes: &[Bytes],
        kernels: &Kernels,
    ) {
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
            let of_large = (counts, bytes[0].clone());
            self.large.insert((case.name.clone(), width), of_large);
            return;
        }
        let place = PRECISIONS.iter().position(|p| *p == case.precision);
        let row = self.usual.entry(case.name.clone()).or_default();
        row[place.expect("a precision")] = counts;
    }

    fn text(&self) -> String {
        let mut text = "\
| objective | launches, several blocks | the engine's | one block | the engine's | MiB | registers, pairs | product |
|---|--:|--:|--:|--:|--:|--:|--:|
"
        .to_owned();
        for (name, counts) in &self.usual {
            let columns: [fn(&Counts) -> usize; 7] = [
                |c| c.launches[0],
                |c| c.of_engine[0],
                |c| c.launches[1],
                |c| c.of_engine[1],
                |c| c.memory[1],
                |c| c.registers[0],
                |c| c.registers[1],
            ];
            let cells = columns.map(|column| {
                let [highest, high, medium] = counts.each_ref().map(column);
                format!(" {highest}, {high}, {medium} ")
            });
            text += &format!("| {name} |{}|\n", cells.join("|"));
        }
        text += "
65,536 pairs of bf16, medium precision, the default memory budget; bytes in GB, read and written:

| objective | width | launches | the engine's | MiB | similarities | pairs | states | gradients | rows |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";
        for ((name, width), (counts, bytes)) in &self.large {
            let cells = [&counts.launches, &counts.of_engine, &counts.memory];
            let cells = cells.map(|cell| format!(" {} ", cell[0]));
            let moved = KINDS.map(|kind| {
                let [read, written] = bytes[kind].map(|bytes| bytes as f64 / 1e9);
                format!(" {read:.1}, {written:.1} ")
            });
            let cells = [cells.join("|"), moved.join("|")];
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
    let update = std::env::var_os("UPDATE_COUNTS").is_some();
    if !update && agree(section, &format!("{introduction}{counted}")) {
        return;
    }
    if update {
        let new = format!("{before}{HEADING}{introduction}{counted}{after}");
        std::fs::write(document(), new).unwrap();
        return;
    }
    panic!(
        "what was counted (above) is not what docs/benchmarks.md states. If the change is meant, \
         write it there: UPDATE_COUNTS=1 .ci/run cuda"
    );
}

/// Whether two sections state the same: the engine's launches and registers exactly. What Burn's
/// operations add to all launches, and the pages that pools reserve, differ a little between runs,
/// with what is still queued when memory is given back.
fn agree(stated: &str, counted: &str) -> bool {
    let (stated, counted): (Vec<_>, Vec<_>) = (stated.lines().collect(), counted.lines().collect());
    let each = || stated.iter().zip(&counted);
    stated.len() == counted.len() && each().all(|(stated, counted)| lines_agree(stated, counted))
}

fn lines_agree(stated: &str, counted: &str) -> bool {
    // Which of Burn's kernels spill is told, not checked.
    let is_told = |line: &str| line.starts_with("Kernels of Burn's that spill");
    if stated == counted || (is_told(stated) && is_told(counted)) {
        return true;
    }
    let [stated, counted] = [stated, counted].map(|line| line.split('|').collect::<Vec<_>>());
    // Those with Burn's share, in the two tables.
    let shared: &[usize] = match stated.len() {
        10 => &[2, 4, 6],
        12 => &[3, 5],
        _ => return false,
    };
    let numbers = |cell: &str| -> Option<Vec<f64>> {
        let numbers = cell.split(',').map(|number| number.trim().parse());
        numbers.collect::<Result<_, _>>().ok()
    };
    let near = |stated: &str, counted: &str| match (numbers(stated), numbers(counted)) {
        (Some(x), Some(y)) if x.len() == y.len() => {
            let mut each = x.iter().zip(&y);
            each.all(|(x, y)| (x - y).abs() <= 0.15 * x)
        }
        _ => false,
    };
    let mut cells = stated.iter().zip(&counted).enumerate();
    stated.len() == counted.len()
        && cells.all(|(k, (x, y))| x == y || (shared.contains(&k) && near(x, y)))
}

#[test]
fn only_burns_share_may_differ_and_not_by_much() {
    let row = "| siglip | 176, 403, 179 | 64, 136, 64 | 64, 86, 66 | 5, 13, 5 | 157, 227, 198 | 48 | 96 |";
    assert!(lines_agree(row, row));
    assert!(lines_agree(row, &row.replace("| 176, 403", "| 172, 399")));
    assert!(lines_agree(row, &row.replace("157", "148")));
    assert!(!lines_agree(row, &row.replace("157", "257")));
    assert!(!lines_agree(row, &row.replace("| 176", "| 276")));
    assert!(!lines_agree(row, &row.replace("| 5, 13", "| 6, 13")));
    assert!(!lines_agree(row, &row.replace("48", "49")));
    let large = "| srcl | 512 | 5329 | 5142 | 1290 | 2.0, 8.6 | 0, 0 | 0, 0 | 23, 4 | 1, 0 |";
    assert!(lines_agree(large, &large.replace("1290", "1419")));
    assert!(!lines_agree(large, &large.replace("5142", "5143")));
    assert!(!lines_agree(large, &large.replace("8.6", "8.7")));
}
