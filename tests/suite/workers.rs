//! What workers make together is what one makes alone.

use std::sync::Arc;
use std::thread;

use burn::module::{Module, Param};
use burn_contrastive::objective::{AnyConfig, Features, ObjectiveConfig};
use burn_contrastive::pairwise::{Expr, Pairs, columns, hardest, rows};
use burn_contrastive::sharded::{Encoded, Sharding};
use burn_contrastive::workers::{self, Workers};

use super::*;
use crate::oracle::Matrix;

on_every_backend! {
    every_objective_is_divided,
    every_reduction_is_divided,
    nan_and_nothing_reach_all_workers,
    a_step_of_several_workers_is_that_of_one,
    a_worker_that_panics_ends_the_others,
    workers_that_differ_are_refused,
}

/// What each of `count` workers makes of `f`, by rank.
fn together<R: Send>(count: usize, f: impl Fn(Arc<dyn Workers>) -> R + Sync) -> Vec<R> {
    let f = &f;
    thread::scope(|scope| {
        let workers = workers::threads(count).into_iter();
        let started: Vec<_> = workers.map(|w| scope.spawn(move || f(w))).collect();
        started.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

const PAIRS: usize = 7;

fn features(backend: &Backend, [image, text]: [Tensor<2>; 2]) -> Features {
    let matrix =
        |rows, width, seed| Some(backend.tensor(&random(rows, width, seed), image.dtype()));
    let hard = |seed| {
        let hard = on(&image.device(), &random(PAIRS, 8, seed), image.dtype());
        Some(hard.reshape([PAIRS, 2, 4]))
    };
    let labels = |labels: &[i64]| Some(ids_on(&backend.device, labels));
    Features {
        teacher_image: matrix(PAIRS, 3, 804),
        teacher_text: matrix(PAIRS, 3, 805),
        momentum_image: matrix(PAIRS, 4, 806),
        momentum_text: matrix(PAIRS, 4, 807),
        queue_image: matrix(5, 4, 808),
        queue_text: matrix(5, 4, 809),
        queue_teacher_image: matrix(5, 3, 810),
        queue_teacher_text: matrix(5, 3, 811),
        queue_image_label: labels(&[1, 9, 2, 9, 9]),
        queue_text_label: labels(&[9, 9, 3, 1, 9]),
        noise: matrix(3, 4, 812),
        hard_image: hard(813),
        hard_text: hard(814),
        label: labels(&[1, 2, 3, 1, 4, 5, 2]),
        ..Features::new(image.clone(), text)
    }
}

/// Loss, and gradients by image and text.
fn objective_on(backend: &Backend, config: &ObjectiveConfig, dtype: DType) -> [Vec<f64>; 3] {
    let device = backend.autodiff();
    let leaves = [815, 816].map(|seed| on(&device, &random(PAIRS, 4, seed), dtype).require_grad());
    let features = features(backend, leaves.clone());
    let loss = config.init(&device).forward(&features);
    let gradients = loss.backward();
    let [image, text] = leaves.map(|leaf| gradient(&leaf, &gradients));
    [elements(loss), image, text]
}

/// How many workers: more than rows, too. Where kernels are launched, on a software adapter maybe,
/// one number has to do.
fn counts(backend: &Backend) -> Vec<usize> {
    if backend.has_f64() {
        vec![2, 3, PAIRS + 2]
    } else {
        vec![3]
    }
}

fn every_objective_is_divided(backend: &Backend) {
    let mut configs: Vec<_> = AnyConfig::names()
        .into_iter()
        .filter(|&name| name != "sum")
        .map(|name| ObjectiveConfig::named(name).unwrap())
        .collect();
    let jsons = [
        r#"{"objective": "srcl", "alpha": 0.7, "queue": true}"#,
        r#"{"objective": "info-nce", "queue": true, "same_id": "positive", "guided_margin": 0.1}"#,
        r#"{"objective": "sum", "terms": [{"objective": "vse"}, {"objective": "uniformity"}]}"#,
    ];
    configs.extend(jsons.map(|json| serde_json::from_str(json).unwrap()));
    let (dtype, tolerance) = if backend.has_f64() {
        (DType::F64, 1e-10)
    } else {
        (DType::F32, 2e-5)
    };
    for config in configs {
        let expected = objective_on(backend, &config, dtype);
        for count in counts(backend) {
            println!("{} on {count} workers", config.name());
            let found = together(count, |worker| {
                workers::divide(&worker, || objective_on(backend, &config, dtype))
            });
            for (found, expected) in found.iter().flat_map(|found| found.iter().zip(&expected)) {
                assert_close(found, expected, tolerance);
            }
        }
    }
}

/// Results of reductions of all kinds, then the gradients by what was bound.
fn reductions(device: &Device, dtype: DType, [a, b]: &[Matrix; 2]) -> Vec<Vec<f64>> {
    let [n, m] = [a.rows, b.rows];
    let is_autodiff = device.is_autodiff();
    let leaf = |matrix: &Matrix| {
        let x = on(device, matrix, dtype);
        if is_autodiff { x.require_grad() } else { x }
    };
    let vector = |len, seed| leaf(&random(1, len, seed));
    let (a, b) = (leaf(a), leaf(b));
    let (of_rows, of_columns, scalar) = (vector(n, 820), vector(m, 821), vector(1, 822));
    let flat = |x: &Tensor<2>| x.clone().squeeze_dim::<1>(0);
    let labels = |len: usize| ids_on(device, &(0..len as i64).map(|k| k % 3).collect::<Vec<_>>());
    let mask = on(device, &random(n, m, 823), dtype).greater_elem(0.3);

    let mut pairs = Pairs::new(a.clone(), b.clone());
    let teacher = pairs.teacher(
        on(device, &random(n, 3, 824), dtype),
        on(device, &random(m, 3, 825), dtype),
    );
    let (row, column) = (pairs.row(flat(&of_rows)), pairs.column(flat(&of_columns)));
    let scalar_of = pairs.scalar(flat(&scalar));
    let same = pairs.same_label(labels(n), labels(m));
    let masked = pairs.mask(mask);
    let x = pairs.similarity() * &scalar_of + &row * &column + &teacher * 0.5;
    let off = x.except(&Expr::diagonal());
    let kept = &x.except(&masked) + &same;
    let mut results = pairs.clone().reduce(&[
        columns().log_sum_exp(&off),
        rows().sum(&x),
        rows().softmax_mean(&kept, &teacher),
        columns().softmax_mean(&kept, &x),
        columns().sum(&(&x * &same)),
        rows().log_sum_exp(&off),
    ]);
    results.push(pairs.total(&(off.exp() * &column)));
    let mut within = Pairs::within(a.clone());
    let own = within.column(flat(&of_rows));
    let x = within.similarity().except(&Expr::diagonal()) + own;
    results.extend(within.reduce(&[rows().log_sum_exp(&x)]));
    let of_tokens = |x: &Tensor<2>| x.clone().reshape([x.dims()[0], 2, 2]);
    let tokens = Pairs::late_interaction(of_tokens(&a), of_tokens(&b));
    let x = tokens.similarity();
    results.extend(tokens.reduce(&[columns().log_sum_exp(&x), rows().log_sum_exp(&x)]));
    let found = hardest(Pairs::new(a.clone(), b.clone()), &Expr::diagonal());
    for hardest in found {
        results.push(hardest.similarity);
    }

    let mut values: Vec<_> = results.iter().cloned().map(elements).collect();
    if is_autodiff {
        let weighted = |(k, x): (usize, Tensor<1>)| (x * (0.3 + k as f64)).sum();
        let sum = results.into_iter().enumerate().map(weighted);
        let gradients = sum.reduce(|sum, x| sum + x).unwrap().backward();
        let leaves = [a, b, of_rows, of_columns, scalar];
        values.extend(leaves.map(|leaf| gradient(&leaf, &gradients)));
    }
    values
}

fn every_reduction_is_divided(backend: &Backend) {
    let shapes = if backend.has_f64() {
        vec![(PAIRS, PAIRS), (PAIRS, 3), (2, 11)]
    } else {
        vec![(PAIRS, 5)]
    };
    for (n, m) in shapes {
        let sides = [random(n, 4, 826), random(m, 4, 827)];
        for device in [backend.device.clone(), backend.autodiff()] {
            for dtype in [DType::F32, DType::F64] {
                if dtype == DType::F64 && !backend.has_f64() {
                    continue;
                }
                let tolerance = if dtype == DType::F64 { 1e-11 } else { 2e-5 };
                let expected = reductions(&device, dtype, &sides);
                for count in counts(backend) {
                    println!("{n}x{m} {device:?} {dtype:?} on {count} workers");
                    let found = together(count, |worker| {
                        workers::divide(&worker, || reductions(&device, dtype, &sides))
                    });
                    for (found, expected) in found.iter().flat_map(|x| x.iter().zip(&expected)) {
                        // −∞ of nothing.
                        let finite = |&x: &f64| if x.is_finite() { x } else { 1e9 };
                        let [found, expected] =
                            [found, expected].map(|x| x.iter().map(finite).collect::<Vec<_>>());
                        assert_close(&found, &expected, tolerance);
                    }
                }
            }
        }
    }
}

/// As one worker gives them: NaN where its pairs take part, −∞ of nothing, of equal maxima the
/// first.
fn nan_and_nothing_reach_all_workers(backend: &Backend) {
    let mut sides = [random(5, 4, 828), equal_rows(5, 4, 829)];
    sides[0].values[4 * 3] = f64::NAN;
    let run = || {
        let [a, b] = sides
            .each_ref()
            .map(|side| backend.tensor(side, DType::F32));
        let pairs = Pairs::new(a, b);
        let x = pairs.similarity();
        let nothing = x.except(&Expr::constant(1.0));
        let mut results = pairs.reduce(&[
            rows().log_sum_exp(&x),
            columns().log_sum_exp(&x),
            rows().log_sum_exp(&nothing),
            columns().log_sum_exp(&nothing),
            columns().softmax_mean(&nothing, &Expr::constant(1.0)),
        ]);
        let equal = backend.tensor(&sides[1], DType::F32);
        let found = hardest(Pairs::new(equal.clone(), equal), &Expr::constant(0.0));
        results.extend(found.map(|hardest| hardest.index.float()));
        let bits = |x: Tensor<1>| x.into_data().iter::<f32>().map(f32::to_bits).collect();
        results.into_iter().map(bits).collect::<Vec<Vec<u32>>>()
    };
    let [nan, nothing] = [f32::NAN, f32::NEG_INFINITY].map(f32::to_bits);
    let is_nan = |bits: &u32| f32::from_bits(*bits).is_nan();
    for count in [1, 2, 3, 6] {
        for found in together(count, |worker| workers::divide(&worker, run)) {
            let rows: Vec<_> = found[0].iter().map(is_nan).collect();
            assert_eq!(rows, [false, false, false, true, false], "{nan}");
            assert!(found[1].iter().all(is_nan), "{:?}", found[1]);
            assert_eq!(found[2..5], [const { [0; 5] }; 3].map(|_| vec![nothing; 5]));
            assert_eq!(found[5], [0; 5], "a mean of nothing");
            assert_eq!(found[6..], [vec![0; 5], vec![0; 5]], "the first of equals");
        }
    }
}

/// Two towers of one layer, and what is added to an embedding.
#[derive(Module, Debug)]
struct Towers {
    image: Param<Tensor<2>>,
    text: Param<Tensor<2>>,
    shift: Param<Tensor<1>>,
}

impl Towers {
    fn new(device: &Device, dtype: DType) -> Self {
        let weight = |seed| Param::from_tensor(on(device, &random(5, 4, seed), dtype));
        let shift = on(device, &random(1, 1, 832), dtype).reshape([1]);
        Self {
            image: weight(830),
            text: weight(831),
            shift: Param::from_tensor(shift),
        }
    }

    fn embed(&self, [image, text]: [Tensor<2>; 2]) -> Vec<Tensor<2>> {
        vec![
            image.matmul(self.image.val()).tanh(),
            text.matmul(self.text.val()).tanh(),
        ]
    }
}

/// Loss, embeddings and gradients of a step over shards of these sizes.
fn step(
    backend: &Backend,
    (config, dtype): (&ObjectiveConfig, DType),
    sharding: Sharding,
    sizes: &[usize],
    own: std::ops::Range<usize>,
) -> Vec<Vec<f64>> {
    let device = backend.autodiff();
    let towers = Towers::new(&device, dtype);
    let objective = config.init(&device);
    let whole = [833, 834].map(|seed| on(&device, &random(PAIRS, 5, seed), dtype));
    let mut start = 0;
    let mut part = |&size: &usize| {
        start += size;
        whole
            .each_ref()
            .map(|x| x.clone().narrow(0, start - size, size))
    };
    let shards: Vec<_> = sizes.iter().map(&mut part).collect();
    let step = sharding.backward(
        &towers,
        &shards[own],
        |towers: &Towers, shard| {
            let embeddings = towers.embed(shard.clone());
            let loss = embeddings[0].clone().powf_scalar(2.0).sum();
            Encoded::new(embeddings).with_loss(loss)
        },
        |embeddings| {
            let [image, text] = embeddings.try_into().unwrap();
            let moved = image + towers.shift.val().unsqueeze();
            objective.forward(&features(backend, [moved, text]))
        },
    );
    let gradient = |param: &Param<Tensor<2>>| elements(step.gradients.get::<2>(param.id).unwrap());
    vec![
        elements(step.loss.clone()),
        elements(step.embeddings[1].clone()),
        gradient(&towers.image),
        gradient(&towers.text),
        elements(step.gradients.get::<1>(towers.shift.id).unwrap()),
    ]
}

fn a_step_of_several_workers_is_that_of_one(backend: &Backend) {
    let jsons = [
        r#"{"objective": "info-nce"}"#,
        r#"{"objective": "siglip"}"#,
        r#"{"objective": "srcl", "alpha": 0.7, "queue": true}"#,
        r#"{"objective": "barlow-twins"}"#,
    ];
    let (dtype, tolerance) = if backend.has_f64() {
        (DType::F64, 1e-10)
    } else {
        (DType::F32, 2e-5)
    };
    let most = if backend.has_f64() { jsons.len() } else { 2 };
    for json in jsons.into_iter().take(most) {
        let config = (&serde_json::from_str(json).unwrap(), dtype);
        let whole = step(backend, config, Sharding::keep(1), &[PAIRS], 0..1);
        // Which shards are whose: of one size or not, as many on each worker or not.
        let sizes = [1, 2, 1, 3];
        for owners in [
            vec![0..2, 2..4],
            vec![0..3, 3..4],
            vec![0..1, 1..2, 2..3, 3..4],
        ] {
            let found = together(owners.len(), |worker| {
                let own = owners[worker.rank()].clone();
                let sharding = match worker.rank() {
                    0 => Sharding::recompute(),
                    _ => Sharding::keep(2),
                };
                step(backend, config, sharding.with_workers(worker), &sizes, own)
            });
            for (found, expected) in found[0].iter().zip(&whole) {
                assert_close(found, expected, tolerance);
            }
            assert!(
                found.iter().all(|others| *others == found[0]),
                "workers differ"
            );
        }
    }
}

fn a_worker_that_panics_ends_the_others(backend: &Backend) {
    let config = ObjectiveConfig::named("info-nce").unwrap();
    let found = together(3, |worker| {
        let rank = worker.rank();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let worker = worker;
            assert!(rank != 1, "on purpose");
            workers::divide(&worker, || objective_on(backend, &config, DType::F32));
        }));
        let panic = panicked.expect_err("no panic");
        panic.downcast_ref::<String>().cloned()
    });
    for rank in [0, 2] {
        assert_eq!(
            found[rank].as_deref(),
            Some("worker 1 of 0..3 ended, or cannot be reached")
        );
    }
}

fn workers_that_differ_are_refused(backend: &Backend) {
    let refused = |sizes: [std::ops::Range<usize>; 2], width: usize, expected: &str| {
        together(2, |worker| {
            let device = backend.autodiff();
            let towers = Towers::new(&device, DType::F32);
            let shards: Vec<_> = sizes[worker.rank()].clone().collect();
            let width = if worker.rank() == 1 { width } else { 4 };
            assert_panics(expected, || {
                Sharding::recompute().with_workers(worker).backward(
                    &towers,
                    &shards,
                    |towers: &Towers, _| Encoded::new([towers.image.val().narrow(1, 0, width)]),
                    |embeddings| embeddings[0].clone().sum(),
                );
            });
        });
    };
    refused(
        [0..2, 2..2],
        4,
        "worker 1 has no shard, of 0..2, which have [2, 0]",
    );
    refused(
        [0..2, 2..3],
        3,
        "worker 1 has widths [3], without a loss of their own, worker 0 has widths [4]",
    );
}
