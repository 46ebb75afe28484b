//! A step of [`Vqa`]: every answer of a question is a row of the decoder, which looks at the fused
//! states of that question.
//!
//! ```text
//! L = Σ_answers share · Σ_tokens CE(z, token) / questions
//! CE ← (1 − α)·CE(z, token) + α·CE(z, softmax(z'))        with the logits z' of the momentum copy
//! ```
//!
//! A batch's loss is the sum of what its questions add, so shards do not have to meet: each hands
//! over its part, as one row.

use anyhow::Result;
use burn::module::Module;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_contrastive::sharded::{Encoded, Sharding};

use super::config::VqaConfig;
use super::{Answerer, Vqa};
use crate::data::{Asked, QuestionExamples, Shard};
use crate::training::output::{Figure, Output};
use crate::training::system::{Moment, Step, System};

/// The questions of a shard as tensors.
pub(super) struct Questions {
    pub images: Tensor<4>,
    /// `[questions, length]`
    pub tokens: Tensor<2, Int>,
    /// `[questions, length]`
    pub padding: Tensor<2, Bool>,
}

/// Answers as rows of tokens.
#[derive(Clone)]
pub(super) struct Answers {
    /// `[rows, length]`
    pub tokens: Tensor<2, Int>,
    /// `[rows, length]`
    pub padding: Tensor<2, Bool>,
    /// The question of each row, `[rows]`.
    pub question: Tensor<1, Int>,
}

impl Questions {
    pub fn new(shard: &Shard<Asked>, device: &Device) -> Self {
        let (tokens, padding) = shard.texts(|asked| &asked.tokens, device);
        Self {
            images: shard.images(|asked| &asked.pixels, device),
            tokens,
            padding,
        }
    }

    fn inner(&self) -> Self {
        Self {
            images: self.images.clone().without_autodiff(),
            tokens: self.tokens.clone().without_autodiff(),
            padding: self.padding.clone().without_autodiff(),
        }
    }
}

impl Answers {
    /// Rows of tokens, each with the index of its question.
    pub fn new<T: AsRef<[u32]>>(
        rows: impl IntoIterator<Item = (usize, T)>,
        shard: &Shard<Asked>,
        device: &Device,
    ) -> Self {
        let rows = rows.into_iter();
        let (question, tokens): (Vec<i32>, Vec<T>) =
            rows.map(|(question, row)| (question as i32, row)).unzip();
        let (tokens, padding) = shard.rows(&tokens, device);
        Self {
            tokens,
            padding,
            question: Tensor::from_data(&question[..], device),
        }
    }

    fn inner(&self) -> Self {
        Self {
            tokens: self.tokens.clone().without_autodiff(),
            padding: self.padding.clone().without_autodiff(),
            question: self.question.clone().without_autodiff(),
        }
    }

    /// What the decoder reads: all tokens but the last place.
    pub fn given(&self) -> (Tensor<2, Int>, Tensor<2, Bool>) {
        let length = self.tokens.dims()[1] - 1;
        let given = self.tokens.clone().narrow(1, 0, length);
        (given, self.padding.clone().narrow(1, 0, length))
    }

    /// What it is to predict: all tokens but the first place.
    pub fn wanted(&self) -> (Tensor<2, Int>, Tensor<2, Bool>) {
        let length = self.tokens.dims()[1] - 1;
        let wanted = self.tokens.clone().narrow(1, 1, length);
        (wanted, self.padding.clone().narrow(1, 1, length))
    }

    /// What the tokens of each row cost: the negative logarithm of its likelihood, `[rows]`, where
    /// `logits` are those of the tokens [wanted](Self::wanted). `soft` are a teacher's logits, a
    /// constant, and their share in the targets.
    pub fn costs(&self, logits: Tensor<3>, soft: Option<(Tensor<3>, f64)>) -> Tensor<1> {
        let (wanted, padding) = self.wanted();
        let log_probabilities = log_softmax(logits, 2);
        let wanted = wanted.unsqueeze_dim::<3>(2);
        let hard = -log_probabilities.clone().gather(2, wanted);
        let costs = match soft {
            Some((teacher, share)) => {
                let soft = -(log_probabilities * softmax(teacher, 2)).sum_dim(2);
                hard * (1.0 - share) + soft * share
            }
            None => hard,
        };
        let costs = costs.squeeze_dim::<2>(2).mask_fill(padding, 0.0);
        costs.sum_dim(1).squeeze_dim(1)
    }
}

