//! What an objective asks of all pairs, and the passes over them that answer it.
//!
//! A [`Form`] is a list of [`Reduction`]s. It becomes two [`Pass`]es, each of them one sweep over
//! the similarity matrix in blocks: `forward`, which reduces, and `backward`, which computes the
//! coefficients `G_ij = ∂L/∂s_ij` from the reductions' results and their upstream gradients. Every
//! evaluation (CPU, chunked) knows passes and nothing else.
#![cfg_attr(not(feature = "_cpu"), allow(dead_code))] // What only the CPU's kernels read.

use super::Precision;
use super::expr::{Expr, Leaf, Op, Tape};

/// Along which side of the matrix a reduction leaves one number each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// One number a row, `[N]`.
    Rows,
    /// One number a column, `[M]`.
    Columns,
}

impl Axis {
    /// How many numbers that is, of an `[n, m]` matrix.
    pub fn len(self, [n, m]: [usize; 2]) -> usize {
        match self {
            Self::Rows => n,
            Self::Columns => m,
        }
    }
}

/// How the numbers of a row's (or a column's) pairs become one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// `Σ x`.
    Sum(Expr),
    /// `log Σ e^x`; −∞ over nothing.
    LogSumExp(Expr),
    /// `Σ e^x·v / Σ e^x`, after `log Σ e^x`: two results.
    SoftmaxMean { logit: Expr, value: Expr },
    /// The largest number, then where it is (the lowest index of equals): two results.
    Max(Expr),
}

impl Kind {
    /// The expressions that it reads.
    pub fn exprs(&self) -> Vec<&Expr> {
        match self {
            Self::Sum(x) | Self::LogSumExp(x) | Self::Max(x) => vec![x],
            Self::SoftmaxMean { logit, value } => vec![logit, value],
        }
    }

    fn map(&self, f: impl Fn(&Expr) -> Expr) -> Self {
        match self {
            Self::Sum(x) => Self::Sum(f(x)),
            Self::LogSumExp(x) => Self::LogSumExp(f(x)),
            Self::Max(x) => Self::Max(f(x)),
            Self::SoftmaxMean { logit, value } => Self::SoftmaxMean {
                logit: f(logit),
                value: f(value),
            },
        }
    }

    /// How many vectors it results in.
    pub fn results(&self) -> usize {
        match self {
            Self::Sum(_) | Self::LogSumExp(_) => 1,
            Self::SoftmaxMean { .. } | Self::Max(_) => 2,
        }
    }
}

/// One reduction of all pairs, along an axis. Made by [`rows`] and [`columns`].
#[derive(Clone, Debug, PartialEq)]
pub struct Reduction {
    pub(crate) axis: Axis,
    pub(crate) kind: Kind,
}

/// Reductions over each row: one number for each of `a`'s embeddings.
pub fn rows() -> Along {
    Along(Axis::Rows)
}

/// Reductions over each column: one number for each of `b`'s embeddings.
pub fn columns() -> Along {
    Along(Axis::Columns)
}

/// The axis of a reduction that is still to be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Along(Axis);

impl Along {
    /// `Σ x`.
    pub fn sum(self, x: &Expr) -> Reduction {
        self.of(Kind::Sum(x.clone()))
    }

    /// `log Σ e^x`, with a running maximum: right for numbers of any size, −∞ over nothing.
    pub fn log_sum_exp(self, x: &Expr) -> Reduction {
        self.of(Kind::LogSumExp(x.clone()))
    }

    /// `log Σ e^logit`, then the mean of `value` under `softmax(logit)`: two results.
    pub fn softmax_mean(self, logit: &Expr, value: &Expr) -> Reduction {
        self.of(Kind::SoftmaxMean {
            logit: logit.clone(),
            value: value.clone(),
        })
    }

    /// The largest number and its index, the lowest of equals; NaN counts as larger than anything.
    pub(crate) fn max(self, x: &Expr) -> Reduction {
        self.of(Kind::Max(x.clone()))
    }

    fn of(self, kind: Kind) -> Reduction {
        Reduction { axis: self.0, kind }
    }
}

