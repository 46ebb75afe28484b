//! NT-Xent, the loss of SimCLR: each of 2·N samples must find its partner among all the others.
//!
//! With the images and the texts as one set `x_0 … x_{2N−1}`, and `i'` the partner of `i`:
//!
//! ```text
//! L = 1/(2·N)·Σ_i −log( e^{cos(x_i, x_i')/τ} / Σ_{j≠i} e^{cos(x_i, x_j)/τ} )
//! ```
//!
//! The two sides may also be two views of one modality. This is half of [`Mvn`](super::Mvn), whose
//! gradient and cost it has.
//! τ is that of [`NtXentConfig::logit_scale`], fixed at 0.1; [`NtXentConfig::directions`] averages.
//!
//! **Degenerate cases.** One pair: 0. N equal embeddings: `ln(2·N − 1)`.
//!
//! **Source.** Chen et al. 2020, equation 1 and algorithm 1 (SimCLR).

use super::contrastive::{Criterion, Directions};
use super::entry::preset;
use crate::similarity::LogitScaleConfig;

config! {
    /// Configuration of [`NtXent`].
    pub struct NtXentConfig {
        /// The logit scale. Default: fixed, temperature 0.1 (SimCLR).
        logit_scale: LogitScaleConfig = "LogitScaleConfig::fixed(0.1)",
        /// Whether the two directions are added or averaged. Default: averaged (SimCLR: over all
        /// anchors).
        directions: Directions = "Directions::Mean",
    }
}

preset! {
    /// NT-Xent over the cosines of paired embeddings; built by [`NtXentConfig::init`].
    ///
    /// `L = ½·mean_i [ CE over texts and other images + CE over images and other texts ]`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::NtXentConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// let loss = NtXentConfig::new().init(&device).forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 7f32.ln()).abs() < 1e-5);
    /// ```
    NtXent = NtXentConfig, "nt-xent";
    criterion(_config) = Criterion::new().with_within_modality(true);
    parameters(config) = [];
}
