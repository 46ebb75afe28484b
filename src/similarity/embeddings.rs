//! Embeddings ready to be compared: normalised, or beside their norms.

use burn::tensor::{DType, Tensor};

use super::normalize::{VANISHING, l2_normalize_above};
use super::{l2_normalize, rowwise_dot};
use crate::check;
use crate::pairwise::row_norms;
use crate::tensor::constant_like;

/// Embeddings ready to be compared, which
/// [`SimilarityConfig::prepare`](super::SimilarityConfig::prepare) returns.
///
/// f32 and f64 are normalised. f16 and bf16 stay as they are, so that matrix units multiply them
/// exactly and neither a widened nor a normalised copy exists: the norms are divided out of the
/// similarities. From a tensor they are rows whose dot products are the similarities.
#[derive(Clone, Debug)]
pub struct Embeddings {
    pub(crate) rows: Tensor<2>,
    pub(crate) norms: Option<Norms>,
}

/// The norms of rows that are not divided by them; constants to the gradient.
#[derive(Clone, Debug)]
pub(crate) struct Norms {
    /// `1 / max(‖x‖, least)`, 0 for rows without a direction. Of rows times [`scale`](Self::scale).
    reciprocal: Tensor<1>,
    /// The same, but 0 for rows shorter than `least`: there it does not depend on the row.
    dependent: Tensor<1>,
    /// A power of two for each row, by which rows may be multiplied exactly; `None` if all are 1.
    scale: Option<Tensor<1>>,
    /// Whether the rows were multiplied by it.
    is_scaled: bool,
    /// Norms below this count as this; `None` for rows whose norms are not divided out.
    pub least: Option<f64>,
}

impl Norms {
    /// Beside rows that are compared as they are.
    pub fn none(rows: &Tensor<2>) -> Self {
        let ones = Tensor::<1>::ones([rows.dims()[0]], &rows.device()).cast(DType::F32);
        Self {
            dependent: ones.zeros_like(),
            reciprocal: ones,
            scale: None,
            is_scaled: false,
            least: None,
        }
    }

    /// Whether there are scales, by which the rows were not multiplied.
    pub fn has_scale(&self) -> bool {
        self.scale.is_some() && !self.is_scaled
    }

    /// The vectors that a pass over the rows is given, in this order.
    ///
    /// `with_scale` they are those of rows that are multiplied by their scales, and where that is
    /// not done already the scales follow.
    pub fn vectors(self, with_scale: bool) -> Vec<Tensor<1>> {
        if with_scale {
            let scale = self.scale.filter(|_| !self.is_scaled);
            return [self.reciprocal, self.dependent]
                .into_iter()
                .chain(scale)
                .collect();
        }
        let of_rows = |reciprocal: Tensor<1>| match &self.scale {
            Some(scale) if !self.is_scaled => reciprocal * scale.clone(),
            _ => reciprocal,
        };
        [self.reciprocal, self.dependent].map(of_rows).to_vec()
    }
}

impl From<Tensor<2>> for Embeddings {
    fn from(rows: Tensor<2>) -> Self {
        Self { rows, norms: None }
    }
}

impl Embeddings {
    /// Rows that are compared by direction: `x / max(‖x‖, least)`.
    pub(super) fn directions(rows: Tensor<2>, least: f64) -> Self {
        match rows.dtype() {
            DType::F16 | DType::BF16 => Self::beside_norms(rows, least),
            _ => normalized(rows, least).into(),
        }
    }

    fn beside_norms(rows: Tensor<2>, least: f64) -> Self {
        let needs_scale = rows.dtype() == DType::BF16;
        let [largest, norm] = match row_norms(&rows) {
            Some(norms) => [0, 1].map(|k| norms.clone().slice(k..k + 1).transpose()),
            None => norms_in_plain_operations(&rows, needs_scale),
        };
        let scale = if needs_scale {
            scale_of(&largest)
        } else {
            largest.ones_like()
        };
        // Of the rows whose norm does not count, what counts in its place.
        let (is_short, other) = if least > 0.0 {
            let least = scale.clone() * least;
            (norm.clone().lower(least.clone()), least.recip())
        } else {
            (largest.lower_elem(VANISHING), scale.zeros_like())
        };
        let reciprocal = norm.recip();
        let dependent = reciprocal.clone().mask_fill(is_short.clone(), 0.0);
        let reciprocal = reciprocal.mask_where(is_short, other);
        let flat = |x: Tensor<2>| x.squeeze_dim::<1>(1);
        Self {
            rows,
            norms: Some(Norms {
                reciprocal: flat(reciprocal),
                dependent: flat(dependent),
                scale: needs_scale.then(|| flat(scale)),
                is_scaled: false,
                least: Some(least),
            }),
        }
    }

