//! The table of docs/benchmarks.md, "Counted, not timed".

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::case::{Case, PRECISIONS, SHAPES};
use super::log::Evaluation;
use super::ptxas::Kernels;

/// What an objective takes at one precision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Launches at each shape.
    pub launches: [usize; 2],
    /// Memory beyond the features at the second shape, in MiB, rounded up.
    pub memory: usize,
    /// Registers of a thread, of the kernel of pairs that takes most.
    pub registers: usize,
    /// Bytes that a thread spills, of the kernel that spills most.
    pub spilled: usize,
}

impl Counts {
    pub fn of(evaluations: &[Evaluation], kernels: &Kernels) -> Self {
        let launched = || evaluations.iter().flat_map(|e| &e.launches);
        let pairs = launched().filter(|name| name.starts_with("block_"));
        let [small, large] = SHAPES.map(|[pairs, ..]| {
            let mut of_shape = evaluations.iter().filter(|e| e.pairs == pairs);
            of_shape.next().expect("an evaluation at each shape")
        });
        Self {
            launches: [small.launches.len(), large.launches.len()],
            memory: large.peak.div_ceil(1 << 20) as usize,
            registers: most(&mut pairs.map(|name| kernels[name].registers)),
            spilled: most(&mut launched().map(|name| kernels[name].spilled)),
        }
    }

    fn each(&self) -> [usize; COLUMNS] {
        let [small, large] = self.launches;
        [small, large, self.memory, self.registers, self.spilled]
    }
}

fn most(numbers: &mut dyn Iterator<Item = usize>) -> usize {
    numbers.max().unwrap_or(0)
}

/// By objective, and precision in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(BTreeMap<String, [Counts; 3]>);

const HEADING: &str = "### Counted, not timed\n";
const HEADER: &str = "\
| objective | launches, several blocks | one block | MiB | registers | bytes spilled |
|---|--:|--:|--:|--:|--:|
";
const COLUMNS: usize = 5;

impl Table {
    pub fn add(&mut self, case: &Case, counts: Counts) {
        let place = PRECISIONS.iter().position(|p| *p == case.precision);
        let row = self.0.entry(case.name.clone()).or_default();
        row[place.expect("a precision")] = counts;
    }

    fn text(&self) -> String {
        let mut text = HEADER.to_owned();
        for (name, counts) in &self.0 {
            text += &format!("| {name} |");
            for k in 0..COLUMNS {
                let [highest, high, medium] = [0, 1, 2].map(|p| counts[p].each()[k]);
                text += &format!(" {highest}, {high}, {medium} |");
            }
            text.push('\n');
        }
        text
    }

    fn read(text: &str) -> Self {
        let mut table = Self::default();
        for line in text.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, cells @ ..] = cells.as_slice() else {
                continue;
            };
            let numbers: Vec<Vec<usize>> = cells
                .iter()
                .map(|cell| cell.split(", ").map_while(|n| n.parse().ok()).collect())
                .collect();
            if numbers.len() != COLUMNS || numbers.iter().any(|n| n.len() != 3) {
                continue;
            }
            let counts = [0, 1, 2].map(|p| Counts {
                launches: [numbers[0][p], numbers[1][p]],
                memory: numbers[2][p],
                registers: numbers[3][p],
                spilled: numbers[4][p],
            });
            table.0.insert((*name).to_owned(), counts);
        }
        table
    }
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md")
}

/// Compares with what the document states, or writes it there.
pub fn check(counted: &Table) {
    let text = std::fs::read_to_string(document()).unwrap();
    let (before, rest) = text.split_once(HEADING).expect("the section of the table");
    let (section, after) = match rest.find("\n## ") {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    let stated = Table::read(section);
    println!("{}", counted.text());
    if *counted == stated {
        return;
    }
    if std::env::var_os("UPDATE_COUNTS").is_some() {
        let introduction = section.split("| objective |").next().unwrap();
        let new = format!("{before}{HEADING}{introduction}{}{after}", counted.text());
        std::fs::write(document(), new).unwrap();
        return;
    }
    panic!(
        "what was counted (above) is not what docs/benchmarks.md states. If the change is meant, \
         write it there: UPDATE_COUNTS=1 .ci/run cuda"
    );
}
