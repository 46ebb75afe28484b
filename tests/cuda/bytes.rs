//! The bytes that launches of the engine move: what it says of its passes before they run, and what
//! follows from the arguments of the launches.

use std::collections::BTreeMap;

use super::log::Evaluation;

pub const KINDS: [&str; 5] = ["similarities", "pairs", "states", "gradients", "rows"];

/// Bytes read and written, by the kinds of launches.
pub type Bytes = BTreeMap<String, [usize; 2]>;

/// Fails where the launches of an evaluation move other bytes than the engine said.
pub fn checked(what: &str, evaluation: &Evaluation) -> Bytes {
    let seen = seen(evaluation);
    assert_eq!(
        said(evaluation),
        seen,
        "{what}: bytes that the engine says, and bytes that its launches move"
    );
    seen
}

fn none() -> Bytes {
    KINDS.map(|kind| (kind.to_owned(), [0, 0])).into()
}

fn add(to: &mut Bytes, kind: &str, [read, written]: [usize; 2]) {
    let sum = to.get_mut(kind).expect("a kind of launches");
    *sum = [sum[0] + read, sum[1] + written];
}

fn said(evaluation: &Evaluation) -> Bytes {
    let mut bytes = none();
    for of_kind in evaluation.said.iter().flat_map(|line| line.split(", ")) {
        let words: Vec<_> = of_kind.split(' ').collect();
        let moved = [1, 2].map(|k| words[k].parse().expect("bytes"));
        add(&mut bytes, words[0], moved);
    }
    bytes
}

fn seen(evaluation: &Evaluation) -> Bytes {
    let launches: Vec<_> = evaluation.lines.iter().map(|l| Launch::read(l)).collect();
    let (mut bytes, mut coefficients) = (none(), None);
    for (k, launch) in launches.iter().enumerate() {
        let rest = &launches[k + 1..];
        let (kind, moved) = match launch.name.split('_').next() {
            Some("matmul") if coefficients.as_ref().is_some_and(|c| launch.multiplies(c)) => {
                ("gradients", launch.of_gradients())
            }
            Some("matmul") => (
                "similarities",
                launch.of_similarities(rest, &mut coefficients),
            ),
            Some("block") => ("pairs", launch.of_pairs(rest, &mut coefficients)),
            Some("merge") => ("states", launch.of_merge()),
            Some("finish") => ("states", [launch.bytes(0, "_f_"), launch.bytes(1, "_f_")]),
            Some("gather") => ("states", [0, launch.bytes(1, "_f_")]),
            Some("norms") => ("rows", [launch.bytes(0, "_h_"), launch.bytes(1, "_f_")]),
            Some("gradients") => {
                let x = launch.bytes_unless(1, 0, "_h_");
                ("rows", [launch.bytes(0, "_f_") + x, launch.bytes(4, "_h_")])
            }
            _ => continue,
        };
        add(&mut bytes, kind, moved);
    }
    bytes
}

/// A launch of the log.
struct Launch<'a> {
    name: &'a str,
    /// Allocation and byte of each of its buffers.
    at: Vec<[usize; 2]>,
    /// Its scalars, those of each type in an even number of places, then how long its buffers are.
    numbers: Vec<usize>,
}

/// The coefficients of a block.
struct Coefficients {
    at: [usize; 2],
    sides: [usize; 2],
    terms: usize,
}

impl Coefficients {
    /// In a buffer of so many elements, where each term begins at a multiple of 512.
    fn new(at: [usize; 2], sides: [usize; 2], elements: usize) -> Self {
        let plane = (sides[0] * sides[1]).next_multiple_of(512);
        Self {
            at,
            sides,
            terms: elements.div_ceil(plane),
        }
    }

    fn elements(&self) -> usize {
        self.sides[0] * self.sides[1] * self.terms
    }
}

