//! Sharded steps: random encoders, finite differences, memory. One after the other, for Burn's
//! generator and this binary's count of bytes are the process's.
#![cfg(feature = "flex")]

mod counting;

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use burn_contrastive::objective::InfoNceConfig;
use burn_contrastive::sharded::{Encoded, Sharding};
use counting::peak_of;
use proptest::prelude::*;

fn exclusively() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn matrix(rows: usize, columns: usize, phase: f64) -> Tensor<2> {
    let values = (0..rows * columns).map(|i| (i as f64 * 0.61 + phase).sin());
    let data = TensorData::new(values.collect::<Vec<_>>(), [rows, columns]);
    Tensor::from_data(data, (&Device::flex().autodiff(), DType::F64))
}

fn elements(x: Tensor<2>) -> Vec<f64> {
    x.into_data().try_into_vec().unwrap()
}

/// A layer, or several of one weight a feature.
#[derive(Module, Debug)]
struct Tower {
    weights: Vec<Param<Tensor<2>>>,
}

/// Loss and gradient by the weight of one tower, which drops features at random or not.
fn step(
    sharding: &Sharding,
    sizes: &[usize],
    weight: &Tensor<2>,
    dropout: bool,
) -> (f64, Vec<f64>) {
    let mut start = 0;
    let shards: Vec<_> = sizes
        .iter()
        .map(|&size| {
            start += size;
            [0.0, 1.0].map(|phase| matrix(32, 6, phase).narrow(0, start - size, size))
        })
        .collect();
    let device = Device::flex().autodiff();
    let objective = InfoNceConfig::new().init(&device);
    let tower = Tower {
        weights: vec![Param::from_tensor(weight.clone())],
    };
    let step = sharding.backward(
        &tower,
        &shards,
        |tower: &Tower, shard| {
            let embed = |x: Tensor<2>| {
                let x = x.matmul(tower.weights[0].val()).tanh();
                if !dropout {
                    return x;
                }
                let mask = x.random_like(Distribution::Bernoulli(0.8));
                x * mask
            };
            Encoded::new(shard.clone().map(embed))
        },
        |embeddings| {
            let [image, text] = embeddings.try_into().unwrap();
            objective.forward(image, text)
        },
    );
    let gradient = step.gradients.get::<2>(tower.weights[0].id).unwrap();
    (step.loss.into_scalar::<f64>(), elements(gradient))
}

fn close(a: &(f64, Vec<f64>), b: &(f64, Vec<f64>), tolerance: f64) -> bool {
    let largest = b.1.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let near = |x: f64, y: f64, scale: f64| (x - y).abs() <= tolerance * scale;
    near(a.0, b.0, b.0.abs()) && a.1.iter().zip(&b.1).all(|(&x, &y)| near(x, y, largest))
}

#[test]
fn what_is_drawn_at_random_is_drawn_again() {
    let _lock = exclusively();
    let weight = matrix(6, 4, 2.0);
    let device = Device::flex();
    let seeded = |sharding: Sharding, seed| sharding.with_seed(&device, seed);
    let sizes = [5, 3, 8];
    let kept = step(&seeded(Sharding::keep(1), 7), &sizes, &weight, true);
    let again = step(&seeded(Sharding::recompute(), 7), &sizes, &weight, true);
    assert!(close(&again, &kept, 1e-12), "{again:?} {kept:?}");
    let other = step(&seeded(Sharding::recompute(), 8), &sizes, &weight, true);
    assert!(!close(&other, &kept, 1e-3), "another seed draws the same");
}

#[test]
fn gradients_are_finite_differences() {
    let _lock = exclusively();
    let device = Device::flex();
    for dropout in [false, true] {
        let run = |weight: &Tensor<2>| {
            let sharding = Sharding::recompute().with_seed(&device, 3);
            step(&sharding, &[4, 1, 3], weight, dropout)
        };
        let weight = matrix(6, 4, 2.0);
        let (_, gradient) = run(&weight);
        for (k, expected) in gradient.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut values = elements(weight.clone());
                values[k] += by;
                let data = TensorData::new(values, [6, 4]);
                let weight = Tensor::from_data(data, (&device.clone().autodiff(), DType::F64));
                run(&weight).0
            };
            let found = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!(
                (found - expected).abs() < 1e-7,
                "element {k}, dropout {dropout}: {found}, gradient {expected}"
            );
        }
    }
}

/// A layer whose parameters are drawn when they are first read, and Burn's own dropout.
#[derive(Module, Debug)]
struct Lazy {
    layer: Linear,
    dropout: Dropout,
}

