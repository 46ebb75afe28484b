//! `albef vqa`: questions about images, answered as ALBEF does (Li et al., 2021, section 5).
//!
//! The pretrained encoders read image and question, and a decoder, which starts from the fusion
//! layers, generates the answer: a causal model of its tokens that attends to the fused states of
//! the question. In tests the answer is chosen from a list by its likelihood ([`Ranked`]).

mod config;
mod program;
mod ranking;
mod step;
#[cfg(test)]
mod tests;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_contrastive::momentum::{MomentumEncoder, MomentumEncoderConfig};

use super::AlbefModel;
use crate::models::BertDecoder;
use crate::systems::albef::distillation::DistillationConfig;
use crate::training::system::Moment;

pub use config::{DecoderStart, VqaConfig};
pub use program::{Answered, QuestionTest};
pub use ranking::Ranked;

/// The system: see [the module](self).
#[derive(Module, Debug)]
pub struct Vqa {
    /// The encoders. Their projections and language head are not trained.
    pub model: AlbefModel,
    /// From the states of a question to the tokens of its answer.
    pub decoder: BertDecoder,
    /// The momentum copy of `model`.
    pub momentum_model: MomentumEncoder<AlbefModel>,
    /// The momentum copy of `decoder`.
    pub momentum_decoder: MomentumEncoder<BertDecoder>,
    #[module(skip)]
    distillation: DistillationConfig,
    /// Answers that are compared by their whole likelihood.
    #[module(skip)]
    most_answers: usize,
    #[module(skip)]
    moment: Moment,
}

impl Vqa {
    fn new(config: &VqaConfig, device: &Device) -> Self {
        let model = config.model.init(true, device);
        let decoder = decoder_of(&model);
        let momentum = MomentumEncoderConfig::new().with_momentum(config.distillation.momentum);
        Self {
            momentum_model: momentum.init(&model),
            momentum_decoder: momentum.init(&decoder),
            model,
            decoder,
            distillation: config.distillation.clone(),
            most_answers: config.answers,
            moment: Moment::default(),
        }
    }

    /// The decoder and the momentum copies of the encoders as they are now.
    fn start(mut self, config: &VqaConfig) -> Self {
        if config.decoder == DecoderStart::Fusion {
            self.decoder = decoder_of(&self.model);
        }
        let momentum = MomentumEncoderConfig::new().with_momentum(config.distillation.momentum);
        self.momentum_model = momentum.init(&self.model);
        self.momentum_decoder = momentum.init(&self.decoder);
        self
    }

    /// The share of the momentum copy's predictions in the targets at this moment.
    fn soft_share(&self) -> f64 {
        self.distillation.share(self.moment.epochs)
    }
}

/// A decoder that starts from a model's embeddings, fusion layers and language head.
fn decoder_of(model: &AlbefModel) -> BertDecoder {
    let head = model.language_head.as_ref();
    let head = head.expect("encoders with fusion layers have a language head");
    BertDecoder::from_fusion(&model.bert.embeddings, model.fusion(), head)
}

/// Encoders and decoder, those that are trained or their momentum copies.
#[derive(Clone, Copy)]
struct Answerer<'a> {
    model: &'a AlbefModel,
    decoder: &'a BertDecoder,
}

impl Answerer<'_> {
    /// The fused states of questions, `[questions, length, width]`.
    fn read(self, questions: &step::Questions) -> Tensor<3> {
        let padding = questions.padding.clone();
        let image = self.model.image.tokens(questions.images.clone());
        let states = self
            .model
            .bert
            .read(questions.tokens.clone(), padding.clone());
        self.model.fuse(states, padding, image)
    }
}
