//! The mutual information that a contrast bounds.

use burn::tensor::Tensor;

/// The lower bound on the mutual information of anchors and positives from InfoNCE losses, in nats:
/// `ln K − mean loss`, for `K` candidates of each anchor, the positive and its negatives.
///
/// The losses are those of one direction:
/// [`Contrastive::forward_directions`](crate::objective::Contrastive::forward_directions). With
/// the negatives of a batch of `N` pairs alone, `K` is `N`. (van den Oord et al. 2018; Jiang et
/// al. 2023, equation 2. With weighted negatives it bounds the difference to the mutual
/// information of the negatives, equation 36: see
/// [`BatchWeights::information`](super::BatchWeights::information).)
///
/// # Shapes
///
/// - `losses`: `[N]`
/// - returns `[1]`
///
/// # Panics
///
/// If `candidates` is 0.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::analysis::mutual_information_bound;
/// use burn_contrastive::objective::{Context, ContrastiveConfig};
///
/// let device = Device::default();
/// let equal = Tensor::<2>::ones([4, 3], &device);
/// let contrast = ContrastiveConfig::new().init(&device);
/// let [by_image, _] = contrast.forward_directions(equal.clone(), equal, Context::default());
/// // Equal embeddings carry no information.
/// let bound = mutual_information_bound(by_image, 4).into_scalar::<f32>();
/// assert!(bound.abs() < 1e-6);
/// ```
#[track_caller]
pub fn mutual_information_bound(losses: Tensor<1>, candidates: usize) -> Tensor<1> {
    assert!(
        candidates > 0,
        "mutual_information_bound: `candidates` is 0, it needs at least the positive"
    );
    losses.mean().neg() + (candidates as f64).ln()
}
