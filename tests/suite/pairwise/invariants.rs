//! Invariants on random shapes.

use proptest::prelude::*;

use super::*;

on_every_backend! {
    permuting_rows_permutes_results,
    swapping_the_sides_swaps_rows_and_columns,
}

on_cpu_backends! {
    within_equals_pairing_a_set_with_itself,
    a_pair_left_out_changes_nothing,
    the_gradient_of_a_scalar_matches_finite_differences,
}

/// Runs `check` on a handful of random shapes (rows, columns, width, seed).
fn for_shapes(check: impl Fn(usize, usize, usize, u64) -> Result<(), TestCaseError>) {
    let sizes = (1usize..9, 1usize..9, 1usize..6);
    proptest!(property(8), |((n, m, width) in sizes, seed in 0..u64::MAX / 2)| {
        check(n, m, width, seed)?;
    });
}

fn prop_same(actual: &[Vec<f64>], expected: &[Vec<f64>]) -> Result<(), TestCaseError> {
    prop_assert_eq!(actual.len(), expected.len());
    for (a, e) in actual.iter().zip(expected) {
        prop_assert_eq!(a.len(), e.len());
        let largest = e.iter().fold(1.0, |largest: f64, y| largest.max(y.abs()));
        for (k, (x, y)) in a.iter().zip(e).enumerate() {
            let close = x == y || (x - y).abs() <= 2e-5 * largest;
            prop_assert!(close, "element {k}: {x} against {y}, the largest {largest}");
        }
    }
    Ok(())
}

/// Values and gradients of log-sum-exps and sums over all pairs, the diagonal included.
fn evaluate_plain(backend: &Backend, a: &Matrix, b: &Matrix) -> Vec<Vec<f64>> {
    let device = backend.autodiff();
    let leaf = |m| on(&device, m, DType::F32).require_grad();
    let (a, b) = (leaf(a), leaf(b));
    let pairs = Pairs::new(a.clone(), b.clone());
    let logit = pairs.similarity() * 2.0;
    let cost = logit.softplus();
    let results = pairs.reduce(&[
        rows().log_sum_exp(&logit),
        rows().sum(&cost),
        columns().log_sum_exp(&logit),
        columns().sum(&cost),
    ]);
    let gradients = gradients_of(&a, &b, loss(&results));
    results.into_iter().map(elements).chain(gradients).collect()
}

fn permuting_rows_permutes_results(backend: &Backend) {
    for_shapes(|n, m, width, seed| {
        let (a, b) = (random(n, width, seed), random(m, width, seed + 1));
        let by = seed as usize % n;
        let mut rotated = a.clone();
        rotated.values.rotate_left(width * by);
        let mut expected = evaluate_plain(backend, &a, &b);
        expected[0].rotate_left(by);
        expected[1].rotate_left(by);
        expected[4].rotate_left(width * by);
        prop_same(&evaluate_plain(backend, &rotated, &b), &expected)
    });
}

fn swapping_the_sides_swaps_rows_and_columns(backend: &Backend) {
    for_shapes(|n, m, width, seed| {
        let (a, b) = (random(n, width, seed), random(m, width, seed + 1));
        let e = evaluate_plain(backend, &a, &b);
        let expected = [2, 3, 0, 1, 5, 4].map(|k: usize| e[k].clone());
        prop_same(&evaluate_plain(backend, &b, &a), &expected)
    });
}

