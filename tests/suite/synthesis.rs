//! Synthetic hard negatives: against the oracle, and degenerate clusters.

use burn::tensor::{DType, Device, Tensor};
use burn_contrastive::negatives::{HardNegativeSynthesisConfig, HardNegatives};
use burn_contrastive::similarity::SimilarityConfig;

use super::*;
use crate::oracle::{self, Matrix, synthesis};

on_every_backend! {
    one_cluster_matches_the_oracle,
    separated_clusters_match_the_oracle,
    prototypes_are_the_samples_nearest_to_the_cluster_center,
    a_sample_alone_in_its_cluster_gets_the_negative_of_another_cluster,
    gradients_match_the_oracle_when_enabled_and_are_absent_otherwise,
    degenerate_inputs_give_finite_repeatable_negatives,
}

fn synthesize(
    device: &Device,
    config: &HardNegativeSynthesisConfig,
    image: &Matrix,
    text: &Matrix,
) -> HardNegatives {
    let [image, text] = [image, text].map(|x| on(device, x, DType::F32));
    // At this step k-means starts with a sample of each of the separated clusters.
    config.init().synthesize(image, text, None, 2).unwrap()
}

/// The negatives of each anchor, in an order that does not depend on that of the clusters.
fn sorted(negatives: Tensor<3>) -> Vec<f64> {
    let [anchors, clusters, width] = negatives.dims();
    let values = elements(negatives);
    let mut of_anchors: Vec<_> = values.chunks(width).map(<[f64]>::to_vec).collect();
    assert_eq!(of_anchors.len(), anchors * clusters);
    for negatives in of_anchors.chunks_mut(clusters) {
        negatives.sort_by(|a, b| a.partial_cmp(b).unwrap());
    }
    of_anchors.concat()
}

fn expected(
    config: &HardNegativeSynthesisConfig,
    anchors: &Matrix,
    candidates: &Matrix,
    clusters: &[Vec<usize>],
) -> Vec<f64> {
    let (sigma, ridge) = (config.sigma, config.ridge);
    let mut of_anchors = synthesis::synthesize(anchors, candidates, clusters, sigma, ridge);
    for negatives in &mut of_anchors {
        negatives.sort_by(|a, b| a.partial_cmp(b).unwrap());
    }
    of_anchors.concat().concat()
}

/// `counts[k]` samples around the `k`-th axis.
fn groups(counts: &[usize], width: usize, seed: u64) -> (Matrix, Vec<Vec<usize>>) {
    let rows: usize = counts.iter().sum();
    let mut x = random(rows, width, seed);
    x.values.iter_mut().for_each(|v| *v *= 0.05);
    let (mut clusters, mut next) = (Vec::new(), 0);
    for (k, &count) in counts.iter().enumerate() {
        clusters.push((next..next + count).collect());
        (next..next + count).for_each(|i| x.values[i * width + k] += 1.0);
        next += count;
    }
    (x, clusters)
}

fn one_cluster_matches_the_oracle(backend: &Backend) {
    let (image, text) = (random(7, 4, 300), random(7, 4, 301));
    let all = [(0..7).collect()];
    for sigma in [0.1, 0.7] {
        let config = HardNegativeSynthesisConfig::new()
            .with_clusters(1)
            .with_sigma(sigma);
        for per_anchor in [false, true] {
            let config = config.clone().with_per_anchor(per_anchor);
            let hard = synthesize(&backend.device, &config, &image, &text);
            assert_eq!(hard.text.dims(), [7, 1, 4]);
            assert_close(
                &sorted(hard.text),
                &expected(&config, &image, &text, &all),
                1e-4,
            );
            assert_close(
                &sorted(hard.image),
                &expected(&config, &text, &image, &all),
                1e-4,
            );
        }
    }
}

fn separated_clusters_match_the_oracle(backend: &Backend) {
    let (image, image_clusters) = groups(&[3, 4, 2], 5, 302);
    let (text, text_clusters) = groups(&[4, 2, 3], 5, 303);
    let config = HardNegativeSynthesisConfig::new()
        .with_clusters(3)
        .with_sigma(0.3);
    let text_negatives = expected(&config, &image, &text, &text_clusters);
    let image_negatives = expected(&config, &text, &image, &image_clusters);
    for per_anchor in [false, true] {
        // With a budget for blocks of one anchor, too.
        for budget in [1, 1 << 20] {
            let similarity = SimilarityConfig::new().with_memory_budget(budget);
            let config = config
                .clone()
                .with_similarity(similarity)
                .with_per_anchor(per_anchor);
            let hard = synthesize(&backend.device, &config, &image, &text);
            assert_close(&sorted(hard.text), &text_negatives, 1e-4);
            assert_close(&sorted(hard.image), &image_negatives, 1e-4);
        }
    }
}

