//! How the values of a row's pairs, or of a column's, become one value.

use super::expr::Expr;

/// Along which side of the matrix a reduction leaves one value each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// One value a row, `[N]`.
    Rows,
    /// One value a column, `[M]`.
    Columns,
}

impl Axis {
    /// The length along this axis of an `[n, m]` matrix.
    pub fn len(self, [n, m]: [usize; 2]) -> usize {
        match self {
            Self::Rows => n,
            Self::Columns => m,
        }
    }
}

/// What a reduction computes of its expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// `Σ x`.
    Sum,
    /// `log Σ e^x`; −∞ over nothing.
    LogSumExp,
    /// Of two expressions `log Σ e^x`, then `Σ e^x·y / Σ e^x`, which is 0 over nothing.
    SoftmaxMean,
    /// The largest value, then its index, the lowest of equals; NaN is larger than anything.
    Max,
}

impl Kind {
    /// How many vectors it results in.
    pub fn results(self) -> usize {
        match self {
            Self::Sum | Self::LogSumExp => 1,
            Self::SoftmaxMean | Self::Max => 2,
        }
    }

    /// How many values its running state has: a sum; a maximum, the sum relative to it and, for
    /// means, the weighted sum relative to it; a maximum and its index.
    #[cfg_attr(not(any(feature = "_cpu", feature = "_cube")), allow(dead_code))]
    pub fn components(self) -> usize {
        match self {
            Self::Sum => 1,
            Self::LogSumExp | Self::Max => 2,
            Self::SoftmaxMean => 3,
        }
    }

    /// A value of `x` that changes no result.
    pub fn neutral(self) -> f64 {
        match self {
            Self::Sum => 0.0,
            Self::LogSumExp | Self::SoftmaxMean | Self::Max => f64::NEG_INFINITY,
        }
    }
}

/// One reduction of all pairs, along an axis. Made by [`rows`] and [`columns`].
#[derive(Clone, Debug, PartialEq)]
pub struct Reduction {
    pub(crate) axis: Axis,
    pub(crate) kind: Kind,
    /// `x`, and `y` where the kind has two.
    pub(crate) exprs: Vec<Expr>,
}

/// Reductions over each row: one value for each of `a`'s embeddings.
pub fn rows() -> Along {
    Along(Axis::Rows)
}

/// Reductions over each column: one value for each of `b`'s embeddings.
pub fn columns() -> Along {
    Along(Axis::Columns)
}

/// The axis of a reduction that is still to be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Along(pub(super) Axis);

impl Along {
    /// `Σ x`.
    pub fn sum(self, x: &Expr) -> Reduction {
        self.of(Kind::Sum, &[x])
    }

    /// `log Σ e^x`, with a running maximum: right for values of any size, −∞ over nothing.
    pub fn log_sum_exp(self, x: &Expr) -> Reduction {
        self.of(Kind::LogSumExp, &[x])
    }

    /// `log Σ e^logit`, then the mean of `value` under `softmax(logit)`: two results.
    pub fn softmax_mean(self, logit: &Expr, value: &Expr) -> Reduction {
        self.of(Kind::SoftmaxMean, &[logit, value])
    }

    /// The largest value and its index, the lowest of equals; NaN counts as larger than anything.
    pub(crate) fn max(self, x: &Expr) -> Reduction {
        self.of(Kind::Max, &[x])
    }

    fn of(self, kind: Kind, exprs: &[&Expr]) -> Reduction {
        Reduction {
            axis: self.0,
            kind,
            exprs: exprs.iter().map(|&x| x.clone()).collect(),
        }
    }
}

impl Reduction {
    /// The same of other expressions.
    pub(super) fn map(&self, f: impl Fn(&Expr) -> Expr) -> Self {
        Self {
            exprs: self.exprs.iter().map(f).collect(),
            ..*self
        }
    }

    /// Of the pair (j, i) what this is of (i, j): the same reduction along the other axis.
    pub(super) fn transposed(&self) -> Self {
        Self {
            axis: match self.axis {
                Axis::Rows => Axis::Columns,
                Axis::Columns => Axis::Rows,
            },
            ..self.map(Expr::transposed)
        }
    }
}
