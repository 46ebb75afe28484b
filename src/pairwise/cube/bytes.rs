//! The bytes that a pass moves, reckoned from its plan before anything is launched.

use std::fmt;
use std::ops::AddAssign;

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;

use super::plan::{Plan, Terms, components};
use crate::pairwise::blocks::{self, Block, Part, Side, Sweep};
use crate::pairwise::ops::Inputs;
use crate::pairwise::pass::{Pass, Steps};
use crate::pairwise::reduction::Axis;

/// Under which they are logged.
pub(super) const TARGET: &str = "burn_contrastive::bytes";

/// Bytes that launches read and write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub read: usize,
    pub written: usize,
}

impl AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.written += other.written;
    }
}

/// What launches of the engine move: embeddings, matrices of pairs, states and gradients, each as
/// often as a launch needs it. More where caches do not hold what a launch reads several times;
/// and vectors of rows and columns besides, and the totals that units add up for themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    /// Products of embeddings, with what is computed of them where they leave no matrix.
    pub similarities: Moved,
    /// The kernel of pairs.
    pub pairs: Moved,
    /// Merges and results.
    pub states: Moved,
    /// Products of coefficients.
    pub gradients: Moved,
    /// Norms and finished gradients, beside passes.
    pub rows: Moved,
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kinds = [
            ("similarities", self.similarities),
            ("pairs", self.pairs),
            ("states", self.states),
            ("gradients", self.gradients),
            ("rows", self.rows),
        ];
        let kinds = kinds.map(|(kind, moved)| format!("{kind} {} {}", moved.read, moved.written));
        write!(f, "{}", kinds.join(", "))
    }
}

impl Bytes {
    /// Of a pass.
    pub fn of(plan: &Plan, pass: &Pass, inputs: &Inputs<CubeBackend>) -> Self {
        let (sizes @ [n, m], dtype) = (inputs.sizes(), inputs.dtype());
        let parts = |axis: Axis| vec![false; axis.len(sizes).div_ceil(axis.len(plan.block))];
        let in_one = n <= plan.block[0] && m <= plan.block[1];
        let mut reckoning = Reckoning {
            plan,
            pass,
            width: inputs.a.shape()[1],
            dtype,
            in_one,
            begun: [Axis::Rows, Axis::Columns].map(parts),
            bytes: Self::default(),
        };
        blocks::run(pass, sizes, plan.block, &mut reckoning);
        let mut bytes = reckoning.bytes;
        bytes.states.written += pass.result_len(sizes) * dtype.size();
        if !in_one && !plan.is_fused {
            let of = |axis: Axis| components(pass, axis) * axis.len(sizes);
            bytes.states.read += (of(Axis::Rows) + of(Axis::Columns)) * dtype.size();
        }
        bytes
    }
}

/// A pass that moves nothing.
struct Reckoning<'a> {
    plan: &'a Plan,
    pass: &'a Pass,
    width: usize,
    /// Of similarities, states and results.
    dtype: DType,
    /// Whether one block is all.
    in_one: bool,
    /// Of each part of the rows, and of the columns, whether its states have begun.
    begun: [Vec<bool>; 2],
    bytes: Bytes,
}

