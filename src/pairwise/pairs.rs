//! What an objective calls: two sets of embeddings, and what to compute of all their pairs.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::{Dispatch, DispatchTensor, DispatchTensorKind};
use burn::tensor::{Bool, DType, FloatDType, Int, Tensor};

use super::expr::{Expr, Leaf};
use super::form::{Along, Axis, Form, Kind, Reduction};
use super::ops::{Inputs, PairwiseOps};
use super::{DEFAULT_MEMORY_BUDGET, Evaluation, Precision, chunked, dense, surrogate};
use crate::check;

/// All pairs of two sets of embeddings, of which an objective computes reductions.
///
/// The similarity `s_ij = a_i·b_j` of row `i` of `a` and row `j` of `b` (cosine for normalised
/// embeddings) is the leaf of an [`Expr`]; so are numbers of rows, of columns, and scalars, which
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
    pub(super) a: Tensor<2>,
    pub(super) b: Tensor<2>,
    teacher: Option<[Tensor<2>; 2]>,
    rows: Vec<Tensor<1>>,
    columns: Vec<Tensor<1>>,
    scalars: Vec<Tensor<1>>,
    mask: Option<Tensor<2, Bool>>,
    symmetric: bool,
    evaluation: Evaluation,
    memory_budget: usize,
    precision: Precision,
}

impl Pairs {
    /// Pairs of a row of `a` with a row of `b`.
    ///
    /// # Shapes
    ///
    /// - `a`: `[N, D]`, `b`: `[M, D]`; half precision is widened to f32
    ///
    /// # Panics
    ///
    /// Where widths, dtypes or devices differ, or a side is empty.
    #[track_caller]
    pub fn new(a: Tensor<2>, b: Tensor<2>) -> Self {
        check::comparable("Pairs", ("a", &a), ("b", &b));
        let dtype = check::compute_dtype(a.dtype());
        Self {
            a: a.cast(dtype),
            b: b.cast(dtype),
            teacher: None,
            rows: Vec::new(),
            columns: Vec::new(),
            scalars: Vec::new(),
            mask: None,
            symmetric: false,
            evaluation: Evaluation::Auto,
            memory_budget: DEFAULT_MEMORY_BUDGET,
            precision: Precision::Full,
        }
    }

