//! What an objective calls: two sets of embeddings, and what to compute of all their pairs.

mod reduce;

pub(crate) use self::reduce::row_norms;

use std::sync::Arc;

use burn::tensor::{Bool, DType, FloatDType, Int, Tensor};

use super::expr::{Expr, Leaf};
use super::reduction::{Along, Axis};
use super::{DEFAULT_MEMORY_BUDGET, Evaluation, Precision};
use crate::check;
use crate::similarity::{Embeddings, Norms};
use crate::workers::{self, Workers};

/// All pairs of two sets of embeddings, of which an objective computes reductions.
///
/// The similarity `s_ij = a_i·b_j` of row `i` of `a` and row `j` of `b` (cosine for normalised
/// embeddings) is the leaf of an [`Expr`]; so are values of rows, of columns, and scalars, which
/// are bound here. [`reduce`](Self::reduce) computes reductions of such expressions over the rows
/// and columns of the matrix, without ever holding it, differentiable in the embeddings and in
/// everything that was bound.
///
/// # Example
///
/// The log-sum-exp of each row's similarities at temperature 0.1, off the diagonal:
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_contrastive::pairwise::{Expr, Pairs, rows};
///
/// let device = Device::default();
/// let a = Tensor::<2>::random([8, 4], Distribution::Default, &device);
/// let b = Tensor::<2>::random([8, 4], Distribution::Default, &device);
///
/// let pairs = Pairs::new(a, b);
/// let logit = (pairs.similarity() / 0.1).except(&Expr::diagonal());
/// let results = pairs.reduce(&[rows().log_sum_exp(&logit)]);
/// assert_eq!(results[0].dims(), [8]);
/// ```
#[derive(Clone, Debug)]
pub struct Pairs {
    /// Where they have norms beside them, these are the first vectors of rows and of columns.
    pub(super) a: Embeddings,
    pub(super) b: Embeddings,
    /// How many tokens a row of `a` and a row of `b` consist of.
    pub(super) tokens: [usize; 2],
    teachers: Vec<[Tensor<2>; 2]>,
    rows: Vec<Tensor<1>>,
    columns: Vec<Tensor<1>>,
    scalars: Vec<Tensor<1>>,
    mask: Option<Tensor<2, Bool>>,
    symmetric: bool,
    evaluation: Evaluation,
    memory_budget: usize,
    precision: Precision,
    /// Those that [`workers::divide`] names where the pairs are made.
    workers: Option<Arc<dyn Workers>>,
}

impl Pairs {
    /// Pairs of a row of `a` with a row of `b`.
    ///
    /// # Shapes
    ///
    /// - `a`: `[N, D]`, `b`: `[M, D]`; half precision is multiplied exactly, with sums in f32
    ///
    /// # Panics
    ///
    /// Where widths, dtypes or devices differ, or a side is empty.
    #[track_caller]
    pub fn new(a: Tensor<2>, b: Tensor<2>) -> Self {
        check::comparable("Pairs", ("a", &a), ("b", &b));
        Self {
            a: a.into(),
            b: b.into(),
            tokens: [1, 1],
            teachers: Vec::new(),
            rows: Vec::new(),
            columns: Vec::new(),
            scalars: Vec::new(),
            mask: None,
            symmetric: false,
            evaluation: Evaluation::Auto,
            memory_budget: DEFAULT_MEMORY_BUDGET,
            precision: Precision::Highest,
            workers: workers::current(),
        }
    }

    /// Pairs of embeddings that are normalised, or are not and have norms beside them.
    #[track_caller]
    pub(crate) fn of(a: Embeddings, b: Embeddings) -> Self {
        let pairs = Self::new(a.rows.clone(), b.rows.clone());
        Self { a, b, ..pairs }.with_norms()
    }

    /// [`of`](Self::of) one set, [`within`](Self::within) it.
    #[track_caller]
    pub(crate) fn of_within(a: Embeddings) -> Self {
        let pairs = Self::within(a.rows.clone());
        let b = a.clone();
        Self { a, b, ..pairs }.with_norms()
    }

