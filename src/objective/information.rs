//! Mutual information as a contrast bounds it.

use burn::tensor::Tensor;

/// The lower bound on the mutual information of anchors and positives that InfoNCE losses give: `ln K − mean loss`, in nats,
/// for `K` candidates an anchor, the positive and its negatives.
///
/// Of one direction at a time: the losses of [`Contrastive::forward_directions`](super::Contrastive::forward_directions), or the
/// [`forward_no_reduction`](super::InfoNce::forward_no_reduction) of an objective with one direction. In a batch of `N` alone, `K` is `N`.
/// (van den Oord et al. 2018; Jiang et al. 2023, equation 2. For weighted negatives it bounds the difference to that of the
/// negatives, equation 36: see [`BatchWeights::information`](crate::weighting::BatchWeights::information).)
///
/// # Shapes
///
/// - `losses`: `[N]`
/// - returns `[1]`
///
/// # Panics
///
/// Where there are no candidates.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::objective::{Context, ContrastiveConfig, mutual_information_bound};
///
/// let device = Device::default();
/// let equal = Tensor::<2>::ones([4, 3], &device);
/// let contrast = ContrastiveConfig::new().init(&device);
/// let [by_image, _] = contrast.forward_directions(equal.clone(), equal, Context::default());
/// // Equal embeddings tell nothing.
/// let bound = mutual_information_bound(by_image, 4).into_scalar::<f32>();
/// assert!(bound.abs() < 1e-6);
/// ```
#[track_caller]
pub fn mutual_information_bound(losses: Tensor<1>, candidates: usize) -> Tensor<1> {
    assert!(
        candidates > 0,
        "mutual_information_bound: `candidates` is 0, the positive is one"
    );
    losses.mean().neg() + (candidates as f64).ln()
}
