//! Contrastive objectives for paired embeddings (image and text first) on [Burn](https://burn.dev).
//!
//! An objective is built from its config and called on two batches of embeddings whose rows
//! correspond. It returns a differentiable scalar:
//!
//! ```
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_contrastive::objective::InfoNceConfig;
//!
//! let device = Device::default().autodiff();
//! let image = Tensor::<2>::random([8, 16], Distribution::Default, &device).require_grad();
//! let text = Tensor::<2>::random([8, 16], Distribution::Default, &device).require_grad();
//!
//! let objective = InfoNceConfig::new().init(&device);
//! let loss = objective.forward(image.clone(), text); // shape [1]
//! let gradients = loss.backward();
//! assert_eq!(image.grad(&gradients).unwrap().dims(), [8, 16]);
//! ```
//!
//! # What is here
//!
//! Time of forward and backward is a multiple of InfoNCE's, `N²·D` for batches of `N` pairs and
//! width `D`; memory is `N·D` for all. Equations and advice: `docs/objectives.md`.
//!
//! | objective | name | source |
//! |---|---|---|
//! | [`InfoNce`](objective::InfoNce) | `info-nce` | CLIP, ConVIRT |
//! | [`ConVse`](objective::ConVse) | `con-vse` | Jain & Verma |
//! | [`Mvn`](objective::Mvn) | `mvn` | Jain & Verma |
//! | [`NtXent`](objective::NtXent) | `nt-xent` | SimCLR |
//! | [`Decoupled`](objective::Decoupled) | `dcl` | Yeh et al. 2022 |
//! | [`Srcl`](objective::Srcl) | `srcl` | Jiang et al. 2023 (SRCL) |
//! | [`FalseNegativeRemoval`](objective::FalseNegativeRemoval) | `false-negative-removal` | SRCL |
//! | [`InfoCmr`](objective::InfoCmr) | `info-cmr` | ITContrast |
//! | [`MultiPositive`](objective::MultiPositive) | `multi-positive` | SupCon |
//! | [`ImageTextContrastive`](objective::ImageTextContrastive) | `image-text-contrastive` | ALBEF |
//! | [`Vse`](objective::Vse) | `vse` | Faghri et al. 2018 |
//! | [`VsePlusPlus`](objective::VsePlusPlus) | `vse-plus-plus` | Faghri et al. 2018 |
//! | [`ConVsePlusPlus`](objective::ConVsePlusPlus) | `con-vse-plus-plus` | Jain & Verma |
//! | [`MaxMargin`](objective::MaxMargin) | `max-margin` | PyTorch |
//! | [`SigLip`](objective::SigLip) | `siglip` | Zhai et al. 2023 |
//! | [`ReCo`](objective::ReCo) | `reco` | Lin et al. |
//! | [`Orthogonality`](objective::Orthogonality) | `orthogonality` | Lin et al. |
//! | [`Alignment`](objective::Alignment) | `alignment` | Wang & Isola 2020 |
//! | [`Uniformity`](objective::Uniformity) | `uniformity` | Wang & Isola 2020 |
//! | [`BarlowTwins`](objective::BarlowTwins) | `barlow-twins` | Zbontar et al. 2021 |
//! | [`ImageTextMatching`](objective::ImageTextMatching) | – | ALBEF |
//! | [`MaskedLanguage`](objective::MaskedLanguage) | – | BERT, ALBEF |
//!
//! - [`objective`]: what a training loop calls; [`ObjectiveConfig`](objective::ObjectiveConfig) is
//!   any of them by its name, and [`WeightedSum`](objective::WeightedSum) adds some up.
//! - [`negatives`]: where negatives come from besides the batch: a queue, hard sampling, synthesis,
//!   noise.
//! - [`momentum`]: a slowly moving copy of an encoder.
//! - [`similarity`]: l2 normalisation, cosine similarity, late interaction of tokens, the
//!   (learnable, clamped) logit scale.
//! - [`weighting`]: how much each negative counts, and its schedule.
//! - [`analysis`]: the weights that a batch's negatives get, and mutual information.
//! - [`pairwise`]: the engine under the objectives, and under yours: expressions of a pair, reduced
//!   over rows and columns of the similarity matrix.
//! - [`sharded`]: one exact step over the shards of a batch that is too large to encode at once.
//! - [`workers`]: threads, devices, processes and machines that share a step and its negatives.
//! - [`retrieval`]: recall@k, ranks, R@sum, precision@k, re-ranking, similarity histograms.
//!
//! # Memory
//!
//! Objectives stream: the similarities of all pairs are computed in blocks and reduced at once.
//! Memory is `O(N·D)` and a budget. An objective's config has a
//! [`similarity`](similarity::SimilarityConfig) with a `memory_budget`, 1 GiB by default, and an
//! [`Evaluation`](pairwise::Evaluation): `Auto` keeps as many similarities for the backward pass as
//! the budget holds (on CPU backends; fewer products then), `Streaming` keeps none, so that no
//! `N×N` matrix exists at any size, and `Dense` is the reference, with several `N×N` matrices.
//!
//! # Devices
//!
//! Burn's tensors carry no backend in their type: one build of an objective runs on every
//! [`Device`](burn::tensor::Device) whose backend is compiled in. The features `flex` (default),
//! `ndarray`, `wgpu`, `vulkan`, `metal`, `cuda`, `rocm` and `cpu` forward to Burn's. (`cpu` is the
//! kernels of GPUs on the CPU, for tests of them: `flex` is the fast backend there.)
//!
//! Where a backend is on in Burn and off here, values are computed in plain tensor operations, and
//! gradients are refused with a message that names the ways out: the feature, or
//! [`Evaluation::Dense`](pairwise::Evaluation::Dense).
//!
//! # Errors
//!
//! Misuse (shapes, devices, dtypes, configuration) panics with a message that names the argument,
//! what it got and what it needs. Embeddings are never broadcast. A NaN in the input gives a NaN in
//! the output, never a finite number.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod analysis;
mod check;
#[cfg(feature = "_cpu")]
mod host;
pub mod momentum;
pub mod negatives;
pub mod objective;
pub mod pairwise;
mod random;
pub mod retrieval;
pub mod schedule;
pub mod sharded;
pub mod similarity;
mod tensor;
pub mod weighting;
pub mod workers;

pub use check::ConfigError;

/// The programs of the guide are tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/adding-an-objective.md")]
struct AddingAnObjective;