fn prototypes_are_the_samples_nearest_to_the_cluster_center(backend: &Backend) {
    // Three equal texts in the middle, and two around them that three prototypes leave out.
    let text = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.6, -0.8]].concat();
    let text = Matrix::new(5, 2, text);
    let image = random(5, 2, 304);
    let config = HardNegativeSynthesisConfig::new()
        .with_clusters(1)
        .with_max_prototypes(3);
    let hard = synthesize(&backend.device, &config, &image, &text);
    let expected = expected(&config, &image, &text, &[vec![0, 1, 2]]);
    assert_close(&sorted(hard.text), &expected, 1e-4);
}

fn a_sample_alone_in_its_cluster_gets_the_negative_of_another_cluster(backend: &Backend) {
    // Text 4 is alone in its cluster: image 4 gets the other cluster's negative twice.
    let (text, clusters) = groups(&[4, 1], 3, 305);
    let image = random(5, 3, 306);
    let config = HardNegativeSynthesisConfig::new()
        .with_clusters(2)
        .with_sigma(0.5);
    let hard = synthesize(&backend.device, &config, &image, &text);
    let last = elements(hard.text.clone().slice([4..5, 0..2, 0..3]));
    assert_eq!(last[..3], last[3..]);
    let own = synthesis::synthesize(&image, &text, &clusters[..1], 0.5, 1e-3);
    assert_close(&last[..3], &own[4][0], 1e-4);
    let first = Matrix::new(4, 3, image.values[..12].to_vec());
    let others = expected(&config, &first, &text, &clusters);
    assert_close(&sorted(hard.text)[..24], &others, 1e-4);
}

fn gradients_match_the_oracle_when_enabled_and_are_absent_otherwise(backend: &Backend) {
    let (image, text) = (random(5, 3, 307), random(5, 3, 308));
    let factors = random(5, 3, 309);
    let device = backend.autodiff();
    let config = HardNegativeSynthesisConfig::new()
        .with_clusters(1)
        .with_sigma(0.6);
    let evaluate = |gradients: bool| {
        let config = config.clone().with_gradients(gradients);
        let tracked = [&image, &text].map(|x| on(&device, x, DType::F32).require_grad());
        let [image, text] = tracked.clone();
        let hard = config.init().synthesize(image, text, None, 1).unwrap().text;
        let loss = hard.squeeze_dim::<2>(1) * on(&device, &factors, DType::F32);
        (tracked, loss.sum())
    };
    let (_, constant) = evaluate(false);
    assert!(!constant.is_require_grad());
    let (tracked, loss) = evaluate(true);
    assert_close(&elements(loss.clone()), &elements(constant), 1e-5);

    let gradients = loss.backward();
    let oracle = |image: &Matrix, text: &Matrix| -> f64 {
        let found = synthesis::synthesize(image, text, &[(0..5).collect()], 0.6, 1e-3);
        let found = found.concat().concat();
        found.iter().zip(&factors.values).map(|(x, f)| x * f).sum()
    };
    let with = |values: &[f64]| Matrix::new(5, 3, values.to_vec());
    let by_image = oracle::gradient(|x| oracle(&with(x), &text), &image.values, 1e-5);
    let by_text = oracle::gradient(|x| oracle(&image, &with(x)), &text.values, 1e-5);
    let [image, text] = tracked.map(|x| gradient(&x, &gradients));
    assert_close(&image, &by_image, 2e-3);
    assert_close(&text, &by_text, 2e-3);
}

fn degenerate_inputs_give_finite_repeatable_negatives(backend: &Backend) {
    let equal = equal_rows(9, 3, 310);
    let zeros = Matrix::new(9, 3, vec![0.0; 27]);
    let config = HardNegativeSynthesisConfig::new();
    for x in [&equal, &zeros, &random(9, 3, 311)] {
        let once = elements(synthesize(&backend.device, &config, x, &equal).image);
        assert_eq!(once.len(), 9 * 4 * 3);
        assert!(once.iter().all(|v| v.is_finite()), "{once:?}");
        assert_eq!(
            once,
            elements(synthesize(&backend.device, &config, x, &equal).image)
        );
    }
    let mut nan = equal.clone();
    nan.values[4] = f64::NAN;
    let config = config.with_clusters(1);
    let hard = synthesize(&backend.device, &config, &nan, &equal);
    assert!(elements(hard.image).iter().filter(|v| v.is_nan()).count() >= 24);
}
