//! A softmax contrast of samples that consist of tokens, compared by late interaction.

use burn::tensor::Tensor;

use super::Contrastive;
use super::candidates::{Known, Shared, Source};
use crate::check;
use crate::pairwise::rows;
use crate::similarity::Tokens;
use crate::weighting::LogWeight;

impl Contrastive {
    /// The loss of a batch of images and texts given by their tokens, mean over the pairs, in nats
    /// (FILIP: Yao et al. 2022, *FILIP: Fine-grained Interactive Language-Image Pre-Training*,
    /// section 3; all tokens take part).
    ///
    /// The similarity of an image for a text is the mean over the image's tokens of the largest
    /// similarity with a token of the text; that of a text for an image has the roles exchanged.
    /// They differ, so each direction has a matrix of its own, and the cost is two passes over all
    /// pairs of tokens, in blocks: see
    /// [`SimilarityConfig`](crate::similarity::SimilarityConfig)`::late_interaction`, which also
    /// says what samples without any token that counts are worth. Everything of the
    /// [`Criterion`](super::Criterion) that needs nothing besides the batch applies.
    ///
    /// # Shapes
    ///
    /// - `image`: `[N, P, D]`, `text`: `[N, T, D]`, row `i` of one belongs to row `i` of the other
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// Where counts of rows, widths, dtypes or devices of `image` and `text` differ, the batch is
    /// empty, the objective was built on another device, or the criterion has soft targets or
    /// needs a teacher.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::{Bool, Device, Distribution, Tensor};
    /// use burn_contrastive::objective::InfoNceConfig;
    /// use burn_contrastive::similarity::Tokens;
    ///
    /// let device = Device::default().autodiff();
    /// // Nine patches an image; at most four words a text, of which the second has two.
    /// let image = Tensor::<3>::random([2, 9, 16], Distribution::Default, &device).require_grad();
    /// let text = Tensor::<3>::random([2, 4, 16], Distribution::Default, &device).require_grad();
    /// let words = [[true, true, true, true], [true, true, false, false]];
    /// let words = Tensor::<2, Bool>::from_data(words, &device);
    ///
    /// let objective = InfoNceConfig::new().init(&device);
    /// let text_tokens = Tokens::new(text.clone()).with_mask(words);
    /// let loss = objective.forward_late_interaction(Tokens::new(image), text_tokens);
    /// assert_eq!(loss.dims(), [1]);
    /// assert_eq!(text.grad(&loss.backward()).unwrap().dims(), [2, 4, 16]);
    /// ```
    #[track_caller]
    pub fn forward_late_interaction(&self, image: Tokens, text: Tokens) -> Tensor<1> {
        let log_weight = self.log_weight();
        self.check_late_interaction(log_weight.as_ref(), [&image, &text]);
        let shared = Shared {
            criterion: &self.criterion,
            log_weight: log_weight.as_ref(),
            scale: self.logit_scale.for_embeddings(self.name, &image.rows()),
            positive_teacher: None,
        };
        let similarity = self.criterion.similarity;
        let sides = [image, text].map(|tokens| similarity.prepare_tokens(tokens));
        let mut groups = Vec::new();
        for direction in [0, 1] {
            let mut add = |source, candidates: &Tokens| {
                let anchors = sides[direction].clone();
                let pairs = similarity.late_interaction(anchors, candidates.clone());
                let views = [(direction, rows())];
                groups.push(shared.group(source, pairs, &views, Known::default()));
            };
            add(Source::Batch, &sides[1 - direction]);
            if self.criterion.within_modality {
                add(Source::OwnModality, &sides[direction]);
            }
        }
        self.weighted(self.losses(groups, [None, None])).mean()
    }

    #[track_caller]
    fn check_late_interaction(&self, log_weight: Option<&LogWeight>, [image, text]: [&Tokens; 2]) {
        let caller = self.name;
        let [image, text] = [&image.embeddings, &text.embeddings];
        check::comparable_tokens(caller, ("image", image), ("text", text));
        let [images, texts] = [image.dims()[0], text.dims()[0]];
        assert!(
            images == texts,
            "{caller}: `image` has {images} rows, `text` has {texts}: row i of one belongs to row \
             i of the other, both need the same number"
        );
        assert!(
            !self.criterion.needs_teacher(log_weight),
            "{caller}: the weights or the filter of negatives read a teacher's features, which \
             late interaction does not take: use weights of the student's similarities, or none"
        );
        assert!(
            self.criterion.soft_targets == 0.0,
            "{caller}: `soft_targets` is {}, it must be 0 with late interaction, which takes no \
             features of a momentum encoder or a teacher",
            self.criterion.soft_targets
        );
    }
}
