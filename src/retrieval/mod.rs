//! How well embeddings of two modalities find their pairs.
//!
//! | what | function | papers' name |
//! |---|---|---|
//! | ranks both ways, several captions an image | [`cross_modal`] → [`CrossModal`] | R@1, R@5, R@10, R@sum |
//! | the mean over five folds of the images | [`five_fold`] → [`CrossModalMetrics`] | MS-COCO 1K |
//! | precision among the k nearest, by label | [`precision_at_k`] | Prec@k |
//! | similarities of positives and of negatives | [`similarity_histogram`] → [`SimilarityHistogram`] | similarity distributions |
//!
//! Similarity is the cosine: every function normalises the embeddings itself, so give them as the encoder made them.
//! Rows of f16 and bf16 widen to f32 first; f64 stays f64. Tensors that track gradients are detached: no graph is kept.
//!
//! # Ties never help
//! A negative as similar as the positive ranks before it, so N equal embeddings score R@1 = 0, not 100. Floating-point
//! matrix products may differ in the last bits between two places of one matrix, even for equal rows; hence two cosines
//! are *equal* when they differ by no more than **2 ε √D**, with ε the machine epsilon of the dtype computed in
//! (f32: 5.4e-6 at D = 512), which covers the rounding of a dot product of unit vectors with room to spare. (A device that
//! multiplies f32 matrices in a shorter format, such as tf32, adds that format's error to all similarities.)
//!
//! # NaN in, NaN out
//! A query whose embedding, or any of whose candidates' embeddings, holds a NaN or an infinity has no rank
//! ([`None`] in [`Ranks::as_slice`]), and every figure that would need that rank is NaN. A NaN never scores a hit. A zero
//! vector is not an error: its cosine with everything is 0, so it ties with all and ranks last.
//!
//! # Memory
//! Similarities are computed in blocks of [`Blocks`], 512 × 2,048 unless said, and never all at once. Beyond the embeddings
//! and one normalised copy of them, an evaluation holds at most
//! [`Blocks::BYTES_PER_SIMILARITY`] bytes for each similarity of one block (24 MiB by default; twice that in f64) and a few
//! numbers for each row: 25,000 captions against 5,000 images need no 500 MB matrix. A block's shape changes speed and
//! memory, not results.
//!
//! # Example
//! ```
//! use burn::tensor::{Device, Tensor};
//! use burn_contrastive::retrieval::cross_modal;
//!
//! let device = Device::default();
//! let images = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], &device);
//! // Two captions of the first image, one of the second; the second caption is nearer to the wrong image.
//! let texts = Tensor::<2>::from_data([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], &device);
//!
//! let found = cross_modal(images, texts, &[0, 0, 1]);
//! assert_eq!(found.image_to_text.recall_at(1), 100.0);
//! assert_eq!(found.text_to_image.as_slice(), [Some(1), Some(2), Some(1)]);
//! println!("{}", found.metrics());
//! ```

mod blocks;
mod cross_modal;
mod histogram;
mod metrics;
mod precision;
mod ranks;

#[cfg(feature = "train")]
mod train;

pub use blocks::Blocks;
pub use cross_modal::{CrossModal, cross_modal, five_fold};
pub use histogram::{SimilarityHistogram, SimilarityMoments, similarity_histogram};
pub use metrics::{CrossModalMetrics, RankMetrics};
pub use precision::precision_at_k;
pub use ranks::Ranks;
#[cfg(feature = "train")]
pub use train::{
    LogitScaleInput, LogitScaleMetric, RetrievalDirection, RetrievalInput, RetrievalRecallMetric,
};
