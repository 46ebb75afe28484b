//! Image–caption pairs: from files on disk to batches of tensors.
//!
//! ```text
//! scenes ──► folder ──► karpathy | coco | table ──► Collection ──► PairLoader ──► Shards ──► Batch
//! (generator)           tar | parquet            │  ▲           (training, validation)
//!                       (readers) CaptionTokenizer┘  └Transform
//!                                                └─► EvaluationSet ──► each image, each caption
//! ```
//!
//! [`Questions`] and [`Statements`] are read likewise, from the forms of the public sets or from
//! what [`scenes`] adds to its folder; [`Studies`] have a form and a generator, [`findings`], of
//! their own.
//!
//! Everything drawn at random comes from [`random::stream`], a function of seed, epoch and example
//! alone, so that neither the number of threads nor an interruption changes what the model sees.

mod augment;
mod braces;
mod classified;
mod coco;
mod collection;
mod evaluation;
pub mod features;
pub mod findings;
mod generated;
mod karpathy;
mod listing;
mod loader;
mod named;
mod parquet;
mod picture;
mod prefetch;
mod prompts;
#[cfg(test)]
mod properties;
mod questions;
pub mod random;
pub mod regions;
mod sampler;
pub mod scenes;
mod shard;
mod shards;
mod source;
mod statements;
mod studies;
mod table;
mod tar;
#[cfg(test)]
mod testing;
pub mod text;
mod tokenizer;
mod transform;
mod word_vectors;

pub use augment::RandAugmentConfig;
pub use classified::ClassifiedImages;
pub use collection::{Collection, Example, Place, Skipped, Split};
pub use evaluation::{CaptionBatch, EvaluationSet};
pub use features::{FeatureFile, FeaturePair, FeaturePairs, FeatureWriter};
pub use findings::FindingsConfig;
pub use loader::{BUFFER, Loader, LoaderConfig, PairLoader};
pub use picture::{ImageFile, Picture, Pictures};
pub use prompts::ClassPrompts;
pub use questions::{Answer, Asked, Choices, Question, QuestionExamples, Questions, credit};
pub use regions::{RegionFile, RegionPair, RegionPairs, RegionWriter, Regions};
pub use sampler::{plan_batches, plan_buffered};
pub use scenes::{Scene, ScenesConfig};
pub use shard::{Pair, Shard};
pub use source::{Draw, Examples, Pairs};
pub use statements::{StatedPair, StatedPairs, Statement, Statements};
pub use studies::{
    ClassRetrieval, Labelled, LabelledImage, LabelledImages, Needs, Studies, Study, StudyPairs,
};
pub use tokenizer::{
    CaptionTokenizer, PaddedTokens, Padding, SpecialTokens, TokenStyle, TokenizerConfig,
};
pub use transform::{TransformConfig, decode};
pub use word_vectors::WordVectors;

use burn::tensor::{Bool, Int, Tensor};

/// Image–caption pairs as tensors; row `i` of every field belongs to pair `i`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Normalised pixels, `[pairs, 3, height, width]`.
    pub images: Tensor<4>,
    /// Token ids, `[pairs, length]`, padded at the end.
    pub tokens: Tensor<2, Int>,
    /// True where `tokens` is padding, `[pairs, length]`.
    pub padding: Tensor<2, Bool>,
    /// Index of each row's image in its collection.
    pub image_ids: Vec<usize>,
}