impl<'a> Launch<'a> {
    fn read(line: &'a str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let numbers = |text: &str| -> Vec<usize> {
            let each = text.split([',', '+']).map(|number| number.parse());
            each.collect::<Result<_, _>>().expect("numbers")
        };
        let (buffers, values): (Vec<&str>, Vec<&str>) =
            words[12..].iter().partition(|word| word.starts_with('#'));
        let buffers = buffers.into_iter().map(|word| numbers(&word[1..]));
        let values = values.into_iter().map(|word| word.trim_matches(['[', ']']));
        Self {
            name: words[2],
            at: buffers.map(|at| [at[0], at[1]]).collect(),
            numbers: values.flat_map(numbers).collect(),
        }
    }

    /// What follows these letters in its name.
    fn word(&self, letters: &str) -> &str {
        let (_, rest) = self.name.split_once(letters).expect("the letters");
        rest.split('_').next().expect("a word")
    }

    /// The bytes of the type after these letters.
    fn size(&self, letters: &str) -> usize {
        match self.word(letters) {
            "bf16" | "f16" => 2,
            "f32" => 4,
            other => panic!("{other} in {}", self.name),
        }
    }

    /// The length of a buffer, in elements or in vectors.
    fn len(&self, k: usize) -> usize {
        let lengths = self.at.len().next_multiple_of(2);
        self.numbers[self.numbers.len() - lengths + k]
    }

    fn bytes(&self, k: usize, letters: &str) -> usize {
        self.len(k) * self.size(letters)
    }

    /// None where another buffer is in its place, since it is not read.
    fn bytes_unless(&self, k: usize, other: usize, letters: &str) -> usize {
        usize::from(self.at[k] != self.at[other]) * self.bytes(k, letters)
    }

    /// Rows, depth and columns of a product, after the strides of its matrices or of its factors
    /// and what its epilogue has.
    fn product(&self) -> [usize; 3] {
        let from = if self.at.len() == 3 { 6 } else { 16 };
        let &[m, k, depth, n] = &self.numbers[from..from + 4] else {
            unreachable!("four of four");
        };
        assert_eq!(k, depth, "{}", self.name);
        [m, k, n]
    }

    fn factors(&self) -> usize {
        let [m, k, n] = self.product();
        m * k * self.size("lhs_") + k * n * self.size("rhs_")
    }

    /// Whether a product's left factor is a term of these.
    fn multiplies(&self, of: &Coefficients) -> bool {
        let ([m, k, _], [rows, columns]) = (self.product(), of.sides);
        let apart = (rows * columns).next_multiple_of(512) * self.size("lhs_");
        let mut terms = (0..of.terms).map(|term| [of.at[0], of.at[1] + term * apart]);
        let is_term = terms.any(|at| at == self.at[0]);
        is_term && ([m, k] == [rows, columns] || [m, k] == [columns, rows])
    }

    /// The sum, to which all but the first product of a single block add, lies there once more.
    fn of_gradients(&self) -> [usize; 2] {
        let [m, _, n] = self.product();
        let sum = m * n * 4;
        let adds = self.at.len() > 3;
        assert!(!adds || self.at[3..].iter().all(|at| *at == self.at[2]));
        [self.factors() + usize::from(adds) * sum, sum]
    }

    fn of_similarities(&self, rest: &[Self], found: &mut Option<Coefficients>) -> [usize; 2] {
        let [m, _, n] = self.product();
        if self.at.len() == 3 {
            return [self.factors(), m * n * self.size("acc_")];
        }
        let vectors: usize = self.word("acc_size_").parse().expect("a size");
        let own = Coefficients::new(self.at[2], [m, n], self.len(2) * vectors);
        let written = own.elements() * multiplied(&own, rest).expect("coefficients are multiplied");
        *found = Some(own);
        let beside = self.bytes_unless(3, 5, "acc_") + self.bytes_unless(4, 5, "acc_");
        [self.factors() + beside, written]
    }

    /// Its place begins with the rows and columns; states of several blocks go into one buffer, at
    /// the first of whose cubes the first begins.
    fn of_pairs(&self, rest: &[Self], found: &mut Option<Coefficients>) -> [usize; 2] {
        let (sides, pairs) = (
            [self.numbers[0], self.numbers[1]],
            self.numbers[0] * self.numbers[1],
        );
        let similarities = pairs * self.size("_f_");
        let beside = self.bytes_unless(1, 3, "_f_") + self.bytes_unless(2, 3, "_f_");
        let is_first = self.numbers[10] == 0 && self.len(4) > 1;
        let states = usize::from(is_first) * self.bytes(4, "_f_");
        let own = match self.len(5) {
            // In the place of the similarities, if at all.
            1 => Coefficients::new(self.at[0], sides, pairs),
            elements => Coefficients::new(self.at[5], sides, elements),
        };
        let size = multiplied(&own, rest);
        let coefficients = size.map_or(0, |size| own.elements() * size);
        if size.is_some() {
            *found = Some(own);
        }
        [similarities + beside, states + coefficients]
    }

    /// Of rows and of columns: where what cubes found begins, how many did, and of how many rows;
    /// and whether the states have begun. Where one block is all, results are written.
    fn of_merge(&self) -> [usize; 2] {
        let (numbers, size) = (&self.numbers, self.size("_f_"));
        let ([rows, columns], all) = ([&numbers[..5], &numbers[5..10]], &numbers[10..12]);
        let end = match columns[2] {
            0 => self.len(0),
            _ => columns[0],
        };
        let found = [end - rows[0], self.len(0) - end];
        let mut moved = [0, 0];
        for ((along, found), is_first) in [rows, columns].into_iter().zip(found).zip(&numbers[14..])
        {
            if along[2] == 0 {
                continue;
            }
            let states = found / along[1];
            assert_eq!(found % (along[1] * along[2]), 0, "{}", self.name);
            moved[0] += found + states * (1 - is_first);
            moved[1] += states;
        }
        if [rows[2], columns[2]] == *all || [rows[2], columns[2]] == [all[0], 0] {
            moved = [self.len(0), self.len(1)];
        }
        moved.map(|elements| elements * size)
    }
}

