//! What the embeddings are like, whatever the objective: retrieval, similarities, geometry.

use burn::tensor::{Int, Tensor};
use burn_contrastive::objective::{Features, ObjectiveConfig};
use burn_contrastive::retrieval::{
    CrossModalMetrics, SimilarityHistogram, cross_modal, precision_at_k, similarity_histogram,
};
use burn_contrastive::similarity::l2_normalize;

use super::tensors::Embeddings;

/// Bins of the similarity histograms over [−1, 1], by which their overlap is judged.
pub const BINS: usize = 200;

/// Among how many nearest the precision by label is told.
pub const NEAREST: [usize; 3] = [1, 5, 10];

/// What the embeddings are like.
pub struct Statistics {
    /// The number of different images; the number of captions is that of the pairs.
    pub images: usize,
    /// Ranks of images and captions for each other.
    pub retrieval: CrossModalMetrics,
    /// What random embeddings would score.
    pub chance: CrossModalMetrics,
    /// Precision in percent among the [`NEAREST`] captions of an image, and images of a caption, by
    /// label; those that exceed the number of candidates left out.
    pub precision: Option<Precision>,
    /// Cosines of matching and of other pairs.
    pub similarity: SimilarityHistogram,
    /// `E ‖u − v‖²` over the pairs of the file.
    pub alignment: f64,
    /// `log E e^{−2 ‖u − v‖²}` over all images and captions.
    pub uniformity: f64,
    /// `‖E u − E v‖`, u the normalised images and v the normalised captions.
    pub modality_gap: f64,
}

/// Precision by label, in percent, with the number of nearest candidates.
pub struct Precision {
    /// Captions of the image's label among its nearest.
    pub image_to_text: Vec<(usize, f64)>,
    /// Images of the caption's label among its nearest.
    pub text_to_image: Vec<(usize, f64)>,
}

impl Statistics {
    /// Everything, in blocks: `O(N·D)` memory.
    pub fn of(embeddings: &Embeddings) -> Self {
        let Features { image, text, .. } = &embeddings.features;
        let pairs = text.dims()[0];
        let owners = match &embeddings.image_ids {
            Some(ids) => ids.clone(),
            None => (0..pairs).collect(),
        };
        // The first caption of each image, whose row of `image` is taken.
        let mut firsts = vec![usize::MAX; owners.iter().max().map_or(0, |last| last + 1)];
        for (caption, &owner) in owners.iter().enumerate() {
            firsts[owner] = firsts[owner].min(caption);
        }
        let images = if embeddings.image_of_text.is_some() || firsts.len() == pairs {
            embeddings.image.clone()
        } else {
            let rows: Vec<i32> = firsts.iter().map(|&row| row as i32).collect();
            let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &image.device());
            image.clone().select(0, rows)
        };
        let precision = embeddings.labels.as_ref().map(|labels| {
            let image_labels: Vec<_> = firsts.iter().map(|&row| labels[row]).collect();
            let among = |[queries, candidates]: [&Tensor<2>; 2], [own, others]: [&[usize]; 2]| {
                let ks: Vec<_> = NEAREST.into_iter().filter(|&k| k <= others.len()).collect();
                let found = precision_at_k(queries.clone(), own, candidates.clone(), others, &ks);
                ks.into_iter().zip(found).collect()
            };
            Precision {
                image_to_text: among([&images, text], [&image_labels, labels]),
                text_to_image: among([text, &images], [labels, &image_labels]),
            }
        });
        let read_out = |name: &str| {
            let objective = ObjectiveConfig::named(name).expect("an objective of the catalogue");
            let loss = objective
                .init(&image.device())
                .forward(&embeddings.features);
            loss.into_data().iter::<f64>().next().expect("one number")
        };
        let centre = |x: &Tensor<2>| l2_normalize(x.clone()).mean_dim(0);
        let gap = (centre(image) - centre(text)).into_data();
        Self {
            images: firsts.len(),
            retrieval: cross_modal(images.clone(), text.clone(), &owners).metrics(),
            chance: CrossModalMetrics::chance(&owners),
            precision,
            similarity: similarity_histogram(images, text.clone(), &owners, BINS),
            alignment: read_out("alignment"),
            uniformity: read_out("uniformity"),
            modality_gap: gap.iter::<f64>().map(|x| x * x).sum::<f64>().sqrt(),
        }
    }
}