    /// With the norms of both sides as vectors, before any other is bound.
    fn with_norms(mut self) -> Self {
        if self.a.norms.is_none() && self.b.norms.is_none() {
            return self;
        }
        if self.symmetric {
            self.a = self.a.scaled();
            self.b = self.a.clone();
        }
        let norms = |x: &mut Embeddings, with_scale| {
            let norms = x.norms.get_or_insert_with(|| Norms::none(&x.rows));
            norms.clone().vectors(with_scale)
        };
        self.rows = norms(&mut self.a, true);
        if !self.symmetric {
            self.columns = norms(&mut self.b, false);
        }
        self
    }

    /// Whether a third vector of rows, after the norms, is what rows of `a` are to be multiplied by
    /// before they are multiplied with `b`.
    fn has_scale(&self) -> bool {
        self.a.norms.as_ref().is_some_and(Norms::has_scale)
    }

    /// Pairs of a row of `a` with a row of `a`, itself included. Half the work of
    /// [`new`](Self::new): blocks below the diagonal are those above it, transposed. A teacher must
    /// have the same embeddings on both sides, and a mask be symmetric. Reductions go along the
    /// rows; along the columns they would be the same.
    ///
    /// # Shapes
    ///
    /// - `a`: `[N, D]`
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    #[track_caller]
    pub fn within(a: Tensor<2>) -> Self {
        let pairs = Self::new(a.clone(), a);
        Self {
            // Workers divide rows, each with all columns.
            symmetric: pairs.workers.is_none(),
            ..pairs
        }
    }

    /// Pairs of a row of `a` with a row of `b` that consist of tokens, by late interaction
    /// (ColBERT's MaxSim): each token of row `i` of `a` has its closest token of row `j` of `b`,
    ///
    /// ```text
    /// s_ij = Σ_p max_t a_ip·b_jt
    /// ```
    ///
    /// The gradient reaches the closest token, of equals the one with the lowest index. For means
    /// instead of sums, and for rows of different length, see
    /// [`SimilarityConfig::late_interaction`](crate::similarity::SimilarityConfig).
    ///
    /// Neither the `N×M` matrix exists nor that of all tokens, forward or backward; a block has one
    /// pair at least. On every device passes run in plain tensor operations over blocks, slower
    /// than those of [`new`](Self::new), in full precision, and keep no similarities. With one
    /// token a row on both sides the pairs are those of [`new`](Self::new).
    ///
    /// # Shapes
    ///
    /// - `a`: `[N, P, D]`, `b`: `[M, T, D]`; half precision is multiplied exactly, with sums in f32
    ///
    /// # Panics
    ///
    /// Where widths, dtypes or devices differ, or a side is empty.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::pairwise::{Pairs, rows};
    ///
    /// let device = Device::default();
    /// // One row of two tokens, against one row of three.
    /// let a = Tensor::<3>::from_data([[[1.0, 0.0], [0.0, 1.0]]], &device);
    /// let b = Tensor::<3>::from_data([[[3.0, 0.0], [0.0, 4.0], [1.0, 1.0]]], &device);
    ///
    /// let pairs = Pairs::late_interaction(a, b);
    /// let similarity = pairs.similarity();
    /// let sum = pairs.reduce(&[rows().sum(&similarity)]).remove(0);
    /// assert_eq!(sum.into_scalar::<f32>(), 3.0 + 4.0);
    /// ```
    #[track_caller]
    pub fn late_interaction(a: Tensor<3>, b: Tensor<3>) -> Self {
        check::comparable_tokens("Pairs::late_interaction", ("a", &a), ("b", &b));
        let ([n, p, d], [m, t, _]) = (a.dims(), b.dims());
        let pairs = Self::new(a.clone().reshape([n * p, d]), b.clone().reshape([m * t, d]));
        Self {
            a: a.reshape([n, p * d]).into(),
            b: b.reshape([m, t * d]).into(),
            tokens: [p, t],
            ..pairs
        }
    }

    /// How to evaluate; [`Evaluation::Auto`] unless said.
    pub fn with_evaluation(self, evaluation: Evaluation) -> Self {
        Self { evaluation, ..self }
    }