/// One sweep over all pairs.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    /// In the order of the results.
    pub reductions: Vec<Reduction>,
    /// `∂L/∂s_ij`, where gradients are asked for.
    pub coefficient: Option<Expr>,
    /// Whether `G·B`, the gradient by the left side, is wanted.
    pub left: bool,
    /// Whether `Gᵀ·A`, the gradient by the right side, is wanted.
    pub right: bool,
    /// Both sides are the same embeddings: half of the blocks do for all. The reductions come in
    /// couples, along the rows and the same along the columns, and only the rows have results.
    pub symmetric: bool,
    /// The teachers, whose similarities are kept beside the others.
    pub teachers: Vec<Teacher>,
    /// What the factors of products are rounded to.
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))] // Read by kernels.
    pub precision: Precision,
    /// Bytes of similarities that may exist at a time.
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))]
    pub budget: usize,
    /// Bytes that blocks of similarities may take.
    pub memory: usize,
    /// Bytes of similarities that are kept for the next pass, or come from the last one.
    pub keep: usize,
    /// Which inputs the expressions name.
    pub named: Named,
    /// The steps for pairs off the diagonal, and for those on it.
    pub off_diagonal: Steps,
    pub on_diagonal: Steps,
}

/// Which inputs expressions name. In a symmetric pass naming a column is naming a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Named {
    pub rows: bool,
    pub columns: bool,
    pub scalars: bool,
    pub mask: bool,
}

impl Named {
    fn of(steps: [&Steps; 2], symmetric: bool) -> Self {
        let mut named = Self::default();
        for op in steps.into_iter().flat_map(|steps| &steps.tape.ops) {
            if let Op::Leaf(leaf) = op {
                match leaf {
                    Leaf::Row(_) => named.rows = true,
                    Leaf::Column(_) if symmetric => named.rows = true,
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
    fn list(widths: &[usize], steps: [&Steps; 2]) -> Vec<Self> {
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

/// A pass's expressions as steps, and where its parts find their numbers.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    pub tape: Tape,
    /// For each reduction the steps that it reads; `None` where they change nothing.
    pub reductions: Vec<Option<[usize; 2]>>,
    pub coefficient: Option<usize>,
    /// For each step whether its number differs between the pairs of a row, and whether it is read
    /// by a reduction or is the coefficient.
    pub varies: Vec<bool>,
    pub is_result: Vec<bool>,
}

impl Steps {
    /// For pairs on the diagonal, off it, or anywhere.
    fn new(reductions: &[Reduction], coefficient: Option<&Expr>, diagonal: Option<bool>) -> Self {
        let here = |x: &Expr| match diagonal {
            Some(diagonal) => x.where_diagonal(diagonal),
            None => x.clone(),
        };
        let mut tape = Tape::default();
        let reductions: Vec<_> = reductions
            .iter()
            .map(|reduction| {
                let kind = reduction.kind.map(here);
                let nothing = match &kind {
                    Kind::Sum(x) => x.as_constant() == Some(0.0),
                    Kind::LogSumExp(x) | Kind::SoftmaxMean { logit: x, .. } => {
                        x.as_constant() == Some(f64::NEG_INFINITY)
                    }
                    Kind::Max(_) => false,
                };
                (!nothing).then(|| {
                    let exprs = kind.exprs();
                    let first = tape.push(exprs[0]);
                    let second = exprs.get(1).map_or(first, |second| tape.push(second));
                    if exprs.len() > 1 && first == second && diagonal.is_some() {
                        // Numbers of their own, since on the diagonal the two may differ.
                        tape.ops.push(Op::Detach(first));
                        return [first, tape.ops.len() - 1];
                    }
                    [first, second]
                })
            })
            .collect();
        let coefficient = coefficient.map(|x| tape.push(&here(x)));
        let mut varies: Vec<bool> = Vec::new();
        for op in &tape.ops {
            varies.push(match *op {
                Op::Leaf(Leaf::Row(_) | Leaf::Scalar(_)) | Op::Constant(_) => false,
                Op::Leaf(_) => true,
                Op::Unary(_, x) | Op::Detach(x) => varies[x],
                Op::Binary(_, x, y) => varies[x] || varies[y],
                Op::Select(c, x, y) => varies[c] || varies[x] || varies[y],
            });
        }
        let mut is_result = vec![false; tape.ops.len()];
        for step in reductions.iter().flatten().flatten().chain(&coefficient) {
            is_result[*step] = true;
        }
        Self {
            tape,
            reductions,
            coefficient,
            varies,
            is_result,
        }
    }
}

impl Pass {
    fn new(form: &Form, reductions: Vec<Reduction>, coefficient: Option<Expr>) -> Self {
        let reductions = if form.symmetric {
            let couple = |r: Reduction| {
                assert_eq!(r.axis, Axis::Rows);
                let transposed = Reduction {
                    axis: Axis::Columns,
                    kind: r.kind.map(Expr::transposed),
                };
                [r, transposed]
            };
            reductions.into_iter().flat_map(couple).collect()
        } else {
            reductions
        };
        let [off_diagonal, on_diagonal] = [false, true]
            .map(|diagonal| Steps::new(&reductions, coefficient.as_ref(), Some(diagonal)));
        Self {
            named: Named::of([&off_diagonal, &on_diagonal], form.symmetric),
            teachers: Teacher::list(&form.teachers, [&off_diagonal, &on_diagonal]),
            off_diagonal,
            on_diagonal,
            reductions,
            coefficient,
            left: false,
            right: false,
            symmetric: form.symmetric,
            precision: form.precision,
            budget: form.budget,
            memory: form.memory,
            keep: 0,
        }
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

    /// The steps for any pairs: they tell the diagonal themselves.
    pub fn anywhere(&self) -> Steps {
        Steps::new(&self.reductions, self.coefficient.as_ref(), None)
    }

    /// The reductions that have results.
    pub fn resulting(&self) -> impl Iterator<Item = &Reduction> {
        let symmetric = self.symmetric;
        self.reductions
            .iter()
            .filter(move |r| !(symmetric && r.axis == Axis::Columns))
    }

    /// Length of all results one after the other.
    pub fn result_len(&self, sizes: [usize; 2]) -> usize {
        self.resulting()
            .map(|r| r.kind.results() * r.axis.len(sizes))
            .sum()
    }
}

/// Which inputs a gradient is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub left: bool,
    pub right: bool,
    pub rows: bool,
    pub columns: bool,
    pub scalars: bool,
}

impl Wanted {
    /// Whether similarities are worth keeping: coefficients will be computed of them.
    pub fn coefficients(self) -> bool {
        self.left || self.right
    }

    pub fn anything(self) -> bool {
        self.left || self.right || self.rows || self.columns || self.scalars
    }
}

/// The reductions of one evaluation, and how it may be carried out.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub reductions: Vec<Reduction>,
    /// How many vectors of rows, of columns, and how many scalars the expressions may name.
    pub rows: usize,
    pub columns: usize,
    pub scalars: usize,
    /// Both sides are the same embeddings, and the expressions the same for (i, j) and (j, i).
    pub symmetric: bool,
    /// The widths of the teachers.
    pub teachers: Vec<usize>,
    /// What the factors of products are rounded to.
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))] // Read by kernels.
    pub precision: Precision,
    /// Bytes of similarities that may exist at a time.
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))]
    pub budget: usize,
    /// Bytes that blocks of similarities may take.
    pub memory: usize,
    /// Bytes of similarities that may be kept from the forward pass for the backward one.
    pub kept: usize,
}

