//! Image-text matching and masked language modelling.

use burn::tensor::{Bool, DType, Device, Int, Tensor};
use burn_contrastive::objective::{
    ImageTextMatchingConfig, Masked, MaskedLanguageConfig, MatchingPairs,
};
use burn_contrastive::pairwise::Positives;

use super::*;
use crate::oracle::{self, Matrix, log_sum_exp};

on_every_backend! {
    image_text_matching_is_the_cross_entropy_of_its_logits,
    missing_pairs_have_no_loss_and_no_gradient,
    masked_language_modelling_is_the_cross_entropy_of_masked_tokens,
    masking_is_the_same_on_every_device,
}

/// With autodiff, and with autodiff and gradient checkpointing.
fn autodiff_devices(backend: &Backend) -> [Device; 2] {
    [backend.autodiff(), backend.checkpointing()]
}

/// Mean over the rows of `−Σ_k target_k·log softmax(logits)_k`.
fn cross_entropy(logits: &Matrix, target: impl Fn(usize) -> Vec<f64>) -> f64 {
    let of = |i: usize| {
        let (row, target) = (logits.row(i), target(i));
        let log_sum = log_sum_exp(row);
        row.iter()
            .zip(target)
            .map(|(z, t)| t * (log_sum - z))
            .sum::<f64>()
    };
    (0..logits.rows).map(of).sum::<f64>() / logits.rows as f64
}

fn one_hot(width: usize, k: usize) -> Vec<f64> {
    (0..width).map(|j| f64::from(u8::from(j == k))).collect()
}

fn image_text_matching_is_the_cross_entropy_of_its_logits(backend: &Backend) {
    let embeddings = [400, 401].map(|seed| backend.tensor(&random(3, 4, seed), DType::F32));
    let objective = ImageTextMatchingConfig::new().init();
    let [image, text] = embeddings;
    let pairs = objective.pairs(image, text, Positives::Diagonal, 0);
    let logits = random(9, 2, 402);
    let target = |i: usize| one_hot(2, usize::from(i < 3));
    let loss_of = |x: &[f64]| cross_entropy(&with_values(&logits, x), target);
    let expected = oracle::gradient(loss_of, &logits.values, 1e-4);
    for device in autodiff_devices(backend) {
        let tracked = on(&device, &logits, DType::F32).require_grad();
        let loss = objective.forward(tracked.clone(), &pairs);
        let gradients = loss.backward();
        assert_close(&elements(loss), &[loss_of(&logits.values)], 1e-6);
        assert_close(&gradient(&tracked, &gradients), &expected, 1e-5);
    }
}

fn missing_pairs_have_no_loss_and_no_gradient(backend: &Backend) {
    let integers = |x: [i32; 4]| Tensor::<1, Int>::from_data(x, &backend.device);
    let flags = |x: [bool; 4]| Tensor::<1, Bool>::from_data(x, &backend.device);
    let pairs = MatchingPairs {
        image: integers([0, 1, 0, 0]),
        text: integers([0, 1, 1, 0]),
        matches: flags([true, true, false, false]),
        exists: flags([true, true, true, false]),
    };
    let objective = ImageTextMatchingConfig::new().init();
    let logits = random(4, 2, 403);
    let tracked = on(&backend.autodiff(), &logits, DType::F32).require_grad();
    let loss = objective.forward(tracked.clone(), &pairs);
    let gradient = elements(tracked.grad(&loss.backward()).unwrap());
    let kept = Matrix::new(3, 2, logits.values[..6].to_vec());
    let expected = cross_entropy(&kept, |i| one_hot(2, usize::from(i < 2)));
    assert_close(&elements(loss), &[expected], 1e-6);
    assert_eq!(gradient[6..], [0.0, 0.0]);
    let features = Tensor::<3>::from_data([[[1.0, 2.0]], [[3.0, 4.0]]], &backend.device);
    assert_eq!(
        elements(pairs.images(features.clone())),
        [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 1.0, 2.0]
    );
    assert_eq!(
        elements(pairs.texts(features)),
        [1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 1.0, 2.0]
    );
}

fn masked_language_modelling_is_the_cross_entropy_of_masked_tokens(backend: &Backend) {
    let objective = MaskedLanguageConfig::new(5, 0, vec![0]).init();
    let masked = Masked {
        tokens: Tensor::zeros([2, 3], &backend.device),
        positions: vec![1, 3, 5],
        targets: vec![4, 0, 2],
    };
    let (logits, teacher) = (random(6, 5, 404), random(3, 5, 405));
    let hidden = |x: &Matrix| {
        let rows = masked.positions.iter().flat_map(|&p| x.row(p).to_vec());
        Matrix::new(3, 5, rows.collect())
    };
    let target = |alpha: f64| {
        let (teacher, targets) = (teacher.clone(), masked.targets.clone());
        move |i: usize| -> Vec<f64> {
            let log_sum = log_sum_exp(teacher.row(i));
            let soft = teacher.row(i).iter().map(|z| alpha * (z - log_sum).exp());
            soft.zip(one_hot(5, targets[i]))
                .map(|(s, h)| s + (1.0 - alpha) * h)
                .collect()
        }
    };
    for device in autodiff_devices(backend) {
        for alpha in [0.0, 0.4] {
            let loss_of =
                |x: &[f64]| cross_entropy(&hidden(&with_values(&logits, x)), target(alpha));
            let tracked = on(&device, &logits, DType::F32).require_grad();
            let states = tracked.clone().reshape([2, 3, 5]);
            let loss = if alpha == 0.0 {
                objective.forward(states, &masked)
            } else {
                let gathered = masked.gather(states).unwrap();
                let teacher = backend.tensor(&teacher, DType::F32);
                objective.forward_distilled(gathered, teacher, alpha, &masked)
            };
            let gradients = loss.backward();
            assert_close(&elements(loss), &[loss_of(&logits.values)], 1e-5);
            let expected = oracle::gradient(loss_of, &logits.values, 1e-4);
            assert_close(&gradient(&tracked, &gradients), &expected, 1e-5);
        }
    }
}

fn masking_is_the_same_on_every_device(backend: &Backend) {
    let tokens = Tensor::<2, Int>::from_data(
        [[9, 5, 6, 7, 8, 4, 5, 6], [9, 4, 4, 8, 0, 0, 0, 0]],
        &backend.device,
    );
    let objective = MaskedLanguageConfig::new(10, 3, vec![0, 9])
        .with_probability(0.5)
        .init();
    let masked = objective.mask(tokens.clone(), 2);
    let (before, after) = (
        elements(tokens.float()),
        elements(masked.tokens.clone().float()),
    );
    assert_eq!(masked.tokens.dims(), [2, 8]);
    // The positions must not change between versions: a resumed run would mask other tokens.
    assert_eq!(masked.positions, [1, 2, 3, 6, 10]);
    for (&position, &target) in masked.positions.iter().zip(&masked.targets) {
        assert_eq!(before[position], target as f64);
    }
    assert!((0..16).all(|k| before[k] == after[k] || masked.positions.contains(&k)));
}