#[test]
fn parameters_are_drawn_before_the_shards_draw() {
    let _lock = exclusively();
    let device = Device::flex().autodiff();
    let objective = InfoNceConfig::new().init(&device);
    let run = |sharding: Sharding| {
        device.seed(5);
        let model = Lazy {
            layer: LinearConfig::new(6, 4).init(&device),
            dropout: DropoutConfig::new(0.3).init(),
        };
        let step = sharding.with_seed(&device, 7).backward(
            &model,
            &[0.0, 1.0, 2.0],
            |model: &Lazy, &phase| {
                let embed = |phase| {
                    let x = matrix(4, 6, phase).cast(DType::F32);
                    model.dropout.forward(model.layer.forward(x).tanh())
                };
                Encoded::new([embed(phase), embed(phase + 0.5)])
            },
            |embeddings| {
                let [image, text] = embeddings.try_into().unwrap();
                objective.forward(image, text)
            },
        );
        assert!(model.layer.weight.val().is_require_grad());
        let gradient = step.gradients.get::<2>(model.layer.weight.id).unwrap();
        let gradient = elements(gradient.cast(DType::F64));
        (step.loss.into_scalar::<f64>(), gradient)
    };
    let (kept, again) = (run(Sharding::keep(1)), run(Sharding::recompute()));
    assert!(kept.1.iter().any(|x| x.abs() > 1e-3), "{kept:?}");
    assert!(close(&again, &kept, 1e-5), "{again:?} {kept:?}");
}

/// Threads that read the same new parameters, as those of each training step are: Burn begins with
/// a graph for each and merges them as they meet.
#[test]
fn threads_do_not_meet_in_a_graph() {
    let _lock = exclusively();
    let device = Device::flex().autodiff();
    let objective = InfoNceConfig::new().init(&device);
    let run = |at_once| {
        let weights = (0..30).map(|k| Param::from_tensor(matrix(1, 4, k as f64)));
        let tower = Tower {
            weights: weights.collect(),
        };
        let step = Sharding::keep(at_once).backward(
            &tower,
            &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
            |tower: &Tower, &phase| {
                let input = matrix(2, 4, phase);
                let part = |weight: &Param<Tensor<2>>| (input.clone() * weight.val()).sin().cos();
                let x = tower.weights.iter().map(part).reduce(|x, y| x + y).unwrap();
                Encoded::new([x.clone(), x.cos()])
            },
            |embeddings| {
                let [image, text] = embeddings.try_into().unwrap();
                objective.forward(image, text)
            },
        );
        let gradient =
            |weight: &Param<Tensor<2>>| elements(step.gradients.get::<2>(weight.id).unwrap());
        tower.weights.iter().flat_map(gradient).collect::<Vec<_>>()
    };
    let one = run(1);
    for step in 0..50 {
        assert_eq!(run(4), one, "step {step}");
    }
}

fn property() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(40)
    }
}

proptest! {
    #![proptest_config(property())]

    #[test]
    fn any_division_gives_the_same_step(
        sizes in proptest::collection::vec(1..6usize, 1..6),
        at_once in 1..5usize,
    ) {
        let _lock = exclusively();
        let weight = matrix(6, 4, 2.0);
        let whole = step(&Sharding::keep(1), &[sizes.iter().sum()], &weight, false);
        for sharding in [Sharding::recompute(), Sharding::keep(at_once)] {
            let found = step(&sharding, &sizes, &weight, false);
            prop_assert!(close(&found, &whole, 1e-10), "{:?} {:?}", found, whole);
        }
    }
}

/// Ten wide layers on each shard of 32: activations of 10 × 1,024 numbers a pair, where embeddings
/// have 8.
#[test]
fn recomputing_takes_the_activations_of_one_shard() {
    let _lock = exclusively();
    const WIDTH: usize = 1024;
    let device = Device::flex().autodiff();
    let objective = InfoNceConfig::new().init(&device);
    let row = |seed: usize, columns| {
        let values = (0..columns).map(|i| ((i + seed) as f32 * 0.37).sin());
        Tensor::<1>::from_data(values.collect::<Vec<_>>().as_slice(), &device)
    };
    let weights = (0..10).map(|k| Param::from_tensor(row(k, WIDTH).unsqueeze()));
    let tower = Tower {
        weights: weights.collect(),
    };
    let peak = |pairs: usize| {
        let shards: Vec<usize> = (0..pairs / 32).collect();
        let run = || {
            let encode = |tower: &Tower, &shard: &usize| {
                let embed = |offset: usize| {
                    let x = row(shard + offset, 32 * 8).reshape([32, 8]);
                    let mut x = x.repeat_dim(1, WIDTH / 8);
                    for weight in &tower.weights {
                        x = (x * weight.val()).tanh();
                    }
                    x.narrow(1, 0, 8)
                };
                Encoded::new([embed(0), embed(1000)])
            };
            let loss = |embeddings: Vec<Tensor<2>>| {
                let [image, text] = embeddings.try_into().unwrap();
                objective.forward(image, text)
            };
            let step = Sharding::recompute().backward(&tower, &shards, encode, loss);
            assert_eq!(step.gradients.len(), tower.weights.len());
        };
        run();
        peak_of(run)[0] as f64
    };
    let (one, many) = (peak(32), peak(2048));
    // Embeddings, their gradients, and what the loss keeps of N×N similarities (f32, once).
    let embeddings = (2048 * 8 * 4 * 2 * 8 + 2048 * 2048 * 4 + (16 << 20)) as f64;
    assert!(
        many <= 1.3 * one + embeddings,
        "{many} bytes for 64 shards, {one} for one"
    );
    // Without recomputation there would be 64 times the activations of one.
    assert!(many < 10.0 * one, "{many}, {one}");
}
