//! One sweep over the similarity matrix: what it reduces, and which gradients it computes.
//!
//! Every evaluation (the CPU's, CubeCL's, the chunked one) knows passes and nothing of what they
//! are for.
#![cfg_attr(not(feature = "_cpu"), allow(dead_code))] // What only the CPU's kernels read.

#[cfg(feature = "_cube")]
use burn::tensor::DType;

use super::evaluation::Limits;
use super::expr::{Expr, Leaf};
use super::reduction::{Axis, Kind, Reduction};
use super::tape::{Op, Tape};

/// One sweep over all pairs.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    /// In the order of the results.
    pub reductions: Vec<Reduction>,
    /// `G_ij = ∂L/∂s_ij`, where gradients are wanted.
    pub coefficient: Option<Expr>,
    /// Whether `G·B`, the gradient by the left side, is wanted.
    pub left: bool,
    /// Whether `Gᵀ·A`, the gradient by the right side, is wanted.
    pub right: bool,
    /// Both sides are the same embeddings: blocks on and above the diagonal are enough. Every
    /// reduction along the rows is followed by its transpose along the columns, which has no
    /// results of its own: its states belong to the rows of the other half. Gradients go to the
    /// left side.
    pub symmetric: bool,
    /// The teachers, whose similarities are kept beside the others.
    pub teachers: Vec<Teacher>,
    /// The index of the first row of `a` in the whole matrix: not 0 where workers divide it. The
    /// diagonal is where a row's index in the whole matrix is that of the column.
    pub first_row: usize,
    /// How many tokens, `P` and `T`, a row of `a` (`[n, P·d]`) and a row of `b` (`[m, T·d]`)
    /// consist of. The similarity is `Σ_p max_t ⟨a_ip, b_jt⟩`; with one token each, the product.
    pub tokens: [usize; 2],
    /// Whether its reductions are sums along rows of which only the total over all rows counts:
    /// results may have it anywhere.
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))] // Read by kernels.
    pub only_totals: bool,
    /// See [`Form::has_scale`](super::form::Form::has_scale).
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))]
    pub has_scale: bool,
    /// The bytes kept are those for the next pass, or from the last one.
    pub limits: Limits,
    /// Which inputs the expressions read.
    pub named: Named,
    /// The steps for pairs off the diagonal, and for those on it.
    pub off_diagonal: Steps,
    pub on_diagonal: Steps,
}

/// Which inputs expressions read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Named {
    pub rows: bool,
    pub columns: bool,
    pub scalars: bool,
    pub mask: bool,
}

impl Named {
    pub(super) fn of(steps: [&Steps; 2]) -> Self {
        let mut named = Self::default();
        for op in steps.into_iter().flat_map(|steps| &steps.tape.ops) {
            if let Op::Leaf(leaf) = op {
                match leaf {
                    Leaf::Row(_) => named.rows = true,
                    Leaf::Column(_) => named.columns = true,
                    Leaf::Scalar(_) => named.scalars = true,
                    Leaf::Mask => named.mask = true,
                    Leaf::Similarity | Leaf::Teacher(_) | Leaf::Diagonal => {}
                }
            }
        }
        named
    }
}

/// Where the embeddings of a teacher are among those of all teachers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Teacher {
    /// The first column, and how many.
    pub at: usize,
    pub width: usize,
    /// Whether an expression of the pass reads its similarities.
    pub named: bool,
}

impl Teacher {
    pub(super) fn list(widths: &[usize], steps: [&Steps; 2]) -> Vec<Self> {
        let mut at = 0;
        let teacher = |(k, &width)| {
            at += width;
            let leaf = Op::Leaf(Leaf::Teacher(k));
            Self {
                at: at - width,
                width,
                named: steps.iter().any(|steps| steps.tape.ops.contains(&leaf)),
            }
        };
        widths.iter().enumerate().map(teacher).collect()
    }
}

impl Pass {
    /// Whether rows consist of several tokens (late interaction). Such a pass runs chunked on every
    /// device.
    pub fn has_tokens(&self) -> bool {
        self.tokens != [1, 1]
    }