/// The bytes of a coefficient as the products next take them, if they do.
fn multiplied(own: &Coefficients, rest: &[Launch]) -> Option<usize> {
    let mut rest = rest
        .iter()
        .filter(|launch| !launch.name.starts_with("merge_"));
    let next = rest.find(|launch| {
        ["matmul_", "block_"]
            .iter()
            .any(|k| launch.name.starts_with(k))
    })?;
    let is_product = next.name.starts_with("matmul_");
    (is_product && next.multiplies(own)).then(|| next.size("lhs_"))
}

/// A product of bf16 with coefficients for an epilogue, and the product that adds their gradient.
#[test]
fn another_byte_is_a_failure() {
    let product = |arguments: &str| {
        format!(
            "launch 1 matmul_entry_lhs_bf16_lhs_size_8_rhs_bf16_rhs_size_8_acc_f32_acc_size_2_4f \
             1 1 1 32 8 1 0 0 0 {arguments}"
        )
    };
    // 4 rows and 6 columns of width 8, in a plane of 512.
    let coefficients = product(
        "#1+0 #2+0 #3+0 #4+0 #4+0 #4+0 #5+0 [8,1,1,8,4,6,0,0,4,6,0,0,0,256,0,0,4,8,8,6,1,1,1,0,\
         4,6,256,9,9,9,256,0]",
    );
    let gradient = product(
        "#3+0 #2+0 #6+0 #6+0 #6+0 #6+0 #6+0 [6,1,8,1,4,8,0,0,0,0,0,0,0,0,0,0,4,6,6,8,1,1,1,0,\
         256,6,16,32,32,32,32,0]",
    );
    let said = "similarities 160 48, pairs 0 0, states 0 0, gradients 272 128, rows 0 0";
    let evaluation = |said: &str, lines: [&String; 2]| Evaluation {
        lines: lines.map(String::clone).into(),
        said: vec![said.to_owned()],
        ..Evaluation::default()
    };
    checked("these", &evaluation(said, [&coefficients, &gradient]));
    let fails = |evaluation| std::panic::catch_unwind(|| checked("others", &evaluation)).is_err();
    for (from, to) in [("160", "161"), ("48", "96"), ("272", "144"), ("128", "0")] {
        assert!(fails(evaluation(
            &said.replace(from, to),
            [&coefficients, &gradient]
        )));
    }
    // A wider result, and coefficients in three terms.
    let wider = gradient.replace("4,6,6,8,", "4,6,6,9,");
    assert!(fails(evaluation(said, [&coefficients, &wider])));
    let three = coefficients.replace("4,6,256,", "4,6,768,");
    assert!(fails(evaluation(said, [&three, &gradient])));
}
