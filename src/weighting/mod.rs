//! How much each negative counts.
//!
//! A [`Weighting`] belongs to the softmax criterion ([`Contrastive`](crate::objective::Contrastive)
//! and the objectives built on it). Weights are given by their logarithm, a number of a pair
//! ([`LogWeight`]), up to a factor for each anchor: the criterion scales them to mean one over the
//! anchor's weighted negatives, those of the batch and extra ones together. Hard negatives, noise
//! and negatives of the anchor's own modality have no weight and count one.

mod regulation;

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use burn::config::Config;

pub use regulation::{Norm, SimilarityRegulation};

use crate::check::{self, ConfigError};
use crate::pairwise::Expr;

/// What weights do to negatives.
#[derive(Config, Copy, Debug, PartialEq)]
pub enum Weighting {
    /// Nothing: every negative counts one.
    Uniform,
    /// A negative counts as much as its weight.
    Regulation(SimilarityRegulation),
    /// A negative whose weight is below `threshold` is left out; all others count one. Takes a pass
    /// over the pairs more, since the weights' means come first.
    Removal {
        /// Where the weights come from.
        regulation: SimilarityRegulation,
        /// The smallest weight that stays, where the mean is one.
        threshold: f64,
    },
}

impl Weighting {
    /// The same with the teacher's share α in the weights, where there are weights.
    pub fn with_alpha(self, alpha: f64) -> Self {
        match self {
            Self::Uniform => Self::Uniform,
            Self::Regulation(regulation) => Self::Regulation(regulation.with_alpha(alpha)),
            Self::Removal {
                regulation,
                threshold,
            } => Self::Removal {
                regulation: regulation.with_alpha(alpha),
                threshold,
            },
        }
    }

    /// Where the weights come from, where there are weights.
    fn regulation(&self) -> Option<SimilarityRegulation> {
        match *self {
            Self::Uniform => None,
            Self::Regulation(regulation) | Self::Removal { regulation, .. } => Some(regulation),
        }
    }

    /// The weights' logarithm, where there are weights.
    pub(crate) fn log_weight(&self) -> Option<LogWeight> {
        self.regulation().map(LogWeight::from)
    }

    /// Whether the weights read a teacher's features; also where their values are out of range.
    pub(crate) fn needs_teacher(&self) -> bool {
        self.regulation()
            .is_some_and(|weights| weights.needs_teacher())
    }

    /// The smallest weight that stays, where weights remove.
    pub(crate) fn threshold(&self) -> Option<f64> {
        match self {
            Self::Removal { threshold, .. } => Some(*threshold),
            _ => None,
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// As [`SimilarityRegulation::check`], and where the threshold is negative or not finite.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self {
            Self::Uniform => Ok(()),
            Self::Regulation(regulation) => regulation.check(),
            Self::Removal {
                regulation,
                threshold,
            } => {
                regulation.check()?;
                check::range("Weighting", "threshold", *threshold, 0.0, f64::MAX)
            }
        }
    }
}

/// The logarithm of a pair's weight, up to a factor for each anchor: a function of the pair's
/// similarity and of the teacher's.
///
/// [`SimilarityRegulation`] is one; here is another, which halves the weight of what the teacher
/// finds alike:
///
/// ```
/// use burn_contrastive::pairwise::Expr;
/// use burn_contrastive::weighting::LogWeight;
///
/// let half = LogWeight::with_teacher(|_similarity, teacher| {
///     let alike = (teacher - 0.8).step();
///     Expr::select(&alike, &Expr::constant(0.5f64.ln()), &Expr::constant(0.0))
/// });
/// # let _ = half;
/// ```
#[derive(Clone)]
pub struct LogWeight(Function);

#[derive(Clone)]
enum Function {
    OfStudent(Arc<OfStudent>),
    WithTeacher(Arc<WithTeacher>),
}

type OfStudent = dyn Fn(&Expr) -> Expr + Send + Sync;
type WithTeacher = dyn Fn(&Expr, &Expr) -> Expr + Send + Sync;

impl LogWeight {
    /// A function of the similarity. Detach the result unless the gradient is to flow through it.
    pub fn new(f: impl Fn(&Expr) -> Expr + Send + Sync + 'static) -> Self {
        Self(Function::OfStudent(Arc::new(f)))
    }

    /// A function of the similarity and of the teacher's; objectives that use it need a teacher.
    pub fn with_teacher(f: impl Fn(&Expr, &Expr) -> Expr + Send + Sync + 'static) -> Self {
        Self(Function::WithTeacher(Arc::new(f)))
    }

    /// Whether it reads the teacher's similarity.
    pub fn needs_teacher(&self) -> bool {
        matches!(self.0, Function::WithTeacher(_))
    }

    /// Of a pair. `teacher` may be missing only where it is not needed.
    pub(crate) fn of(&self, similarity: &Expr, teacher: Option<&Expr>) -> Expr {
        match &self.0 {
            Function::OfStudent(f) => f(similarity),
            Function::WithTeacher(f) => f(similarity, teacher.expect("a teacher")),
        }
    }
}

impl From<SimilarityRegulation> for LogWeight {
    /// Panics if a value is out of range.
    #[track_caller]
    fn from(regulation: SimilarityRegulation) -> Self {
        check::or_panic(regulation.check());
        if regulation.needs_teacher() {
            Self::with_teacher(move |c, teacher| regulation.log_weight(c, Some(teacher)))
        } else {
            Self::new(move |c| regulation.log_weight(c, None))
        }
    }
}

impl Debug for LogWeight {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Function::OfStudent(_) => "LogWeight(similarity)",
            Function::WithTeacher(_) => "LogWeight(similarity, teacher)",
        })
    }
}