impl Answerer<'_> {
    /// The logits of the tokens that follow those [given](Answers::given), `[rows, length − 1,
    /// vocabulary]`, where `states` are those of the questions, whose padding is `padding`.
    pub(super) fn follow(
        self,
        answers: &Answers,
        states: &Tensor<3>,
        padding: &Tensor<2, Bool>,
    ) -> Tensor<3> {
        let (tokens, own_padding) = answers.given();
        let states = states.clone().select(0, answers.question.clone());
        let padding = padding.clone().int().select(0, answers.question.clone());
        let padding = padding.bool();
        self.decoder.forward(tokens, own_padding, states, padding)
    }

    fn logits(self, questions: &Questions, answers: &Answers) -> Tensor<3> {
        self.follow(answers, &self.read(questions), &questions.padding)
    }
}

impl Vqa {
    pub(super) fn answerer(&self) -> Answerer<'_> {
        Answerer {
            model: &self.model,
            decoder: &self.decoder,
        }
    }

    /// What the answers of a shard cost, each times its share, `[1]`; `soft` is the share of the
    /// momentum copy's predictions.
    pub(super) fn loss(&self, shard: &Shard<Asked>, soft: f64, device: &Device) -> Tensor<1> {
        let questions = Questions::new(shard, device);
        let all = || {
            let items = shard.items.iter().enumerate();
            items.flat_map(|(question, asked)| asked.answers.iter().map(move |a| (question, a)))
        };
        let rows = all().map(|(question, answer)| (question, &answer.tokens));
        let answers = Answers::new(rows, shard, device);
        let shares: Vec<f32> = all().map(|(_, answer)| answer.share).collect();
        let shares = Tensor::<1>::from_data(&shares[..], device);
        let logits = self.answerer().logits(&questions, &answers);
        let soft = (soft > 0.0).then(|| {
            let copy = Answerer {
                model: self.momentum_model.encoder(),
                decoder: self.momentum_decoder.encoder(),
            };
            let teacher = copy.logits(&questions.inner(), &answers.inner());
            let teacher = if device.is_autodiff() {
                Tensor::from_inner(teacher)
            } else {
                teacher
            };
            (teacher, soft)
        });
        (answers.costs(logits, soft) * shares).sum()
    }

    fn output(loss: Tensor<1>, figures: Vec<Figure>) -> Output {
        Output {
            loss,
            losses: Vec::new(),
            logit_scale: None,
            embeddings: None,
            figures,
        }
    }
}

impl System for Vqa {
    const NAME: &'static str = "albef";
    const FIGURES: &'static [&'static str] = &["Accuracy"];

    type Config = VqaConfig;
    type Examples = QuestionExamples;
    type Carry = ();

    fn begun(self, config: &VqaConfig) -> Result<Self> {
        Ok(self.start(config))
    }

    fn at(mut self, moment: &Moment) -> Self {
        self.moment = *moment;
        self
    }

    fn train_on(&self, batch: &[Shard<Asked>], sharding: &Sharding) -> Step<()> {
        let device = self.device();
        let own: usize = batch.iter().map(|shard| shard.items.len()).sum();
        let questions = (own * sharding.workers()) as f64;
        let step = sharding.backward(
            self,
            batch,
            |model: &Self, shard| {
                let loss = model.loss(shard, model.soft_share(), &device);
                Encoded::new([(loss / questions).unsqueeze()])
            },
            |parts| parts[0].clone().sum(),
        );
        Step {
            output: Self::output(step.loss, Vec::new()),
            gradients: step.gradients,
            carry: (),
        }
    }

    fn updated(mut self, _carried: Vec<()>) -> Self {
        self.momentum_model = self.momentum_model.update(&self.model);
        self.momentum_decoder = self.momentum_decoder.update(&self.decoder);
        self
    }

    /// The loss is that of the answers alone, without the momentum copy: it is comparable over the
    /// training.
    fn infer(&self, batch: &[Shard<Asked>]) -> Output {
        let device = self.device();
        let questions: usize = batch.iter().map(|shard| shard.items.len()).sum();
        let losses = batch.iter().map(|shard| self.loss(shard, 0.0, &device));
        let loss = losses.reduce(|sum, loss| sum + loss).expect("a shard");
        let credits = batch.iter().flat_map(|shard| {
            let given = self.answer(shard, &device).into_iter();
            let given = given.zip(&shard.items);
            given.map(|(given, asked)| asked.credit(given.place))
        });
        let accuracy = Figure {
            sum: 100.0 * credits.sum::<f64>(),
            count: questions as f64,
        };
        Self::output(loss / questions as f64, vec![accuracy])
    }

    fn logit_scale(&self) -> Option<Tensor<1>> {
        None
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        let bert = &self.model.bert;
        vec![
            ("image encoder", self.model.image.num_params()),
            (
                "text encoder",
                bert.embeddings.num_params() + bert.text.num_params(),
            ),
            ("fusion encoder", bert.fusion.num_params()),
            ("decoder", self.decoder.num_params()),
        ]
    }
}