impl Form {
    /// Bytes of similarities to keep for a backward pass that computes these gradients.
    pub fn kept(&self, wanted: Wanted) -> usize {
        match wanted.coefficients() {
            true => self.kept,
            false => 0,
        }
    }

    /// The pass that reduces.
    pub fn forward(&self, keep: usize) -> Pass {
        Pass {
            keep,
            ..Pass::new(self, self.reductions.clone(), None)
        }
    }

    /// The pass from the results and their gradients to the gradients of the inputs.
    ///
    /// Its expressions name more rows and columns than the forward pass's: after those come, for
    /// every result in order, the result itself (∞ in place of −∞) and its upstream gradient, among the
    /// rows or the columns according to its axis. Its reductions are the gradients by the bound rows,
    /// columns and scalars, in this order, as sums.
    pub fn backward(&self, wanted: Wanted, keep: usize) -> Pass {
        Pass {
            keep,
            ..self.with_coefficient(wanted, self.contributions(), Vec::new())
        }
    }

    /// Value and gradient in one pass: for sums whose upstream gradient is one number that scales
    /// everything, and can therefore wait.
    pub fn with_gradient(&self, wanted: Wanted) -> Pass {
        let contributions = self
            .reductions
            .iter()
            .map(|r| match &r.kind {
                Kind::Sum(x) => (Expr::constant(1.0), x.clone()),
                other => panic!("{other:?} needs its result before its gradient"),
            })
            .collect();
        self.with_coefficient(wanted, contributions, self.reductions.clone())
    }