    /// The embeddings whose dot products are the similarities, `[N, D]`, in the dtype to compute
    /// with: f64 for f64, f32 for everything else.
    pub fn values(self) -> Tensor<2> {
        let dtype = check::compute_dtype(self.rows.dtype());
        let mut rows = self.rows.cast(dtype);
        let Some(norms) = self.norms else {
            return rows;
        };
        if let Some(scale) = norms.scale.filter(|_| norms.is_scaled) {
            rows = rows / scale.unsqueeze_dim::<2>(1);
        }
        match norms.least {
            Some(least) => normalized(rows, least),
            None => rows,
        }
    }

    /// With rows that were multiplied by their scales: a copy, where there are some.
    ///
    /// Of two sides one is enough: products of two rows of norm 1e20 overflow in f32, and those of
    /// 1e-20 vanish.
    pub(crate) fn scaled(mut self) -> Self {
        let dtype = self.rows.dtype();
        if let Some(norms) = self.norms.as_mut().filter(|norms| !norms.is_scaled) {
            norms.is_scaled = true;
            if let Some(scale) = &norms.scale {
                self.rows = self.rows * scale.clone().unsqueeze_dim::<2>(1).cast(dtype);
            }
        }
        self
    }

    /// On the device without autodiff.
    pub(crate) fn inner(self) -> Self {
        let inner = |norms: Norms| Norms {
            reciprocal: norms.reciprocal.inner(),
            dependent: norms.dependent.inner(),
            scale: norms.scale.map(Tensor::inner),
            is_scaled: norms.is_scaled,
            least: norms.least,
        };
        Self {
            rows: self.rows.inner(),
            norms: self.norms.map(inner),
        }
    }

    /// The similarity of row `i` with row `i` of others, `[N]`.
    ///
    /// # Panics
    ///
    /// As [`rowwise_dot`].
    #[track_caller]
    pub fn dot(&self, others: &Self) -> Tensor<1> {
        rowwise_dot(self.clone().values(), others.clone().values())
    }
}

/// The largest magnitude of each row, `[N, 1]`, and its norm, of a row times its scale where it
/// `needs_scale`.
fn norms_in_plain_operations(rows: &Tensor<2>, needs_scale: bool) -> [Tensor<2>; 2] {
    // A leaf that is detached is a leaf still.
    let rows = constant_like(rows.clone(), rows);
    // Not widened first: a maximum is exact in any dtype, and needs no copy.
    let largest = rows.clone().abs().max_dim(1).cast(DType::F32);
    let mut wide = rows.cast(DType::F32);
    if needs_scale {
        wide = wide * scale_of(&largest);
    }
    [largest, wide.square().sum_dim(1).sqrt()]
}

/// A power of two for each row, `[N, 1]`, that takes squares of its elements away from the ends of
/// f32. Elements of f16 need none: squares of 6e-8 and of 65,504 are normal numbers of f32.
fn scale_of(largest: &Tensor<2>) -> Tensor<2> {
    let [low, high] = [-80, 80].map(|exponent| 2f64.powi(exponent));
    let is_large = largest.clone().greater_elem(2f64.powi(40));
    let is_small = largest.clone().lower_elem(2f64.powi(-40));
    let one = largest.ones_like();
    one.mask_fill(is_large, low).mask_fill(is_small, high)
}

fn normalized(rows: Tensor<2>, least: f64) -> Tensor<2> {
    let normalized = if least > 0.0 {
        l2_normalize_above(rows, least)
    } else {
        l2_normalize(rows)
    };
    // Where Burn queues two sides, it fuses nothing of either (counted). A device that is lost says
    // so to whoever reads from it.
    let _ = normalized.device().flush();
    normalized
}
