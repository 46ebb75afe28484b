//! The losses of [`Albef`], of features and of what was drawn: which negatives, which hidden words.

use burn::tensor::{Bool, Int, Tensor};
use burn_contrastive::negatives::PairFeatures;
use burn_contrastive::objective::{
    Features, Masked, MaskedLanguage, MaskedLanguageConfig, MatchingPairs,
};
use burn_contrastive::pairwise::Positives;

use super::config::MatchIds;
use super::{Albef, AlbefModel, Encoded, first};
use crate::data::Padding;
use crate::training::objective::logit_scale;

/// What the contrast reads of a batch, a row for each pair.
pub struct Rows {
    /// Embeddings of the images, `[pairs, embedding]`.
    pub image: Tensor<2>,
    /// Embeddings of the captions, `[pairs, embedding]`.
    pub text: Tensor<2>,
    /// Those of the momentum copy, of images and of captions.
    pub momentum: [Tensor<2>; 2],
    /// Ids of the images, `[pairs]`, on a device without autodiff.
    pub ids: Tensor<1, Int>,
    /// Those of the frozen teacher, where there is one.
    pub teacher: Option<[Tensor<2>; 2]>,
}

impl Rows {
    /// What a queue keeps of them.
    pub(super) fn into_carry(self) -> PairFeatures {
        let [image, text] = self.momentum;
        let carry = PairFeatures::new(image, text).with_ids(self.ids);
        match self.teacher {
            Some([image, text]) => carry.with_teacher(image, text),
            None => carry,
        }
    }
}

impl Albef {
    /// The pairs that matching is learned on: those of the batch, and hard negatives, which the
    /// student and its momentum copy find similar. A function of what it is given.
    pub fn draw_pairs(
        &self,
        encoded: &Encoded,
        momentum: &Encoded,
        ids: Tensor<1, Int>,
        draw: u64,
    ) -> MatchingPairs {
        let matching = match logit_scale(&self.objective) {
            Some(scale) => self.matching.with_logit_scale(scale),
            None => self.matching.clone(),
        };
        let positives = Positives::Labels {
            rows: ids.clone(),
            columns: ids,
        };
        matching.pairs(
            (encoded.image.clone(), momentum.image.clone()),
            (encoded.text.clone(), momentum.text.clone()),
            positives,
            draw,
        )
    }

    /// Matching: whether the matching head tells the pairs that match from the others.
    ///
    /// # Shapes
    ///
    /// - `padding`: `[batch, length]`, true where a caption of `encoded` is padding
    /// - output: `[1]`
    pub fn match_pairs(
        &self,
        encoded: &Encoded,
        padding: Tensor<2, Bool>,
        pairs: &MatchingPairs,
    ) -> Tensor<1> {
        let padding = padding.int().select(0, pairs.text.clone()).bool();
        let fused = self.model.fuse(
            pairs.texts(encoded.text_states.clone()),
            padding,
            pairs.images(encoded.image_tokens.clone()),
        );
        let logits = self.matching_head.forward(first(fused));
        self.matching.forward(logits, pairs)
    }

    /// Hides words of captions, `[batch, length]`; `None` where the tokenizer has no token that
    /// hides them. A function of what it is given.
    pub fn hide_words(
        &self,
        tokens: Tensor<2, Int>,
        padding: &Padding,
        draw: u64,
    ) -> Option<Masked> {
        let mask = padding.specials.mask?;
        let specials = [
            Some(padding.id),
            padding.specials.first,
            padding.specials.last,
        ];
        let specials = specials.into_iter().flatten().map(|id| id as usize);
        let language = self.language(mask as usize, specials.collect());
        Some(language.mask(tokens, draw))
    }

    /// Masked language: hidden words, predicted from the others and the image, with soft targets
    /// of the momentum copy, which sees the same. 0 where no word is hidden.
    ///
    /// # Shapes
    ///
    /// - `padding`: `[batch, length]`, true where a caption is padding
    /// - `encoded`, `momentum`: the images of the captions, by the student and by its copy
    /// - output: `[1]`
    pub fn predict_words(
        &self,
        padding: Tensor<2, Bool>,
        encoded: &Encoded,
        momentum: &Encoded,
        masked: &Masked,
    ) -> Tensor<1> {
        let logits = |model: &AlbefModel, tokens: Tensor<2, Int>, images: &Tensor<3>| {
            let padding = if tokens.device().is_autodiff() {
                padding.clone()
            } else {
                padding.clone().without_autodiff()
            };
            let states = model.bert.read(tokens, padding.clone());
            let states = masked.gather(model.fuse(states, padding, images.clone()))?;
            let head = model.language_head.as_ref()?;
            Some(head.forward(states, &model.bert.embeddings))
        };
        // Which words are hidden is decided; the loss asks for the vocabulary alone.
        let language = self.language(0, Vec::new());
        let student = logits(&self.model, masked.tokens.clone(), &encoded.image_tokens);
        let Some(student) = student else {
            return nothing(encoded);
        };
        let share = self.masking.soft_targets * self.ramp();
        if share == 0.0 {
            return language.forward_gathered(student, masked);
        }
        let tokens = masked.tokens.clone().without_autodiff();
        let soft = logits(self.momentum.encoder(), tokens, &momentum.image_tokens);
        let soft = soft.expect("the copy has the same head and sees the same tokens");
        language.forward_distilled(student, soft, share, masked)
    }

    fn language(&self, mask: usize, specials: Vec<usize>) -> MaskedLanguage {
        let vocabulary = self.model.bert.embeddings.words().dims()[0];
        MaskedLanguageConfig::new(vocabulary, mask, specials)
            .with_probability(self.masking.probability)
            .init()
    }

    /// The contrast of a batch with the queue, `[1]`.
    pub fn contrast(&self, rows: &Rows) -> Tensor<1> {
        let [momentum_image, momentum_text] = rows.momentum.clone().map(Some);
        let [teacher_image, teacher_text] = match rows.teacher.clone() {
            Some(both) => both.map(Some),
            None => [None, None],
        };
        let queue = self.queue.features().map(|queue| queue.like(&rows.image));
        let of_queue = |of: fn(&PairFeatures) -> Option<Tensor<2>>| queue.as_ref().and_then(of);
        let ids = queue.as_ref().and_then(|queue| queue.ids.clone());
        let label = if rows.image.device().is_autodiff() {
            Tensor::from_inner(rows.ids.clone())
        } else {
            rows.ids.clone()
        };
        let knows_ids = self.losses.ids != MatchIds::None;
        self.objective.forward(&Features {
            momentum_image,
            momentum_text,
            teacher_image,
            teacher_text,
            queue_image: of_queue(|queue| Some(queue.image.clone())),
            queue_text: of_queue(|queue| Some(queue.text.clone())),
            queue_teacher_image: of_queue(|queue| queue.teacher_image.clone()),
            queue_teacher_text: of_queue(|queue| queue.teacher_text.clone()),
            queue_image_label: ids.clone().filter(|_| knows_ids),
            queue_text_label: ids.filter(|_| knows_ids),
            label: Some(label).filter(|_| knows_ids),
            ..Features::new(rows.image.clone(), rows.text.clone())
        })
    }
}

/// A loss of 0, with gradients of 0.
pub(super) fn nothing(encoded: &Encoded) -> Tensor<1> {
    encoded.text.clone().slice([0..1, 0..1]).reshape([1]) * 0.0
}