    /// Bytes of similarities that may exist at a time, those kept for the backward pass and those
    /// of the block in flight together; [`DEFAULT_MEMORY_BUDGET`] unless said. A block has 64 × 64
    /// at least, and each thread a tile beside it.
    pub fn with_memory_budget(self, bytes: usize) -> Self {
        Self {
            memory_budget: bytes,
            ..self
        }
    }

    /// How exact matrix products are; [`Precision::Highest`] unless said.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// `s_ij = a_i·b_j`; of rows of tokens, see [`late_interaction`](Self::late_interaction).
    pub fn similarity(&self) -> Expr {
        let product = Expr::leaf(Leaf::Similarity);
        if self.has_norms() {
            product * Expr::leaf(Leaf::Row(0)) * Expr::leaf(Leaf::Column(0))
        } else {
            product
        }
    }

    /// Whether the first vectors of rows and of columns are norms.
    fn has_norms(&self) -> bool {
        self.a.norms.is_some()
    }

    /// The same pairs of embeddings whose dot products are the similarities: copies, of whose
    /// making Burn knows the gradient.
    fn with_values(mut self) -> Self {
        if self.has_norms() {
            for vectors in [&mut self.rows, &mut self.columns] {
                if let Some(reciprocal) = vectors.first_mut() {
                    *reciprocal = reciprocal.ones_like();
                }
            }
        }
        [self.a, self.b] = [self.a, self.b].map(|x| x.values().into());
        self
    }

    /// The similarity `a_i·b_j` of other embeddings of the same pairs: a constant to the gradient.
    /// Each call adds a teacher, of a width of its own.
    ///
    /// # Shapes
    ///
    /// - `a`: `[N, E]`, `b`: `[M, E]`
    ///
    /// # Panics
    ///
    /// Where the counts of rows are not those of the pairs, or the widths differ.
    #[track_caller]
    pub fn teacher(&mut self, a: Tensor<2>, b: Tensor<2>) -> Expr {
        let ([n, m], [rows, columns]) = (self.sizes(), [a.dims()[0], b.dims()[0]]);
        assert!(
            [rows, columns] == [n, m] && a.dims()[1] == b.dims()[1],
            "Pairs: the teacher's embeddings are {:?} and {:?}: they need {n} and {m} rows, and \
             the same width",
            a.dims(),
            b.dims()
        );
        let dtype = self.dtype();
        self.teachers.push([a, b].map(|t| t.cast(dtype).detach()));
        Expr::leaf(Leaf::Teacher(self.teachers.len() - 1))
    }

    /// A value of each row of `a`, `[N]`.
    #[track_caller]
    pub fn row(&mut self, vector: Tensor<1>) -> Expr {
        let n = self.sizes()[0];
        assert!(
            vector.dims() == [n],
            "Pairs: a vector of rows has {} elements, it needs {n}, one a row",
            vector.dims()[0]
        );
        self.rows.push(vector.cast(self.dtype()));
        Expr::leaf(Leaf::Row(self.rows.len() - 1))
    }

    /// A value of each row of `b`, `[M]`: of each column of the matrix.
    #[track_caller]
    pub fn column(&mut self, vector: Tensor<1>) -> Expr {
        let m = self.sizes()[1];
        assert!(
            vector.dims() == [m],
            "Pairs: a vector of columns has {} elements, it needs {m}, one a column",
            vector.dims()[0]
        );
        let vector = vector.cast(self.dtype());
        // Rows and columns of a symmetric matrix share their vectors.
        let vectors = if self.symmetric {
            &mut self.rows
        } else {
            &mut self.columns
        };
        vectors.push(vector);
        Expr::leaf(Leaf::Column(vectors.len() - 1))
    }

    /// A value of each row or of each column.
    #[track_caller]
    pub(crate) fn bind(&mut self, along: Along, vector: Tensor<1>) -> Expr {
        match along.0 {
            Axis::Rows => self.row(vector),
            Axis::Columns => self.column(vector),
        }
    }

    /// One value for all pairs, `[1]`: a learned logit scale, say.
    #[track_caller]
    pub fn scalar(&mut self, scalar: Tensor<1>) -> Expr {
        assert!(
            scalar.dims() == [1],
            "Pairs: a scalar has shape {:?}, it must be [1]",
            scalar.dims()
        );
        self.scalars.push(scalar.cast(self.dtype()));
        Expr::leaf(Leaf::Scalar(self.scalars.len() - 1))
    }