    fn with_coefficient(
        &self,
        wanted: Wanted,
        contributions: Vec<(Expr, Expr)>,
        mut reductions: Vec<Reduction>,
    ) -> Pass {
        // Parts that differentiate the same expression share its derivative.
        let contributions = contributions.into_iter().fold(
            Vec::<(Expr, Expr)>::new(),
            |mut merged, (factor, x)| {
                match merged.iter_mut().find(|(_, other)| *other == x) {
                    Some((sum, _)) => *sum = &*sum + factor,
                    None => merged.push((factor, x)),
                }
                merged
            },
        );
        let slope = |by: Leaf| {
            contributions
                .iter()
                .filter_map(|(factor, x)| Some(factor.clone() * x.derivative(by)?))
                .reduce(|x, y| x + y)
        };
        let zero = || Expr::constant(0.0);
        if wanted.rows {
            reductions.extend((0..self.rows).map(|k| {
                let mut by_row = slope(Leaf::Row(k)).unwrap_or_else(zero);
                if self.symmetric {
                    // The same vector serves the columns, and (j, i) stands for (i, j).
                    by_row = by_row + slope(Leaf::Column(k)).unwrap_or_else(zero).transposed();
                }
                rows().sum(&by_row)
            }));
        }
        if wanted.columns {
            reductions.extend(
                (0..self.columns)
                    .map(|k| columns().sum(&slope(Leaf::Column(k)).unwrap_or_else(zero))),
            );
        }
        if wanted.scalars {
            reductions.extend(
                (0..self.scalars).map(|k| rows().sum(&slope(Leaf::Scalar(k)).unwrap_or_else(zero))),
            );
        }
        if reductions.is_empty() {
            // Not every backend has empty tensors.
            reductions.push(rows().sum(&zero()));
        }
        let coefficient = (wanted.left || wanted.right).then(|| {
            let g = slope(Leaf::Similarity).unwrap_or_else(zero);
            match self.symmetric {
                true => &g + &g.transposed(),
                false => g,
            }
        });
        Pass {
            left: wanted.left,
            right: wanted.right && !self.symmetric,
            ..Pass::new(self, reductions, coefficient)
        }
    }

    /// For each part of the loss: what multiplies the derivative of which expression.
    fn contributions(&self) -> Vec<(Expr, Expr)> {
        let (mut row, mut column) = (self.rows, self.columns);
        let mut next = |axis| {
            let counter = match axis {
                Axis::Rows => &mut row,
                Axis::Columns => &mut column,
            };
            *counter += 1;
            Expr::leaf(match axis {
                Axis::Rows => Leaf::Row(*counter - 1),
                Axis::Columns => Leaf::Column(*counter - 1),
            })
        };
        let mut contributions = Vec::new();
        for Reduction { axis, kind } in &self.reductions {
            let (result, gradient) = (next(*axis), next(*axis));
            match kind {
                Kind::Sum(x) => contributions.push((gradient, x.clone())),
                Kind::LogSumExp(x) => {
                    contributions.push((gradient * (x - &result).exp(), x.clone()));
                }
                Kind::SoftmaxMean { logit, value } => {
                    let (mean, mean_gradient) = (next(*axis), next(*axis));
                    let p = (logit - &result).exp();
                    let by_logit = &p * &(&gradient + &(&mean_gradient * &(value - &mean)));
                    contributions.push((by_logit, logit.clone()));
                    contributions.push((p * mean_gradient, value.clone()));
                }
                Kind::Max(_) => {
                    next(*axis);
                    next(*axis);
                }
            }
        }
        contributions
    }

    /// Length of all results one after the other.
    pub fn result_len(&self, sizes: [usize; 2]) -> usize {
        self.results().iter().map(|(axis, _)| axis.len(sizes)).sum()
    }

    /// Axis and nature of every result, in order: log-sum-exps are what `e^{x − result}` shifts by.
    pub fn results(&self) -> Vec<(Axis, bool)> {
        self.reductions
            .iter()
            .flat_map(|r| match r.kind {
                Kind::Sum(_) => vec![(r.axis, false)],
                Kind::LogSumExp(_) => vec![(r.axis, true)],
                Kind::SoftmaxMean { .. } => vec![(r.axis, true), (r.axis, false)],
                Kind::Max(_) => vec![(r.axis, false); 2],
            })
            .collect()
    }
}
