//! What the engine computes of single pairs: blocks of values, several teachers, and functions at
//! the ends of their range.

use burn::tensor::{DType, Tensor};
use burn_contrastive::pairwise::{Evaluation, Expr, Pairs, columns, rows};

use super::{Backend, assert_close, elements, on, random};
use crate::oracle::dot;

on_every_backend! {
    a_block_has_the_value_of_each_of_its_pairs,
    a_block_within_one_set_reads_the_rows_for_its_columns,
    two_teachers_each_have_their_similarities,
    softplus_is_exact_for_very_negative_arguments,
}

fn a_block_has_the_value_of_each_of_its_pairs(backend: &Backend) {
    let (a, b, teacher) = (random(7, 3, 1), random(5, 3, 2), random(7, 2, 3));
    let others = random(5, 2, 4);
    let (row, column) = (random(1, 7, 5).values, random(1, 5, 6).values);
    let device = backend.device.clone().autodiff();
    let tensor = |x| on(&device, x, DType::F32);
    let mut pairs = Pairs::new(tensor(&a).require_grad(), tensor(&b));
    let c = pairs.similarity();
    let t = pairs.teacher(tensor(&teacher), tensor(&others));
    let vector = |x: &Vec<f64>| Tensor::<1>::from_data(x.as_slice(), &device).cast(DType::F32);
    let (u, v) = (pairs.row(vector(&row)), pairs.column(vector(&column)));
    let s = pairs.scalar(Tensor::from_data([0.7], &device));
    let x = (&c * &u + &t * &v) * &s + Expr::diagonal();
    for (i, j) in [(0..7, 0..5), (2..5, 1..4), (6..7, 0..1)] {
        let block = pairs.block(&x, i.clone(), j.clone());
        assert_eq!(block.dims(), [i.len(), j.len()]);
        assert_eq!(block.device(), backend.device);
        let mut expected = Vec::new();
        for i in i {
            for j in j.clone() {
                let c = dot(a.row(i), b.row(j)) * row[i];
                let t = dot(teacher.row(i), others.row(j)) * column[j];
                expected.push((c + t) * 0.7 + f64::from(i == j));
            }
        }
        assert_close(&elements(block), &expected, 1e-6);
    }
    let constant = pairs.block(&Expr::constant(0.0), 0..2, 0..2);
    assert_eq!(elements(constant), [0.0; 4]);
}

fn a_block_within_one_set_reads_the_rows_for_its_columns(backend: &Backend) {
    let a = random(6, 3, 1);
    let row = random(1, 6, 2).values;
    let mut pairs = Pairs::within(backend.tensor(&a, DType::F32));
    let vector = Tensor::<1>::from_data(row.as_slice(), &backend.device).cast(DType::F32);
    let x = &pairs.similarity() + &pairs.column(vector);
    let block = pairs.block(&x, 4..6, 1..3);
    let expected = [(4, 1), (4, 2), (5, 1), (5, 2)].map(|(i, j)| dot(a.row(i), a.row(j)) + row[j]);
    assert_close(&elements(block), &expected, 1e-6);
}

/// Values and gradients with two teachers of different width, against the dense reference.
fn two_teachers_each_have_their_similarities(backend: &Backend) {
    let (a, b) = (random(70, 3, 1), random(66, 3, 2));
    let teachers = [2, 5].map(|width| [random(70, width, 3), random(66, width, 4)]);
    let device = backend.device.clone().autodiff();
    let evaluate = |evaluation, budget| {
        let tensor = |x| on(&device, x, DType::F32);
        let (a, b) = (tensor(&a).require_grad(), tensor(&b).require_grad());
        let mut pairs = Pairs::new(a.clone(), b.clone())
            .with_evaluation(evaluation)
            .with_memory_budget(budget);
        let c = pairs.similarity();
        let [t, u] = teachers
            .each_ref()
            .map(|[x, y]| pairs.teacher(tensor(x), tensor(y)));
        let weighted = &(&c * 3.0) + &(&u * 2.0);
        let results = pairs.reduce(&[
            rows().softmax_mean(&(&t * 2.0), &c),
            columns().log_sum_exp(&weighted.except(&Expr::diagonal())),
            rows().sum(&(&c * &u)),
        ]);
        let loss = results
            .iter()
            .fold(Tensor::zeros([1], &device), |sum, result| {
                sum + result.clone().sin().sum()
            });
        let gradients = loss.backward();
        let mut found: Vec<_> = results.into_iter().map(elements).collect();
        found.extend([a, b].map(|x| elements(x.grad(&gradients).unwrap())));
        found
    };
    let expected = evaluate(Evaluation::Dense, 1 << 30);
    // Everything kept, a part, nothing.
    for (evaluation, budget) in [
        (Evaluation::Auto, 1 << 20),
        (Evaluation::Auto, 70 * 80 * 4),
        (Evaluation::Streaming, 1 << 14),
    ] {
        for (actual, expected) in evaluate(evaluation, budget).iter().zip(&expected) {
            assert_close(actual, expected, 1e-5);
        }
    }
}

/// `log(1 + e^x)` is `e^x` there, and `ln(1 + x)` of f32 would round it to multiples of 6e-8.
fn softplus_is_exact_for_very_negative_arguments(backend: &Backend) {
    let arguments = [-30.0, -16.0, -12.0, -1.0, 0.0, 2.0, 20.0];
    let a = Tensor::<2>::from_data(arguments.map(|x| [x]), &backend.device).cast(DType::F32);
    let one = Tensor::<2>::from_data([[1.0]], &backend.device).cast(DType::F32);
    let expected = arguments.map(|x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p());
    for evaluation in [Evaluation::Auto, Evaluation::Dense] {
        let pairs = Pairs::new(a.clone(), one.clone()).with_evaluation(evaluation);
        let x = pairs.similarity().softplus();
        let found = elements(pairs.reduce(&[rows().sum(&x)]).remove(0));
        for ((actual, expected), x) in found.iter().zip(expected).zip(arguments) {
            let error = (actual / expected - 1.0).abs();
            // The exponential itself may be 3 + 2|x| units in the last place off on Vulkan.
            let tolerance = f64::max(1e-6, (3.0 + 2.0 * x.abs()) * f64::from(f32::EPSILON) / 2.0);
            assert!(
                error <= tolerance,
                "{actual:e} at {x}, {error:e} off, {evaluation:?}"
            );
        }
    }
}