    /// 1 where `mask` holds, else 0. There is one mask at most.
    ///
    /// # Shapes
    ///
    /// - `mask`: `[N, M]`
    #[track_caller]
    pub fn mask(&mut self, mask: Tensor<2, Bool>) -> Expr {
        let sizes = self.sizes();
        assert!(
            mask.dims() == sizes && self.mask.is_none(),
            "Pairs: a mask has shape {:?}, there can be one of {sizes:?}",
            mask.dims()
        );
        self.mask = Some(mask);
        Expr::leaf(Leaf::Mask)
    }

    /// 1 where row and column carry the same label, else 0: ids of images, classes.
    ///
    /// # Shapes
    ///
    /// - `rows`: `[N]`, `columns`: `[M]`; any integers
    #[track_caller]
    pub fn same_label(&mut self, rows: Tensor<1, Int>, columns: Tensor<1, Int>) -> Expr {
        // Narrow integers have no room for the size of a part.
        let widened = |labels: Tensor<1, Int>| match labels.dtype() {
            DType::I8 | DType::I16 | DType::U8 | DType::U16 => labels.cast(DType::I32),
            _ => labels,
        };
        let (rows, columns) = (widened(rows), widened(columns));
        // In parts that f32 holds exactly, whatever the device's own floats are.
        let dtype = FloatDType::from(self.dtype());
        let parts = match (rows.dtype(), columns.dtype()) {
            (DType::I64 | DType::U64, _) | (_, DType::I64 | DType::U64) => 3,
            _ => 2,
        };
        const PART: i64 = 1 << 22;
        let (mut rows, mut columns) = (rows, columns);
        let mut same: Option<Expr> = None;
        for _ in 0..parts {
            let split = |labels: &mut Tensor<1, Int>| {
                let low = labels.clone().remainder_scalar(PART);
                *labels = (labels.clone() - low.clone()) / PART;
                low.cast(dtype)
            };
            let (row, column) = (split(&mut rows), split(&mut columns));
            let equal = self.row(row).equal(&self.column(column));
            same = Some(match same {
                Some(same) => same * equal,
                None => equal,
            });
        }
        same.expect("two parts at least")
    }

    /// The same pairs, constants to the gradient.
    pub(crate) fn constant(self) -> Self {
        if !self.a.rows.device().is_autodiff() {
            return self;
        }
        let inner = |vectors: Vec<Tensor<1>>| vectors.into_iter().map(Tensor::inner).collect();
        Self {
            a: self.a.inner(),
            b: self.b.inner(),
            teachers: self
                .teachers
                .into_iter()
                .map(|t| t.map(Tensor::inner))
                .collect(),
            rows: inner(self.rows),
            columns: inner(self.columns),
            scalars: inner(self.scalars),
            mask: self.mask.map(Tensor::inner),
            ..self
        }
    }

    /// The dtype of similarities, and of everything that is computed of them.
    fn dtype(&self) -> DType {
        check::compute_dtype(self.a.rows.dtype())
    }

    fn sizes(&self) -> [usize; 2] {
        [self.a.rows.dims()[0], self.b.rows.dims()[0]]
    }

    /// How many similarities there are, those of the teachers included.
    fn similarities(&self) -> usize {
        let [n, m] = self.sizes();
        n * m * (1 + self.teachers.len())
    }
}

/// Divides a memory budget among pairs whose similarities are kept side by side, by how many they
/// are.
pub(crate) fn share_memory_budget<'a>(
    groups: impl IntoIterator<Item = &'a mut Pairs>,
    bytes: usize,
) {
    let keeping = |pairs: &&mut Pairs| pairs.evaluation == Evaluation::Auto;
    let groups: Vec<_> = groups.into_iter().filter(keeping).collect();
    let all: usize = groups.iter().map(|pairs| pairs.similarities()).sum();
    for pairs in groups {
        pairs.memory_budget = (bytes as f64 * pairs.similarities() as f64 / all as f64) as usize;
    }
}