    /// Pairs of a row of `a` with a row of `a`, itself included. Half the work of [`new`](Self::new):
    /// blocks below the diagonal are those above it, transposed. A teacher must have the same
    /// embeddings on both sides, and a mask be symmetric. Reductions go along the rows; along the
    /// columns they would be the same.
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
        Self {
            symmetric: true,
            ..Self::new(a.clone(), a)
        }
    }

    /// How to evaluate; [`Evaluation::Auto`] unless said.
    pub fn with_evaluation(self, evaluation: Evaluation) -> Self {
        Self { evaluation, ..self }
    }

    /// Bytes of similarities that may exist at a time, those kept for the backward pass and those of the
    /// block in flight together; [`DEFAULT_MEMORY_BUDGET`] unless said. A block has 64 × 64 at
    /// least, and each thread a tile beside it.
    pub fn with_memory_budget(self, bytes: usize) -> Self {
        Self {
            memory_budget: bytes,
            ..self
        }
    }

    /// What the factors of matrix products may be rounded to; [`Precision::Full`] unless said.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// `s_ij = a_i·b_j`.
    pub fn similarity(&self) -> Expr {
        Expr::leaf(Leaf::Similarity)
    }

    /// The similarity `a_i·b_j` of other embeddings of the same pairs: a constant to the gradient.
    ///
    /// # Shapes
    ///
    /// - `a`: `[N, E]`, `b`: `[M, E]`
    ///
    /// # Panics
    ///
    /// Where the numbers of rows are not those of the pairs, or the widths differ.
    #[track_caller]
    pub fn teacher(&mut self, a: Tensor<2>, b: Tensor<2>) -> Expr {
        let ([n, m], [rows, columns]) = (self.sizes(), [a.dims()[0], b.dims()[0]]);
        assert!(
            [rows, columns] == [n, m] && a.dims()[1] == b.dims()[1],
            "Pairs: the teacher's embeddings are {:?} and {:?}: they need {n} and {m} rows, and one width",
            a.dims(),
            b.dims()
        );
        let dtype = self.a.dtype();
        self.teacher = Some([a, b].map(|t| t.cast(dtype).detach()));
        Expr::leaf(Leaf::Teacher)
    }

    /// A number of each row of `a`, `[N]`.
    #[track_caller]
    pub fn row(&mut self, vector: Tensor<1>) -> Expr {
        let n = self.sizes()[0];
        assert!(
            vector.dims() == [n],
            "Pairs: a vector of rows has {} numbers, there are {n} rows",
            vector.dims()[0]
        );
        self.rows.push(vector.cast(self.a.dtype()));
        Expr::leaf(Leaf::Row(self.rows.len() - 1))
    }

    /// A number of each row of `b`, `[M]`: of each column of the matrix.
    #[track_caller]
    pub fn column(&mut self, vector: Tensor<1>) -> Expr {
        let m = self.sizes()[1];
        assert!(
            vector.dims() == [m],
            "Pairs: a vector of columns has {} numbers, there are {m} columns",
            vector.dims()[0]
        );
        // Rows and columns of a symmetric matrix share their vectors.
        let vectors = match self.symmetric {
            true => &mut self.rows,
            false => &mut self.columns,
        };
        vectors.push(vector.cast(self.a.dtype()));
        Expr::leaf(Leaf::Column(vectors.len() - 1))
    }

    /// A number of each row or of each column.
    #[track_caller]
    pub(crate) fn bind(&mut self, along: Along, vector: Tensor<1>) -> Expr {
        match along == super::rows() {
            true => self.row(vector),
            false => self.column(vector),
        }
    }

    /// One number for all pairs, `[1]`: a learned logit scale, say.
    #[track_caller]
    pub fn scalar(&mut self, scalar: Tensor<1>) -> Expr {
        assert!(
            scalar.dims() == [1],
            "Pairs: a scalar has shape {:?}, it must be [1]",
            scalar.dims()
        );
        self.scalars.push(scalar.cast(self.a.dtype()));
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
        let dtype = FloatDType::from(self.a.dtype());
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

    /// The results of `reductions`, in their order, each of shape `[N]` along rows and `[M]` along
    /// columns; a reduction with two results gives both.
    ///
    /// Differentiable, once, in the embeddings and in all that was bound, except the teacher.
    ///
    /// # Panics
    ///
    /// Where pairs [`within`](Self::within) one set are reduced along columns. Where gradients are
    /// tracked on a device whose feature is not enabled in this crate: enable it, use
    /// [`reduce_to_scalar`](Self::reduce_to_scalar), or [`Evaluation::Dense`].
    #[track_caller]
    pub fn reduce(self, reductions: &[Reduction]) -> Vec<Tensor<1>> {
        let form = self.form(reductions);
        let sizes = self.sizes();
        let evaluation = self.evaluation;
        let device = self.a.device();
        let supported = is_supported(&self.a);
        let inputs = self.inputs();
        let results = if evaluation == Evaluation::Dense {
            dense::reduce(inputs, &form)
        } else if supported {
            Dispatch::pairwise_reduce(inputs, Arc::new(form.clone()))
        } else {
            assert!(
                !device.is_autodiff(),
                "Pairs: burn-contrastive is built without the backend of {device:?}, and would need it for \
                 these gradients: enable its feature (`wgpu`, `cuda`, …), or use `Evaluation::Dense`"
            );
            chunked::pass(inputs, &form.forward(0)).results
        };
        split(Tensor::from_dispatch(results), &form, sizes)
    }

    /// `Σ_ij x_ij`, shape `[1]`; value and gradient in one pass over the pairs.
    ///
    /// # Panics
    ///
    /// As [`reduce`](Self::reduce), save that every device will do.
    #[track_caller]
    pub fn total(self, x: &Expr) -> Tensor<1> {
        let reductions = [super::rows().sum(x)];
        if self.evaluation == Evaluation::Dense || !is_supported(&self.a) {
            return self.reduce_to_scalar(&reductions, |results| results[0].clone().sum());
        }
        let form = self.form(&reductions);
        Tensor::from_dispatch(Dispatch::pairwise_total(self.inputs(), Arc::new(form)))
    }

    /// `f` of the results of `reductions`, a scalar: [`reduce_to_scalar`] of one group.
    ///
    /// `f` may depend on the results and on constants, not on other tracked tensors.
    #[track_caller]
    pub fn reduce_to_scalar(
        self,
        reductions: &[Reduction],
        f: impl Fn(Vec<Tensor<1>>) -> Tensor<1>,
    ) -> Tensor<1> {
        reduce_to_scalar(vec![(self, reductions.to_vec())], |mut results| {
            f(results.remove(0))
        })
    }

    /// The values of `x` for the pairs of some rows with some columns: a block of the matrix to look
    /// at. Without a gradient, on the device without autodiff.
    ///
    /// # Shapes
    ///
    /// - returns `[rows.len(), columns.len()]`
    ///
    /// # Panics
    ///
    /// Where a range is empty or exceeds the matrix.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::pairwise::{Expr, Pairs};
    ///
    /// let device = Device::default();
    /// let a = Tensor::<2>::from_data([[1.0], [2.0], [3.0]], &device);
    /// let b = Tensor::<2>::from_data([[10.0], [20.0]], &device);
    ///
    /// let pairs = Pairs::new(a, b);
    /// let x = pairs.similarity() + Expr::diagonal();
    /// let block = pairs.block(&x, 1..3, 0..2);
    /// assert_eq!(
    ///     block.into_data().try_to_vec::<f32>().unwrap(),
    ///     [20.0, 41.0, 30.0, 60.0]
    /// );
    /// ```
    #[track_caller]
    pub fn block(&self, x: &Expr, rows: Range<usize>, columns: Range<usize>) -> Tensor<2> {
        let [n, m] = self.sizes();
        for (name, range, len) in [("rows", &rows, n), ("columns", &columns, m)] {
            assert!(
                range.start < range.end && range.end <= len,
                "Pairs: a block has the {name} {range:?}, it needs some of 0..{len}"
            );
        }
        self.check_bound(x);
        let place = chunked::Place {
            i0: rows.start,
            rows: rows.len(),
            j0: columns.start,
            columns: columns.len(),
            symmetric: self.symmetric,
        };
        let inputs = self.clone().constant().inputs();
        Tensor::from_dispatch(chunked::values::<Dispatch>(&inputs, x, place))
    }

    /// Whether gradients take a way round the engine's operations.
    fn needs_surrogate(&self) -> bool {
        self.evaluation != Evaluation::Dense
            && self.a.device().is_autodiff()
            && !is_supported(&self.a)
    }

    /// The same pairs, constants to the gradient.
    pub(crate) fn constant(self) -> Self {
        match self.a.device().is_autodiff() {
            true => self.without_autodiff(),
            false => self,
        }
    }

    /// The same pairs, which are on an autodiff device, on the plain one.
    fn without_autodiff(self) -> Self {
        let inner = |vectors: Vec<Tensor<1>>| vectors.into_iter().map(Tensor::inner).collect();
        Self {
            a: self.a.inner(),
            b: self.b.inner(),
            teacher: self.teacher.map(|teacher| teacher.map(Tensor::inner)),
            rows: inner(self.rows),
            columns: inner(self.columns),
            scalars: inner(self.scalars),
            mask: self.mask.map(Tensor::inner),
            ..self
        }
    }

    fn sizes(&self) -> [usize; 2] {
        [self.a.dims()[0], self.b.dims()[0]]
    }

    /// How many there are, the teacher's included.
    fn similarities(&self) -> usize {
        let [n, m] = self.sizes();
        n * m * (1 + usize::from(self.teacher.is_some()))
    }

    /// Panics where an expression has a leaf of other pairs.
    #[track_caller]
    fn check_bound(&self, x: &Expr) {
        x.each_leaf(&mut |leaf| {
            let bound = match leaf {
                Leaf::Similarity | Leaf::Diagonal => true,
                Leaf::Teacher => self.teacher.is_some(),
                Leaf::Mask => self.mask.is_some(),
                Leaf::Row(k) => k < self.rows.len(),
                Leaf::Column(k) if self.symmetric => k < self.rows.len(),
                Leaf::Column(k) => k < self.columns.len(),
                Leaf::Scalar(k) => k < self.scalars.len(),
            };
            assert!(
                bound,
                "Pairs: an expression names {leaf:?}, which is bound on other pairs: bind it on these"
            );
        });
    }

    #[track_caller]
    fn form(&self, reductions: &[Reduction]) -> Form {
        assert!(
            !self.symmetric || reductions.iter().all(|r| r.axis == Axis::Rows),
            "Pairs: pairs within one set are reduced along rows; along columns the results are the same"
        );
        for expr in reductions.iter().flat_map(|r| r.kind.exprs()) {
            self.check_bound(expr);
        }
        let exact = match self.a.dtype() {
            DType::F64 => 1 << 53,
            _ => 1 << 24,
        };
        let with_index = reductions.iter().any(|r| matches!(r.kind, Kind::Max(_)));
        assert!(
            !with_index || self.sizes().into_iter().max() <= Some(exact),
            "Pairs: maxima are found among at most {exact} rows or columns"
        );
        let all = self.similarities() * self.a.dtype().size();
        let [memory, kept] = self.evaluation.memory(self.memory_budget, all);
        Form {
            reductions: reductions.to_vec(),
            rows: self.rows.len(),
            columns: self.columns.len(),
            scalars: self.scalars.len(),
            symmetric: self.symmetric,
            teacher: self.teacher.is_some(),
            precision: self.precision,
            budget: self.memory_budget,
            memory,
            kept,
        }
    }

    fn inputs(self) -> Inputs<Dispatch> {
        // Inputs that no expression names hold any tensor at all.
        let any = self.a.clone().into_dispatch();
        let matrix = |vectors: Vec<Tensor<1>>| match vectors.is_empty() {
            true => any.clone(),
            false => Tensor::stack::<2>(vectors, 0).into_dispatch(),
        };
        let [teacher_a, teacher_b] = match self.teacher {
            Some(teacher) => teacher.map(|t| t.into_dispatch()),
            None => [any.clone(), any.clone()],
        };
        let device = self.a.device();
        Inputs {
            rows: matrix(self.rows),
            columns: matrix(self.columns),
            scalars: match self.scalars.len() {
                0 => any.clone(),
                1 => self.scalars[0].clone().into_dispatch(),
                _ => Tensor::cat(self.scalars, 0).into_dispatch(),
            },
            mask: match self.mask {
                Some(mask) => mask.into_dispatch(),
                None => Tensor::<1, Bool>::empty([1], &device).into_dispatch(),
            },
            a: self.a.into_dispatch(),
            b: self.b.into_dispatch(),
            teacher_a,
            teacher_b,
            kept: any,
        }
    }
}

