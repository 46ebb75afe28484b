//! Training with a momentum copy that feeds a queue: whose features are compared, and when.

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{DType, Device, Int, Tensor};
use burn_contrastive::momentum::{MomentumEncoder, MomentumEncoderConfig};
use burn_contrastive::negatives::{
    FeatureQueueConfig, GaussianNegativesConfig, HardNegativeSynthesisConfig, PairFeatures,
};
use burn_contrastive::objective::{
    ImageTextMatchingConfig, InfoCmrConfig, MaskedLanguageConfig, Negatives,
};
use burn_contrastive::pairwise::Positives;

use super::*;
use crate::oracle::{Matrix, cosine, log_sum_exp};

on_every_backend! {
    the_queue_is_compared_with_features_of_the_momentum_copy,
    every_source_of_negatives_increases_the_loss,
    features_without_autodiff_are_constants_beside_tracked_ones,
}

const MOMENTUM: f64 = 0.9;
const TEMPERATURE: f64 = 0.05;
const PAIRS: usize = 3;
const CAPACITY: usize = 5;

/// Two linear towers.
#[derive(Module, Debug)]
struct Towers {
    image: Param<Tensor<2>>,
    text: Param<Tensor<2>>,
}

impl Towers {
    fn new(device: &Device) -> Self {
        let weight = |seed| Param::from_tensor(on(device, &random(4, 4, seed), DType::F32));
        Self {
            image: weight(430),
            text: weight(431),
        }
    }

    fn embed(&self, [image, text]: [Tensor<2>; 2]) -> [Tensor<2>; 2] {
        [image.matmul(self.image.val()), text.matmul(self.text.val())]
    }

    fn weights(&self) -> [Vec<f64>; 2] {
        [&self.image, &self.text].map(|weight| elements(weight.val()))
    }
}

fn product(x: &Matrix, weight: &[f64]) -> Matrix {
    let element =
        |i: usize, j: usize| -> f64 { (0..4).map(|k| x.row(i)[k] * weight[k * 4 + j]).sum() };
    let values = (0..x.rows).flat_map(|i| (0..4).map(move |j| element(i, j)));
    Matrix::new(x.rows, 4, values.collect())
}

/// InfoNCE both ways, summed, against the batch and the queue.
fn expected_loss([image, text]: &[Matrix; 2], queue: &[[Vec<f64>; 2]]) -> f64 {
    let direction = |anchors: &Matrix, others: &Matrix, side: usize| -> f64 {
        let of = |i: usize| {
            let logit = |x: &[f64]| cosine(anchors.row(i), x) / TEMPERATURE;
            let batch = (0..PAIRS).map(|j| logit(others.row(j)));
            let queued = queue.iter().map(|pair| logit(&pair[side]));
            let all: Vec<_> = batch.chain(queued).collect();
            log_sum_exp(&all) - all[i]
        };
        (0..PAIRS).map(of).sum::<f64>() / PAIRS as f64
    };
    direction(image, text, 1) + direction(text, image, 0)
}

/// The queue holds the features of the moving average, not the student's, nor those of an average
/// that was updated too early.
fn the_queue_is_compared_with_features_of_the_momentum_copy(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    let objective = InfoCmrConfig::new().init(&device);
    let mut student = Towers::new(&device);
    let mut momentum: MomentumEncoder<Towers> = MomentumEncoderConfig::new()
        .with_momentum(MOMENTUM)
        .init(&student);
    let mut queue = FeatureQueueConfig::new(4)
        .with_capacity(CAPACITY)
        .init(&device);

    let mut average = student.weights();
    let mut expected_queue: Vec<[Vec<f64>; 2]> = Vec::new();
    for step in 0..4 {
        let batch = [0, 1].map(|k| random(PAIRS, 4, 432 + 2 * step + k));
        let inputs = batch.each_ref().map(|x| on(&device, x, DType::F32));
        let plain = inputs.clone().map(Tensor::inner);
        let copied = momentum.encoder().embed(plain);
        let [image, text] = student.embed(inputs);
        let negatives = match queue.features() {
            Some(queued) => Negatives {
                image: Some(queued.image),
                text: Some(queued.text),
                ..Negatives::default()
            },
            None => Negatives::default(),
        };
        let loss = objective.forward_with(image, text, negatives);

        let weights = student.weights();
        let embedded = [0, 1].map(|k| product(&batch[k], &weights[k]));
        let expected = expected_loss(&embedded, &expected_queue);
        assert_close(&elements(loss.clone()), &[expected], 1e-4);

        let gradients = GradientsParams::from_grads(loss.backward(), &student);
        student = SgdConfig::new().init().step(0.5, student, gradients);
        let [image, text] = copied;
        queue = queue.push(PairFeatures::new(image, text));
        momentum = momentum.update(&student);

        // The same by hand; a student or an average one step later would differ visibly.
        let copied = [0, 1].map(|k| product(&batch[k], &average[k]));
        expected_queue.extend((0..PAIRS).map(|i| [0, 1].map(|k| copied[k].row(i).to_vec())));
        let oldest = expected_queue.len().saturating_sub(CAPACITY);
        expected_queue.drain(..oldest);
        for (average, weight) in average.iter_mut().zip(student.weights()) {
            let moved = average.iter().zip(&weight);
            *average = moved
                .map(|(a, w)| MOMENTUM * a + (1.0 - MOMENTUM) * w)
                .collect();
        }
        let moved: f64 = average[0]
            .iter()
            .zip(&student.weights()[0])
            .map(|(a, w)| (a - w).abs())
            .sum();
        assert!(moved > 0.05, "the student moves: {moved}");
    }
}

