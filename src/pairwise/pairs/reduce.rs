//! How [`Pairs`] are reduced: checks, forms, and the choice of an evaluation.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::{Dispatch, DispatchTensor, DispatchTensorKind};
use burn::tensor::{Bool, DType, Tensor};

use super::Pairs;
use crate::pairwise::blocks::{Block, Part};
#[cfg(feature = "_cpu")]
use crate::pairwise::cpu;
use crate::pairwise::evaluation::Limits;
use crate::pairwise::expr::{Expr, Leaf};
use crate::pairwise::form::Form;
use crate::pairwise::ops::{Inputs, PairwiseOps};
use crate::pairwise::pass::Pass;
use crate::pairwise::reduction::{Axis, Kind, Reduction, rows};
use crate::pairwise::{Evaluation, chunked, divided};
use crate::tensor::constant_like;

impl Pairs {
    /// The results of `reductions`, in their order, each of shape `[N]` along rows and `[M]` along
    /// columns; a reduction with two results gives both.
    ///
    /// Differentiable, once, in the embeddings and in all that was bound, except the teachers.
    ///
    /// # Panics
    ///
    /// Where pairs [`within`](Self::within) one set are reduced along columns. Where gradients are
    /// tracked on a device whose feature is not enabled in this crate: enable it, or use
    /// [`Evaluation::Dense`].
    #[track_caller]
    pub fn reduce(self, reductions: &[Reduction]) -> Vec<Tensor<1>> {
        let form = Arc::new(self.form(reductions));
        let sizes = self.sizes();
        let results = if self.evaluation == Evaluation::Dense {
            chunked::dense(self.with_values().inputs(), &form)
        } else if !self.has_kernels() {
            let run = |inputs, pass: Pass| chunked::pass(inputs, &pass);
            let workers = form.workers.as_deref();
            divided::pass_by(run, self.inputs(), form.forward(false), workers).results
        } else if self.a.rows.device().is_autodiff() {
            Dispatch::pairwise_reduce(self.inputs(), form.clone())
        } else {
            divided::reduce(self.inputs(), &form)
        };
        split(Tensor::from_dispatch(results), &form, sizes)
    }

    /// `Σ_ij x_ij`, shape `[1]`; value and gradient in one pass over the pairs.
    ///
    /// # Panics
    ///
    /// As [`reduce`](Self::reduce).
    #[track_caller]
    pub fn total(self, x: &Expr) -> Tensor<1> {
        let reductions = [rows().sum(x)];
        if self.evaluation == Evaluation::Dense || !self.has_kernels() {
            return self.reduce(&reductions).remove(0).sum();
        }
        let form = Arc::new(self.form(&reductions));
        let is_autodiff = self.a.rows.device().is_autodiff();
        let inputs = self.inputs();
        Tensor::from_dispatch(if is_autodiff {
            Dispatch::pairwise_total(inputs, form)
        } else {
            divided::total(inputs, &form)
        })
    }

    /// Whether this crate is built with the backend of the device. Elsewhere passes run in plain
    /// operations, without gradients.
    #[track_caller]
    fn has_kernels(&self) -> bool {
        let has_kernels = kernels(&self.a.rows).is_some();
        let device = self.a.rows.device();
        assert!(
            has_kernels || !device.is_autodiff(),
            "Pairs: burn-contrastive is built without the backend of {device:?}, which gradients \
             need: enable its feature (`flex`, `ndarray`, `wgpu`, `vulkan`, `metal`, `cuda`, \
             `rocm` or `cpu`) in this crate too, or use `Evaluation::Dense`"
        );
        has_kernels
    }

