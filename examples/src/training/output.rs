//! What a batch measures, in the form that burn-train's metrics read.

use burn::tensor::{ExecutionError, Tensor};
use burn::train::metric::{Adaptor, ItemLazy, LossInput};
use burn_contrastive::retrieval::{LogitScaleInput, RetrievalInput};

/// What a batch measures; all without autodiff.
#[derive(Clone, Debug)]
pub struct Output {
    /// The loss, `[1]`.
    pub loss: Tensor<1>,
    /// The losses that it is the sum of, `[1]` each, in the order of
    /// [`System::LOSSES`](super::system::System::LOSSES).
    pub losses: Vec<Tensor<1>>,
    /// The factor on the similarities, `[1]`, if an objective has one.
    pub logit_scale: Option<Tensor<1>>,
    /// The embeddings of the batch, for systems that retrieve.
    pub embeddings: Option<Embeddings>,
    /// In the order of [`System::FIGURES`](super::system::System::FIGURES).
    pub figures: Vec<Figure>,
}

/// Embeddings of pairs: row `i` of both belongs to pair `i`.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// Of the images, `[pairs, embedding]`.
    pub images: Tensor<2>,
    /// Of the captions, `[pairs, embedding]`.
    pub texts: Tensor<2>,
}

/// A mean over examples, such as an accuracy in percent, as what it is the quotient of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The sum over the examples.
    pub sum: f64,
    /// The number of examples.
    pub count: f64,
}

impl Figure {
    /// The mean; NaN without examples.
    pub fn mean(self) -> f64 {
        self.sum / self.count
    }
}

impl Output {
    /// A loss that is no sum, of embeddings.
    pub fn of_pairs(loss: Tensor<1>, images: Tensor<2>, texts: Tensor<2>) -> Self {
        Self {
            loss,
            losses: Vec::new(),
            logit_scale: None,
            embeddings: Some(Embeddings { images, texts }),
            figures: Vec::new(),
        }
    }

    /// The output of several batches: the mean of their losses, which have their negatives each,
    /// all embeddings, and the figures of all examples.
    pub fn join(outputs: Vec<Self>) -> Option<Self> {
        let first = outputs.first()?.clone();
        let mean = |of: &dyn Fn(&Self) -> Tensor<1>| {
            Tensor::cat(outputs.iter().map(of).collect(), 0).mean()
        };
        let all = |of: &dyn Fn(&Embeddings) -> &Tensor<2>| {
            let each = outputs
                .iter()
                .filter_map(|output| output.embeddings.as_ref());
            Tensor::cat(each.map(|embeddings| of(embeddings).clone()).collect(), 0)
        };
        let figure = |index: usize| {
            let each = || outputs.iter().map(|output| output.figures[index]);
            Figure {
                sum: each().map(|figure| figure.sum).sum(),
                count: each().map(|figure| figure.count).sum(),
            }
        };
        Some(Self {
            loss: mean(&|output| output.loss.clone()),
            losses: (0..first.losses.len())
                .map(|index| mean(&|output| output.losses[index].clone()))
                .collect(),
            logit_scale: first.logit_scale,
            embeddings: first.embeddings.map(|_| Embeddings {
                images: all(&|embeddings| &embeddings.images),
                texts: all(&|embeddings| &embeddings.texts),
            }),
            figures: (0..first.figures.len()).map(figure).collect(),
        })
    }
}

impl ItemLazy for Output {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<LossInput> for Output {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss.clone())
    }
}

impl Adaptor<LogitScaleInput> for Output {
    fn adapt(&self) -> LogitScaleInput {
        let scale = self.logit_scale.clone();
        LogitScaleInput::new(scale.expect("its metric is shown for systems that have one"))
    }
}

impl Adaptor<RetrievalInput> for Output {
    fn adapt(&self) -> RetrievalInput {
        let embeddings = self.embeddings.clone();
        let Embeddings { images, texts } =
            embeddings.expect("its metrics are shown for systems that retrieve");
        RetrievalInput::new(images, texts)
    }
}