/// The results along the rows; the gradient is the sum of those of both sides.
fn within_equals_pairing_a_set_with_itself(backend: &Backend) {
    let check = |n: usize, width: usize, seed: u64, budget: usize| {
        let device = backend.autodiff();
        let values = random(n, width, seed);
        let weights = random(1, n, seed + 1);
        let weights = || {
            let data = TensorData::new(weights.values.clone(), [n]).convert_dtype(DType::F32);
            Tensor::<1>::from_data(data, &device).require_grad()
        };
        let leaf = || on(&device, &values, DType::F32).require_grad();
        let run = |mut pairs: Pairs, u: &Tensor<1>| {
            pairs = pairs.with_memory_budget(budget);
            let (by_row, by_column) = (pairs.row(u.clone()), pairs.column(u.clone()));
            let logit = &(pairs.similarity() * 2.0) + &(by_row + by_column);
            let left_out = logit.except(&Expr::diagonal());
            pairs.reduce(&[
                rows().log_sum_exp(&left_out),
                rows().softmax_mean(&logit, &logit.softplus()),
                rows().sum(&logit.exp()),
            ])
        };
        let finite = |results: &[Tensor<1>]| loss(&results[1..]) + results[0].clone().sum();
        let (x, u) = (leaf(), weights());
        let within = run(Pairs::within(x.clone()), &u);
        let gradients = finite(&within).backward();
        let own = [gradient(&x, &gradients), gradient(&u, &gradients)];
        let (a, b, u) = (leaf(), leaf(), weights());
        let between = run(Pairs::new(a.clone(), b.clone()), &u);
        let gradients = finite(&between).backward();
        let sides = [&a, &b].map(|t| gradient(t, &gradients));
        let sum = sides[0].iter().zip(&sides[1]).map(|(x, y)| x + y).collect();
        let expected = [sum, gradient(&u, &gradients)];
        let values =
            |results: Vec<Tensor<1>>| results.into_iter().map(elements).collect::<Vec<_>>();
        prop_same(&values(within), &values(between))?;
        prop_same(&own, &expected)
    };
    for_shapes(|n, _, width, seed| check(n, width, seed, 1 << 20));
    check(150, 3, 230, 1).unwrap();
    check(70, 3, 231, 1 << 20).unwrap();
}

fn a_pair_left_out_changes_nothing(backend: &Backend) {
    for_shapes(|n, m, width, seed| {
        let device = backend.autodiff();
        let (a, b) = (random(n, width, seed), random(m, width, seed + 1));
        let run = |columns_of: &Matrix, extra: bool| {
            let leaf = |m| on(&device, m, DType::F32).require_grad();
            let (a, b) = (leaf(&a), leaf(columns_of));
            let mut pairs = Pairs::new(a.clone(), b.clone());
            let count = columns_of.rows;
            let last: Vec<f32> = (0..count)
                .map(|j| f32::from(u8::from(extra && j + 1 == count)))
                .collect();
            let left_out = pairs.column(Tensor::from_data(TensorData::new(last, [count]), &device));
            let logit = pairs.similarity() * 3.0;
            let value = Expr::select(&left_out, &Expr::constant(0.0), &logit.exp());
            let logit = logit.except(&left_out);
            let results = pairs.reduce(&[
                rows().log_sum_exp(&logit),
                rows().sum(&value),
                rows().softmax_mean(&logit, &value),
            ]);
            let [by_a, mut by_b] = gradients_of(&a, &b, loss(&results));
            let by_last = by_b.split_off(m * width);
            assert!(by_last.iter().all(|&g| g == 0.0), "{by_last:?}");
            results
                .into_iter()
                .map(elements)
                .chain([by_a, by_b])
                .collect::<Vec<_>>()
        };
        let longer = [&b.values[..], &random(1, width, seed + 2).values].concat();
        let longer = Matrix::new(m + 1, width, longer);
        prop_same(&run(&longer, true), &run(&b, false))
    });
}

fn the_gradient_of_a_scalar_matches_finite_differences(backend: &Backend) {
    for_shapes(|n, m, width, seed| {
        let (a, b) = (random(n, width, seed), random(m, width, seed + 1));
        let device = backend.autodiff();
        let scale = Tensor::<1>::from_data([1.5f32], &device).require_grad();
        let mut pairs = Pairs::new(on(&device, &a, DType::F32), on(&device, &b, DType::F32));
        let logit = pairs.similarity() * &pairs.scalar(scale.clone());
        let results = pairs.reduce(&[rows().log_sum_exp(&logit), columns().log_sum_exp(&logit)]);
        let total = results[0].clone().sum() + results[1].clone().sum();
        let found = elements(scale.grad(&total.backward()).unwrap());
        let value = |s: &[f64]| {
            let logit = |i: usize, j: usize| s[0] * dot(a.row(i), b.row(j));
            let row = |i| log_sum_exp(&(0..m).map(|j| logit(i, j)).collect::<Vec<_>>());
            let column = |j| log_sum_exp(&(0..n).map(|i| logit(i, j)).collect::<Vec<_>>());
            (0..n).map(row).sum::<f64>() + (0..m).map(column).sum::<f64>()
        };
        prop_same(&[found], &[crate::oracle::gradient(value, &[1.5], 1e-4)])
    });
}