/// `f` of the results of several groups of pairs, each with reductions of its own, a scalar. The same as
/// calling `f` on what [`Pairs::reduce`] gives for each group, and right on every device.
///
/// `f` may depend on the results and on constants, not on other tracked tensors.
///
/// # Panics
///
/// As [`Pairs::reduce`], save that every device will do, and without any group.
#[track_caller]
pub fn reduce_to_scalar(
    groups: Vec<(Pairs, Vec<Reduction>)>,
    f: impl Fn(Vec<Vec<Tensor<1>>>) -> Tensor<1>,
) -> Tensor<1> {
    assert!(!groups.is_empty(), "reduce_to_scalar: there are no pairs");
    if !groups.iter().any(|(pairs, _)| pairs.needs_surrogate()) {
        let reduced = |(pairs, reductions): (Pairs, Vec<Reduction>)| pairs.reduce(&reductions);
        return f(groups.into_iter().map(reduced).collect());
    }
    let (parts, shapes): (Vec<_>, Vec<_>) = groups
        .into_iter()
        .map(|(pairs, reductions)| {
            let (form, sizes) = (pairs.form(&reductions), pairs.sizes());
            let plain = pairs.clone().without_autodiff().inputs();
            ((pairs.inputs(), plain, form.clone()), (form, sizes))
        })
        .unzip();
    surrogate::reduce_to_scalar(parts, |results| {
        let split = |(results, (form, sizes)): (_, &(Form, _))| split(results, form, *sizes);
        f(results.into_iter().zip(&shapes).map(split).collect())
    })
}

/// Divides a memory budget among pairs whose similarities are kept side by side, by how many they are.
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

/// The results, one after the other, as vectors.
fn split(results: Tensor<1>, form: &Form, sizes: [usize; 2]) -> Vec<Tensor<1>> {
    let mut at = 0;
    let vector = |(axis, _): (Axis, bool)| {
        let len = axis.len(sizes);
        at += len;
        results.clone().slice(at - len..at)
    };
    form.results().into_iter().map(vector).collect()
}

/// Whether this crate is built with the backend of the tensor's device.
fn is_supported(tensor: &Tensor<2>) -> bool {
    fn kind_is(kind: &DispatchTensorKind) -> bool {
        match kind {
            #[cfg(feature = "flex")]
            DispatchTensorKind::Flex(_) => true,
            #[cfg(feature = "ndarray")]
            DispatchTensorKind::NdArray(_) => true,
            #[cfg(feature = "_cube")]
            DispatchTensorKind::Cube(_) => true,
            DispatchTensorKind::Autodiff(inner) => kind_is(inner),
            #[allow(unreachable_patterns)] // With every backend of Burn's on.
            _ => false,
        }
    }
    let dispatch: DispatchTensor = tensor.clone().into_dispatch();
    kind_is(&dispatch.kind)
}
