//! Cross-modal similarity regulation: negatives that resemble the anchor count less.
//!
//! With `ĉ` the cosines of a frozen teacher and `c` those of the model (the student):
//!
//! ```text
//! s_ij = α·e^{ĉ_ij/τ_w} + (1 − α)·e^{c_ij/τ_w}
//! w_ij = (1/s_ij) / mean over the negatives j of (1/s_ij)          Norm::Mean
//! w_ij = (number of negatives) · softmax_j(δ/s_ij)                 Norm::Softmax
//! ```
//!
//! The weights of text→image are normalised over the images, of each text. They satisfy the two
//! conditions of the paper: negative covariance with the (mixed) similarity, and mean one.
//!
//! - α is [`SimilarityRegulation::alpha`]; it goes from 1 to 0 as training proceeds
//!   ([`schedule`](crate::schedule)).
//! - τ_w is [`SimilarityRegulation::weight_temperature`], 1 by default.
//! - δ belongs to [`Norm::Softmax`]; under [`Norm::Mean`] it cancels.
//!
//! **How the paper is read.** Equations 6–9 have no temperature inside `s`: 1 is the literal
//! reading. But cosines then give weights within a factor `e²` of each other, `0.14` of the largest
//! at the least, while the paper's figure 8 shows 0.08, and its thresholds of 0.2 and 0.3 remove
//! negatives. Some sharpening is missing from the text; `weight_temperature` and `Norm::Softmax`
//! offer two. In equation 7 the indices are swapped, a slip. The weights regulate: no gradient
//! flows through them unless [`SimilarityRegulation::differentiable`] says so.
//!
//! **Source.** "Vision Language Pre-training by Contrastive Learning with Cross-Modal Similarity
//! Regulation", Jiang et al. 2023, equations 6–9.

use burn::config::Config;

use crate::check::{self, ConfigError};
use crate::pairwise::Expr;

/// Weights of negatives, inversely proportional to how much they resemble the anchor.
#[derive(Config, Copy, Debug, PartialEq)]
pub struct SimilarityRegulation {
    /// Share α of the teacher in the similarity, in [0, 1]; 0 needs no teacher. Default 1, where
    /// the paper's training begins; 0 in fine-tuning.
    #[config(default = 1.0)]
    pub alpha: f64,
    /// Divides the similarities before their exponential. Default 1 (the paper has none).
    #[config(default = 1.0)]
    pub weight_temperature: f64,
    /// How inverse similarities become weights of mean one. Default: divided by their mean.
    #[config(default = "Norm::Mean")]
    pub norm: Norm,
    /// Whether the gradient flows through the weights (of the student's part). Default false.
    #[config(default = false)]
    pub differentiable: bool,
}

/// How inverse similarities become weights of mean one.
#[derive(Config, Copy, Debug, PartialEq)]
pub enum Norm {
    /// `(1/s) / mean(1/s)`.
    Mean,
    /// `n·softmax(delta/s)`, over `n` negatives. For cosines: `1/s` of a dot product far below 0
    /// overflows.
    Softmax {
        /// The paper's scaling factor δ.
        delta: f64,
    },
}

impl Default for SimilarityRegulation {
    fn default() -> Self {
        Self::new()
    }
}

impl SimilarityRegulation {
    /// Smallest weight temperature: `e^{1/τ_w}` must stay within f32.
    const COLDEST: f64 = 0.0125;

    /// The weights of the paper's figures: a weight temperature of 0.3.
    ///
    /// Cosines of deviation 0.1 then put 18 % of the weights below 0.7, and a false negative that
    /// is 0.7 nearer than the mean gets about 0.1, as in the paper's figures 3b and 8. The
    /// temperature is this crate's, fitted to those figures; [`new`](Self::new) is the literal
    /// reading of the equations.
    pub fn calibrated() -> Self {
        Self::new().with_weight_temperature(0.3)
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Where `alpha` is not in [0, 1], `weight_temperature` is not positive and finite (under
    /// [`Norm::Softmax`] below 0.0125), or δ is not in [0, 1000].
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = "SimilarityRegulation";
        check::range(name, "alpha", self.alpha, 0.0, 1.0)?;
        let coldest = match self.norm {
            Norm::Mean => f32::MIN_POSITIVE as f64,
            Norm::Softmax { .. } => Self::COLDEST,
        };
        let temperature = self.weight_temperature;
        check::range(name, "weight_temperature", temperature, coldest, f64::MAX)?;
        match self.norm {
            Norm::Mean => Ok(()),
            Norm::Softmax { delta } => check::range(name, "delta", delta, 0.0, 1000.0),
        }
    }

    /// Whether it reads the teacher's similarity.
    pub(crate) fn needs_teacher(&self) -> bool {
        self.alpha != 0.0
    }

    /// The logarithm of a pair's weight, up to a factor for each anchor.
    ///
    /// # Panics
    ///
    /// Where α is not 0 and there is no teacher.
    #[track_caller]
    pub fn log_weight(&self, similarity: &Expr, teacher: Option<&Expr>) -> Expr {
        let log_inverse = -self.log_similarity(similarity, teacher);
        let log_weight = match self.norm {
            Norm::Mean => log_inverse,
            Norm::Softmax { delta } => log_inverse.exp() * delta,
        };
        if self.differentiable {
            log_weight
        } else {
            log_weight.detach()
        }
    }

    /// `log s`, in a way that no temperature overflows.
    #[track_caller]
    fn log_similarity(&self, similarity: &Expr, teacher: Option<&Expr>) -> Expr {
        let part =
            |similarity: &Expr, share: f64| similarity / self.weight_temperature + share.ln();
        if self.alpha == 0.0 {
            return part(similarity, 1.0);
        }
        let teacher = teacher.expect("SimilarityRegulation: `alpha` is not 0: it needs a teacher");
        if self.alpha == 1.0 {
            return part(teacher, 1.0);
        }
        let (ours, theirs) = (
            part(similarity, 1.0 - self.alpha),
            part(teacher, self.alpha),
        );
        &theirs + &(&ours - &theirs).softplus()
    }
}