    /// The values of `x` for the pairs of some rows with some columns: a block of the matrix to
    /// look at. Without a gradient, on the device without autodiff.
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
        let form = self.form(&[crate::pairwise::rows().sum(x)]);
        let block = Block::new(Part::from(rows), Part::from(columns));
        let mut pairs = self.clone().constant();
        pairs.a = pairs.a.scaled();
        let inputs = pairs.inputs();
        Tensor::from_dispatch(chunked::values::<Dispatch>(&inputs, &form, &block))
    }

    /// Panics where an expression has a leaf of other pairs.
    #[track_caller]
    fn check_bound(&self, x: &Expr) {
        x.each_leaf(&mut |leaf| {
            let bound = match leaf {
                Leaf::Similarity | Leaf::Diagonal => true,
                Leaf::Teacher(k) => k < self.teachers.len(),
                Leaf::Mask => self.mask.is_some(),
                Leaf::Row(k) => k < self.rows.len(),
                Leaf::Column(k) if self.symmetric => k < self.rows.len(),
                Leaf::Column(k) => k < self.columns.len(),
                Leaf::Scalar(k) => k < self.scalars.len(),
            };
            assert!(
                bound,
                "Pairs: an expression reads {leaf:?}, which is bound on other pairs: bind it on \
                 these"
            );
        });
    }

    /// Whether kernels multiply the embeddings as they are.
    fn stays(&self, kernels: Kernels) -> bool {
        match kernels {
            Kernels::Cube => true,
            #[cfg(feature = "_cpu")]
            Kernels::Cpu if self.tokens == [1, 1] => {
                cpu::multiplies_as_bf16(self.a.rows.dtype(), self.precision)
            }
            Kernels::Cpu => false,
        }
    }

    #[track_caller]
    fn form(&self, reductions: &[Reduction]) -> Form {
        assert!(
            !self.symmetric || reductions.iter().all(|r| r.axis == Axis::Rows),
            "Pairs: pairs within one set are reduced along rows; along columns the results are the \
             same"
        );
        for expr in reductions.iter().flat_map(|r| &r.exprs) {
            self.check_bound(expr);
        }
        let exact = match self.dtype() {
            DType::F64 => 1 << 53,
            _ => 1 << 24,
        };
        let with_index = reductions.iter().any(|r| r.kind == Kind::Max);
        assert!(
            !with_index || self.sizes().into_iter().max() <= Some(exact),
            "Pairs: maxima are found among at most {exact} rows or columns"
        );
        let workers = self.workers.as_ref().map_or(1, |workers| workers.count());
        let all = self.similarities().div_ceil(workers) * self.dtype().size();
        // Passes over tokens keep nothing, so that blocks have the whole budget.
        let evaluation = match self.tokens {
            [1, 1] => self.evaluation,
            _ => Evaluation::Streaming,
        };
        Form {
            reductions: reductions.to_vec(),
            rows: self.rows.len(),
            columns: self.columns.len(),
            scalars: self.scalars.len(),
            symmetric: self.symmetric,
            has_norms: self.has_norms(),
            has_scale: self.scales_in_passes(),
            teachers: self.teachers.iter().map(|[a, _]| a.dims()[1]).collect(),
            tokens: self.tokens,
            limits: Limits::new(evaluation, self.precision, self.memory_budget, all),
            workers: self.workers.clone(),
        }
    }

    /// Whether passes multiply rows by their scales as they go.
    fn scales_in_passes(&self) -> bool {
        let has_scale = self.has_scale() && self.evaluation != Evaluation::Dense;
        has_scale && matches!(kernels(&self.a.rows), Some(Kernels::Cube))
    }

    fn inputs(mut self) -> Inputs<Dispatch> {
        if !self.scales_in_passes() {
            self.a = self.a.scaled();
        }
        let dtype = self.dtype();
        let kernels = kernels(&self.a.rows).filter(|_| self.evaluation != Evaluation::Dense);
        let stays = kernels.is_some_and(|kernels| self.stays(kernels));
        let multiplied = |rows: &Tensor<2>| {
            if stays {
                rows.clone()
            } else {
                rows.clone().cast(dtype)
            }
        };
        let a = multiplied(&self.a.rows);
        let b = if self.symmetric {
            a.clone()
        } else {
            multiplied(&self.b.rows)
        };
        // In the place of inputs that are not bound.
        let any = a.clone().into_dispatch();
        let (device, has_norms) = (a.device(), self.has_norms());
        let scalars = match self.scalars.len() {
            0 => any.clone(),
            1 => self.scalars[0].clone().into_dispatch(),
            _ => Tensor::cat(self.scalars, 0).into_dispatch(),
        };
        let any_mask = || Tensor::<1, Bool>::empty([1], &device).into_dispatch();
        // Counted: of norms the vectors are the last before the pass, or Burn fuses nothing of what
        // follows it; of others the mask is.
        let first_mask = has_norms.then(any_mask);
        let matrix = |vectors: Vec<Tensor<1>>| match vectors.len() {
            0 => any.clone(),
            _ => Tensor::stack::<2>(vectors, 0).into_dispatch(),
        };
        let rows = matrix(self.rows);
        let columns = if self.symmetric {
            rows.clone()
        } else {
            matrix(self.columns)
        };
        let side = |k: usize| {
            let mut side: Vec<_> = self.teachers.iter().map(|t| t[k].clone()).collect();
            match side.len() {
                0 => any.clone(),
                1 => side.remove(0).into_dispatch(),
                _ => Tensor::cat(side, 1).into_dispatch(),
            }
        };
        let [teacher_a, teacher_b] = [0, 1].map(side);
        Inputs {
            rows,
            columns,
            scalars,
            mask: match (self.mask, first_mask) {
                (Some(mask), _) => mask.into_dispatch(),
                (None, Some(mask)) => mask,
                (None, None) => any_mask(),
            },
            a: a.into_dispatch(),
            b: b.into_dispatch(),
            teacher_a,
            teacher_b,
            kept: any,
        }
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
    form.results().map(vector).collect()
}

/// The largest magnitude and the norm of each row of half precision, `[2, rows]` (see
/// [`PairwiseOps::row_norms`]), where a kernel finds them; constants to the gradient.
pub(crate) fn row_norms(rows: &Tensor<2>) -> Option<Tensor<2>> {
    let Some(Kernels::Cube) = kernels(rows) else {
        return None;
    };
    let norms = Dispatch::row_norms(rows.clone().without_autodiff().into_dispatch());
    Some(constant_like(Tensor::from_dispatch(norms), rows))
}

/// The kernels that this crate has.
#[derive(Clone, Copy)]
enum Kernels {
    #[cfg_attr(not(feature = "_cpu"), allow(dead_code))]
    Cpu,
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))]
    Cube,
}

/// Those of the tensor's device, if this crate is built with its backend.
fn kernels(tensor: &Tensor<2>) -> Option<Kernels> {
    fn of(kind: &DispatchTensorKind) -> Option<Kernels> {
        match kind {
            #[cfg(feature = "flex")]
            DispatchTensorKind::Flex(_) => Some(Kernels::Cpu),
            #[cfg(feature = "ndarray")]
            DispatchTensorKind::NdArray(_) => Some(Kernels::Cpu),
            #[cfg(feature = "_cube")]
            DispatchTensorKind::Cube(_) => Some(Kernels::Cube),
            DispatchTensorKind::Autodiff(inner) => of(inner),
            #[allow(unreachable_patterns)] // With every backend of Burn's on.
            _ => None,
        }
    }
    let dispatch: DispatchTensor = tensor.clone().into_dispatch();
    of(&dispatch.kind)
}
