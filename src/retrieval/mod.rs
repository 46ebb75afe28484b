//! How well embeddings of two modalities find their pairs.
//!
//! | function | result | in papers |
//! |---|---|---|
//! | [`cross_modal`] | [`CrossModal`]: ranks both ways, several captions an image | R@k, R@sum |
//! | [`five_fold`] | [`CrossModalMetrics`]: means over five folds | MS-COCO 1K |
//! | [`precision_at_k`] | precision among the k nearest, by label | Prec@k |
//! | [`precision_by_chance`] | the same of a random order | |
//! | [`Shortlist`] | the k nearest of each query; [`Ranks`] after re-ranking them | matching head |
//! | [`Scores`] | the same from given scores instead of embeddings | ensembles |
//! | [`similarity_histogram`] | [`SimilarityHistogram`]: positives and negatives apart | figures |
//! | [`label_histogram`] | the same, by label | figures |
//! | [`auc`], [`MultiLabelAuc`] | area under the ROC curve of labels by scores | AUC |
//!
//! Similarity is the cosine: every function of embeddings normalises them. f16 and bf16 are widened
//! to f32, f64 stays f64. Tensors that track gradients are detached: no graph is kept.
//!
//! # Ties never help
//!
//! A negative as similar as the positive ranks before it, so N equal embeddings score R@1 = 0, not
//! 100. Two cosines are *equal* if they differ by no more than **2 ε √D**, with ε the machine
//! epsilon of the dtype computed in (f32: 5.4e-6 at D = 512). This covers the rounding of a dot
//! product of unit vectors, in which two places of one matrix may differ even for equal rows.
//!
//! # NaN in, NaN out
//!
//! If the embedding of a query or of any candidate holds a NaN or an infinity, the query has no
//! rank ([`None`] in [`Ranks::as_slice`]), and every metric that would need that rank is NaN. A
//! NaN never scores a hit. A zero vector is not an error: its cosine with everything is 0, so it
//! ties with all and ranks last.
//!
//! # Memory
//!
//! Similarities are computed in blocks, never all at once. Beyond the embeddings and one
//! normalised copy of them, an evaluation takes about 20 MiB (twice that in f64) and a few values
//! for each row: 25,000 captions against 5,000 images need no matrix of 500 MB. A [`Shortlist`]
//! holds 16 bytes for each candidate of each query.
//!
//! # Example
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use burn_contrastive::retrieval::cross_modal;
//!
//! let device = Device::default();
//! let images = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], &device);
//! // Two captions of the first image, one of the second; caption 1 is nearer to the wrong image.
//! let texts = Tensor::<2>::from_data([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], &device);
//!
//! let found = cross_modal(images, texts, &[0, 0, 1]);
//! assert_eq!(found.image_to_text.recall_at(1), 100.0);
//! assert_eq!(found.text_to_image.as_slice(), [Some(1), Some(2), Some(1)]);
//! println!("{}", found.metrics());
//! ```

mod auc;
mod cosines;
mod cross_modal;
mod histogram;
mod metrics;
mod precision;
mod ranks;
mod scores;
mod shortlist;

#[cfg(feature = "train")]
mod train;

pub use auc::{MultiLabelAuc, auc};
pub use cross_modal::{CrossModal, cross_modal, five_fold};
pub use histogram::{
    SimilarityHistogram, SimilarityMoments, label_histogram, similarity_histogram,
};
pub use metrics::{CrossModalMetrics, RankMetrics};
pub use precision::{precision_at_k, precision_by_chance};
pub use ranks::Ranks;
pub use scores::Scores;
pub use shortlist::Shortlist;
#[cfg(feature = "train")]
pub use train::{
    LogitScaleInput, LogitScaleMetric, RetrievalDirection, RetrievalInput, RetrievalRecallMetric,
};