impl Reckoning<'_> {
    /// Coefficients, which may be in the place of similarities.
    fn coefficients(&self) -> Terms {
        self.plan.factors.coefficient.unwrap_or(Terms {
            dtype: self.dtype,
            count: 1,
        })
    }

    /// A product of embeddings, of all pairs of a block.
    fn product(&mut self, [rows, columns]: [usize; 2], (width, terms): (usize, Terms), to: usize) {
        let width = width * Terms::multiplied(terms.count, terms.count).count();
        self.bytes.similarities += Moved {
            read: (rows + columns) * width * terms.dtype.size(),
            written: rows * columns * to,
        };
    }

    /// The similarities of the teachers; the bytes of a pair that is read beside its own.
    fn teachers(&mut self, block: [usize; 2]) -> usize {
        let named = self.pass.teachers.iter().filter(|teacher| teacher.named);
        let mut matrices = usize::from(self.pass.named.mask);
        for teacher in named {
            let factor = (teacher.width, self.plan.teachers.similarity);
            self.product(block, factor, self.dtype.size());
            matrices += 1;
        }
        matrices * self.dtype.size()
    }

    /// States along an axis of some rows (or columns), of which `parts` cubes each found some.
    fn merge(&mut self, axis: Axis, part: Part, parts: usize, is_changed: bool) {
        let begun = &mut self.begun[axis as usize][part.index];
        let is_first = !std::mem::replace(begun, true);
        if !is_changed && !is_first {
            return;
        }
        let states = components(self.pass, axis) * part.len * self.dtype.size();
        // Results take the place of states that are complete.
        let [old, new] = if self.in_one {
            [0, 0]
        } else {
            [if is_first { 0 } else { states }, states]
        };
        self.bytes.states += Moved {
            read: states * parts + old,
            written: new,
        };
    }
}

impl Sweep for Reckoning<'_> {
    type Coefficients = ();

    fn reduce(&mut self, block: &Block, steps: &Steps) -> Option<()> {
        let (plan, pass, size) = (self.plan, self.pass, self.dtype.size());
        let sides = [block.rows.len, block.columns.len];
        let pairs = sides[0] * sides[1];
        let factor = (self.width, plan.factors.similarity);
        let coefficient = steps.coefficient.map(|_| ());
        let terms = self.coefficients();
        let of_coefficients = coefficient.map_or(0, |()| terms.count * terms.dtype.size());
        if plan.is_fused {
            coefficient?;
            let beside = self.teachers(sides);
            self.product(sides, factor, of_coefficients);
            self.bytes.similarities.read += pairs * beside;
            return coefficient;
        }
        let is_changed = |axis| {
            let mut each = pass.reductions.iter().zip(&steps.reductions);
            each.any(|(r, steps)| r.axis == axis && steps.is_some())
        };
        let mut changed = [Axis::Rows, Axis::Columns].map(is_changed);
        changed[1] &= !block.is_own_transpose;
        let parts = || Part::all(sides[1], plan.columns).map(|part| part.len);
        let span = plan.tiling.span();
        let splits: usize = parts().map(|columns| columns.div_ceil(span)).sum();
        let strips = sides[0].div_ceil(plan.tiling.rows());
        if changed.contains(&true) || coefficient.is_some() {
            let mut beside = 0;
            for columns in parts() {
                beside = self.teachers([sides[0], columns]);
                if !plan.keeps || pass.coefficient.is_none() {
                    self.product([sides[0], columns], factor, size);
                }
            }
            let mut found = components(pass, Axis::Rows) * splits * sides[0];
            if !block.is_own_transpose {
                found += components(pass, Axis::Columns) * strips * sides[1];
            }
            self.bytes.pairs += Moved {
                read: pairs * (size + beside),
                written: pairs * of_coefficients + found * size,
            };
        }
        self.merge(Axis::Rows, block.rows, splits, changed[0]);
        if !block.is_own_transpose {
            let axis = if block.is_mirrored {
                Axis::Rows
            } else {
                Axis::Columns
            };
            self.merge(axis, block.columns, strips, changed[1]);
        }
        coefficient
    }

    fn transposed((): ()) {}

    fn add(&mut self, (_, part): (Side, Part), (): (), (from, others): (Side, Part)) {
        let terms = self.coefficients();
        let factors = &self.plan.factors;
        let is_scaled = self.pass.has_scale && (from == Side::Left || self.pass.symmetric);
        let embeddings = if is_scaled {
            factors.similarity
        } else {
            factors.gradient
        };
        let sum = part.len * self.width * self.dtype.size();
        let multiplied = Terms::multiplied(terms.count, embeddings.count);
        for (k, _) in multiplied.enumerate() {
            let is_first = self.in_one && k == 0;
            let factors = part.len * terms.dtype.size() + self.width * embeddings.dtype.size();
            self.bytes.gradients += Moved {
                read: others.len * factors + if is_first { 0 } else { sum },
                written: sum,
            };
        }
    }
}