    /// Whether a device's kernels keep all similarities of the embeddings for the pass that follows,
    /// or have them from the one before.
    #[cfg(feature = "_cube")]
    pub fn keeps_all(&self, [n, m]: [usize; 2], dtype: DType) -> bool {
        let bytes = n.saturating_mul(m).saturating_mul(dtype.size());
        // Of a few nothing is gained.
        let some = 1024..=self.limits.kept;
        !self.symmetric && !self.has_tokens() && some.contains(&bytes)
    }

    /// How many matrices of similarities there are: its own and those of the teachers.
    pub fn matrices(&self) -> usize {
        1 + self.teachers.len()
    }

    /// The step with teachers counted among those that the pass reads.
    #[cfg(feature = "_cube")]
    pub fn renumbered(&self, op: Op) -> Op {
        let Op::Leaf(Leaf::Teacher(k)) = op else {
            return op;
        };
        let before = self.teachers[..k].iter().filter(|teacher| teacher.named);
        Op::Leaf(Leaf::Teacher(before.count()))
    }

    /// The steps for any pairs: they find the diagonal themselves.
    pub fn anywhere(&self) -> Steps {
        Steps::new(&self.reductions, self.coefficient.as_ref(), None)
    }

    /// The reductions that have results, with their indices.
    pub fn resulting(&self) -> impl Iterator<Item = (usize, &Reduction)> {
        let has_results = |r: &Reduction| !(self.symmetric && r.axis == Axis::Columns);
        self.reductions
            .iter()
            .enumerate()
            .filter(move |(_, r)| has_results(r))
    }

    /// Length of all results one after the other.
    pub fn result_len(&self, sizes: [usize; 2]) -> usize {
        self.resulting()
            .map(|(_, r)| r.kind.results() * r.axis.len(sizes))
            .sum()
    }
}

/// A pass's expressions as steps, and where its parts find their values.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    pub tape: Tape,
    /// For each reduction the steps that it reads (one twice, where it reads one); `None` where
    /// they change nothing.
    pub reductions: Vec<Option<[usize; 2]>>,
    pub coefficient: Option<usize>,
    /// For each step whether its value differs between the pairs of a row, and whether it is read
    /// by a reduction or is the coefficient.
    pub varies: Vec<bool>,
    pub is_result: Vec<bool>,
}

impl Steps {
    /// For pairs on the diagonal, off it, or anywhere.
    pub(super) fn new(
        reductions: &[Reduction],
        coefficient: Option<&Expr>,
        diagonal: Option<bool>,
    ) -> Self {
        let here = |x: &Expr| match diagonal {
            Some(diagonal) => x.where_diagonal(diagonal),
            None => x.clone(),
        };
        let mut tape = Tape::default();
        let mut read = |reduction: &Reduction| {
            let Reduction { kind, exprs, .. } = reduction.map(here);
            // A maximum has an index even where all values are −∞.
            if kind != Kind::Max && exprs[0].as_constant() == Some(kind.neutral()) {
                return None;
            }
            let first = tape.push(&exprs[0]);
            let second = exprs.get(1).map_or(first, |second| tape.push(second));
            if exprs.len() > 1 && first == second && diagonal.is_some() {
                // Values of their own, since on the diagonal the two may differ.
                tape.ops.push(Op::Detach(first));
                return Some([first, tape.ops.len() - 1]);
            }
            Some([first, second])
        };
        let reductions: Vec<_> = reductions.iter().map(&mut read).collect();
        let coefficient = coefficient.map(|x| tape.push(&here(x)));
        let mut is_result = vec![false; tape.ops.len()];
        for step in reductions.iter().flatten().flatten().chain(&coefficient) {
            is_result[*step] = true;
        }
        Self {
            varies: varies(&tape),
            tape,
            reductions,
            coefficient,
            is_result,
        }
    }
}

/// For each step whether its value differs between the pairs of a row.
fn varies(tape: &Tape) -> Vec<bool> {
    let mut varies: Vec<bool> = Vec::with_capacity(tape.ops.len());
    for op in &tape.ops {
        varies.push(match *op {
            Op::Leaf(Leaf::Row(_) | Leaf::Scalar(_)) | Op::Constant(_) => false,
            Op::Leaf(_) => true,
            Op::Unary(_, x) | Op::Detach(x) => varies[x],
            Op::Binary(_, x, y) => varies[x] || varies[y],
            Op::Select(c, x, y) => varies[c] || varies[x] || varies[y],
        });
    }
    varies
}