/// Negatives from every source at once, with tracked embeddings and the momentum copy's on the
/// device without autodiff, in every dtype: finite gradients, and each source increases the loss.
fn every_source_of_negatives_increases_the_loss(backend: &Backend) {
    for dtype in [&[DType::F32], &backend.dtypes[..]].concat() {
        let autodiff = backend.device.clone().autodiff();
        for device in [autodiff.clone(), autodiff.gradient_checkpointing()] {
            let objective = InfoCmrConfig::new().init(&device);
            let [image, text] =
                [440, 441].map(|seed| on(&device, &random(5, 4, seed), dtype).require_grad());
            let [copied_image, copied_text] =
                [442, 443].map(|seed| backend.tensor(&random(7, 4, seed), dtype));
            let queue = FeatureQueueConfig::new(4).with_capacity(7).init(&device);
            let queue = queue.push(PairFeatures::new(copied_image, copied_text));
            let queued = queue.features().unwrap().like(&image);
            let synthesis = HardNegativeSynthesisConfig::new().with_clusters(2).init();
            let hard = synthesis.synthesize(image.clone(), text.clone(), None, 0);
            let hard = hard.unwrap();
            let noise = GaussianNegativesConfig::new().with_count(3).init();

            let mut negatives = Negatives::default();
            let loss = |negatives: &Negatives| {
                objective.forward_with(image.clone(), text.clone(), negatives.clone())
            };
            let mut losses = vec![elements(loss(&negatives))[0]];
            negatives.image = Some(queued.image);
            negatives.text = Some(queued.text);
            losses.push(elements(loss(&negatives))[0]);
            negatives.noise = noise.draw(&image, 0);
            losses.push(elements(loss(&negatives))[0]);
            negatives.hard_image = Some(hard.image);
            negatives.hard_text = Some(hard.text);
            losses.push(elements(loss(&negatives))[0]);
            assert!(
                losses.windows(2).all(|pair| pair[0] < pair[1]),
                "{losses:?}"
            );

            let gradients = loss(&negatives).backward();
            for x in [&image, &text] {
                let gradient = elements(x.grad(&gradients).unwrap());
                assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
            }
        }
    }
}

/// A student on an autodiff device, its momentum copy without: ITM and MLM take both, on either.
fn features_without_autodiff_are_constants_beside_tracked_ones(backend: &Backend) {
    let plain = backend.device.clone();
    let autodiff = plain.clone().autodiff();
    let matching = ImageTextMatchingConfig::new().init();
    let language = MaskedLanguageConfig::new(6, 0, vec![]).init();
    let ids = [4, 2, 4, 1];
    let mut drawn = Vec::new();
    let mut losses = Vec::new();
    for (student, teacher) in [
        (&plain, &plain),
        (&autodiff, &plain),
        (&plain, &autodiff),
        (&autodiff, &autodiff),
    ] {
        let features = |device: &Device, seed| on(device, &random(4, 3, seed), DType::F32);
        let scale = Tensor::<1>::from_data([20.0], teacher);
        let labels = Tensor::<1, Int>::from_data(ids, student);
        let positives = Positives::Labels {
            rows: labels.clone(),
            columns: labels,
        };
        let pairs = matching.with_logit_scale(scale).pairs(
            (features(student, 450), features(teacher, 451)),
            (features(student, 452), features(teacher, 453)),
            positives,
            9,
        );
        let texts = elements(pairs.text.clone().float());
        for (i, &text) in texts[4..8].iter().enumerate() {
            assert_ne!(ids[i], ids[text as usize], "a match is drawn");
        }
        drawn.push([texts, elements(pairs.image.clone().float())]);

        let tokens = Tensor::<2, Int>::ones([2, 8], student);
        let masked = language.mask(tokens, 1);
        let count = masked.positions.len();
        assert!(count > 0);
        let logits = on(student, &random(count, 6, 454), DType::F32);
        let logits = if student.is_autodiff() {
            logits.require_grad()
        } else {
            logits
        };
        let soft = on(teacher, &random(count, 6, 455), DType::F32);
        let loss = language.forward_distilled(logits.clone(), soft, 0.5, &masked);
        if student.is_autodiff() {
            assert!(logits.grad(&loss.backward()).is_some());
        }
        losses.push(elements(loss));
    }
    assert!(drawn.iter().all(|other| *other == drawn[0]), "{drawn:?}");
    losses
        .iter()
        .for_each(|loss| assert_close(loss, &losses[0], 1e-6));
}
